"""Scheduling rules without learning, each faithful to its source. They are baselines offline and fallbacks online."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Final

import numpy as np

from policy import criteria
from policy.cluster import ClusterState, Demand, FloatArray
from policy.errors import InvalidInputError
from policy.scorers import Preferences

MAX_NODE_SCORE: Final = 100
"""framework.MaxNodeScore of kube-scheduler; its score plugins truncate to integers in 0..100."""

KUBE_DEFAULT: Final = "kube-default"

KUBERNETES_VERSIONS: Final = ("1.34", "1.35", "1.36", "1.37")
"""Minor versions whose default scores `kube_default` can follow, oldest first."""

NEWEST_KUBERNETES: Final = KUBERNETES_VERSIONS[-1]

BALANCE_OF_STATE: Final = frozenset({"1.34", "1.35"})
"""Versions whose BalancedAllocation scores the node with the pod; later ones score the change that the pod makes."""

MILLI: Final = 1000
GIB: Final = 1 << 30


@dataclass(frozen=True, slots=True)
class Heuristic:
    """A named rule that looks at each node's row and the demand alone."""

    name: str  # identifier in settings, metrics and reports
    rule: Callable[[ClusterState, Demand], FloatArray]  # columns ``[..., n]`` and a demand to preferences ``[..., n]``
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


def kube_default(state: ClusterState, demand: Demand, version: str = NEWEST_KUBERNETES) -> FloatArray:
    """Return what kube-scheduler's default profile scores for requests, over 100: in 0..2, ``[..., n]``.

    That is NodeResourcesFit (LeastAllocated) plus NodeResourcesBalancedAllocation, weight 1 each, over CPU and memory.
    All arithmetic is in whole millicores and bytes, so near ties are ties here as they are there. Floats do it without
    error up to 64 TiB per node.

    For the pod that is scored LeastAllocated leaves out what it requests as a whole (`spec.resources`): fit.go makes
    the scorer without that feature gate, up to 1.37. BalancedAllocation counts it, and so do both for pods on the node.

    Source: kubernetes pkg/scheduler/framework/plugins/noderesources: least_allocated.go, balanced_allocation.go and
    resource_allocation.go. tests/control_plane/test_kube_default.py compares it with the log of a real kube-scheduler.

    Args:
        state: columns ``[..., n]``; a resource of which a node can allocate nothing does not count there.
        demand: of the pod.
        version: minor version of Kubernetes, one of `KUBERNETES_VERSIONS`.
    """
    check_kubernetes(version)
    cpu, memory = np.rint(state.cpu_allocatable * MILLI), state.memory_allocatable * GIB
    least = _least_allocated(
        cpu,
        memory,
        np.rint((state.cpu_nonzero + demand.cpu_contained) * MILLI),
        (state.memory_nonzero + demand.memory_contained) * GIB,
    )
    asks = np.logical_or(demand.cpu, demand.memory)
    if not asks.any():
        return least / MAX_NODE_SCORE
    cpu_before, memory_before = np.rint(state.cpu_requested * MILLI), state.memory_requested * GIB
    balance = _balanced(cpu, memory, cpu_before + np.rint(demand.cpu * MILLI), memory_before + demand.memory * GIB)
    if version not in BALANCE_OF_STATE:
        change = balance - _balanced(cpu, memory, cpu_before, memory_before)
        balance = MAX_NODE_SCORE / 2 + np.floor((MAX_NODE_SCORE / 2 + change) / 2)
    if not asks.all():  # the plugin skips pods that request neither (PreScore)
        balance = np.where(asks, balance, 0.0)
    score: FloatArray = (least + balance) / MAX_NODE_SCORE
    return score


def _least_allocated(
    cpu: FloatArray, memory: FloatArray, cpu_requested: FloatArray, memory_requested: FloatArray
) -> FloatArray:
    """Return LeastAllocated, 0..100: the mean of the percentages left, each cut to a whole number, and the mean too."""
    left = _percent_left(cpu, cpu_requested) + _percent_left(memory, memory_requested)
    counted = 2.0 if cpu.all() and memory.all() else np.maximum(np.minimum(cpu, 1.0) + np.minimum(memory, 1.0), 1.0)
    mean: FloatArray = np.floor(left / counted)
    return mean


