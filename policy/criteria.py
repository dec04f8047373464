"""Four known scheduling measures of (pod, node). An actor's bids weigh them; constant bids are the known heuristics."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from policy.arithmetic import ARRAYS, FLOATS, Arithmetic, Number
from policy.cluster import ClusterState, Demand, FloatArray, Node, PodDemand

CRITERIA_NAMES: Final = ("headroom", "balance", "expected_speed", "constant")
CRITERIA_COUNT: Final = len(CRITERIA_NAMES)

BALANCED: Final = 1.0
"""`balance` of every node for a pod that requests nothing."""

FASTEST_SPEED: Final = 2.0
"""Node speed that `expected_speed` maps to 1; faster nodes are clipped. Assumption: no core is twice the reference."""

EXPECTED_USE_RATIO: Final = 0.65
"""Expected use over request of a pod not measured yet.

Middle of use over limit without and with autopilot, 0.54 and 0.77 (Rzadca et al., "Autopilot", EuroSys 2020: slack of
46 % and 23 %).
"""

CONTENTION_KNEE: Final = 0.6
"""Use of the node from which neighbours slow each other. Assumption, as `policy.observation.PRESSURE_KNEE`."""

CONTENTION_SLOPE: Final = 0.5
"""Share of the rate lost at full use to cache and memory bandwidth.

Middle of the range 0.49-0.99 of throughput kept by co-located jobs in Gavel (Narayanan et al., OSDI 2020), scaled to a
full node.
"""


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
    """All four criteria in the order of `CRITERIA_NAMES`: float32 ``[..., n, 4]`` in [0, 1].

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
