"""Nodes that are lost and return, as exponential life and repair times. Their pods are queued again."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from training.simulator import draws
from training.simulator.draws import FloatArray, Stream
from training.simulator.queue import requeue
from training.simulator.world import World


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
