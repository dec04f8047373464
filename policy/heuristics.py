"""Scheduling rules without learning, each faithful to its source. They are baselines offline and fallbacks online."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np

from policy import criteria
from policy.cluster import ClusterState, Demand, FloatArray
from policy.errors import InvalidInputError
from policy.scorers import Preferences

MAX_NODE_SCORE: Final = 100
"""framework.MaxNodeScore of kube-scheduler; its score plugins truncate to integers in 0..100."""


@dataclass(frozen=True, slots=True)
class Heuristic:
    """A named rule that looks at each node's row and the demand alone.

    Attributes:
        name: identifier in settings, metrics and reports.
        rule: columns ``[..., n]`` and a demand to preferences ``[..., n]``.
    """

    name: str
    rule: Callable[[ClusterState, Demand], FloatArray]
    local: bool = True

    def preferences(self, state: ClusterState, demand: Demand) -> FloatArray:
        """Preference of every node, float64 ``[..., n]``."""
        return self.rule(state, demand)


class Random:
    """Uniform preferences: what scheduling without any score would do.

    Args:
        generator: source of the draws; equal seeds give equal preferences.
    """

    name = "random"
    local = False

    def __init__(self, generator: np.random.Generator) -> None:
        self._generator = generator

    def preferences(self, state: ClusterState, demand: Demand) -> Preferences:
        """Independent draws from [0, 1), ``[..., n]``."""
        return self._generator.random(state.shape)


def kube_default(state: ClusterState, demand: Demand) -> FloatArray:
    """kube-scheduler's default for a plain pod: LeastAllocated + BalancedAllocation, weight 1 each, in 0..2.

    Both plugins truncate to integers in 0..100, so near ties are ties here as they are there.
    """
    least = np.floor(MAX_NODE_SCORE * criteria.headroom(state, demand))
    balanced = np.floor(MAX_NODE_SCORE * criteria.balance(state, demand))
    return (least + balanced) / MAX_NODE_SCORE


def most_allocated(state: ClusterState, demand: Demand) -> FloatArray:
    """kube-scheduler's MostAllocated: mean over CPU and memory of the requested fraction; 0 where it exceeds 1.

    Source: kubernetes pkg/scheduler/framework/plugins/noderesources/most_allocated.go, which caps requests at what is
    allocatable.
    """
    cpu = np.minimum((state.cpu_requested + demand.cpu) / state.cpu_allocatable, 1.0)
    memory = np.minimum((state.memory_requested + demand.memory) / state.memory_allocatable, 1.0)
    return np.floor(MAX_NODE_SCORE * (cpu + memory) / 2.0) / MAX_NODE_SCORE


def least_used(state: ClusterState, demand: Demand) -> FloatArray:
    """Share of CPU that stays unused once the pod's expected use is added; the pod goes where most is idle."""
    return 1.0 - (state.cpu_used + criteria.EXPECTED_USE_RATIO * demand.cpu) / state.cpu_allocatable


DETERMINISTIC: Final[dict[str, Heuristic]] = {
    heuristic.name: heuristic
    for heuristic in (
        Heuristic("kube-default", kube_default),
        Heuristic("most-allocated", most_allocated),
        Heuristic("least-used", least_used),
        Heuristic("expected-speed", criteria.expected_speed),
    )
}
"""Every rule that a configuration may name as a fallback."""


def by_name(name: str) -> Heuristic:
    """The heuristic of that name.

    Raises:
        InvalidInputError: there is none; the message lists the names.
    """
    try:
        return DETERMINISTIC[name]
    except KeyError:
        raise InvalidInputError(f"heuristic {name!r} is unknown; choose one of {sorted(DETERMINISTIC)}") from None
