"""What would have to change: the smallest change of one feature of a node that makes it win.

Found by asking the scorer, without an assumption about it: a feature is moved over its whole range, the scorer rates
every step, and the step nearest to the truth that wins is narrowed down. The other features stay as they were, also
where they would follow in reality (use drives pressure), so that each answer is about one thing.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from policy.cluster import ClusterState, FloatArray, PodDemand
from policy.features import FEATURE_NAMES, HIGH, LOW
from policy.observation import observe_unclipped
from policy.scorers import Scorer

CHANGEABLE: Final = ("cpu_requested", "memory_requested", "cpu_used", "memory_used", "cpu_pressure", "node_speed")
"""Features of a node; the others belong to the pod and are the same everywhere, or follow from the node's size."""

STEPS: Final = 256
"""Values tried at once."""

ROUNDS: Final = 3
"""How often the span in which the answer lies is divided by `STEPS`: to a 16 millionth of the range."""

SLOWEST: Final = 0.05
"""Least speed tried, relative to the reference core: a node of speed 0 is none."""


@dataclass(frozen=True, slots=True)
class Change:
    """One feature of one node, as it was and as it would have to be."""

    feature: str
    before: float
    after: float


def smallest_changes(scorer: Scorer, rows: ClusterState, demand: PodDemand, winner: int, other: int) -> dict[str, Any]:
    """What would make the row `other` be preferred to the row `winner`.

    Args:
        scorer: what decided.
        rows: both nodes, as they were, ``[n]``.
        demand: of the pod.
        winner: position of the one that won.
        other: position of the one that did not.

    Returns:
        ``behind_by``: by how much `other` was less preferred. ``changes``: for each feature where a value exists, the
        nearest one, least change first, measured against the feature's range. ``not_by``: features of which no value
        would do.

    Raises:
        ScoringError: the scorer fails.
    """
    preferences = scorer.preferences(rows, demand)
    target = float(preferences[winner])
    row = rows.take(np.array([other]))
    now = dict(zip(FEATURE_NAMES, observe_unclipped(row, demand)[0].tolist(), strict=True))
    found = {name: _nearest(scorer, row, demand, name, now[name], target) for name in CHANGEABLE}
    changes = [Change(name, now[name], value) for name, value in found.items() if value is not None]
    changes.sort(key=lambda it: abs(it.after - it.before) / _span(it.feature, row, demand)[2])
    return {
        "behind_by": target - float(preferences[other]),
        "changes": [asdict(change) for change in changes],
        "not_by": [name for name, value in found.items() if value is None],
    }


def _nearest(
    scorer: Scorer, row: ClusterState, demand: PodDemand, feature: str, now: float, target: float
) -> float | None:
    """The value nearest to `now` with which the row is preferred to `target`; None if there is none.

    A band of winning values narrower than a step may be missed: kube-default, which counts in whole percents, has such.
    """
    low, high, _ = _span(feature, row, demand)
    best: float | None = None
    for _ in range(ROUNDS):
        values = np.linspace(low, high, STEPS)
        wins = scorer.preferences(_with(row, demand, feature, values), demand) > target
        if not wins.any():
            return best
        winning = values[wins]
        best = float(winning[np.abs(winning - now).argmin()])
        step = float(values[1] - values[0])
        low, high = (max(best - step, low), best) if best > now else (best, min(best + step, high))
        if high <= low:
            return best
    return best


def _span(feature: str, row: ClusterState, demand: PodDemand) -> tuple[float, float, float]:
    """Least and greatest value that the feature can take on this node, and the width of its range of training."""
    position = FEATURE_NAMES.index(feature)
    low, high = float(LOW[position]), float(HIGH[position])
    least = low
    if feature == "cpu_requested":
        least = demand.cpu_nonzero / float(row.cpu_allocatable[0])
    elif feature == "memory_requested":
        least = demand.memory_nonzero / float(row.memory_allocatable[0])
    elif feature == "node_speed":
        least = SLOWEST - 1.0
    return min(least, high), high, high - low


def _with(row: ClusterState, demand: PodDemand, feature: str, values: FloatArray) -> ClusterState:
    """The row once for each value of the feature.

    Requests and non-zero requests change together: what is not said stays.
    """
    many = row.take(np.zeros(len(values), dtype=np.intp))
    column: NDArray[np.float64]
    match feature:
        case "cpu_requested":
            nonzero = np.maximum(values * row.cpu_allocatable - demand.cpu_nonzero, 0.0)
            many.cpu_nonzero[:] = nonzero
            column = np.maximum(nonzero - (row.cpu_nonzero - row.cpu_requested), 0.0)
        case "memory_requested":
            nonzero = np.maximum(values * row.memory_allocatable - demand.memory_nonzero, 0.0)
            many.memory_nonzero[:] = nonzero
            column = np.maximum(nonzero - (row.memory_nonzero - row.memory_requested), 0.0)
        case "cpu_used":
            column = values * row.cpu_allocatable
        case "memory_used":
            column = values * row.memory_allocatable
        case "node_speed":
            column = values + 1.0
        case _:
            column = values
    getattr(many, feature)[:] = column
    return many
