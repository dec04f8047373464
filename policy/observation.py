"""State and demand to observation: the one implementation that training and serving share."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from policy.arithmetic import ARRAYS, FLOATS, Arithmetic, Number
from policy.cluster import ClusterState, Demand, FloatArray, Node, PodDemand
from policy.features import FEATURE_COUNT, HIGH, LOW

PRESSURE_KNEE: Final = 0.6
"""CPU use from which tasks start to wait for each other. Assumption: run-queue waiting is negligible below 60 % use."""

PRESSURE_SLOPE: Final = 0.75
"""Growth of the estimated pressure past the knee, per unit of use: 0.3 at full use. Assumption."""


def estimated_pressure(cpu_used: FloatArray, cpu_allocatable: FloatArray) -> FloatArray:
    """CPU pressure where the kernel's PSI is not collected: rises linearly past the knee, 0..1, same shape.

    Demand beyond capacity adds the share of time that tasks must wait when `use` cores of work compete for one,
    1 - 1 / use.
    """
    return _pressure(cpu_used / cpu_allocatable, ARRAYS)


def estimated_pressure_of_one(cpu_used: float, cpu_allocatable: float) -> float:
    """`estimated_pressure` of one node."""
    return _pressure(cpu_used / cpu_allocatable, FLOATS)


def _pressure(use: Number, to: Arithmetic[Number]) -> Number:
    queueing = PRESSURE_SLOPE * to.maximum(to.minimum(use, 1.0) - PRESSURE_KNEE, 0.0)
    overload = 1.0 - 1.0 / to.maximum(use, 1.0)
    return to.minimum(queueing + overload, 1.0)


def observe(state: ClusterState, demand: Demand) -> NDArray[np.float32]:
    """What each node's agent sees for this pod.

    Args:
        state: columns of shape ``[..., n]``.
        demand: one pod, or one per cluster with shape ``[..., 1]``.

    Returns:
        Observation, float32 ``[..., n, 8]``, clipped to the bounds of `policy.features.FEATURES`.
    """
    return clip(observe_unclipped(state, demand))


def observe_unclipped(state: ClusterState, demand: Demand) -> NDArray[np.float32]:
    """As `observe`, before clipping; tells which features lie outside the range the policy was trained on."""
    if isinstance(demand, PodDemand) and state.shape == (1,):
        return np.array((_features(state.only(), demand),), dtype=np.float32)
    out = np.empty((*state.shape, FEATURE_COUNT), dtype=np.float32)
    for feature, values in enumerate(_features(state, demand)):
        out[..., feature] = values
    return out


def clip(observation: NDArray[np.float32]) -> NDArray[np.float32]:
    """`observe` of what `observe_unclipped` gave, in its place."""
    return np.minimum(np.maximum(observation, LOW, out=observation), HIGH, out=observation)


def _features(node: ClusterState | Node, demand: Demand) -> tuple[Any, ...]:
    """The eight, unclipped: each one a number, or ``[..., n]`` or what broadcasts to it.

    Requests are non-zero requests: every pod leaves a trace in the row, also one that requests nothing.
    """
    return (
        (node.cpu_nonzero + demand.cpu_nonzero) / node.cpu_allocatable,
        (node.memory_nonzero + demand.memory_nonzero) / node.memory_allocatable,
        node.cpu_used / node.cpu_allocatable,
        node.memory_used / node.memory_allocatable,
        node.cpu_pressure,
        node.node_speed - 1.0,
        demand.cpu_nonzero / node.cpu_allocatable,
        demand.urgency,
    )
