"""Four scheduling measures of (pod, node), which an actor's bids weigh; a bundle says which set of four it bids on.

``classic``: the known measures, of which constant bids are the known heuristics. ``physical``: what decides whether a
pod is late or killed. Each of these never rises when a node is more used, more pressed or fuller, and never falls
when it is faster, so an actor whose bids keep to that (`training.learning.monotone`) prefers no such node.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from policy import shortage
from policy.arithmetic import ARRAYS, FLOATS, Arithmetic, Number
from policy.cluster import EXPECTED_USE_RATIO as EXPECTED_USE_RATIO
from policy.cluster import ClusterState, Demand, FloatArray, Node, PodDemand

CRITERIA_NAMES: Final = ("headroom", "balance", "expected_speed", "constant")
"""The classic set."""

PHYSICAL_NAMES: Final = ("in_time", "neighbours", "room", "constant")
"""The physical set."""

CRITERIA_COUNT: Final = len(CRITERIA_NAMES)
CONSTANT: Final = CRITERIA_NAMES.index("constant")
"""Place of the constant criterion, in both sets."""

BALANCED: Final = 1.0
"""`balance` of every node for a pod that requests nothing."""

FASTEST_SPEED: Final = 2.0
"""Node speed that `expected_speed` maps to 1; faster nodes are clipped. Assumption: no core is twice the reference."""

CONTENTION_KNEE: Final = 0.6
"""Use of the node from which neighbours slow each other. Assumption, as `policy.observation.PRESSURE_KNEE`."""

CONTENTION_SLOPE: Final = 0.5
"""Share of the rate lost at full use to cache and memory bandwidth.

Middle of the range 0.49-0.99 of throughput kept by co-located jobs in Gavel (Narayanan et al., OSDI 2020), scaled to a
full node.
"""


# Found by the search that `policy.heuristics.MarginalCost` has its numbers from; its prices are left out, because the
# price of speed bought nothing: without it no condition was worse, and a faster node is never the worse one.
LATE_MARGIN: Final = 1.221
"""Expected rate over urgency at which half of the pods are taken to be late."""

LEAST_URGENCY: Final = 0.284
"""Urgency that a pod counts with at least in `in_time`, so that best effort (0) asks for some speed too."""

MOST_MARGIN: Final = 100.0
"""A margin counts as this at most in `in_time`, where its fifth power would overflow."""

LATE_KNEE: Final = 0.567
"""Use of the node from which neighbours slow each other, in `in_time` and `neighbours`."""

LATE_SLOPE: Final = 0.302
"""Share of the rate that neighbours take at full use, in `in_time`."""

HARM: Final = 0.169
"""What one core of neighbours costs that the pod takes to full use, in `neighbours`."""

FULL: Final = 0.9
"""Share of a node's memory from which half of the nodes are taken to run out of it, in `room`."""

MOST_FILLED: Final = 4.0
"""Memory expected over `FULL` counts as this at most in `room`, where its 16th power would overflow."""


def headroom(state: ClusterState, demand: Demand) -> FloatArray:
    """Return the mean over CPU and memory of the share of the node that is left after the pod, 0..1, ``[..., n]``.

    The idea of kube-scheduler's LeastAllocated, without its rounding; `policy.heuristics.kube_default` is the plugin to
    the digit. Non-zero requests count; a resource asked for beyond what is allocatable counts 0.
    """
    return _headroom(*_nonzero(state, demand), ARRAYS)


def balance(state: ClusterState, demand: Demand) -> FloatArray:
    """Return 1 - standard deviation of the fractions of CPU and memory requested with the pod, 0..1, ``[..., n]``.

    The idea of kube-scheduler's BalancedAllocation up to 1.35, without its rounding; `policy.heuristics.kube_default`
    is the plugin to the digit. Requests count as they are. Fractions are capped at 1; the deviation of two of them is
    half their difference. A pod that requests nothing changes no balance: every node gets `BALANCED`, as kube-scheduler
    skips the plugin (`PreScore`).
    """
    return _skipped(demand, _balance(*_requested(state, demand), ARRAYS))


