"""CPU time of pods, as their kubelets showed it last. Refuses to know where it comes from and what follows from it.

A kubelet stops showing a pod as soon as it has ended, which the watch may show a little later or sooner. So what is
gone from a node's latest answers is kept for `KEPT_ANSWERS` more, and at most `MOST_GONE` pods of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NamedTuple

from extender.cluster.stats import CpuTime

KEPT_ANSWERS: Final = 4
"""Answers of a node for which a pod that is gone from them is kept: a minute at the default interval."""
LEAST_APART_S: Final = 5.0
"""Least seconds between two readings of which a rate is made: kubelets stamp them with whole seconds."""
MOST_GONE: Final = 256
"""Pods kept per node that are gone; those gone first are dropped first."""


class _Node(NamedTuple):
    """Of one node: pods of the latest answer, and those gone, each with how many more answers it is kept for."""

    shown: Mapping[str, CpuTime]
    gone: Mapping[str, tuple[CpuTime, int]]


class CpuTimes:
    """CPU time by node and pod. Written by one thread; read by any.

    Its memory is bounded by the nodes and by what one answer may hold (`extender.cluster.stats.MOST_PODS`).
    """

    def __init__(self) -> None:
        self._nodes: dict[str, _Node] = {}

    def __len__(self) -> int:
        """How many pods it holds."""
        return sum(len(node.shown) + len(node.gone) for node in list(self._nodes.values()))

    def of(self, node: str, uid: str) -> CpuTime | None:
        """Return the CPU time of a pod on a node; None if it is not known, or no longer."""
        known = self._nodes.get(node)
        if known is None:
            return None
        shown = known.shown.get(uid)
        if shown is not None:
            return shown
        gone = known.gone.get(uid)
        return None if gone is None else gone[0]

    def record(self, node: str, shown: Mapping[str, CpuTime]) -> None:
        """A node's kubelet shows these pods and no others."""
        known = self._nodes.get(node)
        gone: dict[str, tuple[CpuTime, int]] = {}
        if known is not None:
            gone = {uid: (time, left - 1) for uid, (time, left) in known.gone.items() if left > 1 and uid not in shown}
            gone.update((uid, (time, KEPT_ANSWERS)) for uid, time in known.shown.items() if uid not in shown)
            for uid in list(gone)[: max(0, len(gone) - MOST_GONE)]:
                del gone[uid]
            shown = {uid: _with_rate(time, known.shown.get(uid)) for uid, time in shown.items()}
        self._nodes[node] = _Node(shown, gone)

    def forget(self, node: str) -> None:
        """The node is gone."""
        self._nodes.pop(node, None)


def _with_rate(time: CpuTime, before: CpuTime | None) -> CpuTime:
    """A reading with the pod's rate since the one before; the former rate if they are too close to tell."""
    if before is None or time.seconds < before.seconds:
        return time
    apart = time.at - before.at
    rate = before.rate if apart < LEAST_APART_S else (time.seconds - before.seconds) / apart
    return CpuTime(time.seconds, time.at, rate)
