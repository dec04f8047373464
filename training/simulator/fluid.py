"""Time passes: pods progress, finish, become late or are killed. The only module that moves the clock.

All pods of one class on one node progress alike, so each (node, class) carries a clock, and a pod is done when that
clock reaches its mark: a step costs one comparison for each pod, and no loop over pods or clusters.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from training.simulator import contention
from training.simulator.accounts import SLOWDOWN_BINS, SLOWDOWN_EDGES
from training.simulator.draws import FloatArray
from training.simulator.queue import release
from training.simulator.reward import charge, node_reward
from training.simulator.scenarios import Reward
from training.simulator.world import World

MAX_LATENESS: Final = 2.0
"""Lateness of one pod stops to grow here, in allowances. Assumption: three times too slow is as bad as it gets."""

STANDSTILL: Final = 1e-12
"""Rates below this count as this, where one divides by them: a pod on a lost node."""


OUTLOOK_SPREAD: Final = 0.1
"""Uncertainty of the time left in `potential`, relative to it. Assumption: as `workload_spread` of most scenarios."""


@dataclass(slots=True)
class Completed:
    """Batch pods that ended well, ``[pods]``: what a node's kubelet could tell of them, and which they were."""

    row: NDArray[np.intp]  # cluster
    node: NDArray[np.int64]
    number: NDArray[np.int64]  # in order of arrival
    kind: NDArray[np.int64]  # class
    work: FloatArray  # reference seconds
    cpu_s: FloatArray  # CPU time of one of its threads, seconds: grows with interference, not with waiting
    run_s: FloatArray  # time since it was bound, seconds
    at: FloatArray  # when it ended, seconds
    used: FloatArray  # CPU use over capacity of its node then


@dataclass(slots=True)
class Passage:
    """What happened while time passed."""

    weights: Reward  # of the node reward
    elapsed: FloatArray  # seconds, ``[clusters]``; 0 where the next decision is a retry at the same moment
    use: FloatArray  # CPU use over capacity of each node at the start, ``[clusters, n]``
    # lateness accrued on each node, in allowances, ``[clusters, n]``; that of queued pods spread evenly
    late_on: FloatArray
    violated_on: FloatArray  # pods that became violated on each node, ``[clusters, n]``; queued ones spread evenly
    lateness: FloatArray  # lateness accrued, ``[clusters]``
    violations: NDArray[np.int64]  # pods that became violated, ``[clusters]``
    finished: NDArray[np.int64]  # pods that finished, ``[clusters]``
    failed: NDArray[np.int64]  # pods that were killed for memory, ``[clusters]``
    completed: Completed | None = None  # batch pods that ended well, if any

    @property
    def node_reward(self) -> NDArray[np.float32]:
        """Reward of each node, float32 ``[clusters, n]``; the team's is its sum over nodes."""
        return node_reward(self.weights, self.late_on, self.violated_on, self.use)


def advance(world: World, until: FloatArray) -> Passage:
    """Let time pass in every cluster until the given moments, ``[clusters]``; rates hold still meanwhile."""
    pods, nodes, accounts = world.pods, world.nodes, world.accounts
    clusters, (size, _) = world.clusters, world.size
    elapsed = until - world.now
    use, rates = _use_and_rates(world)
    nodes.progress += rates * elapsed[:, None, None]
    total = use.sum(axis=-1)
    running = (1.0 - nodes.lost) / np.maximum(total / nodes.cores, 1.0)
    nodes.cpu_time += running * elapsed[:, None]
    _account_use(world, elapsed, total)
    passage = Passage(
        weights=world.scenario.reward,
        elapsed=elapsed,
        use=total / nodes.cores,
        late_on=np.zeros((clusters, size)),
        violated_on=np.zeros((clusters, size)),
        lateness=np.zeros(clusters),
        violations=np.zeros(clusters, dtype=np.int64),
        finished=np.zeros(clusters, dtype=np.int64),
        failed=np.zeros(clusters, dtype=np.int64),
    )
    reached = nodes.progress.reshape(-1)[pods.lane]
    done = np.flatnonzero(reached >= pods.finish_at)
    behind = np.flatnonzero(pods.deadline < until[:, None])
    if len(behind):
        _be_late(world, passage, behind, until, reached, rates)
    if len(done):
        _finish(world, passage, done, until, reached, rates, running)
    world.now = until.copy()
    over = nodes.memory_use > nodes.memory
    if over.any():
        _kill(world, passage, over)
    accounts.finished += passage.finished
    accounts.failed += passage.failed
    return passage


