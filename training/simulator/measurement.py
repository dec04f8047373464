"""What schedulers see of nodes, late and blurred. The scrape that renews it is `training.simulator.scrape`."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from policy.cluster import NONZERO_CPU, NONZERO_MEMORY, UNMEASURED_MEMORY_RATIO, ClusterState
from policy.criteria import EXPECTED_USE_RATIO
from policy.observation import estimated_pressure
from training.simulator import draws
from training.simulator.draws import FloatArray, Seeds, Stream
from training.simulator.knowledge import Told
from training.simulator.nodes import Nodes
from training.simulator.scenarios import Measurement


@dataclass(slots=True)
class Measurements:
    """What the last scrape said; ``[clusters, n]`` but for the first four, ``[clusters]``."""

    interval: FloatArray  # seconds between scrapes
    estimated: NDArray[np.bool_]  # whether the cluster shows no PSI, so that pressure is estimated from use
    taken_at: FloatArray  # time of the last scrape, seconds
    scrapes: NDArray[np.int64]  # number of scrapes so far
    cpu_used: FloatArray  # measured CPU use, cores
    memory_used: FloatArray  # measured memory use, GiB
    pressure: FloatArray  # measured CPU pressure, 0..1
    cpu_expected: FloatArray  # expected CPU use of pods bound since the scrape, cores
    memory_expected: FloatArray  # expected memory use of pods bound since the scrape, GiB
    memory_ratio: FloatArray  # memory that the node's pods were measured to use over what they request
    version: NDArray[np.int64]  # grows with every change of a node's row


def draw_measurements(settings: Measurement, seeds: Seeds, nodes: Nodes, told: Told) -> Measurements:
    """The measurements of idle nodes at the start; each cluster's first scrape is one interval away."""
    low, high = settings.scrape_interval
    shape = nodes.cores.shape
    return Measurements(
        interval=told.use_late * (low + (high - low) * draws.uniform(seeds, Stream.SCRAPE_INTERVAL, 0)),
        estimated=(draws.uniform(seeds, Stream.PRESSURE_SOURCE, 0) < settings.estimated_pressure_share)
        | ~told.pressure,
        taken_at=np.zeros(len(seeds)),
        scrapes=np.zeros(len(seeds), dtype=np.int64),
        cpu_used=np.zeros(shape),
        memory_used=np.zeros(shape),
        pressure=nodes.decay,  # an idle node's pressure: PSI counts the time that system tasks wait too
        cpu_expected=np.zeros(shape),
        memory_expected=np.zeros(shape),
        memory_ratio=np.ones(shape),
        version=np.zeros(shape, dtype=np.int64),
    )


def seen_state(nodes: Nodes, seen: Measurements, told: Told) -> ClusterState:
    """What is known of every node, columns ``[clusters, n]``; nothing hidden, and no later change shows in it."""
    cpu, memory = nodes.cpu_requested.copy(), nodes.memory_requested.copy()
    cpu_nonzero = _nonzero(cpu, nodes.cpu_silent, NONZERO_CPU)
    memory_nonzero = _nonzero(memory, nodes.memory_silent, NONZERO_MEMORY)
    cpu_used, memory_used = seen.cpu_used + seen.cpu_expected, seen.memory_used + seen.memory_expected
    unseen, ratio = np.maximum(seen.memory_expected / EXPECTED_USE_RATIO, 0.0), seen.memory_ratio.copy()
    if not told.use.all():
        blind = ~told.use[:, None]
        unseen, ratio = np.where(blind, memory_nonzero, unseen), np.where(blind, UNMEASURED_MEMORY_RATIO, ratio)
        cpu_used = np.where(blind, EXPECTED_USE_RATIO * cpu_nonzero, cpu_used)
        memory_used = np.where(blind, EXPECTED_USE_RATIO * memory_nonzero, memory_used)
    pressure = seen.pressure.copy()
    rows = seen.estimated
    pressure[rows] = estimated_pressure(cpu_used[rows], nodes.cores[rows])
    return ClusterState(
        cpu_allocatable=nodes.cores,
        memory_allocatable=nodes.memory,
        cpu_requested=cpu,
        memory_requested=memory,
        cpu_used=cpu_used,
        memory_used=memory_used,
        cpu_pressure=pressure,
        node_speed=told.speed,
        version=seen.version.copy(),
        cpu_nonzero=cpu_nonzero,
        memory_nonzero=memory_nonzero,
        memory_unseen=unseen,
        memory_ratio=ratio,
    )


def _nonzero(requested: FloatArray, silent: NDArray[np.int64], missing: float) -> FloatArray:
    """Sums of requests with `missing` for each pod that requests none; the same array where every pod requests some."""
    return requested + missing * silent if silent.any() else requested
