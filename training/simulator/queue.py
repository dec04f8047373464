"""The scheduling queue: arrivals, binding, and kube-scheduler's back-off. No pod is ever dropped."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from policy.cluster import NONZERO_CPU, NONZERO_MEMORY
from policy.criteria import EXPECTED_USE_RATIO
from training.simulator.draws import FloatArray
from training.simulator.nodes import Nodes
from training.simulator.pods import NOWHERE
from training.simulator.workload import nonzero
from training.simulator.world import World

MAX_PODS: Final = 110
"""Pods that a node takes: the kubelet's default maxPods."""

FIRST_BACKOFF: Final = 1.0
"""Seconds: kube-scheduler's podInitialBackoffSeconds."""

MAX_BACKOFF: Final = 10.0
"""Seconds: kube-scheduler's podMaxBackoffSeconds."""


def room(world: World, rows: NDArray[np.intp]) -> tuple[FloatArray, FloatArray]:
    """CPU (cores) and memory (GiB) that requests leave on each node, ``[rows, n]``; -1 cores where no pod may go."""
    nodes = world.nodes
    open_to_pods = nodes.up[rows] & (nodes.pods[rows] < MAX_PODS)
    cpu = np.where(open_to_pods, nodes.cores[rows] - nodes.cpu_requested[rows], -1.0)
    return cpu, nodes.memory[rows] - nodes.memory_requested[rows]


def feasible(world: World, cpu: FloatArray, memory: FloatArray) -> NDArray[np.bool_]:
    """Which nodes take a pod of these requests (``[clusters, 1]``): up, below the pod limit, and the requests fit.

    The last is kube-scheduler's NodeResourcesFit: requests against allocatable, whatever the use. ``[clusters, n]``.
    """
    nodes = world.nodes
    fits: NDArray[np.bool_] = (nodes.cpu_requested + cpu <= nodes.cores) & (
        nodes.memory_requested + memory <= nodes.memory
    )
    fits &= nodes.pods < MAX_PODS
    fits &= nodes.up
    return fits


def arrive(world: World, rows: NDArray[np.intp]) -> None:
    """The next pod of these clusters arrives. It is what they decide on, unless an older pod in the queue fits now."""
    numbers = world.upcoming[rows]
    slots = world.pods.enqueue(rows, numbers, world.table, FIRST_BACKOFF)
    world.current[rows] = slots
    world.upcoming[rows] += 1
    world.queued[rows] += 1
    world.accounts.arrived[rows] += 1
    world.accounts.measured[rows] += world.is_measured(numbers)
    crowded = world.queued[rows] > 1
    older = retry(world, rows[crowded])
    if len(older):
        newest = np.zeros(world.clusters, dtype=np.int64)
        newest[rows] = slots
        world.pods.retry_at[older, newest[older]] = world.now[older]


def bind(world: World, rows: NDArray[np.intp], node: NDArray[np.int64]) -> None:
    """Bind the current pod of these clusters to these nodes."""
    pods, nodes, seen = world.pods, world.nodes, world.seen
    size, classes = world.size
    at = (rows, world.current[rows])
    there = (rows, node)
    cpu, memory = pods.cpu[at], pods.memory[at]
    lane = (rows * size + node) * classes + pods.kind[at]
    pods.node[at] = node
    pods.lane[at] = lane
    pods.finish_at[at] = nodes.progress.reshape(-1)[lane] + pods.work[at]
    pods.bound_at[at] = world.now[rows]
    pods.cpu_began[at] = nodes.cpu_time[there]
    pods.retry_at[at] = np.inf
    nodes.cpu_requested[there] += cpu
    nodes.memory_requested[there] += memory
    _count_silent(nodes, rows * size + node, cpu, memory, 1)
    nodes.pods[there] += 1
    nodes.base_use.reshape(-1)[lane] += pods.cpu_use[at]
    nodes.memory_use[there] += pods.memory_use[at]
    seen.cpu_expected[there] += EXPECTED_USE_RATIO * nonzero(cpu, NONZERO_CPU)
    seen.memory_expected[there] += EXPECTED_USE_RATIO * nonzero(memory, NONZERO_MEMORY)
    seen.version[there] += 1
    world.queued[rows] -= 1
    world.accounts.bound[rows] += 1