def projected_violations(world: World) -> NDArray[np.int64]:
    """Pods not violated yet that will be if their present rate lasts, ``[clusters]``; queued pods count as standing."""
    pods = world.pods
    late = world.now[:, None] + _time_left(world) > pods.deadline
    count: NDArray[np.int64] = (late & pods.occupied & ~pods.violated).sum(axis=1)
    return count


def potential(world: World) -> FloatArray:
    """Return what each node's running pods will still be charged if their present rate lasts, ``[clusters, n]``.

    A violation counts as its probability, a logistic function of how late the pod would be, on a scale of
    `OUTLOOK_SPREAD` of its time left: the further away the end, the less is decided.
    """
    pods = world.pods
    running = np.flatnonzero(pods.occupied & (pods.node >= 0) & np.isfinite(pods.deadline))
    row = running // pods.occupied.shape[1]
    left = _time_left(world).reshape(-1)[running]
    late_by = world.now[row] + left - pods.deadline.reshape(-1)[running]
    overdue = np.maximum(world.now[row] - pods.deadline.reshape(-1)[running], 0.0)  # is charged already
    to_come = np.maximum(late_by, 0.0) - overdue
    room = np.maximum(MAX_LATENESS - pods.lateness.reshape(-1)[running], 0.0)
    lateness = np.clip(to_come * pods.per_budget.reshape(-1)[running], 0.0, room)
    spread = np.maximum(OUTLOOK_SPREAD * left, 1e-9)
    probability = 0.5 + 0.5 * np.tanh(0.5 * late_by / spread)  # the logistic function, without its overflow
    violation = probability * ~pods.violated.reshape(-1)[running]
    node = pods.node.reshape(-1)[running]
    late, violated = _on_nodes(world, row, node, lateness), _on_nodes(world, row, node, violation)
    return charge(world.scenario.reward, late, violated)


def _on_nodes(
    world: World, row: NDArray[np.intp], node: NDArray[np.int64], values: FloatArray | NDArray[np.bool_]
) -> FloatArray:
    """The sum of the values on each node, ``[clusters, n]``; `row` and `node` say where each value belongs."""
    clusters, (size, _) = world.clusters, world.size
    summed = np.bincount(row * size + node, values, clusters * size)
    return summed.reshape(clusters, size).astype(np.float64, copy=False)


def _time_left(world: World) -> FloatArray:
    """Seconds until each pod's unit is done if its rate lasts, ``[clusters, slots]``; infinite while it is pending."""
    pods = world.pods
    _, rates = _use_and_rates(world)
    left = pods.finish_at - world.nodes.progress.reshape(-1)[pods.lane]
    result: FloatArray = left / np.maximum(rates.reshape(-1)[pods.lane], STANDSTILL)
    return result


def _use_and_rates(world: World) -> tuple[FloatArray, FloatArray]:
    """CPU use in cores and progress a second of each class of pods on each node now, ``[clusters, n, w]`` each."""
    nodes = world.nodes
    use = nodes.base_use * np.exp(world.workload_state)[:, None, :]
    rates = contention.rates(
        use,
        nodes.cores,
        nodes.speed * nodes.up,
        nodes.lost,
        nodes.interference,
        world.sensitivities,
        world.scenario.contention.knee,
    )
    return use, rates


