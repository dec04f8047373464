"""What would have to improve: the smallest improvement of one feature of a node that makes it win.

Found by asking the scorer, without an assumption about it: a feature is moved from what it was to the best it could be,
the scorer rates every step, and the step nearest to the truth that wins is narrowed down. A node is never asked to be
fuller, busier, more pressed or slower. The other features stay as they were, also where they would follow in reality
(use drives pressure), so that each answer is about one thing.
"""

from __future__ import annotations

from collections.abc import Callable
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

MARGIN: Final = 1e-6
"""By how much a change must win: rows scored together and alone may differ in the last bits."""


@dataclass(frozen=True, slots=True)
class Change:
    """One feature of one node, as it was and as it would have to be."""

    feature: str
    before: float
    after: float


def _none(state: ClusterState, _demand: PodDemand) -> NDArray[np.bool_]:
    return np.zeros(state.shape, dtype=np.bool_)


@dataclass(frozen=True, slots=True)
class Judge:
    """What decided, to be asked again."""

    scorer: Scorer  # gives preferences
    # which rows ``[n]`` it is not trusted with, bool ``[n]``; default: none
    odd: Callable[[ClusterState, PodDemand], NDArray[np.bool_]] = _none


def smallest_changes(judge: Judge, row: ClusterState, demand: PodDemand, target: float) -> dict[str, Any]:
    """Return what would make a node be preferred to all others.

    Args:
        judge: what decided.
        row: the node as it was, ``[1]``.
        demand: of the pod.
        target: highest preference of the others.

    Returns:
        ``changes``: for each feature that could improve enough, the
        nearest value that does, least change first, measured against the feature's range. ``not_by``: features of which
        no better value would do.

    Raises:
        ScoringError: the scorer fails.
    """
    now = dict(zip(FEATURE_NAMES, observe_unclipped(row, demand)[0].tolist(), strict=True))
    found = {name: _nearest(judge, row, demand, name, now[name], target + MARGIN) for name in CHANGEABLE}
    changes = [Change(name, now[name], value) for name, value in found.items() if value is not None]
    changes.sort(key=lambda it: abs(it.after - it.before) / _width(it.feature))
    return {
        "changes": [asdict(change) for change in changes],
        "not_by": [name for name, value in found.items() if value is None],
    }


def _nearest(
    judge: Judge, row: ClusterState, demand: PodDemand, feature: str, now: float, target: float
) -> float | None:
    """Return the better value nearest to `now` with which the row is preferred to `target`; None if there is none.

    A band of winning values narrower than a step may be missed: kube-default, which counts in whole percents, has such.
    """
    low, high = _span(feature, row, demand, now)
    best: float | None = None
    for _ in range(ROUNDS):
        values = np.linspace(low, high, STEPS)
        rows = _with(row, demand, feature, values)
        wins = (judge.scorer.preferences(rows, demand) > target) & ~judge.odd(rows, demand)
        if not wins.any():
            return best
        winning = values[wins]
        best = float(winning[np.abs(winning - now).argmin()])
        step = float(values[1] - values[0])
        low, high = (max(best - step, low), best) if best > now else (best, min(best + step, high))
        if high <= low:
            return best
    return best


def _span(feature: str, row: ClusterState, demand: PodDemand, now: float) -> tuple[float, float]:
    """Return the values that the feature of this node could take, from what it is to the best, as low and high."""
    if feature == "node_speed":
        return now, max(now, float(HIGH[FEATURE_NAMES.index(feature)]))
    least = 0.0
    if feature == "cpu_requested":
        least = demand.cpu_nonzero / float(row.cpu_allocatable[0])
    elif feature == "memory_requested":
        least = demand.memory_nonzero / float(row.memory_allocatable[0])
    return min(least, now), now


def _width(feature: str) -> float:
    """Return the width of the feature's range of training."""
    position = FEATURE_NAMES.index(feature)
    return float(HIGH[position] - LOW[position])


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
