"""The oracle: a clairvoyant one-step rollout. No scheduler can see what it sees; it says how much there is to win.

For each candidate node the true state is cloned, hidden parts and future arrivals included; the pod is placed there, a
base policy rolls on for some decisions, and the candidate with the lowest cost is taken. By the improvement property of
rollouts (Bertsekas, "Rollout Algorithms", 2013) it is no worse than its base but for the finite horizon. It is a bound
from one side: a perfect plan could do better still.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from policy import heuristics
from policy.scorers import Scorer
from training.evaluation.protocol import choose
from training.simulator.draws import FloatArray, Seeds
from training.simulator.simulation import Simulator

HORIZON: Final = 16
"""Decisions rolled forward. What is unfinished then is judged by its present rate."""

CANDIDATES: Final = 10
"""Nodes tried for each pod: those that the base policy likes best. On the reference's ten nodes, all of them."""


class Oracle:
    """Places pods in a simulator that it may look into.

    Args:
        seeds: the episodes', for ties.
        base: the policy that is rolled forward; expected-speed by default, the best rule without tuning.
        horizon: decisions rolled forward.
        candidates: nodes tried for each pod.
    """

    def __init__(
        self, seeds: Seeds, base: Scorer | None = None, horizon: int = HORIZON, candidates: int = CANDIDATES
    ) -> None:
        self._seeds = seeds
        self._base = heuristics.by_name("expected-speed") if base is None else base
        self._horizon = horizon
        self._candidates = candidates

    def __call__(self, simulator: Simulator, decision: int) -> NDArray[np.int64]:
        """The placement of each cluster's pod, int64 ``[clusters]``; -1 where it fits nowhere."""
        feasible = simulator.feasible
        liked = self._base.preferences(simulator.state, simulator.demand)
        first = choose(liked, feasible, self._seeds, decision)
        width = min(self._candidates, simulator.nodes)
        order = np.argsort(np.where(feasible, -liked, np.inf), axis=1, kind="stable")[:, :width]
        order[:, 0] = np.where(first >= 0, first, order[:, 0])
        rows = np.repeat(np.arange(simulator.clusters), width)
        tried = order.ravel()
        allowed = feasible[rows, tried]
        twin = simulator.clone(rows)
        cost = self._cost(twin, np.where(allowed, tried, -1), self._seeds[rows], decision)
        cost = np.where(allowed, cost, np.inf).reshape(-1, width)
        best = order[np.arange(simulator.clusters), np.argmin(cost, axis=1)]
        return np.where(feasible.any(axis=1), best, -1)

    def _cost(self, twin: Simulator, placement: NDArray[np.int64], seeds: Seeds, decision: int) -> FloatArray:
        """Violations and lateness of the future that begins with this placement, ``[clones]``."""
        cost = np.zeros(twin.clusters)
        for ahead in range(1, self._horizon + 1):
            result = twin.step(placement)
            cost += result.violations + result.lateness
            preferences = self._base.preferences(twin.state, twin.demand)
            placement = choose(preferences, twin.feasible, seeds, decision + ahead)
        return cost + twin.projected_violations()
