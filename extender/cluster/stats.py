"""A kubelet's answer to /stats/summary: use and pressure of its node, and the CPU time of its pods. Pure.

Source of the fields: k8s.io/kubelet/pkg/apis/stats/v1alpha1/types.go. Everything else in the answer, most of its bytes,
is skipped unread. A pod that does not decode costs itself alone, and so do pressure and what all pods use together.

Pressure (PSI) is in the answer since Kubernetes 1.34 (feature gate KubeletPSI). A kubelet whose kernel does not collect
it either leaves it out or sends zeros (pkg/kubelet/stats/helper.go passes on what cAdvisor could not read). A kernel
that collects it has counted some waiting since it booted: a total of 0 therefore means "not measured".
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, NamedTuple

import msgspec

from extender.cluster.status import seconds
from extender.errors import UNDECODABLE, SourceError, kind_of
from extender.pods import GIB
from extender.quantities import NANO

WINDOW: Final = 15.0
"""Seconds that the use may cover, and is taken to cover: the longest time between two samples of cAdvisor
(maxHousekeepingInterval in pkg/kubelet/cadvisor/cadvisor_linux.go)."""

MOST_PODS: Final = 2048
"""Pods of one node whose CPU time is kept; no kubelet runs as many."""


class SummaryError(SourceError):
    """An answer that cannot be used.

    Attributes:
        reason: why, in one word: "undecodable", "incomplete", "time" or "value".
    """

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class CpuTime(msgspec.Struct, frozen=True, gc=False):
    """CPU time that a pod has used since it began: its containers, restarted ones included, and its overhead.

    There is one per pod, made anew with each answer: half as large and made faster than a named tuple, and nothing for
    Python's cycle collector to look at.
    """

    seconds: float  # of one core
    at: float  # when it was read, seconds since the epoch
    rate: float | None = None  # cores that the pod used between the reading before and this one; None: not known


class Amounts(NamedTuple):
    """CPU and memory."""

    cpu: float = 0.0  # cores
    memory: float = 0.0  # GiB


@dataclass(frozen=True, slots=True)
class NodePressure:
    """Share of the last ten seconds in which some task of the node waited, 0..1; None where it is not measured."""

    cpu: float | None  # waited for a CPU
    memory: float | None  # waited for memory: reclaim, refaults, swap
    io: float | None  # waited for a disk
    at: float  # end of these ten seconds, seconds since the epoch

    @property
    def measured(self) -> bool:
        """Whether the node's kernel collects pressure at all."""
        return any(share is not None for share in (self.cpu, self.memory, self.io))


@dataclass(frozen=True, slots=True)
class Summary:
    """What is read of one answer."""

    node: str  # name of the node, as its kubelet knows it
    cpu: float  # use, cores
    memory: float  # working set, GiB
    at: float  # when the use was sampled, seconds since the epoch; the CPU's is a mean over the `WINDOW` before
    pressure: NodePressure
    pods: Amounts | None = None  # what all its pods use together; None where the kubelet does not say
    cpu_times: Mapping[str, CpuTime] = field(default_factory=dict)  # of pods, by UID
    ignored: int = 0  # pods without a usable UID, CPU time or time

    def claimed(self, reserved: Amounts) -> Amounts:
        """What is used of the node's allocatable: by its pods, and by its system beyond what is reserved for that.

        Without a word on pods, all that the node uses.

        Args:
            reserved: capacity less allocatable.
        """
        if self.pods is None:
            return Amounts(self.cpu, self.memory)
        return Amounts(
            max(min(self.pods.cpu, self.cpu), self.cpu - reserved.cpu),
            max(min(self.pods.memory, self.memory), self.memory - reserved.memory),
        )


class _Share(msgspec.Struct):
    total: float = 0.0
    avg10: float = 0.0


class _Psi(msgspec.Struct):
    some: _Share | None = None


class _Cpu(msgspec.Struct):
    time: str | None = None
    cores: float | None = msgspec.field(default=None, name="usageNanoCores")
    psi: msgspec.Raw = msgspec.Raw()


class _Memory(msgspec.Struct):
    working_set: float | None = msgspec.field(default=None, name="workingSetBytes")
    psi: msgspec.Raw = msgspec.Raw()


class _Io(msgspec.Struct):
    psi: msgspec.Raw = msgspec.Raw()


class _System(msgspec.Struct):
    name: str = ""
    cpu: _Cpu | None = None
    memory: _Memory | None = None


class _Node(msgspec.Struct):
    name: str = msgspec.field(default="", name="nodeName")
    cpu: _Cpu | None = None
    memory: _Memory | None = None
    io: msgspec.Raw = msgspec.Raw()
    systems: msgspec.Raw = msgspec.field(default=msgspec.Raw(), name="systemContainers")


class _PodReference(msgspec.Struct):
    uid: str = ""


