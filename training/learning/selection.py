"""How good the actor is now: argmax placement on selection episodes, against the best rule on the same ones.

Selection seeds choose checkpoints; test seeds, which only `training.evaluation` uses, judge the chosen one.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import torch

from policy import heuristics, shortage
from policy.cluster import ClusterState, Demand
from policy.criteria import CRITERIA_SETS
from policy.errors import InvalidInputError
from policy.observation import observe
from policy.scorers import Preferences, Scorer, combine
from training.config import ActorConfig, SelectionConfig
from training.learning.networks import AnyActor
from training.simulator.conditions import Condition
from training.simulator.draws import episode_seeds
from training.simulator.simulation import Simulator
from training.simulator.ties import best_nodes, drawn_node
from training.simulator.warmup import tell

RIVAL: Final = "expected-speed"
"""The strongest hand-written rule of the prototype's study; the untrained actor starts at it."""

RATE_FLOOR: Final = 1e-3
"""Added to both rates of a ratio: a suite where hardly anything is violated must not decide the choice."""


class ActorModuleScorer:
    """A torch actor as a `Scorer`: how a policy is measured before there is a bundle.

    Args:
        actor: with the weights to measure.
        name: identifier in reports.
        settings: that the actor was built from.
    """

    local = True

    def __init__(self, actor: AnyActor, name: str, settings: ActorConfig) -> None:
        self._actor = actor
        self.name = name
        self._settings = settings

    @torch.no_grad()
    def preferences(self, state: ClusterState, demand: Demand) -> Preferences:
        """Preference of every node, float32 ``[..., n]``."""
        bids = self._actor(torch.from_numpy(observe(state, demand))).numpy()
        wanted = combine(bids, CRITERIA_SETS[self._settings.criteria_set].evaluate(state, demand))
        return shortage.bounded(wanted, state, demand) if self._settings.memory_bound else wanted


def violation_rate(scorer: Scorer, condition: Condition, seed: int) -> float:
    """Share of pods that missed their SLA with argmax placement, ties at random; equal seeds, equal rates.

    Args:
        scorer: what to measure.
        condition: what is played.
        seed: of the first episode; the others follow it.

    Raises:
        InvalidInputError: episodes are so short that no pod's SLA is decided.
    """
    scenario = condition.sized()
    seeds = episode_seeds(range(seed, seed + condition.episodes))
    simulator = Simulator(scenario, condition.episodes, seeds)
    simulator.reset(seeds, condition.load, tell(scenario, seeds, condition.load, condition.knowledge))
    ties = np.random.default_rng(seed)
    for _ in range(scenario.episode_arrivals):
        preferences = scorer.preferences(simulator.state, simulator.demand)
        best = best_nodes(preferences, simulator.feasible, scorer.name)
        simulator.step(drawn_node(best, ties.random(best.shape)))
    rates = simulator.metrics()["sla_violation_rate"]
    decided = np.isfinite(rates)
    if not decided.any():
        raise InvalidInputError(
            f"selection suite {condition.label}: no pod's SLA is decided within the episode; "
            "give a scenario with more episode_arrivals"
        )
    return float(rates[decided].mean())


class Best:
    """The actor with the lowest score so far.

    Attributes:
        rates: its rates and score, the updates it had, and where it comes from; empty before the first.
        weights: of its networks; empty before the first.
    """

    def __init__(self) -> None:
        self.rates: dict[str, float] = {}
        self.weights: dict[str, Any] = {}

    def offer(self, actor: AnyActor, rates: dict[str, float]) -> None:
        """Keep the actor if it is better; `rates` as `rates` has them."""
        if not self.rates or rates["score"] < self.rates["score"]:
            self.rates = rates
            self.weights = {name: tensor.clone() for name, tensor in actor.state_dict().items()}


class Selection:
    """The selection suites with the rival's rates on them, measured once.

    Args:
        settings: suites and seed.
    """

    def __init__(self, settings: SelectionConfig) -> None:
        self._seed = settings.seed
        self._conditions = [suite.condition for suite in settings.suites]
        self._rival = self._measured(heuristics.by_name(RIVAL))

    def rates(self, scorer: Scorer) -> dict[str, float]:
        """SLA violation rate on every suite, and ``score``: the mean of rate over the rival's rate; lower is better."""
        rates = self._measured(scorer)
        ratios = [(rate + RATE_FLOOR) / (rival + RATE_FLOOR) for rate, rival in zip(rates, self._rival, strict=True)]
        return {**self._by_label(rates), "score": float(np.mean(ratios))}

    def rival_rates(self) -> dict[str, float]:
        """The rival's rate on every suite."""
        return self._by_label(self._rival)

    def _measured(self, scorer: Scorer) -> list[float]:
        return [violation_rate(scorer, condition, self._seed) for condition in self._conditions]

    def _by_label(self, rates: list[float]) -> dict[str, float]:
        return {condition.label: rate for condition, rate in zip(self._conditions, rates, strict=True)}