def expected_speed(state: ClusterState, demand: Demand) -> FloatArray:
    """Relative rate the pod would run at, ``[..., n]``, 0..1: speed x CPU share x contention, over `FASTEST_SPEED`.

    CPU share is 1 until the use expected with the pod exceeds the node; contention takes `CONTENTION_SLOPE` of the rate
    linearly between `CONTENTION_KNEE` and full use.
    """
    return _speed(_expected_use(state, demand), state.node_speed, ARRAYS)


def evaluate(state: ClusterState, demand: Demand) -> NDArray[np.float32]:
    """The four classic criteria in the order of `CRITERIA_NAMES`: float32 ``[..., n, 4]`` in [0, 1].

    The last is constantly 1: the bid on it is the node's reserve price.
    """
    if isinstance(demand, PodDemand) and state.shape == (1,):
        node = state.only()
        speed = _speed(_expected_use(node, demand), node.node_speed, FLOATS)
        balanced = _balance(*_requested(node, demand), FLOATS) if demand.cpu or demand.memory else BALANCED
        measures = (_headroom(*_nonzero(node, demand), FLOATS), balanced, speed, 1.0)
        return np.array((measures,), dtype=np.float32)
    out = np.empty((*state.shape, CRITERIA_COUNT), dtype=np.float32)
    counted = _nonzero(state, demand)
    out[..., 0] = _headroom(*counted, ARRAYS)
    # the simulator's columns are the same arrays where every pod says what it requests: one division serves both
    same = state.cpu_nonzero is state.cpu_requested and demand.cpu_nonzero is demand.cpu
    same = same and state.memory_nonzero is state.memory_requested and demand.memory_nonzero is demand.memory
    out[..., 1] = _skipped(demand, _balance(*(counted if same else _requested(state, demand)), ARRAYS))
    out[..., 2] = _speed(_expected_use(state, demand), state.node_speed, ARRAYS)
    out[..., 3] = 1.0
    return out


def _nonzero(node: ClusterState | Node, demand: Demand) -> tuple[Any, Any]:
    """Non-zero requests of CPU and memory with this pod, over allocatable; each a number, or ``[..., n]``."""
    return (
        (node.cpu_nonzero + demand.cpu_nonzero) / node.cpu_allocatable,
        (node.memory_nonzero + demand.memory_nonzero) / node.memory_allocatable,
    )


def _requested(node: ClusterState | Node, demand: Demand) -> tuple[Any, Any]:
    """Requests of CPU and memory with this pod, over allocatable; each a number, or ``[..., n]``."""
    return (
        (node.cpu_requested + demand.cpu) / node.cpu_allocatable,
        (node.memory_requested + demand.memory) / node.memory_allocatable,
    )


def _expected_use(node: ClusterState | Node, demand: Demand) -> Any:
    """CPU use expected with this pod, over allocatable; a number, or ``[..., n]``."""
    return (node.cpu_used + EXPECTED_USE_RATIO * demand.cpu_nonzero) / node.cpu_allocatable


def _headroom(cpu: Number, memory: Number, to: Arithmetic[Number]) -> Number:
    """`headroom` of the requested fractions."""
    return (to.maximum(1.0 - cpu, 0.0) + to.maximum(1.0 - memory, 0.0)) / 2.0


def _balance(cpu: Number, memory: Number, to: Arithmetic[Number]) -> Number:
    """`balance` of the requested fractions."""
    return 1.0 - to.absolute(to.minimum(cpu, 1.0) - to.minimum(memory, 1.0)) / 2.0


def _skipped(demand: Demand, balanced: FloatArray) -> FloatArray:
    """`balanced`, and `BALANCED` where the pod requests nothing."""
    if isinstance(demand, PodDemand):
        return balanced if demand.cpu or demand.memory else np.full_like(balanced, BALANCED)
    asks = (demand.cpu > 0.0) | (demand.memory > 0.0)
    return balanced if asks.all() else np.where(asks, balanced, BALANCED)


def _speed(used: Number, node_speed: Number, to: Arithmetic[Number]) -> Number:
    """`expected_speed` of the expected use."""
    share = 1.0 / to.maximum(used, 1.0)
    past_knee = to.minimum(to.maximum((used - CONTENTION_KNEE) / (1.0 - CONTENTION_KNEE), 0.0), 1.0)
    rate = node_speed * share * (1.0 - CONTENTION_SLOPE * past_knee)
    return to.minimum(to.maximum(rate / FASTEST_SPEED, 0.0), 1.0)


