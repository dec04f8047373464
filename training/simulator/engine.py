"""The simulator: many clusters advance together, one decision each a step. Refuses to choose a node.

A fluid model. Between decisions every pod progresses at speed x CPU share x contention of its node. All pods of one class
on one node progress alike, so each (node, class) carries a clock and a pod is done when its clock reaches a mark: a step
costs one comparison a pod, and no loop over pods or clusters.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from policy.cluster import ClusterState, DemandBatch
from policy.criteria import EXPECTED_USE_RATIO
from policy.errors import InvalidInputError
from policy.observation import estimated_pressure
from training.simulator import contention, draws
from training.simulator.accounts import SLOWDOWN_BINS, SLOWDOWN_EDGES, Accounts
from training.simulator.draws import FloatArray, Stream, cluster_seeds
from training.simulator.nodes import draw_measurements, draw_nodes, drift
from training.simulator.pods import NOWHERE, Pods
from training.simulator.scenarios import Scenario
from training.simulator.snapshot import Snapshot
from training.simulator.workload import ArrivalTable, draw_arrivals, mean_work

MAX_PODS: Final = 110
"""Pods that a node takes: the kubelet's default maxPods."""

FIRST_BACKOFF: Final = 1.0
"""Seconds: kube-scheduler's podInitialBackoffSeconds."""

MAX_BACKOFF: Final = 10.0
"""Seconds: kube-scheduler's podMaxBackoffSeconds."""

MAX_LATENESS: Final = 2.0
"""Lateness of one pod stops to grow here, in allowances. Assumption: three times too slow is as bad as it gets."""

PODS_A_CORE: Final = 1.0
"""Slots at the start, for each core of the mean node. Slots double when they run out."""

ARRIVALS_AHEAD: Final = 256
"""Pods drawn beyond the episode, and again whenever a cluster has used them up."""


@dataclass(frozen=True, slots=True)
class StepResult:
    """What a step did.

    Attributes:
        node_reward: float32 ``[clusters, n]``; see `Scenario.reward`. Its sum over nodes is the team's reward.
        violations: pods whose SLA became violated in the step, ``[clusters]``.
        lateness: lateness accrued in the step, in allowances, ``[clusters]``.
        finished: pods that finished, ``[clusters]``.
        failed: pods that failed (out of memory), ``[clusters]``.
        elapsed: seconds that passed, ``[clusters]``; 0 where the next decision is a retry at the same moment.
    """

    node_reward: NDArray[np.float32]
    violations: NDArray[np.int64]
    lateness: FloatArray
    finished: NDArray[np.int64]
    failed: NDArray[np.int64]
    elapsed: FloatArray


