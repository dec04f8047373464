"""Speeds that `maddpg-extender benchmark` measured on nodes, as its pods report them. Runs on the thread that watches.

The pods belong to one DaemonSet, which the chart makes. A container of theirs writes its result to its termination log,
and the kubelet puts that into the pod's status, which the watch shows: no right to change anything is needed for it.

Anybody's pod may end with such a text, and so forge the speed of its node. So a result counts only from a pod in that
DaemonSet's namespace, owned by it and run with the ServiceAccount of its name. Whoever may create pods in that
namespace can make such a pod; it is the extender's own, so they could as well run an extender. A kubelet can forge the
status of pods on its own node, as it can label its node.
"""

from __future__ import annotations

import time
from collections import Counter, OrderedDict
from collections.abc import Callable
from typing import Final

import msgspec
import structlog

from extender.benchmark import VERSION
from extender.cluster.decoding import Terminated, WatchedPod
from extender.cluster.machines import FASTEST, SLOWEST
from extender.cluster.status import seconds
from extender.errors import UNDECODABLE

NOISIEST: Final = 0.25
"""Largest spread between rounds that is believed."""

REMEMBERED: Final = 20_000
"""Nodes whose latest result is remembered; a watch shows each of them many times."""

RESULTS: Final = ("accepted", "foreign", "undecodable", "version", "value", "noisy")
"""What becomes of a result: used, or why not; `foreign`: its pod names the DaemonSet, but has another account."""

log = structlog.stdlib.get_logger(__name__)


class _Result(msgspec.Struct, frozen=True):
    """What a benchmark prints: `extender.benchmark.Measured.line`."""

    benchmark: int
    speed: float
    spread: float


_RESULT: Final = msgspec.json.Decoder(_Result)


class Benchmarks:
    """Takes pods, and tells of results.

    Args:
        daemonset: namespace and name of the DaemonSet that runs the benchmark, ``namespace/name``.
        tell: is told the node and the speed of each new result; on this thread.
        clock: seconds since the epoch.

    Attributes:
        counts: results by what became of them, one of `RESULTS`.
    """

    def __init__(
        self, daemonset: str, tell: Callable[[str, float], object], clock: Callable[[], float] = time.time
    ) -> None:
        self._namespace, _, self._name = daemonset.partition("/")
        self._tell = tell
        self._clock = clock
        self._seen: OrderedDict[str, tuple[float, str]] = OrderedDict()
        self.counts: Counter[str] = Counter(dict.fromkeys(RESULTS, 0))

    def take(self, pod: WatchedPod) -> None:
        """The watch shows this pod; its latest result counts, once, if it is one of ours."""
        metadata, node = pod.metadata, pod.spec.node_name
        if not node or metadata.namespace != self._namespace:
            return
        owner = metadata.controller
        if (owner.kind, owner.name) != ("DaemonSet", self._name):
            return
        latest, before = _latest(pod), self._seen.get(node)
        if latest is None or latest == before:
            return
        if before is not None and latest < before and before[0] <= self._clock():
            return  # of an older pod; what ended in the future was stamped by a clock that is right by now
        self._seen[node] = latest
        if len(self._seen) > REMEMBERED:
            self._seen.popitem(last=False)
        problem, speed = self._judged(pod, latest[1])
        self.counts[problem or "accepted"] += 1
        if problem is None:
            self._tell(node, speed)
        else:
            log.warning("ignored the result of a benchmark", node=node, pod=metadata.name, reason=problem)

    def _judged(self, pod: WatchedPod, text: str) -> tuple[str | None, float]:
        """What is wrong with a result, one of `RESULTS`, and the speed it gives."""
        if pod.spec.service_account_name != self._name:
            return "foreign", 0.0
        try:
            result = _RESULT.decode(text)
        except UNDECODABLE:
            return "undecodable", 0.0
        if result.benchmark != VERSION:
            return "version", 0.0
        if not SLOWEST <= result.speed <= FASTEST:
            return "value", 0.0
        return (None if 0.0 <= result.spread <= NOISIEST else "noisy"), result.speed


def _latest(pod: WatchedPod) -> tuple[float, str] | None:
    """When the pod last ended well, seconds since the epoch, and what it left; None where it never did.

    Init containers end before the others begin, and a last state before the state: their times do not count here,
    because the clock that stamped them may have jumped.
    """
    status = pod.status
    for container in (*(status.container_statuses or ()), *reversed(status.init_container_statuses or ())):
        for state in (container.state, container.last_state):
            ended: Terminated | None = None if state is None else state.terminated
            if ended is None or ended.exit_code != 0 or not ended.message:
                continue
            at = seconds(ended.finished_at)
            if at is not None:
                return at, ended.message
    return None