def wait(world: World, rows: NDArray[np.intp]) -> None:
    """Leave the current pod of these clusters queued; it backs off 1 s, doubling with each attempt, at most 10 s."""
    pods = world.pods
    at = (rows, world.current[rows])
    pods.retry_at[at] = world.now[rows] + pods.backoff[at]
    pods.backoff[at] = np.minimum(2.0 * pods.backoff[at], MAX_BACKOFF)
    world.accounts.retries[rows] += 1


def retry(world: World, rows: NDArray[np.intp]) -> NDArray[np.intp]:
    """Of these clusters, make a queued pod that fits somewhere now the current one; returns the rows that have one.

    kube-scheduler requeues an unschedulable pod when an event makes room for it (QueueingHints of NodeResourcesFit),
    but not before its back-off is over. Assumption: its attempt comes with the first decision after both. Whoever may
    be tried first goes first.
    """
    pods = world.pods
    if not len(rows):
        return rows
    ready = pods.retry_at[rows] <= world.now[rows][:, None]
    some = ready.any(axis=1)
    rows, ready = rows[some], ready[some]
    if not len(rows):
        return rows
    cpu, memory = room(world, rows)
    entry, slot = np.nonzero(ready)
    row = rows[entry]
    fits = ((pods.cpu[row, slot][:, None] <= cpu[entry]) & (pods.memory[row, slot][:, None] <= memory[entry])).any(
        axis=1
    )
    row, slot = row[fits], slot[fits]
    order = np.lexsort((pods.number[row, slot], pods.retry_at[row, slot], row))
    first = order[np.unique(row[order], return_index=True)[1]]
    world.current[row[first]] = slot[first]
    return row[first]


def release(world: World, flat: NDArray[np.intp]) -> None:
    """Take running pods, given by flat positions of their slots, off their nodes; their slots stay as they are."""
    pods, nodes, seen = world.pods, world.nodes, world.seen
    size, _ = world.size
    row = flat // pods.occupied.shape[1]
    there = row * size + pods.node.reshape(-1)[flat]
    cpu, memory = pods.cpu.reshape(-1)[flat], pods.memory.reshape(-1)[flat]
    np.subtract.at(nodes.cpu_requested.reshape(-1), there, cpu)
    np.subtract.at(nodes.memory_requested.reshape(-1), there, memory)
    _count_silent(nodes, there, cpu, memory, -1)
    np.subtract.at(nodes.pods.reshape(-1), there, 1)
    np.subtract.at(nodes.base_use.reshape(-1), pods.lane.reshape(-1)[flat], pods.cpu_use.reshape(-1)[flat])
    np.subtract.at(nodes.memory_use.reshape(-1), there, pods.memory_use.reshape(-1)[flat])
    # a pod that was never measured leaves its expectation too; a measured one is seen until the next scrape
    # >=: a pod bound at the moment of a scrape comes after it, so its use is still expected, not measured
    unmeasured = (pods.bound_at.reshape(-1)[flat] >= seen.taken_at[row]) * EXPECTED_USE_RATIO
    np.subtract.at(seen.cpu_expected.reshape(-1), there, unmeasured * nonzero(cpu, NONZERO_CPU))
    np.subtract.at(seen.memory_expected.reshape(-1), there, unmeasured * nonzero(memory, NONZERO_MEMORY))
    np.add.at(seen.version.reshape(-1), there, 1)


def _count_silent(nodes: Nodes, there: NDArray[np.int64], cpu: FloatArray, memory: FloatArray, change: int) -> None:
    """Count pods of these requests that came to or left nodes, by flat positions, if they request nothing of one."""
    for silent, requests in ((nodes.cpu_silent, cpu), (nodes.memory_silent, memory)):
        if not requests.all():
            np.add.at(silent.reshape(-1), there, change * (requests == 0.0))


def requeue(world: World, flat: NDArray[np.intp], delay: float) -> None:
    """Queue running pods anew after `delay` seconds: their work is lost, their deadline is not."""
    pods = world.pods
    release(world, flat)
    row = flat // pods.occupied.shape[1]
    pods.node.reshape(-1)[flat] = NOWHERE
    pods.lane.reshape(-1)[flat] = 0
    pods.finish_at.reshape(-1)[flat] = np.inf
    pods.retry_at.reshape(-1)[flat] = world.now[row] + delay
    pods.backoff.reshape(-1)[flat] = FIRST_BACKOFF
    world.queued += np.bincount(row, minlength=world.clusters)