class Simulator:
    """Many clusters at once, in lockstep by decisions, each at its own time.

    Args:
        scenario: what is simulated.
        clusters: how many clusters side by side, >= 1.
        seed: of the first episode, as for `reset`.

    Raises:
        InvalidInputError: an argument is out of range.
    """

    def __init__(self, scenario: Scenario, clusters: int, seed: int | NDArray[np.uint64] = 0) -> None:
        if clusters < 1:
            raise InvalidInputError(f"clusters is {clusters}; give at least 1")
        self.scenario = scenario
        self.clusters = clusters
        self.nodes = scenario.nodes
        self.classes = len(scenario.pod_classes)
        self._sensitivities = contention.sensitivities(scenario.pod_classes)
        self._rows = np.arange(clusters)
        self._seed = seed
        self.reset(seed)

    # -- episodes

    def reset(self, seed: int | NDArray[np.uint64] | None = None, load: float | FloatArray | None = None) -> None:
        """Begin a new episode in every cluster; equal seeds and loads give equal episodes.

        Args:
            seed: one number for all clusters, or one for each (uint64 ``[clusters]``); by default the one after the last.
            load: offered work over speed-weighted capacity, one or one for each cluster; by default drawn from
                `Scenario.load`.
        """
        if seed is None:
            seed = self._seed + 1
        self._seed = seed
        scenario = self.scenario
        seeds = cluster_seeds(seed, self.clusters) if isinstance(seed, int | np.integer) else seed
        self._seeds = np.asarray(seeds, dtype=np.uint64)
        if self._seeds.shape != (self.clusters,):
            raise InvalidInputError(f"seed has shape {self._seeds.shape}; give one number or [{self.clusters}]")
        low, high = scenario.load
        if load is None:
            load = low + (high - low) * draws.uniform(self._seeds, Stream.LOAD, 0)
        self.load = np.broadcast_to(np.asarray(load, dtype=np.float64), (self.clusters,)).copy()
        if not (np.isfinite(self.load) & (self.load > 0.0)).all():
            raise InvalidInputError(f"load is {load}; give positive numbers")
        self._nodes = draw_nodes(scenario, self._seeds)
        self._capacity = (self._nodes.cores * self._nodes.speed).sum(axis=1)
        self._rate = self.load * self._capacity / mean_work(scenario)
        self._table = self._draw(scenario.episode_arrivals + ARRIVALS_AHEAD)
        mean_cores = sum(node.cores * node.weight for node in scenario.node_classes) / sum(
            node.weight for node in scenario.node_classes
        )
        self._pods = Pods.empty(self.clusters, max(16, int(PODS_A_CORE * mean_cores * self.nodes)))
        self._seen = draw_measurements(scenario.measurement, self._seeds, self._nodes)
        self._workload_state = scenario.hidden.workload_spread * draws.normal(
            self._seeds[:, None], Stream.WORKLOAD_USE, np.arange(self.classes)[None, :]
        )
        self._workload_level = np.exp(self._workload_state)
        self._accounts = Accounts.empty(self.clusters, self.classes)
        self._now = np.zeros(self.clusters)
        self._next = np.zeros(self.clusters, dtype=np.int64)
        self._current = np.zeros(self.clusters, dtype=np.int64)
        self._queued = np.zeros(self.clusters, dtype=np.int64)
        self._advance(self._table.time[:, 0])
        self._arrive(self._rows)
        self._refresh()

    def _draw(self, count: int) -> ArrivalTable:
        return draw_arrivals(self.scenario, self._seeds, self._rate, count)

    # -- what a scheduler sees

    @property
    def state(self) -> ClusterState:
        """What is known of every node, columns ``[clusters, n]``: late measurements, and nothing hidden."""
        nodes, seen = self._nodes, self._seen
        cpu_used = seen.cpu_used + seen.cpu_expected
        pressure = seen.pressure
        if seen.estimated.any():
            estimate = estimated_pressure(cpu_used, nodes.cores)
            pressure = np.where(seen.estimated[:, None], estimate, pressure)
        else:
            pressure = pressure.copy()
        return ClusterState(
            cpu_allocatable=nodes.cores,
            memory_allocatable=nodes.memory,
            cpu_requested=nodes.cpu_requested.copy(),
            memory_requested=nodes.memory_requested.copy(),
            cpu_used=cpu_used,
            memory_used=seen.memory_used + seen.memory_expected,
            cpu_pressure=pressure,
            node_speed=nodes.speed,
            version=seen.version.copy(),
        )

    @property
    def demand(self) -> DemandBatch:
        """The pod to be placed now, columns ``[clusters, 1]``."""
        return self._demand

    @property
    def feasible(self) -> NDArray[np.bool_]:
        """Which nodes take the pod, ``[clusters, n]``: they are up and its requests fit (NodeResourcesFit)."""
        return self._feasible.copy()

    @property
    def now(self) -> FloatArray:
        """Seconds since the start of the episode, ``[clusters]``."""
        return self._now.copy()

    @property
    def pod_class(self) -> NDArray[np.int64]:
        """Class of the pod to be placed now, ``[clusters]``; schedulers do not see it."""
        return self._pods.kind[self._rows, self._current]

    def _refresh(self) -> None:
        """Compute demand and feasibility of the current decision."""
        at = (self._rows, self._current)
        pods = self._pods
        slack = pods.slack[at]
        limited = slack > 0.0
        self._demand = DemandBatch(
            cpu=pods.cpu[at][:, None],
            memory=pods.memory[at][:, None],
            urgency=np.where(limited, 1.0 / np.where(limited, slack, 1.0), 0.0)[:, None],
        )
        nodes = self._nodes
        self._feasible = (
            (nodes.cpu_requested + self._demand.cpu <= nodes.cores)
            & (nodes.memory_requested + self._demand.memory <= nodes.memory)
            & (nodes.pods < MAX_PODS)
            & nodes.up
        )

    # -- decisions

    def step(self, placement: NDArray[np.int64]) -> StepResult:
        """Place each cluster's pod, then let time pass until each cluster's next decision.

        Args:
            placement: node row for each cluster, int64 ``[clusters]``; -1 leaves the pod in the queue.

        Raises:
            InvalidInputError: wrong shape, or a node that is not feasible.
        """
        chosen = np.asarray(placement)
        if chosen.shape != (self.clusters,) or chosen.dtype.kind not in "iu":
            raise InvalidInputError(f"placement is {chosen.dtype} {chosen.shape}; give integers [{self.clusters}]")
        placed = chosen >= 0
        if (
            (chosen < NOWHERE).any()
            or (chosen >= self.nodes).any()
            or not self._feasible[self._rows, chosen][placed].all()
        ):
            raise InvalidInputError(
                "placement names a node that is not feasible; choose within Simulator.feasible or -1"
            )
        if placed.all():
            self._bind(self._rows, chosen)
        else:
            self._bind(self._rows[placed], chosen[placed])
            self._wait(self._rows[~placed])
        reward, result = self._proceed()
        return StepResult(reward, *result)

    def _bind(self, rows: NDArray[np.int64], node: NDArray[np.int64]) -> None:
        pods, nodes, seen = self._pods, self._nodes, self._seen
        at = (rows, self._current[rows])
        there = (rows, node)
        kind, cpu, memory = pods.kind[at], pods.cpu[at], pods.memory[at]
        lane = (rows * self.nodes + node) * self.classes + kind
        pods.node[at] = node
        pods.lane[at] = lane
        pods.finish_at[at] = nodes.progress.reshape(-1)[lane] + pods.work[at]
        pods.bound_at[at] = self._now[rows]
        pods.retry_at[at] = np.inf
        nodes.cpu_requested[there] += cpu
        nodes.memory_requested[there] += memory
        nodes.pods[there] += 1
        nodes.base_use.reshape(-1)[lane] += pods.cpu_use[at]
        nodes.memory_use[there] += pods.memory_use[at]
        seen.cpu_expected[there] += EXPECTED_USE_RATIO * cpu
        seen.memory_expected[there] += EXPECTED_USE_RATIO * memory
        seen.version[there] += 1
        self._queued[rows] -= 1
        self._accounts.bound[rows] += 1

    def _wait(self, rows: NDArray[np.int64]) -> None:
        """Back off as kube-scheduler does: 1 s, doubling with each failed attempt, at most 10 s."""
        pods = self._pods
        at = (rows, self._current[rows])
        pods.retry_at[at] = self._now[rows] + pods.backoff[at]
        pods.backoff[at] = np.minimum(2.0 * pods.backoff[at], MAX_BACKOFF)
        self._accounts.retries[rows] += 1

    def _proceed(self) -> tuple[NDArray[np.float32], tuple[Any, ...]]:
        retried = self._retries() if self._queued.any() else np.zeros(0, dtype=np.int64)
        upcoming = self._table.time[self._rows, self._next]
        until = upcoming
        if len(retried):
            until = upcoming.copy()
            until[retried] = self._now[retried]
        reward, result = self._advance(until)
        if len(retried):
            arriving = np.ones(self.clusters, dtype=np.bool_)
            arriving[retried] = False
            self._arrive(self._rows[arriving])
        else:
            self._arrive(self._rows)
        self._refresh()
        return reward, result

    def _retries(self) -> NDArray[np.int64]:
        """Clusters whose next decision is a queued pod that fits somewhere now; makes it their current pod.

        kube-scheduler requeues an unschedulable pod when an event makes room for it, but not before its back-off is over
        (QueueingHints of NodeResourcesFit). Assumption: it happens at the first decision after both.
        """
        pods, nodes = self._pods, self._nodes
        rows = np.flatnonzero(self._queued)
        ready = pods.retry_at[rows] <= self._now[rows][:, None]
        rows, ready = rows[ready.any(axis=1)], ready[ready.any(axis=1)]
        if not len(rows):
            return rows
        at_row, slot = np.nonzero(ready)
        row = rows[at_row]
        free_cpu = np.where(nodes.up & (nodes.pods < MAX_PODS), nodes.cores - nodes.cpu_requested, -1.0)
        free_memory = nodes.memory - nodes.memory_requested
        fits = (
            (pods.cpu[row, slot][:, None] <= free_cpu[row]) & (pods.memory[row, slot][:, None] <= free_memory[row])
        ).any(axis=1)
        at_row, slot, row = at_row[fits], slot[fits], row[fits]
        if not len(row):
            return row
        order = np.lexsort((pods.number[row, slot], pods.retry_at[row, slot], row))
        first = order[np.unique(row[order], return_index=True)[1]]
        self._current[row[first]] = slot[first]
        return row[first]

    def _arrive(self, rows: NDArray[np.int64]) -> None:
        """The next pod of these clusters arrives, and is what they decide on."""
        numbers = self._next[rows]
        self._current[rows] = self._pods.enqueue(rows, numbers, self._table, FIRST_BACKOFF)
        self._next[rows] += 1
        self._queued[rows] += 1
        accounts = self._accounts
        accounts.arrived[rows] += 1
        accounts.measured[rows] += self._is_measured(numbers)
        if self._next.max() >= self._table.time.shape[1]:
            self._table = self._draw(self._table.time.shape[1] + ARRIVALS_AHEAD)

    def _is_measured(self, numbers: NDArray[np.int64]) -> NDArray[np.bool_]:
        scenario = self.scenario
        return (numbers >= scenario.warmup_arrivals) & (numbers < scenario.episode_arrivals)

    # -- time

    def _advance(self, until: FloatArray) -> tuple[NDArray[np.float32], tuple[Any, ...]]:
        """Let time pass in every cluster; returns the nodes' reward and the counters of `StepResult`."""
        pods, nodes, accounts = self._pods, self._nodes, self._accounts
        elapsed = until - self._now
        use = nodes.base_use * self._workload_level[:, None, :]
        total = use.sum(axis=-1)
        speed = nodes.speed * nodes.up
        rates = contention.rates(use, nodes.cores, speed, nodes.decay, nodes.interference, self._sensitivities)
        nodes.progress += rates * elapsed[:, None, None]
        relative = total / nodes.cores
        self._account_use(elapsed, total, relative)

        progress = nodes.progress.reshape(-1)
        reached = progress[pods.lane]
        done = np.flatnonzero(reached >= pods.finish_at)
        behind = np.flatnonzero(pods.deadline < until[:, None])
        rate = rates.reshape(-1)

        late_on = np.zeros((self.clusters, self.nodes))
        violated_on = np.zeros((self.clusters, self.nodes))
        lateness = np.zeros(self.clusters)
        violations = np.zeros(self.clusters, dtype=np.int64)
        if len(behind):
            self._be_late(behind, until, reached, rate, late_on, violated_on, lateness, violations)
        finished = np.zeros(self.clusters, dtype=np.int64)
        if len(done):
            finished = self._finish(done, until, reached, rate)
        self._now = until.copy()
        failed = np.zeros(self.clusters, dtype=np.int64)
        over = nodes.memory_use > nodes.memory
        if over.any():
            failed = self._kill(over, violated_on, violations)
        due = np.flatnonzero(until >= self._seen.taken_at + self._seen.interval)
        if len(due):
            self._scrape(due)
        weights = self.scenario.reward
        reward = -(weights.lateness_weight * late_on + weights.violation_weight * violated_on)
        reward -= weights.balance_weight * np.minimum(relative, 1.0) ** 2
        accounts.finished += finished
        accounts.failed += failed
        return reward.astype(np.float32), (violations, lateness, finished, failed, elapsed)

    def _account_use(self, elapsed: FloatArray, total: FloatArray, relative: FloatArray) -> None:
        scenario, accounts, nodes = self.scenario, self._accounts, self._nodes
        # between the last arrival of the warm-up and the last arrival that counts
        counted = (self._next > scenario.warmup_arrivals) & (self._next <= scenario.episode_arrivals)
        span = elapsed * counted
        cores, memory = nodes.cores.sum(axis=1), nodes.memory.sum(axis=1)
        accounts.time += span
        accounts.used += span * np.minimum(total, nodes.cores).sum(axis=1) / cores
        accounts.allocated += span * nodes.cpu_requested.sum(axis=1) / cores
        accounts.memory_used += span * nodes.memory_use.sum(axis=1) / memory
        accounts.memory_allocated += span * nodes.memory_requested.sum(axis=1) / memory
        capped = np.minimum(relative, 1.0)
        centred = capped - capped.mean(axis=1, keepdims=True)
        accounts.imbalance += span * np.einsum("cn,cn->c", centred, centred) / self.nodes

    def _be_late(
        self,
        behind: NDArray[np.intp],
        until: FloatArray,
        reached: FloatArray,
        rate: FloatArray,
        late_on: FloatArray,
        violated_on: FloatArray,
        lateness: FloatArray,
        violations: NDArray[np.int64],
    ) -> None:
        """Charge pods past their deadline for the part of the step that they were late."""
        pods, accounts = self._pods, self._accounts
        row = behind // pods.occupied.shape[1]
        deadline = pods.deadline.reshape(-1)[behind]
        beyond = np.maximum(reached.reshape(-1)[behind] - pods.finish_at.reshape(-1)[behind], 0.0)
        speed = rate[pods.lane.reshape(-1)[behind]]
        end = until[row] - np.where(beyond > 0.0, beyond / np.maximum(speed, 1e-12), 0.0)
        seconds = end - np.maximum(self._now[row], deadline)
        late = seconds > 0.0
        if not late.all():
            behind, row, seconds = behind[late], row[late], seconds[late]
        flat_lateness = pods.lateness.reshape(-1)
        before = flat_lateness[behind]
        accrued = np.minimum(seconds * pods.per_budget.reshape(-1)[behind], np.maximum(MAX_LATENESS - before, 0.0))
        flat_lateness[behind] = before + accrued
        flags = pods.violated.reshape(-1)
        fresh = ~flags[behind]
        flags[behind] = True
        measured = self._is_measured(pods.number.reshape(-1)[behind])
        lateness += np.bincount(row, accrued, self.clusters)
        violations += np.bincount(row, fresh, self.clusters).astype(np.int64)
        accounts.lateness += np.bincount(row, accrued * measured, self.clusters)
        decided = np.bincount(row, fresh & measured, self.clusters).astype(np.int64)
        accounts.violations += decided
        accounts.resolved += decided
        node = pods.node.reshape(-1)[behind]
        running = node >= 0
        flat = (row * self.nodes + node)[running]
        size = self.clusters * self.nodes
        late_on += np.bincount(flat, accrued[running], size).reshape(late_on.shape)
        violated_on += np.bincount(flat, fresh[running], size).reshape(late_on.shape)
        if not running.all():  # nobody's pods are everybody's: what waits in the queue is spread over the nodes
            waiting = row[~running]
            late_on += (np.bincount(waiting, accrued[~running], self.clusters) / self.nodes)[:, None]
            violated_on += (np.bincount(waiting, fresh[~running], self.clusters) / self.nodes)[:, None]

    def _finish(
        self, done: NDArray[np.intp], until: FloatArray, reached: FloatArray, rate: FloatArray
    ) -> NDArray[np.int64]:
        """Let pods go whose work is done, or begin a service's next unit; returns pods finished, ``[clusters]``."""
        pods, accounts = self._pods, self._accounts
        units = pods.units.reshape(-1)
        units[done] -= 1
        again = units[done] > 0
        row = done // pods.occupied.shape[1]
        lane = pods.lane.reshape(-1)[done]
        beyond = reached.reshape(-1)[done] - pods.finish_at.reshape(-1)[done]
        end = until[row] - beyond / np.maximum(rate[lane], 1e-12)
        if again.any():
            self._renew(done[again], end[again])
            done, row, end = done[~again], row[~again], end[~again]
        work = pods.work.reshape(-1)[done]
        begun = np.where(
            pods.per_budget.reshape(-1)[done] > 0.0,
            pods.deadline.reshape(-1)[done] - pods.slack.reshape(-1)[done] * work,
            pods.arrived.reshape(-1)[done],
        )
        measured = self._is_measured(pods.number.reshape(-1)[done])
        kept = measured & ~pods.violated.reshape(-1)[done]
        accounts.resolved += np.bincount(row, kept, self.clusters).astype(np.int64)
        accounts.measured_finished += np.bincount(row, measured, self.clusters).astype(np.int64)
        slowdown = (end - begun) / work
        bins = np.clip(np.searchsorted(SLOWDOWN_EDGES, slowdown) - 1, 0, SLOWDOWN_BINS - 1)
        np.add.at(accounts.slowdowns, (row, pods.kind.reshape(-1)[done], bins), measured)
        self._release(done)
        return np.bincount(row, minlength=self.clusters)

    def _renew(self, flat: NDArray[np.intp], start: FloatArray) -> None:
        """Begin the next unit of services, at the moment the last one was done."""
        pods = self._pods
        work = pods.work.reshape(-1)[flat]
        pods.finish_at.reshape(-1)[flat] += work
        limited = pods.per_budget.reshape(-1)[flat] > 0.0
        pods.deadline.reshape(-1)[flat] = np.where(limited, start + pods.slack.reshape(-1)[flat] * work, np.inf)

    def _release(self, flat: NDArray[np.intp], free: bool = True) -> None:
        """Take running pods at these flat positions off their nodes; free their slots unless they are queued again."""
        pods, nodes, seen = self._pods, self._nodes, self._seen
        row = flat // pods.occupied.shape[1]
        there = row * self.nodes + pods.node.reshape(-1)[flat]
        cpu, memory = pods.cpu.reshape(-1)[flat], pods.memory.reshape(-1)[flat]
        np.subtract.at(nodes.cpu_requested.reshape(-1), there, cpu)
        np.subtract.at(nodes.memory_requested.reshape(-1), there, memory)
        np.subtract.at(nodes.pods.reshape(-1), there, 1)
        np.subtract.at(nodes.base_use.reshape(-1), pods.lane.reshape(-1)[flat], pods.cpu_use.reshape(-1)[flat])
        np.subtract.at(nodes.memory_use.reshape(-1), there, pods.memory_use.reshape(-1)[flat])
        unmeasured = (pods.bound_at.reshape(-1)[flat] >= seen.taken_at[row]) * EXPECTED_USE_RATIO
        np.subtract.at(seen.cpu_expected.reshape(-1), there, unmeasured * cpu)
        np.subtract.at(seen.memory_expected.reshape(-1), there, unmeasured * memory)
        np.add.at(seen.version.reshape(-1), there, 1)
        if free:
            pods.free(flat)

    def _kill(
        self, over: NDArray[np.bool_], violated_on: FloatArray, violations: NDArray[np.int64]
    ) -> NDArray[np.int64]:
        """On each node out of memory, kill the pod that exceeds its request most; returns pods failed, ``[clusters]``.

        The kernel ranks by use against request, as the kubelet sets oom_score_adj. One pod a node a step.
        """
        pods, accounts = self._pods, self._accounts
        row, node = np.nonzero(over)
        excess = np.where(
            pods.node[row] == node[:, None], pods.memory_use[row] / np.maximum(pods.memory[row], 1e-9), -1.0
        )
        slot = np.argmax(excess, axis=1)
        flat = row * pods.occupied.shape[1] + slot
        fresh = ~pods.violated.reshape(-1)[flat]
        measured = self._is_measured(pods.number.reshape(-1)[flat])
        np.add.at(violated_on, (row, node), fresh)
        violations += np.bincount(row, fresh, self.clusters).astype(np.int64)
        decided = np.bincount(row, fresh & measured, self.clusters).astype(np.int64)
        accounts.violations += decided
        accounts.resolved += decided
        accounts.measured_failed += np.bincount(row, measured, self.clusters).astype(np.int64)
        self._release(flat)
        return np.bincount(row, minlength=self.clusters)

    def _scrape(self, due: NDArray[np.intp]) -> None:
        """Measure the nodes of clusters whose scrape is due, then let the hidden processes drift over the interval."""
        nodes, seen, hidden, settings = self._nodes, self._seen, self.scenario.hidden, self.scenario.measurement
        seeds = self._seeds[due][:, None]
        elapsed = (self._now - seen.taken_at)[due][:, None]
        seen.scrapes[due] += 1
        count = seen.scrapes[due][:, None]
        index = count * self.nodes + np.arange(self.nodes)[None, :]
        total = (nodes.base_use[due] * self._workload_level[due][:, None, :]).sum(axis=-1)
        noise = 1.0 + settings.use_noise * draws.normal(seeds, Stream.USE_NOISE, index)
        seen.cpu_used[due] = np.maximum(np.minimum(total, nodes.cores[due]) * noise, 0.0)
        seen.memory_used[due] = np.maximum(nodes.memory_use[due], 0.0)
        waiting = contention.pressure(total, nodes.cores[due], nodes.decay[due])
        noise = settings.pressure_noise * draws.normal(seeds, Stream.PRESSURE_NOISE, index)
        seen.pressure[due] = np.clip(waiting + noise, 0.0, 1.0)
        seen.cpu_expected[due] = 0.0
        seen.memory_expected[due] = 0.0
        seen.version[due] += 1
        seen.taken_at[due] = self._now[due]
        nodes.decay_state[due] = drift(
            nodes.decay_state[due],
            hidden.decay_mean,
            hidden.decay_spread,
            hidden.decay_time,
            elapsed,
            draws.normal(seeds, Stream.DECAY, index),
        )
        index = count * self.classes + np.arange(self.classes)[None, :]
        self._workload_state[due] = drift(
            self._workload_state[due],
            0.0,
            hidden.workload_spread,
            hidden.workload_time,
            elapsed,
            draws.normal(seeds, Stream.WORKLOAD_USE, index),
        )
        self._workload_level[due] = np.exp(self._workload_state[due])

    # -- copies and metrics

    def clone(self) -> Simulator:
        """An independent copy of this very moment, future arrivals included: what the oracle rolls forward."""
        return copy.deepcopy(self)

    def metrics(self) -> dict[str, FloatArray]:
        """Metrics of the measured pods and time so far, each float64 ``[clusters]``.

        The rates are over pods whose SLA is decided (`sla_violation_rate`) or that arrived (`completion_rate`).
        """
        accounts = self._accounts
        time = np.maximum(accounts.time, 1e-9)
        resolved = np.maximum(accounts.resolved, 1)
        measured = np.maximum(accounts.measured, 1)
        violation_rate = accounts.violations / resolved
        lateness = accounts.lateness / resolved
        return {
            "sla_violation_rate": violation_rate,
            "lateness": lateness,
            "reward": 1.0 - 2.0 * violation_rate - lateness,
            "completion_rate": accounts.measured_finished / measured,
            "failure_rate": accounts.measured_failed / measured,
            "cpu_used": accounts.used / time,
            "cpu_allocated": accounts.allocated / time,
            "memory_used": accounts.memory_used / time,
            "memory_allocated": accounts.memory_allocated / time,
            "load_variance": accounts.imbalance / time,
            "retries": accounts.retries.astype(np.float64),
            "unresolved": (accounts.measured - accounts.resolved).astype(np.float64),
        }

    @property
    def pod_number(self) -> NDArray[np.int64]:
        """Arrival number of the pod to be placed now, ``[clusters]``."""
        return self._pods.number[self._rows, self._current]

    def snapshot(self, cluster: int = 0) -> Snapshot:
        """One cluster as its operator would list it."""
        pods, seen = self._pods, self._seen
        running = np.flatnonzero(pods.occupied[cluster] & (pods.node[cluster] != NOWHERE))
        return Snapshot(
            pod=pods.number[cluster, running],
            node=pods.node[cluster, running],
            cpu=pods.cpu[cluster, running],
            memory=pods.memory[cluster, running],
            bound_at=pods.bound_at[cluster, running],
            measured_at=float(seen.taken_at[cluster]),
            cpu_used=seen.cpu_used[cluster].copy(),
            memory_used=seen.memory_used[cluster].copy(),
            pressure=None if seen.estimated[cluster] else seen.pressure[cluster].copy(),
        )

    def counts(self) -> dict[str, NDArray[np.int64]]:
        """Pods by what became of them, int64 ``[clusters]``: arrived = running + pending + finished + failed."""
        pods = self._pods
        running = (pods.node != NOWHERE) & pods.occupied
        return {
            "arrived": self._accounts.arrived.copy(),
            "running": running.sum(axis=1),
            "pending": (pods.occupied & ~running).sum(axis=1),
            "finished": self._accounts.finished.copy(),
            "failed": self._accounts.failed.copy(),
        }
