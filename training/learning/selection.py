"""How good the actor is now: argmax placement on selection episodes, against the best rule on the same ones.

Selection seeds choose checkpoints; test seeds, which only `training.evaluation` uses, judge the chosen one.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray

from policy import criteria, heuristics
from policy.cluster import ClusterState, Demand
from policy.errors import InvalidInputError
from policy.observation import observe
from policy.scorers import Preferences, Scorer, combine
from training.config import SelectionConfig, SuiteConfig
from training.learning.networks import AnyActor
from training.learning.placement import best_placement
from training.simulator.draws import episode_seeds
from training.simulator.scenarios import load_scenario
from training.simulator.simulation import Simulator

RIVAL: Final = "expected-speed"
"""The strongest hand-written rule of the prototype's study; the untrained actor starts at it."""

RATE_FLOOR: Final = 1e-3
"""Added to both rates of a ratio: a suite where hardly anything is violated must not decide the choice."""


class ActorModuleScorer:
    """A torch actor as a `Scorer`: how a policy is measured before there is a bundle.

    Args:
        actor: with the weights to measure.
        name: identifier in reports.
    """

    local = True

    def __init__(self, actor: AnyActor, name: str) -> None:
        self._actor = actor
        self.name = name

    @torch.no_grad()
    def preferences(self, state: ClusterState, demand: Demand) -> NDArray[np.float32]:
        """Preference of every node, float32 ``[..., n]``."""
        bids = self._actor(torch.from_numpy(observe(state, demand))).numpy()
        return combine(bids, criteria.evaluate(state, demand))


def suite_name(suite: SuiteConfig) -> str:
    """How records call a suite: ``reference-10@0.4``, without the number of nodes where it is the scenario's."""
    size = "" if suite.nodes is None else f"-{suite.nodes}"
    return f"{suite.scenario}{size}@{suite.load:g}"


def violation_rate(scorer: Scorer, suite: SuiteConfig, seed: int) -> float:
    """Share of pods that missed their SLA with argmax placement, ties at random; equal seeds, equal rates.

    Args:
        scorer: what to measure.
        suite: scenario, size, load and number of episodes.
        seed: of the first episode; the others follow it.

    Raises:
        InvalidInputError: episodes are so short that no pod's SLA is decided.
    """
    scenario = load_scenario(suite.scenario)
    if suite.nodes is not None:
        scenario = scenario.resized(suite.nodes)
    seeds = episode_seeds(range(seed, seed + suite.clusters))
    simulator = Simulator(scenario, suite.clusters, seeds)
    simulator.reset(seeds, suite.load)
    ties = np.random.default_rng(seed)
    for _ in range(scenario.episode_arrivals):
        preference: Preferences = scorer.preferences(simulator.state, simulator.demand)
        simulator.step(best_placement(preference, simulator.feasible, ties))
    rates = simulator.metrics()["sla_violation_rate"]
    decided = np.isfinite(rates)
    if not decided.any():
        raise InvalidInputError(
            f"selection suite {suite_name(suite)}: no pod's SLA is decided within the episode; "
            "give a scenario with more episode_arrivals"
        )
    return float(rates[decided].mean())


class Selection:
    """The selection suites with the rival's rates on them, measured once.

    Args:
        settings: suites and seed.
    """

    def __init__(self, settings: SelectionConfig) -> None:
        self._settings = settings
        rival = heuristics.by_name(RIVAL)
        self._rival = [violation_rate(rival, suite, settings.seed) for suite in settings.suites]

    def rates(self, scorer: Scorer) -> dict[str, float]:
        """SLA violation rate on every suite, and ``score``: the mean of rate over the rival's rate; lower is better."""
        rates = [violation_rate(scorer, suite, self._settings.seed) for suite in self._settings.suites]
        ratios = [(rate + RATE_FLOOR) / (rival + RATE_FLOOR) for rate, rival in zip(rates, self._rival, strict=True)]
        named = {suite_name(suite): rate for suite, rate in zip(self._settings.suites, rates, strict=True)}
        return {**named, "score": float(np.mean(ratios))}

    def rival_rates(self) -> dict[str, float]:
        """The rival's rate on every suite."""
        return {suite_name(suite): rate for suite, rate in zip(self._settings.suites, self._rival, strict=True)}
