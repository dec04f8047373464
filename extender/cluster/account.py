"""What one node holds: the sums of its pods' requests, exactly, and the latest measurement of its use.

Sums of requests are kept as integers (billionths of a core, bytes), so that any history of pods coming and going ends
exactly where a fresh list would. Use is what was measured, plus the expected use of the pods bound since. Of CPU, what
pods used that have ended since is taken off again, and a pod bound while it was measured counts with the share of that
time in which it was not there yet. Memory knows neither: to expect too little of it kills pods.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Final

from extender.pods import GIB
from extender.quantities import NANO
from policy.arithmetic import FLOATS
from policy.cluster import NONZERO_CPU, NONZERO_MEMORY, UNMEASURED_MEMORY_RATIO
from policy.criteria import EXPECTED_USE_RATIO
from policy.errors import InvalidInputError
from policy.shortage import use_ratio

_SOME_CPU, _SOME_MEMORY = round(NONZERO_CPU * NANO), round(NONZERO_MEMORY * GIB)


@dataclass(frozen=True, slots=True)
class SpeedBasis:
    """What a node's speed rests on."""

    source: str = "default"  # one of `extender.cluster.machines.SOURCES`
    # low, high: bounds of its 95 % interval; None where an operator gave the speed
    low: float | None = None
    high: float | None = None
    completions: int = 0  # pods that show it
    templates: int = 0  # of how many templates they are
    # whether a label, a probe or a table of instance types gives the scale; else 1 is the geometric mean of the nodes
    # that common templates connect
    anchored: bool = False
    # share of the speed that its pods get lately; speed and interval are less what is missing
    share_left: float = 1.0
    # share of its allocatable CPU that throttling leaves: at this use it counts as full
    full_at: float = 1.0


UNTOLD: Final = SpeedBasis()
"""Of nodes whose source says nothing of it."""


@dataclass(slots=True)
class HeldPod:
    """What one pod holds on one node."""

    node: str
    cpu: int  # request, billionths of a core
    memory: int  # request, bytes
    cpu_nonzero: int  # what scores count, billionths of a core; see `policy.cluster.ClusterState`
    memory_nonzero: int  # the same for memory, bytes
    since: float  # when it was bound, seconds since the epoch
    assumed: bool
    unmeasured: bool = True  # whether its use is only expected, because no measurement covers it wholly yet
    unseen_cpu: int = 0  # the part of `expected_cpu` that the measurement does not hold, billionths of a core

    @classmethod
    def of(
        cls,
        node: str,
        cpu: float,
        memory: float,
        cpu_nonzero: float | None,
        memory_nonzero: float | None,
        since: float,
        assumed: bool,
    ) -> HeldPod:
        """A pod of these requests, cores and GiB; a non-zero request of None is the request.

        Raises:
            InvalidInputError: a request is not finite, or negative.
        """
        nano, size = nano_cores(cpu), whole_bytes(memory)
        return cls(
            node=node,
            cpu=nano,
            memory=size,
            cpu_nonzero=nano if cpu_nonzero is None else nano_cores(cpu_nonzero),
            memory_nonzero=size if memory_nonzero is None else whole_bytes(memory_nonzero),
            since=since,
            assumed=assumed,
        )

    def same(self, other: HeldPod) -> bool:
        """Whether both hold the same, on the same node since the same moment."""
        mine = self.node, self.since, self.assumed, self.cpu, self.memory, self.cpu_nonzero, self.memory_nonzero
        return mine == (
            *(other.node, other.since, other.assumed),
            *(other.cpu, other.memory, other.cpu_nonzero, other.memory_nonzero),
        )

    @property
    def expected_cpu(self) -> int:
        """What its expected use is a share of, billionths of a core: a pod that requests zero uses some, too."""
        return self.cpu_nonzero or _SOME_CPU

    @property
    def expected_memory(self) -> int:
        """The same for memory, bytes."""
        return self.memory_nonzero or _SOME_MEMORY


