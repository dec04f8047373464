"""What arrives: the table of every pod of an episode, drawn at reset and never changed by what a scheduler does."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from policy.cluster import NONZERO_CPU, NONZERO_MEMORY
from training.simulator import draws
from training.simulator.draws import FloatArray, Seeds, Stream
from training.simulator.scenarios import Arrivals, Scenario
from training.simulator.traces import GRAIN, Trace, load_trace

MAX_USE_RATIO: Final = 2.0
"""Use over request is cut here. Assumption: a pod that bursts further is limited by its own cgroup."""


@dataclass(frozen=True, slots=True)
class ArrivalTable:
    """Pods in order of arrival; every column is ``[clusters, pods]``."""

    time: FloatArray  # seconds from the start of the episode, rising
    kind: NDArray[np.int64]  # row of the scenario's pod class
    cpu: FloatArray  # CPU request, cores; 0 where the pod requests none
    memory: FloatArray  # memory request, GiB; 0 where the pod requests none
    work: FloatArray  # time to completion on an idle reference core, seconds; of one unit for a service
    slack: FloatArray  # allowed slowdown; 0 is best effort
    cpu_use: FloatArray  # CPU it uses, cores, before the workload's own drift
    memory_use: FloatArray  # memory it uses, GiB
    units: NDArray[np.int64]  # units of work until it ends; 1 for a batch pod


@dataclass(frozen=True, slots=True)
class Workload:
    """What a scenario's arrivals are drawn from."""

    scenario: Scenario  # pod classes and arrival process
    trace: Trace | None  # the pods of a trace, or None where the scenario draws its own
    mean_work: float  # mean CPU work of a pod, core-seconds on the reference core; load is rate x this over capacity
    log_work: tuple[tuple[float, float], ...]  # mean and standard deviation of the logarithm of work, for each class


def load_workload(scenario: Scenario) -> Workload:
    """Reads the scenario's trace, if it has one.

    Raises:
        InvalidInputError: the trace cannot be read, or holds no pod that the scenario's nodes could take.
    """
    if scenario.arrivals.process == "trace":
        trace = load_trace(scenario)
        return Workload(scenario, trace, _trace_mean_work(scenario, trace), _trace_log_work(scenario, trace))
    drawn = tuple((float(np.log(pod.duration)), pod.duration_sigma) for pod in scenario.pod_classes)
    return Workload(scenario, None, _drawn_mean_work(scenario), drawn)


def nonzero(requests: FloatArray, missing: float) -> FloatArray:
    """Non-zero requests: `missing` for a pod that requests none; the same array where every pod requests some.

    Pods have one container here, so `missing` counts once; see `policy.cluster.NONZERO_CPU`.
    """
    return requests if requests.all() else np.where(requests > 0.0, requests, missing)


def _use_bias(scenario: Scenario) -> float:
    """Mean over median of the log-normal use ratio."""
    return float(np.exp(scenario.hidden.cpu_use_sigma**2 / 2))


def _drawn_mean_work(scenario: Scenario) -> float:
    """The product of independent means, in closed form."""
    total = sum(pod.weight for pod in scenario.pod_classes)
    work = 0.0
    for pod in scenario.pod_classes:
        duration = pod.duration * float(np.exp(pod.duration_sigma**2 / 2)) * pod.lifetime
        work += pod.weight / total * _log_uniform_mean(*pod.cpu) * pod.cpu_use * duration
    return work * _use_bias(scenario)


def _trace_mean_work(scenario: Scenario, trace: Trace) -> float:
    use = np.array([pod.cpu_use for pod in scenario.pod_classes])[trace.kind]
    return float((nonzero(trace.cpu, NONZERO_CPU) * use * trace.duration).mean()) * _use_bias(scenario)


def _trace_log_work(scenario: Scenario, trace: Trace) -> tuple[tuple[float, float], ...]:
    """As `Workload.log_work`, by class; a class without pods gets 0 and 0."""
    logs = np.log(trace.duration)
    members = [logs[trace.kind == kind] for kind in range(len(scenario.pod_classes))]
    return tuple((float(each.mean()), float(each.std())) if len(each) else (0.0, 0.0) for each in members)