def _percent_left(capacity: FloatArray, requested: FloatArray) -> FloatArray:
    """Return what is left in whole percents; 0 where there is nothing, or more is requested than there is."""
    if capacity.all():
        return np.maximum(np.floor((capacity - requested) * MAX_NODE_SCORE / capacity), 0.0)
    return np.where(capacity > 0.0, _percent_left(np.where(capacity > 0.0, capacity, 1.0), requested), 0.0)


def _balanced(
    cpu: FloatArray, memory: FloatArray, cpu_requested: FloatArray, memory_requested: FloatArray
) -> FloatArray:
    """Return 100 x (1 - standard deviation of the requested fractions, each at most 1), cut to a whole number."""
    if not (cpu.all() and memory.all()):  # one fraction, or none, deviates from nothing
        both = (cpu > 0.0) & (memory > 0.0)
        cpu, memory = np.where(both, cpu, 1.0), np.where(both, memory, 1.0)
        return np.where(both, _balanced(cpu, memory, cpu_requested, memory_requested), float(MAX_NODE_SCORE))
    difference = np.minimum(cpu_requested / cpu, 1.0) - np.minimum(memory_requested / memory, 1.0)
    return np.floor((1.0 - np.abs(difference / 2.0)) * MAX_NODE_SCORE)


def check_kubernetes(version: str) -> None:
    """Raise `InvalidInputError` unless there is a `kube_default` of that minor version of Kubernetes."""
    if version not in KUBERNETES_VERSIONS:
        raise InvalidInputError(
            f"Kubernetes version {version!r} is unknown; kube-default follows {', '.join(KUBERNETES_VERSIONS)}"
        )


def most_allocated(state: ClusterState, demand: Demand) -> FloatArray:
    """Return what kube-scheduler's MostAllocated scores, over 100: in 0..1, ``[..., n]``.

    The mean over CPU and memory of the percentage requested, each cut to a whole number, and the mean too. A resource
    requested beyond what is allocatable counts as full.

    Source: kubernetes pkg/scheduler/framework/plugins/noderesources/most_allocated.go, the same from 1.34 to 1.37.
    """
    cpu, memory = np.rint(state.cpu_allocatable * MILLI), state.memory_allocatable * GIB
    cpu_requested = np.minimum(np.rint((state.cpu_nonzero + demand.cpu_contained) * MILLI), cpu)
    memory_requested = np.minimum((state.memory_nonzero + demand.memory_contained) * GIB, memory)
    percents = np.floor(cpu_requested * MAX_NODE_SCORE / cpu) + np.floor(memory_requested * MAX_NODE_SCORE / memory)
    score: FloatArray = np.floor(percents / 2.0) / MAX_NODE_SCORE
    return score


def least_used(state: ClusterState, demand: Demand) -> FloatArray:
    """Share of CPU that stays unused once the pod's expected use is added; the pod goes where most is idle."""
    return 1.0 - (state.cpu_used + criteria.EXPECTED_USE_RATIO * demand.cpu_nonzero) / state.cpu_allocatable


DETERMINISTIC: Final[dict[str, Heuristic]] = {
    heuristic.name: heuristic
    for heuristic in (
        Heuristic(KUBE_DEFAULT, kube_default),
        Heuristic("most-allocated", most_allocated),
        Heuristic("least-used", least_used),
        Heuristic("expected-speed", criteria.expected_speed),
    )
}
"""Every rule that a configuration may name as a fallback."""


def by_name(name: str, kubernetes: str = NEWEST_KUBERNETES) -> Heuristic:
    """Return the heuristic of that name; kube-default as that minor version of Kubernetes has it.

    Raises:
        InvalidInputError: there is none, or no kube-default of that version; the message lists the names.
    """
    check_kubernetes(kubernetes)
    if name == KUBE_DEFAULT:
        return Heuristic(name, partial(kube_default, version=kubernetes))
    try:
        return DETERMINISTIC[name]
    except KeyError:
        raise InvalidInputError(f"heuristic {name!r} is unknown; choose one of {sorted(DETERMINISTIC)}") from None