class _PodCpu(msgspec.Struct):
    time: str | None = None
    total: float | None = msgspec.field(default=None, name="usageCoreNanoSeconds")


class _Pod(msgspec.Struct):
    reference: _PodReference | None = msgspec.field(default=None, name="podRef")
    cpu: _PodCpu | None = None


class _Answer(msgspec.Struct):
    node: _Node
    pods: list[_Pod] | None = None


class _Pieces(msgspec.Struct):
    node: _Node
    pods: msgspec.Raw = msgspec.Raw()


_WHOLE: Final = msgspec.json.Decoder(_Answer)
_PIECES: Final = msgspec.json.Decoder(_Pieces)
_PODS: Final = msgspec.json.Decoder(list[msgspec.Raw])
_POD: Final = msgspec.json.Decoder(_Pod)
_IO: Final = msgspec.json.Decoder(_Io)
_PSI: Final = msgspec.json.Decoder(_Psi)
_SYSTEMS: Final = msgspec.json.Decoder(list[_System] | None)


def decode_summary(body: bytes) -> Summary:
    """Read an answer. Raises `SummaryError` if it does not decode, or does not say what the node uses and when."""
    try:
        answer = _WHOLE.decode(body)
        node, pods, ignored = answer.node, answer.pods or [], 0
    except UNDECODABLE:
        node, pods, ignored = _by_pieces(body)
    cpu, memory = node.cpu, node.memory
    if cpu is None or memory is None or cpu.cores is None or memory.working_set is None or not node.name:
        raise SummaryError("incomplete", "the node's name, CPU or memory use is missing")
    at = seconds(cpu.time)
    if at is None:
        raise SummaryError("time", "node.cpu.time is missing, or is no time")
    if cpu.cores < 0.0 or memory.working_set < 0.0:
        raise SummaryError("value", "the node's use is negative")
    times: dict[str, CpuTime] = {}
    read_times: dict[str | None, float | None] = {}  # most pods share a few
    for pod in pods:
        read = _cpu_time(pod, read_times)
        if read is None or len(times) >= MOST_PODS:
            ignored += 1
        else:
            times[read[0]] = read[1]
    return Summary(
        node=node.name,
        cpu=cpu.cores / NANO,
        memory=memory.working_set / GIB,
        at=at,
        pods=_of_pods(node.systems),
        pressure=NodePressure(cpu=_share(cpu.psi), memory=_share(memory.psi), io=_share_of_io(node.io), at=at),
        cpu_times=times,
        ignored=ignored,
    )


def _by_pieces(body: bytes) -> tuple[_Node, list[_Pod], int]:
    """The node, the pods that decode, and how many do not."""
    try:
        answer = _PIECES.decode(body)
    except UNDECODABLE as error:
        raise SummaryError("undecodable", f"it does not decode: {kind_of(error)}") from error
    pods: list[_Pod] = []
    try:
        listed = _PODS.decode(answer.pods)
    except UNDECODABLE:
        return answer.node, pods, 1
    ignored = 0
    for raw in listed:
        try:
            pods.append(_POD.decode(raw))
        except UNDECODABLE:
            ignored += 1
    return answer.node, pods, ignored


def _of_pods(systems: msgspec.Raw) -> Amounts | None:
    """What all pods use together: the cgroup above them, which the kubelet calls a system container named "pods"."""
    try:
        found = _SYSTEMS.decode(systems) or ()
    except UNDECODABLE:
        return None
    for each in found:
        cpu, memory = each.cpu, each.memory
        if each.name == "pods" and cpu is not None and memory is not None:
            cores, size = cpu.cores or 0.0, memory.working_set or 0.0
            # no node without a pod at work has anything to tell apart, and no number is negative
            return Amounts(cores / NANO, size / GIB) if cores > 0.0 and size > 0.0 else None
    return None


def _cpu_time(pod: _Pod, read_times: dict[str | None, float | None]) -> tuple[str, CpuTime] | None:
    """UID and CPU time of a pod; None where one of them, or its time, is missing or makes no sense."""
    if pod.reference is None or not pod.reference.uid or pod.cpu is None or pod.cpu.total is None:
        return None
    text = pod.cpu.time
    at = read_times[text] if text in read_times else read_times.setdefault(text, seconds(text))
    if at is None or pod.cpu.total < 0.0:
        return None
    return pod.reference.uid, CpuTime(pod.cpu.total / NANO, at)


def _share_of_io(io: msgspec.Raw) -> float | None:
    """`_share` of the disks."""
    try:
        return _share(_IO.decode(io).psi)
    except UNDECODABLE:
        return None


def _share(psi: msgspec.Raw) -> float | None:
    """Share of time in which some task waited, 0..1; None where it is not measured, or is no percentage."""
    try:
        some = _PSI.decode(psi).some
    except UNDECODABLE:
        return None
    if some is None or some.total <= 0.0 or not 0.0 <= some.avg10 <= 100.0:
        return None
    return some.avg10 / 100.0