def _account_use(world: World, elapsed: FloatArray, total: FloatArray) -> None:
    """Add to the integrals of use, between the last arrival of the warm-up and the last arrival that counts."""
    scenario, accounts, nodes = world.scenario, world.accounts, world.nodes
    counted = (world.upcoming > scenario.warmup_arrivals) & (world.upcoming <= scenario.episode_arrivals)
    if not counted.any():
        return
    span = elapsed * counted
    cores, memory = nodes.cores.sum(axis=1), nodes.memory.sum(axis=1)
    accounts.time += span
    used = np.minimum(total, nodes.cores)
    accounts.used += span * used.sum(axis=1) / cores
    accounts.allocated += span * nodes.cpu_requested.sum(axis=1) / cores
    accounts.memory_used += span * nodes.memory_use.sum(axis=1) / memory
    accounts.memory_allocated += span * nodes.memory_requested.sum(axis=1) / memory
    share = used / nodes.cores
    centred = share - share.mean(axis=1, keepdims=True)
    accounts.imbalance += span * np.einsum("cn,cn->c", centred, centred) / share.shape[1]


def _be_late(
    world: World,
    passage: Passage,
    behind: NDArray[np.intp],
    until: FloatArray,
    reached: FloatArray,
    rates: FloatArray,
) -> None:
    """Charge pods past their deadline (flat slots) for the part of the passage in which they were late."""
    pods, accounts, (size, _) = world.pods, world.accounts, world.size
    clusters = world.clusters
    row = behind // pods.occupied.shape[1]
    beyond = np.maximum(reached.reshape(-1)[behind] - pods.finish_at.reshape(-1)[behind], 0.0)
    rate = np.maximum(rates.reshape(-1)[pods.lane.reshape(-1)[behind]], STANDSTILL)
    end = until[row] - beyond / rate
    seconds = end - np.maximum(world.now[row], pods.deadline.reshape(-1)[behind])
    late = seconds > 0.0
    behind, row, seconds = behind[late], row[late], seconds[late]
    total = pods.lateness.reshape(-1)
    accrued = np.minimum(seconds * pods.per_budget.reshape(-1)[behind], np.maximum(MAX_LATENESS - total[behind], 0.0))
    total[behind] += accrued
    fresh = ~pods.violated.reshape(-1)[behind]
    pods.violated.reshape(-1)[behind] = True
    measured = world.is_measured(pods.number.reshape(-1)[behind])
    accounts.lateness += np.bincount(row, accrued * measured, clusters)
    _violate(world, passage, behind[fresh])
    passage.lateness += np.bincount(row, accrued, clusters)
    node = pods.node.reshape(-1)[behind]
    running = node >= 0
    passage.late_on += _on_nodes(world, row[running], node[running], accrued[running])
    passage.violated_on += _on_nodes(world, row[running], node[running], fresh[running])
    if not running.all():  # what waits in the queue is no node's alone
        waiting = row[~running]
        passage.late_on += (np.bincount(waiting, accrued[~running], clusters) / size)[:, None]
        passage.violated_on += (np.bincount(waiting, fresh[~running], clusters) / size)[:, None]


def _violate(world: World, passage: Passage, flat: NDArray[np.intp]) -> None:
    """Count a violation of each of these pods, which had none before."""
    pods, accounts = world.pods, world.accounts
    row = flat // pods.occupied.shape[1]
    measured = world.is_measured(pods.number.reshape(-1)[flat])
    passage.violations += np.bincount(row, minlength=world.clusters)
    accounts.violations += np.bincount(row[measured], minlength=world.clusters)
    _decide(world, flat)


def _decide(world: World, flat: NDArray[np.intp]) -> None:
    """Count these pods as ones whose SLA is decided, unless they are counted already."""
    pods = world.pods
    decided = pods.decided.reshape(-1)
    counted = ~decided[flat] & world.is_measured(pods.number.reshape(-1)[flat])
    decided[flat] = True
    row = flat[counted] // pods.occupied.shape[1]
    world.accounts.resolved += np.bincount(row, minlength=world.clusters)


