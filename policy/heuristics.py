"""Scheduling rules without learning, each faithful to its source. They are baselines offline and fallbacks online."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Final

import numpy as np

from policy import criteria, shortage
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


@dataclass(frozen=True, slots=True)
class SufficientSpeed:
    """Satisfice, then save: of the nodes that will be in time the emptiest slow one, else the fastest.

    Ours, no source. The speed the pod would run at is the expected speed (in units of the reference core) less the time
    that tasks wait for a CPU there; its margin is that speed times the slowdown that the pod's SLA allows (one over
    urgency): at 1 the pod would be just in time. Nodes that may run out of memory come last: see `policy.shortage`.
    """

    # urgency that a pod counts with at least, so that best effort (0) asks for some speed too
    least_urgency: float = 0.2
    safe_margin: float = 1.35  # margin of speed from which the pod is taken to be in time
    # among nodes that are fast enough: headroom is good, and fast nodes are kept for pods that need them
    headroom_weight: float = 0.5
    spared_speed_weight: float = 0.3

    def __call__(self, state: ClusterState, demand: Demand) -> FloatArray:
        """Preference of every node, ``[..., n]``."""
        rate = criteria.FASTEST_SPEED * criteria.expected_speed(state, demand) * (1.0 - state.cpu_pressure)
        margin = rate / np.maximum(demand.urgency, self.least_urgency)
        spared = self.headroom_weight * criteria.headroom(state, demand) - self.spared_speed_weight * state.node_speed
        # above what a node that is too slow can reach, by more than the two weights take away on nodes up to twice the
        # reference
        in_time = self.safe_margin + 0.05 + criteria.FASTEST_SPEED * self.spared_speed_weight
        preference = np.where(margin >= self.safe_margin, in_time + spared, np.minimum(margin, self.safe_margin))
        return np.asarray(shortage.bounded(preference, state, demand))


@dataclass(frozen=True, slots=True)
class MarginalCost:
    """The node where the pod costs least: its own chance of being late, the harm it does to others, and two prices.

    Ours, no source. The chance is logistic in log(expected rate / urgency). Neighbours are harmed by what the pod adds
    to the node's use past the knee, in proportion to the cores they use. Fast cores and use have a price per core the
    pod uses, since later pods may need them. Nodes that may run out of memory come last: see `policy.shortage`.
    """

    # found by: maddpg-train tune-rule marginal-cost
    least_urgency: float = 0.284  # urgency that a pod counts with at least; best effort has 0
    margin: float = 1.221  # expected rate over urgency at which half of the pods are late
    width: float = 0.204  # of the logistic function, in log(rate / urgency)
    pressure: float = 0.985  # exponent of the share of time that tasks do not wait for a CPU
    slope: float = 0.302  # share of the rate that neighbours take at full use
    knee: float = 0.567  # use from which neighbours slow each other
    harm: float = 0.169  # cost of one core of neighbours at full use
    speed_price: float = 0.136  # of a core used, per unit of its speed
    use_price: float = 0.141  # of a core used, per share of the node that is in use

    def __call__(self, state: ClusterState, demand: Demand) -> FloatArray:
        """Preference of every node, ``[..., n]``: the cost c as -c / (1 + c), in (-1, 0]."""
        cores = criteria.EXPECTED_USE_RATIO * demand.cpu_nonzero
        before = state.cpu_used / state.cpu_allocatable
        after = before + cores / state.cpu_allocatable
        room = 1.0 - self.knee
        crowded = np.maximum(after - self.knee, 0.0) / room
        rise = crowded - np.maximum(before - self.knee, 0.0) / room
        awake = np.maximum(1.0 - state.cpu_pressure, SMALLEST_RATE) ** self.pressure
        rate = state.node_speed / np.maximum(after, 1.0) * (1.0 - self.slope * np.minimum(crowded, 1.0)) * awake
        wanted = self.margin * np.maximum(demand.urgency, self.least_urgency)
        late = 0.5 - 0.5 * np.tanh(0.5 / self.width * np.log(np.maximum(rate, SMALLEST_RATE) / wanted))
        prices = cores * (self.speed_price * state.node_speed + self.use_price * after)
        cost = late + self.harm * state.cpu_used * rise + prices
        return np.asarray(shortage.bounded(-cost / (1.0 + cost), state, demand))


SMALLEST_RATE: Final = 1e-3
"""Rates below this count as this, where one takes their logarithm."""

DETERMINISTIC: Final[dict[str, Heuristic]] = {
    heuristic.name: heuristic
    for heuristic in (
        Heuristic(KUBE_DEFAULT, kube_default),
        Heuristic("most-allocated", most_allocated),
        Heuristic("least-used", least_used),
        Heuristic("expected-speed", criteria.expected_speed),
        Heuristic("sufficient-speed", SufficientSpeed()),
        Heuristic("marginal-cost", MarginalCost()),
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
