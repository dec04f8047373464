"""State and demand to observation: the one implementation that training and serving share."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from policy.cluster import ClusterState, Demand, FloatArray
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
    use = cpu_used / cpu_allocatable
    queueing = PRESSURE_SLOPE * np.maximum(np.minimum(use, 1.0) - PRESSURE_KNEE, 0.0)
    overload = 1.0 - 1.0 / np.maximum(use, 1.0)
    return np.minimum(queueing + overload, 1.0)


def observe(state: ClusterState, demand: Demand) -> NDArray[np.float32]:
    """What each node's agent sees for this pod.

    Args:
        state: columns of shape ``[..., n]``.
        demand: one pod, or one per cluster with shape ``[..., 1]``.

    Returns:
        Observation, float32 ``[..., n, 8]``, clipped to the bounds of `policy.features.FEATURES`.
    """
    raw = observe_unclipped(state, demand)
    return np.minimum(np.maximum(raw, LOW, out=raw), HIGH, out=raw)


def observe_unclipped(state: ClusterState, demand: Demand) -> NDArray[np.float32]:
    """As `observe`, before clipping; tells which features lie outside the range the policy was trained on."""
    out = np.empty((*state.shape, FEATURE_COUNT), dtype=np.float32)
    out[..., 0] = (state.cpu_requested + demand.cpu) / state.cpu_allocatable
    out[..., 1] = (state.memory_requested + demand.memory) / state.memory_allocatable
    out[..., 2] = state.cpu_used / state.cpu_allocatable
    out[..., 3] = state.memory_used / state.memory_allocatable
    out[..., 4] = state.cpu_pressure
    out[..., 5] = state.node_speed - 1.0
    out[..., 6] = demand.cpu / state.cpu_allocatable
    out[..., 7] = demand.urgency
    return out
