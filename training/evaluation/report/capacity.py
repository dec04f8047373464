"""The load that no scheduler sustains: what a cluster can finish in the long run, bounded from above.

A highest load measured on short episodes may lie above it, since clusters begin empty and late pods only come later; a
goal beyond it asks for something that ends once the start has worn off.
"""

from __future__ import annotations

from statistics import NormalDist
from typing import Final

import numpy as np
from numpy.typing import NDArray

from policy.criteria import CONTENTION_KNEE
from training.simulator.contention import MAX_LOSS, sensitivities
from training.simulator.draws import FloatArray, Seeds
from training.simulator.nodes import MAX_DECAY, draw_nodes
from training.simulator.scenarios import Hidden, PodClass, Scenario
from training.simulator.workload import MAX_USE_RATIO

_NORMALS: Final = np.array([NormalDist().inv_cdf(at) for at in (np.arange(2000) + 0.5) / 2000])
"""Standard normal quantiles: a mean over them is an expectation."""


def peak_throughput(sensitivity: NDArray[np.floating], knee: float = CONTENTION_KNEE) -> FloatArray:
    """Most work a node does at any use, as a share of what it did if nothing disturbed its pods.

    The use r, as a share of the cores, gives r x (1 - loss(r)), where the loss grows from the knee to `sensitivity` at
    full use; beyond full use pods share the CPU.

    Args:
        sensitivity: share of the rate lost on a full node, by the least disturbed pod.
        knee: use from which it is lost.
    """
    slope = np.maximum(np.minimum(sensitivity, MAX_LOSS), 1e-12) / (1.0 - knee)
    use = np.clip((1.0 + slope * knee) / (2.0 * slope), knee, 1.0)
    most: FloatArray = use * (1.0 - slope * (use - knee))
    return most


def sustainable_load(scenario: Scenario, seeds: Seeds) -> FloatArray:
    """Upper bound of the offered load at which work is finished as fast as it arrives, for each episode's cluster.

    Every node is taken to be at its best use all the time, with pods that disturb each other as little as any pair
    does, and to lose only the mean of its decay. No packing, memory, late measurement or deadline stands in the way.

    Args:
        scenario: with its number of nodes; its arrivals are its own, not a trace's.
        seeds: of the episodes, ``[clusters]``.

    Returns:
        Offered work over speed-weighted capacity, ``[clusters]``.
    """
    nodes = draw_nodes(scenario, seeds)
    least = float(sensitivities(scenario.pod_classes, scenario.contention.scale).min())
    capacity = nodes.cores * nodes.speed
    kept = 1.0 - _mean_decay(scenario.hidden)
    finished = kept * (capacity * peak_throughput(least * nodes.interference, scenario.contention.knee)).sum(axis=1)
    bound: FloatArray = finished / (capacity.sum(axis=1) * _arriving(scenario.pod_classes, scenario.hidden))
    return bound


def _mean_decay(hidden: Hidden) -> float:
    """Stationary mean of the share of a node's capacity that is lost."""
    return float(np.clip(hidden.decay_mean + hidden.decay_spread * _NORMALS, 0.0, MAX_DECAY).mean())


def _arriving(classes: tuple[PodClass, ...], hidden: Hidden) -> float:
    """Work that arrives over what the load is quoted in, of the class that loses most: its bursts of use are cut."""
    ratios = np.exp(hidden.cpu_use_sigma * _NORMALS)
    return min(
        float(np.minimum(pod.cpu_use * ratios, MAX_USE_RATIO).mean() / (pod.cpu_use * ratios).mean()) for pod in classes
    )