@dataclass(slots=True)
class NodeAccount:
    """Truth behind one row of the table."""

    row: int
    ready: bool  # whether the node takes pods
    basis: SpeedBasis = UNTOLD  # what its speed rests on
    pods: dict[str, HeldPod] = field(default_factory=dict)  # those on it, by UID
    # requested_cpu, requested_memory: sums over all pods, billionths of a core and bytes
    requested_cpu: int = 0
    requested_memory: int = 0
    # nonzero_cpu, nonzero_memory: sums of what scores count over all pods, billionths of a core and bytes
    nonzero_cpu: int = 0
    nonzero_memory: int = 0
    # unmeasured_cpu, unmeasured_memory: sums of what expected use is a share of, over the unmeasured ones; of CPU, of
    # their parts that the measurement does not hold
    unmeasured_cpu: int = 0
    unmeasured_memory: int = 0
    held_cpu: int = 0  # the other parts: of the pods that are here, what the measurement holds
    covered_cpu: int = 0  # the most that `held_cpu` has been since the measurement
    # measured_cpu, measured_memory: the latest measurement, cores and GiB
    measured_cpu: float = 0.0
    measured_memory: float = 0.0
    measured_requests: int = 0  # requests of the pods that the measurement covers, bytes
    # share of time that tasks waited for a CPU, 0..1; None where it is not measured
    measured_pressure: float | None = None
    measured_at: float = -math.inf  # start of the interval that was measured; minus infinity without a measurement
    measured_until: float = -math.inf  # its end
    measured_ahead: bool = False  # whether the clock that stamped it was ahead of ours
    measured_by: str | None = None  # what measured; None: it does not say, or there is no measurement

    def add(self, uid: str, pod: HeldPod) -> None:
        """Count one pod."""
        self.pods[uid] = pod
        self.requested_cpu += pod.cpu
        self.requested_memory += pod.memory
        self.nonzero_cpu += pod.cpu_nonzero
        self.nonzero_memory += pod.memory_nonzero
        self._expect(pod)
        self.covered_cpu = max(self.covered_cpu, self.held_cpu)

    def _expect(self, pod: HeldPod) -> None:
        """Tell what the measurement holds of a pod from what it does not, and count that."""
        pod.unmeasured, pod.unseen_cpu = pod.since > self.measured_at, 0
        if pod.unmeasured:
            pod.unseen_cpu = pod.expected_cpu
            if pod.since < self.measured_until:
                share = (pod.since - self.measured_at) / (self.measured_until - self.measured_at)
                pod.unseen_cpu = round(share * pod.expected_cpu)
            self.unmeasured_cpu += pod.unseen_cpu
            self.unmeasured_memory += pod.expected_memory
        self.held_cpu += pod.expected_cpu - pod.unseen_cpu

    def remove(self, uid: str) -> None:
        """Undo `add`. Memory already measured stays until the next measurement shows the pod gone."""
        pod = self.pods.pop(uid)
        self.requested_cpu -= pod.cpu
        self.requested_memory -= pod.memory
        self.nonzero_cpu -= pod.cpu_nonzero
        self.nonzero_memory -= pod.memory_nonzero
        self.held_cpu -= pod.expected_cpu - pod.unseen_cpu
        if pod.unmeasured:
            self.unmeasured_cpu -= pod.unseen_cpu
            self.unmeasured_memory -= pod.expected_memory

    def measure(
        self,
        cpu: float,
        memory: float,
        pressure: float | None,
        measured_at: float,
        *,
        until: float | None = None,
        now: float = math.inf,
        ahead: bool = False,
        by: str | None = None,
    ) -> None:
        """Take a measurement; pods bound after `measured_at` count with what is expected of them besides from now on.

        Args:
            cpu: use, cores.
            memory: use, GiB.
            pressure: share of time that tasks waited for a CPU, 0..1; None where it is not measured.
            measured_at: start of the interval that was measured, seconds since the epoch.
            until: its end; None: it was no longer than a moment, or is not known.
            now: no pod was bound later; one that says so was stamped by a clock that was ahead, or ours was set back.
            ahead: whether the clock that stamped the measurement is ahead of ours.
            by: what measured; None: it does not say.
        """
        self.measured_by = by
        self.measured_cpu, self.measured_memory = cpu, memory
        self.measured_pressure, self.measured_at, self.measured_ahead = pressure, measured_at, ahead
        self.measured_until = measured_at if until is None else until
        self.unmeasured_cpu = self.unmeasured_memory = self.held_cpu = 0
        for pod in self.pods.values():
            pod.since = min(pod.since, now)
            self._expect(pod)
        self.covered_cpu = self.held_cpu
        self.measured_requests = sum(pod.expected_memory for pod in self.pods.values() if not pod.unmeasured)

    @property
    def cpu_used(self) -> float:
        """Measured and expected CPU use, cores; of a throttled node, over the share at which it is full.

        Pods that ended since take with them their part of what was measured, by requests, but no more than was expected
        of them: one that requested much and used little leaves no busy node looking idle.
        """
        used = self.measured_cpu + EXPECTED_USE_RATIO * self.unmeasured_cpu / NANO
        ended = self.covered_cpu - self.held_cpu
        if ended > 0:
            used -= min(self.measured_cpu * ended / self.covered_cpu, EXPECTED_USE_RATIO * ended / NANO)
        return used / self.basis.full_at

    @property
    def memory_used(self) -> float:
        """Measured and expected memory use, GiB."""
        return self.measured_memory + EXPECTED_USE_RATIO * self.unmeasured_memory / GIB

    def memory_ratio(self, allocatable: float) -> float:
        """Memory that the node's pods were measured to use over what they request; see `policy.shortage.use_ratio`.

        Args:
            allocatable: memory of the node, GiB.
        """
        if self.measured_at == -math.inf:
            return UNMEASURED_MEMORY_RATIO
        return use_ratio(self.measured_memory, self.measured_requests / GIB, allocatable, FLOATS)


def nano_cores(cpu: float) -> int:
    """Cores to billionths of a core; raises `InvalidInputError` unless finite and >= 0."""
    if not (math.isfinite(cpu) and cpu >= 0.0):
        raise InvalidInputError(f"cpu of a pod is {cpu}; give a finite number >= 0")
    return round(cpu * NANO)


def whole_bytes(memory: float) -> int:
    """GiB to bytes; raises `InvalidInputError` unless finite and >= 0."""
    if not (math.isfinite(memory) and memory >= 0.0):
        raise InvalidInputError(f"memory of a pod is {memory}; give finite GiB >= 0")
    return round(memory * GIB)
