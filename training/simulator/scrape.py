"""The scrape of nodes: it renews what schedulers see, and the hidden processes move on with it.

Hidden processes are the drift of nodes and workloads, and nodes that are lost and return, as exponential life and
repair times; the pods of a lost node are queued again.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from policy.arithmetic import ARRAYS
from policy.cluster import NONZERO_MEMORY
from policy.shortage import use_ratio
from training.simulator import contention, draws
from training.simulator.draws import FloatArray, Stream
from training.simulator.nodes import drift
from training.simulator.queue import requeue
from training.simulator.world import World


def scrape(world: World) -> NDArray[np.intp]:
    """Measure the nodes of clusters whose scrape is due, then let hidden processes drift over the interval.

    A scrape takes effect at the first decision after it is due. Returns the rows of those clusters.
    """
    seen = world.seen
    due = np.flatnonzero(world.now >= seen.taken_at + seen.interval)
    if not len(due):
        return due
    nodes, hidden, settings = world.nodes, world.scenario.hidden, world.scenario.measurement
    size, classes = world.size
    seeds = world.seeds[due][:, None]
    elapsed = (world.now - seen.taken_at)[due][:, None]
    seen.scrapes[due] += 1
    count = seen.scrapes[due][:, None]
    index = count * size + np.arange(size)[None, :]
    cores = nodes.cores[due]
    total = (nodes.base_use[due] * np.exp(world.workload_state[due])[:, None, :]).sum(axis=-1)
    noise = 1.0 + settings.use_noise * draws.normal(seeds, Stream.USE_NOISE, index)
    seen.cpu_used[due] = np.maximum(np.minimum(total, cores) * noise, 0.0)
    seen.memory_used[due] = np.maximum(nodes.memory_use[due], 0.0)
    waiting = contention.pressure(total, cores, nodes.decay[due])
    noise = settings.pressure_noise * draws.normal(seeds, Stream.PRESSURE_NOISE, index)
    seen.pressure[due] = np.clip(waiting + noise, 0.0, 1.0)
    requested = nodes.memory_requested[due] + NONZERO_MEMORY * nodes.memory_silent[due]
    seen.memory_ratio[due] = use_ratio(seen.memory_used[due], requested, nodes.memory[due], ARRAYS)
    seen.cpu_expected[due] = 0.0
    seen.memory_expected[due] = 0.0
    seen.version[due] += 1
    seen.taken_at[due] = world.now[due]
    normals = draws.normal(seeds, Stream.DECAY, index)
    nodes.decay_state[due] = drift(
        nodes.decay_state[due], hidden.decay_mean, hidden.decay_spread, hidden.decay_time, elapsed, normals
    )
    index = count * classes + np.arange(classes)[None, :]
    normals = draws.normal(seeds, Stream.WORKLOAD_USE, index)
    world.workload_state[due] = drift(
        world.workload_state[due], 0.0, hidden.workload_spread, hidden.workload_time, elapsed, normals
    )
    return due


def strike(world: World, rows: NDArray[np.intp], elapsed: FloatArray) -> None:
    """Lose and return nodes of these clusters, over the given seconds (``[rows]``) since the last time.

    A lost node keeps its row, takes no pods and runs none. Its pods lose their work and are queued again after
    `eviction_delay`; kube-scheduler treats them like new pods, without back-off.
    """
    hidden, nodes, pods = world.scenario.hidden, world.nodes, world.pods
    if hidden.node_loss_time <= 0.0 or not len(rows):
        return
    size, _ = world.size
    index = world.seen.scrapes[rows][:, None] * size + np.arange(size)[None, :]
    chance = draws.uniform(world.seeds[rows][:, None], Stream.NODE_LOSS, index)
    up = nodes.up[rows]
    stay = np.where(up, hidden.node_loss_time, hidden.node_return_time)
    flips = chance < -np.expm1(-elapsed[:, None] / stay)
    if not flips.any():
        return
    nodes.up[rows] = up ^ flips
    world.seen.version[rows] += flips
    lost = np.zeros(nodes.up.shape, dtype=np.bool_)
    lost[rows] = flips & up
    running = pods.node >= 0
    evicted = running & np.take_along_axis(lost, np.maximum(pods.node, 0), axis=1)
    if evicted.any():
        requeue(world, np.flatnonzero(evicted), hidden.eviction_delay)
