"""The machines of each cluster: drawn by class at reset, with what schedulers know and what they do not."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from training.simulator import draws
from training.simulator.draws import FloatArray, Seeds, Stream
from training.simulator.scenarios import Scenario

MAX_DECAY: Final = 0.9
"""Largest share of its capacity that a node loses to decay. Assumption: nothing stops altogether."""


@dataclass(slots=True)
class Nodes:
    """Struct of arrays over ``[clusters, n]``, one row per node; w is the number of pod classes."""

    cores: FloatArray  # allocatable CPU
    memory: FloatArray  # allocatable memory, GiB
    speed: FloatArray  # relative to the reference core
    interference: FloatArray  # sensitivity to interference, relative to 1 (hidden)
    decay_state: FloatArray  # Ornstein-Uhlenbeck state behind the lost share of capacity (hidden)
    throttled: FloatArray  # share of the time that its tasks stand still, which pressure does not show (hidden)
    up: NDArray[np.bool_]  # whether the node is there
    cpu_time: FloatArray  # CPU time that a task would have had since the start, seconds
    cpu_requested: FloatArray  # sum of its pods' CPU requests, cores
    memory_requested: FloatArray  # sum of its pods' memory requests, GiB
    cpu_silent: NDArray[np.int64]  # number of its pods that do not request CPU
    memory_silent: NDArray[np.int64]  # number of its pods that do not request memory
    pods: NDArray[np.int64]  # number of its pods
    # its pods' CPU use by class, before the workload's drift, cores, ``[clusters, n, w]`` (hidden)
    base_use: FloatArray
    memory_use: FloatArray  # its pods' memory use, GiB (hidden)
    # time that a pod of each class would have run since the start, reference seconds, ``[clusters, n, w]``
    progress: FloatArray

    @property
    def decay(self) -> FloatArray:
        """Share of each node's capacity that is lost now, 0 to `MAX_DECAY`."""
        return np.clip(self.decay_state, 0.0, MAX_DECAY)

    @property
    def lost(self) -> FloatArray:
        """Share of each node's capacity that its tasks do without now: decay, and throttling where there is any."""
        decay = self.decay
        return 1.0 - (1.0 - decay) * (1.0 - self.throttled) if self.throttled.any() else decay


def draw_nodes(scenario: Scenario, seeds: Seeds) -> Nodes:
    """Idle nodes for every cluster; each node's class is drawn by weight."""
    classes = scenario.node_classes
    index = np.arange(scenario.nodes)[None, :]
    column = seeds[:, None]
    weights = np.cumsum([node.weight for node in classes])
    picked = draws.uniform(column, Stream.NODE_CLASS, index)
    row = np.minimum(np.searchsorted(weights / weights[-1], picked, side="right"), len(classes) - 1)
    shape = row.shape
    hidden = scenario.hidden
    noise = draws.normal(column, Stream.INTERFERENCE, index)
    by_class = (*shape, len(scenario.pod_classes))
    return Nodes(
        cores=np.array([node.cores for node in classes])[row],
        memory=np.array([node.memory for node in classes])[row],
        speed=np.array([node.speed for node in classes])[row],
        interference=np.maximum(1.0 + hidden.interference_sigma * noise, 0.0),
        decay_state=hidden.decay_mean + hidden.decay_spread * draws.normal(column, Stream.DECAY, index),
        throttled=np.where(
            draws.uniform(column, Stream.THROTTLED, index) < hidden.throttled_share, hidden.throttled_loss, 0.0
        ),
        up=np.ones(shape, dtype=np.bool_),
        cpu_time=np.zeros(shape),
        cpu_requested=np.zeros(shape),
        memory_requested=np.zeros(shape),
        cpu_silent=np.zeros(shape, dtype=np.int64),
        memory_silent=np.zeros(shape, dtype=np.int64),
        pods=np.zeros(shape, dtype=np.int64),
        base_use=np.zeros(by_class),
        memory_use=np.zeros(shape),
        progress=np.zeros(by_class),
    )


def drift(
    state: FloatArray, mean: float, spread: float, time: float, elapsed: FloatArray, normals: FloatArray
) -> FloatArray:
    """One exact step of an Ornstein-Uhlenbeck process with the given stationary mean and standard deviation.

    Source: Gillespie, Physical Review E 54 (1996). `elapsed` (seconds) broadcasts against `state`.
    """
    kept = np.exp(-elapsed / time)
    return mean + (state - mean) * kept + spread * np.sqrt(1.0 - kept * kept) * normals
