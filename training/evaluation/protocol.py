"""How scorers are compared: the same episodes for each, and every number with its interval.

Common random numbers: an episode's seed fixes its nodes, arrivals and hidden processes, whatever a scorer does, so
differences are paired.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from policy.errors import InvalidInputError
from policy.scorers import Preferences, Scorer
from training.evaluation.replicas import REPLICA_SHARE, ReplicaCounts
from training.evaluation.statistics import Estimate, estimate, interquartile_mean
from training.simulator import draws
from training.simulator.conditions import Condition
from training.simulator.draws import FloatArray, Seeds, Stream, episode_seeds
from training.simulator.episode import slowdown_percentile
from training.simulator.knowledge import Told
from training.simulator.scenarios import Scenario
from training.simulator.simulation import Simulator
from training.simulator.ties import best_nodes, drawn_node
from training.simulator.warmup import tell

SLA: Final = "sla_violation_rate"
"""The metric of every headline; all of them stand in `training.simulator.episode`."""

RUN_ON: Final = 0.5
"""Arrivals beyond those that count, as a share of them, at most: time for the last pods' SLA to be decided."""

BATCH: Final = 64
"""Episodes simulated side by side. It changes speed, not results."""

PERCENTILES: Final = {"p50_slowdown": 0.5, "p95_slowdown": 0.95}


@runtime_checkable
class Stateful(Protocol):
    """A scorer that remembers something between decisions and forgets it at the start of an episode."""

    def reset(self) -> None:
        """Forget everything."""
        ...


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What scorers did on the same episodes."""

    scenario: Scenario  # what was simulated, with its number of nodes
    load: float | None  # offered load, or None where each episode drew its own
    seeds: range  # the episodes
    values: dict[str, dict[str, FloatArray]]  # scorer -> metric -> one value for each episode, float64 ``[seeds]``

    def mean(self, scorer: str, metric: str) -> Estimate:
        """Mean over episodes with its interval; episodes without a value (no such pod finished) are left out."""
        return estimate(self._known(scorer, metric))

    def middle(self, scorer: str, metric: str) -> Estimate:
        """Interquartile mean over episodes with its interval."""
        return estimate(self._known(scorer, metric), interquartile_mean)

    def _known(self, scorer: str, metric: str) -> FloatArray:
        values = self.values[scorer][metric]
        return values[np.isfinite(values)]


def evaluate(scorers: Sequence[Scorer], condition: Condition, seeds: range, batch: int = BATCH) -> Evaluation:
    """Play the same episodes with every scorer.

    Args:
        scorers: anything that gives preferences; the feasible node with the highest one is chosen, ties at random.
        condition: what is simulated.
        seeds: a slice of `SELECTION_SEEDS` or `TEST_SEEDS`; the first `condition.episodes` of it are played.
        batch: episodes side by side; fewer need less memory.

    Raises:
        InvalidInputError: two scorers share a name, the scenario is unknown, or there are no or too few seeds.
        NonFinitePreferenceError: a scorer's preference for a feasible node is not finite.
    """
    names = [scorer.name for scorer in scorers]
    if len(set(names)) != len(names):
        raise InvalidInputError(f"scorers are named {names}; give each its own name")
    if not 1 <= condition.episodes <= len(seeds):
        raise InvalidInputError(f"seeds is {condition.episodes}; give a number from 1 to {len(seeds)}")
    if batch < 1:
        raise InvalidInputError(f"batch is {batch}; give at least 1")
    scenario, played = condition.sized(), seeds[: condition.episodes]
    parts: dict[str, list[dict[str, FloatArray]]] = {name: [] for name in names}
    for first in range(0, len(played), batch):
        side_by_side = episode_seeds(played[first : first + batch])
        told = tell(scenario, side_by_side, condition.load, condition.knowledge)
        for scorer in scorers:
            parts[scorer.name].append(play(scorer, scenario, side_by_side, condition.load, told))
    values = {
        name: {metric: np.concatenate([part[metric] for part in mine]) for metric in mine[0]}
        for name, mine in parts.items()
    }
    return Evaluation(scenario, condition.load, played, values)


def play(
    scorer: Scorer, scenario: Scenario, seeds: Seeds, load: float | FloatArray | None, told: Told | None = None
) -> dict[str, FloatArray]:
    """One episode for each seed, side by side, at one load or one for each; metric -> float64 ``[seeds]``.

    All is told by default.

    An episode goes on after its last counted arrival, with arrivals that do not count, until every counted pod's SLA is
    decided, or `RUN_ON` is over.
    """
    if isinstance(scorer, Stateful):
        scorer.reset()

    def decide(simulator: Simulator, decision: int) -> NDArray[np.int64]:
        preferences = scorer.preferences(simulator.state, simulator.demand)
        return choose(preferences, simulator.feasible, seeds, decision, scorer.name)

    return play_with(decide, scenario, seeds, load, told)


Decide = Callable[[Simulator, int], NDArray[np.int64]]
"""Placements of the current pods, ``[clusters]``, from the simulator and the number of the decision."""


def play_with(
    decide: Decide, scenario: Scenario, seeds: Seeds, load: float | FloatArray | None, told: Told | None = None
) -> dict[str, FloatArray]:
    """As `play`, for anything that places pods; what a scheduler may look at is up to the caller."""
    simulator = Simulator(scenario, len(seeds), seeds)
    simulator.reset(seeds, load, told)
    most = int(scenario.episode_arrivals * (1.0 + RUN_ON))
    result: dict[str, FloatArray] = {}
    ended = np.zeros(len(seeds), dtype=np.bool_)
    replicas = ReplicaCounts(scenario, len(seeds)) if scenario.arrivals.replicas > 1 else None
    decision = 0
    while True:
        arrived = simulator.arrived
        over = (arrived > most) | ((arrived > scenario.episode_arrivals) & (simulator.undecided() == 0))
        fresh = over & ~ended
        if fresh.any():  # what its neighbours still need changes nothing for an episode that is over
            measured = _measured(simulator)
            if replicas is not None:
                measured[REPLICA_SHARE] = replicas.largest_share()
            for name, values in measured.items():
                result.setdefault(name, np.full(len(seeds), np.nan))[fresh] = values[fresh]
            ended |= fresh
        if ended.all():
            return result
        placement = decide(simulator, decision)
        if replicas is not None:
            replicas.add(simulator.pod_number, placement)
        simulator.step(placement)
        decision += 1


def _measured(simulator: Simulator) -> dict[str, FloatArray]:
    """The simulator's metrics, and percentiles of slowdown by class of pods."""
    result = simulator.metrics()
    slowdowns = simulator.slowdowns()
    for name, share in PERCENTILES.items():
        for number, pod in enumerate(simulator.scenario.pod_classes):
            result[f"{name}:{pod.name}"] = slowdown_percentile(slowdowns[:, number], share)
    return result


def choose(
    preferences: Preferences, feasible: NDArray[np.bool_], seeds: Seeds, decision: int, name: str = "scorer"
) -> NDArray[np.int64]:
    """The feasible node with the highest preference, int64 ``[clusters]``; -1 where there is none.

    Ties are broken at random, as kube-scheduler does (selectHost in pkg/scheduler/schedule_one.go), by the episode's
    seed and the number of the decision.
    """
    top = best_nodes(preferences, feasible, name)
    tied = np.flatnonzero(top.sum(axis=1) > 1)
    luck = np.zeros(top.shape)
    if len(tied):
        size = feasible.shape[1]
        luck[tied] = draws.uniform(seeds[tied][:, None], Stream.TIES, decision * size + np.arange(size)[None, :])
    return drawn_node(top, luck)