def _finish(
    world: World,
    passage: Passage,
    done: NDArray[np.intp],
    until: FloatArray,
    reached: FloatArray,
    rates: FloatArray,
    running: FloatArray,
) -> None:
    """Let pods go whose work is done (flat slots); a service begins its next unit instead."""
    pods, nodes, accounts, clusters = world.pods, world.nodes, world.accounts, world.clusters
    row = done // pods.occupied.shape[1]
    rate = np.maximum(rates.reshape(-1)[pods.lane.reshape(-1)[done]], STANDSTILL)
    before = (reached.reshape(-1)[done] - pods.finish_at.reshape(-1)[done]) / rate
    end = until[row] - before
    work, number, kind = pods.work.reshape(-1)[done], pods.number.reshape(-1)[done], pods.kind.reshape(-1)[done]
    slowdown = (end - pods.unit_began.reshape(-1)[done]) / work
    bins = np.clip(np.searchsorted(SLOWDOWN_EDGES, slowdown) - 1, 0, SLOWDOWN_BINS - 1)
    np.add.at(accounts.slowdowns, (row, kind, bins), world.is_measured(number))
    _decide(world, done)
    batch = np.array([pod.lifetime == 1.0 for pod in world.scenario.pod_classes])[kind]
    there = row * nodes.cores.shape[1] + pods.node.reshape(-1)[done]
    cpu_s = nodes.cpu_time.reshape(-1)[there] - running.reshape(-1)[there] * before - pods.cpu_began.reshape(-1)[done]
    used = np.minimum(passage.use.reshape(-1)[there], 1.0)
    run_s = end - pods.bound_at.reshape(-1)[done]
    columns = (row, there % nodes.cores.shape[1], number, kind, work, cpu_s, run_s, end, used)
    passage.completed = Completed(*(columns if batch.all() else (column[batch] for column in columns)))
    units = pods.units.reshape(-1)
    units[done] -= 1
    again = units[done] > 0
    if again.any():
        _renew(world, done[again], end[again])
        done, row = done[~again], row[~again]
    passage.finished += np.bincount(row, minlength=clusters)
    release(world, done)
    pods.free(done)


def _renew(world: World, flat: NDArray[np.intp], start: FloatArray) -> None:
    """Begin the next unit of services, at the moment the last one was done."""
    pods = world.pods
    work = pods.work.reshape(-1)[flat]
    slack = pods.slack.reshape(-1)[flat]
    pods.finish_at.reshape(-1)[flat] += work
    pods.unit_began.reshape(-1)[flat] = start
    pods.deadline.reshape(-1)[flat] = np.where(slack > 0.0, start + slack * work, np.inf)


def _kill(world: World, passage: Passage, over: NDArray[np.bool_]) -> None:
    """On each node out of memory, kill the pod that exceeds its request most; one pod a node each time.

    The kernel ranks by memory use against the oom_score_adj that the kubelet derives from the request.
    """
    pods, accounts, clusters = world.pods, world.accounts, world.clusters
    row, node = np.nonzero(over)
    ratio = pods.memory_use[row] / np.maximum(pods.memory[row], 1e-9)
    slot = np.argmax(np.where(pods.node[row] == node[:, None], ratio, -1.0), axis=1)
    flat = row * pods.occupied.shape[1] + slot
    fresh = ~pods.violated.reshape(-1)[flat]
    np.add.at(passage.violated_on, (row, node), fresh)
    _violate(world, passage, flat[fresh])
    _decide(world, flat)
    measured = world.is_measured(pods.number.reshape(-1)[flat])
    accounts.measured_failed += np.bincount(row[measured], minlength=clusters)
    passage.failed += np.bincount(row, minlength=clusters)
    release(world, flat)
    pods.free(flat)