def physical(state: ClusterState, demand: Demand) -> NDArray[np.float32]:
    """The four physical criteria in the order of `PHYSICAL_NAMES`: float32 ``[..., n, 4]`` in [0, 1].

    - ``in_time``: chance that the pod meets its SLA. Logistic in log(rate / urgency) with a width of 1/5, which is
      m^5 / (1 + m^5) for the margin m; the rate is the node's speed, less what neighbours and waiting for a CPU take.
    - ``neighbours``: 1 / (1 + `HARM` x cores in use x what the pod adds to the node's use past the knee).
    - ``room``: mean share of CPU and memory left by requests, times the chance that memory does not run out, logistic
      in log(`policy.shortage.expected_memory` / `FULL`) with a width of 1/16.
    - ``constant``: 1; the bid on it is the node's own price.
    """
    if isinstance(demand, PodDemand) and state.shape == (1,):
        return np.array(((*_physical(state.only(), demand, FLOATS), 1.0),), dtype=np.float32)
    out = np.empty((*state.shape, CRITERIA_COUNT), dtype=np.float32)
    out[..., 0], out[..., 1], out[..., 2] = _physical(state, demand, ARRAYS)
    out[..., 3] = 1.0
    return out


def _physical(node: ClusterState | Node, demand: Demand, to: Arithmetic[Any]) -> tuple[Any, Any, Any]:
    """The first three of `physical`; each a number, or ``[..., n]``."""
    used, room = _expected_use(node, demand), 1.0 - LATE_KNEE
    past_knee = to.maximum(used - LATE_KNEE, 0.0) / room
    rate = node.node_speed / to.maximum(used, 1.0) * (1.0 - LATE_SLOPE * to.minimum(past_knee, 1.0))
    margin = rate * (1.0 - node.cpu_pressure) / (LATE_MARGIN * to.maximum(demand.urgency, LEAST_URGENCY))
    margin = to.minimum(margin, MOST_MARGIN)
    margin = margin * _squared(_squared(margin))
    taken = node.cpu_used * (past_knee - to.maximum(node.cpu_used / node.cpu_allocatable - LATE_KNEE, 0.0) / room)
    filled = shortage.expected_memory(node, demand, to) / (FULL * node.memory_allocatable)
    filled = _squared(_squared(_squared(_squared(to.minimum(filled, MOST_FILLED)))))
    left = _headroom(*_nonzero(node, demand), to) / (1.0 + filled)
    return margin / (1.0 + margin), 1.0 / (1.0 + HARM * taken), left


def _squared(value: Any) -> Any:
    """As a product: floats and arrays then round alike, and a float overflows to infinity."""
    return value * value


@dataclass(frozen=True, slots=True)
class CriteriaSet:
    """Four criteria that belong together."""

    name: str  # as training configurations call it
    names: tuple[str, ...]  # of the criteria, in order; manifests hold them
    # state and demand to float32 ``[..., n, 4]`` in [0, 1]
    evaluate: Callable[[ClusterState, Demand], NDArray[np.float32]]
    meanings: tuple[str, ...]  # in an operator's words, in order


CLASSIC: Final = CriteriaSet(
    "classic",
    CRITERIA_NAMES,
    evaluate,
    (
        "share of CPU and memory left by requests",
        "how evenly CPU and memory are requested",
        "speed that the pod can expect",
        "the node's own price",
    ),
)
PHYSICAL: Final = CriteriaSet(
    "physical",
    PHYSICAL_NAMES,
    physical,
    (
        "chance that the pod is in time",
        "how little the pod slows its neighbours",
        "room left, and that memory does not run out",
        "the node's own price",
    ),
)
CRITERIA_SETS: Final = {each.name: each for each in (CLASSIC, PHYSICAL)}
"""Every set by name."""


def set_of(names: Sequence[str]) -> CriteriaSet | None:
    """The set whose criteria have these names in this order, if there is one."""
    return next((each for each in CRITERIA_SETS.values() if each.names == tuple(names)), None)
