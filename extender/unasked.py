"""Pods that kube-scheduler placed without asking, because one node was left: recorded as the watch shows them.

kube-scheduler asks no priorities for one node, and no filter where its configuration has no `filterVerb`. What the
watch shows cannot tell such a pod from one that was placed while kube-scheduler could not reach the service. Refuses to
rate anything.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from extender.cluster.listeners import PodListener
from extender.engine import WATCH, Engine
from extender.history.ledger import Decision
from extender.pods import Pod

FOLLOWER: Final = 32
"""Pods placed in a row without a single question, after which this replica takes its kube-scheduler not to lead, and
records no more until it is asked again."""

FINAL_FAILURES: Final = frozenset({"unschedulable", "scheduler_error", "bind"})
"""Failures after which kube-scheduler begins anew. An assumption that expired is none: the bind may just be slow."""


class Unasked(PodListener):
    """Records those pods; to be told before the ledger."""

    def __init__(self, engine: Engine, decided: Callable[[Decision], None]) -> None:
        self._engine = engine
        self._decided = decided
        self._questions = 0
        self._in_a_row = 0

    def pod_placed(self, pod: Pod, node: str) -> None:
        """Record the pod if nobody asked about this attempt to place it."""
        if _expected(self._engine.ledger.get(pod.metadata.uid)):
            return
        if self._engine.questions != self._questions:
            self._questions, self._in_a_row = self._engine.questions, 0
        self._in_a_row += 1
        if self._in_a_row <= FOLLOWER:
            self._decided(self._engine.note_only_feasible(pod, node, WATCH))


def _expected(decision: Decision | None) -> bool:
    """Return whether the latest decision about a pod is of the attempt that placed it."""
    if decision is None:
        return False
    return decision.outcome is None or decision.outcome.failure not in FINAL_FAILURES