def draw_arrivals(workload: Workload, seeds: Seeds, rate: FloatArray, count: int) -> ArrivalTable:
    """The first `count` pods of each cluster.

    Args:
        workload: what they are drawn from.
        seeds: ``[clusters]``.
        rate: mean arrivals a second, ``[clusters]``.
        count: pods of each cluster.
    """
    scenario, classes = workload.scenario, workload.scenario.pod_classes
    index = np.arange(count)[None, :]
    column = seeds[:, None]
    replicas = scenario.arrivals.replicas
    group = index // replicas
    if workload.trace is None:
        kind, cpu, memory, work, units = _drawn(scenario, column, index, group)
        time = arrival_times(scenario.arrivals, seeds, rate / replicas, -(-count // replicas))
        time = time if replicas == 1 else np.repeat(time, replicas, axis=1)[:, :count]
    else:
        trace = workload.trace
        first = np.floor(draws.uniform(seeds, Stream.TRACE_OFFSET, 0) * len(trace)).astype(np.int64)
        row = (first[:, None] + index) % len(trace)
        kind, cpu, memory, work = trace.kind[row], trace.cpu[row], trace.memory[row], trace.duration[row]
        units = np.ones(row.shape, dtype=np.int64)
        time = np.cumsum(trace.gap[row], axis=1) / rate[:, None]
    low = np.array([pod.slack[0] for pod in classes])[kind]
    high = np.array([pod.slack[1] for pod in classes])[kind]
    cpu_ratio = np.array([pod.cpu_use for pod in classes])[kind] * np.exp(
        scenario.hidden.cpu_use_sigma * draws.normal(column, Stream.POD_CPU_USE, index)
    )
    memory_use = np.array([pod.memory_use for pod in classes])[kind]
    if scenario.hidden.memory_use is not None:
        least, most = scenario.hidden.memory_use
        memory_use[:] = least + (most - least) * draws.uniform(column, Stream.MEMORY_USE, 0)
    memory_ratio = memory_use * np.exp(
        scenario.hidden.memory_use_sigma * draws.normal(column, Stream.POD_MEMORY_USE, index)
    )
    cpu_use = nonzero(cpu, NONZERO_CPU) * np.minimum(cpu_ratio, MAX_USE_RATIO)
    memory_use = nonzero(memory, NONZERO_MEMORY) * np.minimum(memory_ratio, MAX_USE_RATIO)
    silent = np.array([pod.unrequested for pod in classes])
    if silent.any():
        silent_pods = draws.uniform(column, Stream.POD_UNREQUESTED, group) < silent[kind]
        cpu, memory = np.where(silent_pods, 0.0, cpu), np.where(silent_pods, 0.0, memory)
    return ArrivalTable(
        time=time,
        kind=kind,
        cpu=cpu,
        memory=memory,
        work=work,
        slack=low + (high - low) * draws.uniform(column, Stream.POD_SLACK, group),
        cpu_use=cpu_use,
        memory_use=memory_use,
        units=units,
    )


def _drawn(
    scenario: Scenario, column: Seeds, index: NDArray[np.int64], group: NDArray[np.int64]
) -> tuple[NDArray[np.int64], FloatArray, FloatArray, FloatArray, NDArray[np.int64]]:
    """Class, CPU, memory, work and units of pods drawn from the scenario's classes, ``[clusters, count]`` each.

    Pods of one `group`, ``[1, count]``, share the first three.
    """
    classes = scenario.pod_classes
    weights = np.cumsum([pod.weight for pod in classes])
    picked = draws.uniform(column, Stream.POD_CLASS, group)
    kind = np.minimum(np.searchsorted(weights / weights[-1], picked, side="right"), len(classes) - 1)

    def of_class(values: list[float]) -> FloatArray:
        drawn: FloatArray = np.array(values, dtype=np.float64)[kind]
        return drawn

    cpu = _log_uniform(
        draws.uniform(column, Stream.POD_CPU, group),
        of_class([pod.cpu[0] for pod in classes]),
        of_class([pod.cpu[1] for pod in classes]),
    )
    memory = _log_uniform(
        draws.uniform(column, Stream.POD_MEMORY, group),
        of_class([pod.memory[0] for pod in classes]),
        of_class([pod.memory[1] for pod in classes]),
    )
    spread = of_class([pod.duration_sigma for pod in classes])
    work = of_class([pod.duration for pod in classes]) * np.exp(
        spread * draws.normal(column, Stream.POD_DURATION, index)
    )
    lifetime = of_class([pod.lifetime for pod in classes])
    units = 1 + np.floor((lifetime - 1.0) * draws.exponential(column, Stream.POD_LIFETIME, index) + 0.5)
    return kind.astype(np.int64), cpu, memory, work, units.astype(np.int64)


def arrival_times(process: Arrivals, seeds: Seeds, rate: FloatArray, count: int) -> FloatArray:
    """Arrival times ``[clusters, count]``, seconds: exponential gaps at the rate of the moment the gap begins.

    That is exact for a constant rate, and close while the rate changes slowly against the gaps. The bursty process is
    the two-state Markov-modulated Poisson process of Fischer and Meier-Hellstern (Performance Evaluation 18, 1993),
    with switches taking effect at arrivals; its mean rate is kept at `rate`.
    """
    index = np.arange(count)[None, :]
    gaps = draws.exponential(seeds[:, None], Stream.ARRIVAL_GAP, index)
    phase = 2.0 * np.pi * draws.uniform(seeds, Stream.ARRIVAL_PHASE, 0)
    bursty = process.process == "bursty"
    share = process.burst_time / (process.burst_time + process.calm_time)
    calm_level = 1.0 / (1.0 - share + share * process.burst_rate) if bursty else 1.0
    switches = draws.uniform(seeds[:, None], Stream.ARRIVAL_BURST, index + 1) if bursty else None
    bursting = draws.uniform(seeds, Stream.ARRIVAL_BURST, 0) < share
    times = np.empty((len(seeds), count))
    now = np.zeros(len(seeds))
    for arrival in range(count):  # at reset only: each gap needs the time of the one before
        level = 1.0 + process.wave * np.sin(2.0 * np.pi * now / process.day + phase)
        if switches is not None:
            level = level * calm_level * np.where(bursting, process.burst_rate, 1.0)
        gap = gaps[:, arrival] / (rate * level)
        now = now + gap
        times[:, arrival] = now
        if switches is not None:
            stay = np.where(bursting, process.burst_time, process.calm_time)
            bursting ^= switches[:, arrival] < -np.expm1(-gap / stay)
    return times


def _log_uniform(unit: FloatArray, low: FloatArray, high: FloatArray) -> FloatArray:
    """Log-uniform between low and high, rounded to `GRAIN`, at least one grain."""
    raw = low * (high / low) ** unit
    return np.maximum(np.rint(raw / GRAIN), 1.0) * GRAIN


def _log_uniform_mean(low: float, high: float) -> float:
    return low if low == high else float((high - low) / np.log(high / low))
