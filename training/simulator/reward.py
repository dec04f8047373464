"""What a node earns in a step, and what a pod earns at the end. Defined once; the weights belong to the scenario."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from training.simulator.draws import FloatArray
from training.simulator.scenarios import Reward

LATE_PRICE: Final = 2.0
"""What a pod in time earns (1), plus as much again lost where its SLA is violated. Frozen; part of every report."""


def node_reward(weights: Reward, late: FloatArray, violated: FloatArray, use: FloatArray) -> NDArray[np.float32]:
    """What training maximises, float32 ``[clusters, n]``; the team's reward is its sum over nodes.

    -(lateness accrued on the node) - (violations on the node) - (use of the node)^2 - (use of the node less the
    cluster's mean)^2, each weighted. The third term is convex, so it prices use at all and rewards what spares it; the
    last prices load variance alone. Use counts at most 1. All ``[clusters, n]``.
    """
    reward = charge(weights, late, violated)
    use = np.minimum(use, 1.0)
    reward -= weights.balance_weight * use**2
    if weights.spread_weight > 0.0:
        reward -= weights.spread_weight * (use - use.mean(axis=1, keepdims=True)) ** 2
    return reward.astype(np.float32)


def charge(weights: Reward, late: FloatArray, violated: FloatArray) -> FloatArray:
    """What lateness and violations on each node cost it, as a reward, ``[clusters, n]``: accrued, or still to come."""
    return -(weights.lateness_weight * late + weights.violation_weight * violated)


def episode_reward(violation_rate: FloatArray, lateness: FloatArray) -> FloatArray:
    """What evaluation reports: mean earning of a pod. In time it earns 1; violated it costs 1 and its lateness."""
    return 1.0 - LATE_PRICE * violation_rate - lateness
