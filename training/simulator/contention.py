"""How fast pods really run on a node, and how long they wait for a CPU. Pure functions of use, hidden from view."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from policy.criteria import CONTENTION_KNEE
from policy.observation import estimated_pressure
from training.simulator.draws import FloatArray
from training.simulator.scenarios import PodClass

KINDS: Final = ("cpu", "cache", "bandwidth")

SENSITIVITY: Final = np.array(
    [
        # from: cpu, cache, bandwidth
        [0.35, 0.35, 0.35],  # a cpu-bound victim
        [0.40, 0.70, 0.60],  # a victim that lives in the cache
        [0.35, 0.55, 0.75],  # a victim that streams from memory
    ]
)
"""Share of the rate a victim loses on a full node, by the kind of its neighbours.

Assumption within published bounds: pairs keep 0.49-0.99 of their throughput (Gavel, Narayanan et al., OSDI 2020,
co-location table), a full node has more than one neighbour, and like disturbs like most. The mean is near
`policy.criteria.CONTENTION_SLOPE`.
"""

MAX_LOSS: Final = 0.9
"""Largest share of the rate that interference may take. Assumption: nothing stops altogether."""


def sensitivities(classes: tuple[PodClass, ...], scale: float = 1.0) -> FloatArray:
    """`SENSITIVITY` by pod class times `scale`: victim class ``[w]`` x neighbour class ``[w]``."""
    kinds = np.array([KINDS.index(pod.kind) for pod in classes])
    table: FloatArray = scale * SENSITIVITY[np.ix_(kinds, kinds)]
    return table


def rates(
    use: FloatArray,
    cores: FloatArray,
    speed: FloatArray,
    decay: FloatArray,
    noise: FloatArray,
    table: FloatArray,
    knee: float = CONTENTION_KNEE,
) -> FloatArray:
    """Progress of each class of pods on each node, reference seconds a second, ``[..., n, w]``.

    speed x (1 - decay) x CPU share x (1 - interference). The CPU share is 1 until use exceeds the cores; interference
    grows linearly from the knee to full use, in proportion to the neighbours' shares of the use.

    Args:
        use: CPU use by class, cores, ``[..., n, w]``.
        cores: ``[..., n]``.
        speed: ``[..., n]``; 0 for a lost node.
        decay: share of the node's capacity that is lost, to throttling too, ``[..., n]``.
        noise: the node's sensitivity to interference relative to 1, ``[..., n]``.
        table: `sensitivities`.
        knee: use over cores from which neighbours slow each other, in [0, 1).
    """
    total = use.sum(axis=-1)
    relative = total / cores
    past_knee = np.clip((relative - knee) / (1.0 - knee), 0.0, 1.0)
    weight = past_knee * noise / np.maximum(total, 1e-9)
    loss = np.minimum((use @ table.T) * weight[..., None], MAX_LOSS)
    base = speed * (1.0 - decay) / np.maximum(relative, 1.0)
    result: FloatArray = base[..., None] * (1.0 - loss)
    return result


def pressure(total: FloatArray, cores: FloatArray, decay: FloatArray) -> NDArray[np.float64]:
    """Share of time that tasks wait for a CPU, ``[..., n]``, 0..1: queueing, and the time a decayed node takes away."""
    return 1.0 - (1.0 - estimated_pressure(total, cores)) * (1.0 - decay)
