"""Pods that succeeded: how much CPU time each took, and how long it ran. Runs on the thread that watches pods.

A kubelet shows no pod that has ended, so the CPU time known of it is that of an earlier moment: of a reading up to two
intervals before its end. The rest is added at the rate between the last two readings, or at the mean rate where there
is only one. The mean rate is that of another time: a pod that idles at first, or that others slow down at first, works
faster later, and would count as less work than it was, differently on each node. The error that remains is the share of
its life that no reading covers, at most half, times how much the rate changed there. Reading, start and end are stamped
by one clock, the node's. Only differences count, so it may be wrong.

A pod with a restart counts for nothing: its CPU time holds work that was done twice.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Callable
from typing import Final, NamedTuple

from extender.cluster.cpu_times import CpuTimes
from extender.cluster.decoding import WatchedContainer, WatchedPod
from extender.cluster.stats import CpuTime
from extender.cluster.status import ending, seconds
from extender.templates import template_of

COVERED: Final = 0.5
"""Share of a pod's life that the last reading of its CPU time must cover."""

REMEMBERED: Final = 8192
"""Pods last seen to complete; a watch shows each of them several times. A pod shown again later has no reading left."""

RESULTS: Final = ("measured", "restarted", "untimed", "unread", "uncovered")
"""What becomes of a completion: used, or why not."""


class Completion(NamedTuple):
    """One pod that succeeded.

    Attributes:
        node: where it ran.
        template: see `extender.templates`.
        run_s: from the start of its first container to the end of its last one, seconds.
        cpu_s: CPU time, seconds; None where it is not known.
    """

    node: str
    template: str
    run_s: float
    cpu_s: float | None


class CompletedPods:
    """Takes pods that succeeded, each once.

    Args:
        cpu_times: of pods; None where nobody reads them.
        tell: is told of each; on this thread.

    Attributes:
        counts: completions by what became of them, one of `RESULTS`.
    """

    def __init__(self, cpu_times: CpuTimes | None, tell: Callable[[Completion], object]) -> None:
        self._cpu_times = cpu_times
        self._tell = tell
        self._seen: OrderedDict[str, None] = OrderedDict()
        self.counts: Counter[str] = Counter(dict.fromkeys(RESULTS, 0))

    def take(self, pod: WatchedPod) -> None:
        """The watch shows this pod succeeded, perhaps not for the first time."""
        uid, node = pod.metadata.uid, pod.spec.node_name or ""
        if not node or uid in self._seen or ending(pod) != "succeeded":
            return
        self._seen[uid] = None
        if len(self._seen) > REMEMBERED:
            self._seen.popitem(last=False)
        statuses = [*(pod.status.init_container_statuses or ()), *(pod.status.container_statuses or ())]
        if any(status.restart_count for status in statuses):
            self.counts["restarted"] += 1
            return
        life = _life(statuses)
        if life is None:
            self.counts["untimed"] += 1
            return
        start, end = life
        cpu_s: float | None = None
        reading = None if self._cpu_times is None else self._cpu_times.of(node, uid)
        if reading is None:
            self.counts["unread"] += 1
        elif (cpu_s := extended(reading, start, end)) is None:
            self.counts["uncovered"] += 1
        else:
            self.counts["measured"] += 1
        self._tell(Completion(node, template_of(pod), end - start, cpu_s))


def extended(reading: CpuTime, start: float, end: float) -> float | None:
    """CPU time of a pod's whole life, seconds; None where the reading covers too little of it.

    Args:
        reading: the last one.
        start: of its life, seconds, by the clock that stamped the reading.
        end: of its life, the same.
    """
    covered = reading.at - start
    if covered <= 0.0 or covered < COVERED * (end - start):
        return None
    rate = reading.seconds / covered if reading.rate is None else reading.rate
    return reading.seconds + rate * max(0.0, end - reading.at)


def _life(statuses: list[WatchedContainer]) -> tuple[float, float] | None:
    """When the first container began and the last one ended; None where it is not recorded, or was no time at all."""
    ends = [it.state.terminated if it.state is not None else None for it in statuses]
    started = [seconds(it.started_at) if it is not None else None for it in ends]
    finished = [seconds(it.finished_at) if it is not None else None for it in ends]
    begins = [at for at in started if at is not None]
    stops = [at for at in finished if at is not None]
    if not statuses or len(begins) < len(statuses) or len(stops) < len(statuses) or max(stops) <= min(begins):
        return None
    return min(begins), max(stops)
