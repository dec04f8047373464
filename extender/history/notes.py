"""Says on the pod itself why it went where it went: an Event or an annotation, once it is seen bound. Off by default.

Nothing waits for it. What is to be written is bounded, and what finds no room is dropped and counted; it is written one
after the other, no faster than the settings say, because every one is a write of the API server; and where that refuses
or is away, the note is given up and counted. Refuses to change anything else of a pod.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Self

import structlog

from extender.cluster.listeners import PodListener
from extender.cluster.source import NoteTaker, PodNote
from extender.errors import NoteError, SettingsError
from extender.history.counterfactual import Judge
from extender.history.explain import short_reason
from extender.history.ledger import Decision
from extender.settings import Settings
from policy import heuristics

WAITING: Final = 1000
"""Notes that may wait to be written."""

LOG_EVERY_S: Final = 60.0
"""How often a failure is logged; all are counted."""

log = structlog.stdlib.get_logger(__name__)


@dataclass(slots=True)
class Counts:
    """Notes since the start: written, dropped for want of room, and failed (refused, or the API server was away)."""

    written: int = 0
    dropped: int = 0
    failed: int = 0


class Notes(PodListener):
    """Writes notes. A `PodListener` that looks at pods that are bound alone, and is to be told after the ledger.

    Args:
        source: writes a note.
        form: `event` or `annotation`.
        rate: most notes a second.
        decision_of: the decision remembered for a pod.
        judge_of: what made a decision, if it is still in use.
        kubernetes: minor version of Kubernetes whose kube-default is told.
        timer: monotonic seconds.

    Attributes:
        counts: see there.
    """

    def __init__(
        self,
        source: NoteTaker,
        form: str,
        rate: float,
        decision_of: Callable[[str], Decision | None],
        judge_of: Callable[[Decision], Judge | None],
        kubernetes: str = heuristics.NEWEST_KUBERNETES,
        timer: Callable[[], float] = time.monotonic,
    ) -> None:
        self.counts = Counts()
        self._source = source
        self._form = form
        self._interval_s = 1.0 / rate
        self._decision_of = decision_of
        self._judge_of = judge_of
        self._kubernetes = kubernetes
        self._timer = timer
        self._waiting: deque[tuple[Decision, str]] = deque()
        self._filled = asyncio.Event()
        self._logged = float("-inf")

    @classmethod
    def of(
        cls,
        settings: Settings,
        source: object,
        decision_of: Callable[[str], Decision | None],
        judge_of: Callable[[Decision], Judge | None],
    ) -> Self | None:
        """Return what the settings ask for; None if nothing is to be said on pods.

        Raises:
            SettingsError: the source cannot write notes.
        """
        if settings.explain_on_pod == "none":
            return None
        if not isinstance(source, NoteTaker):
            raise SettingsError(f"explain_on_pod is {settings.explain_on_pod}, and this cluster's pods take no notes")
        rate, kubernetes = settings.explain_on_pod_rate, settings.kubernetes_version
        return cls(source, settings.explain_on_pod, rate, decision_of, judge_of, kubernetes)

    def pod_bound(self, uid: str, node: str, at: float) -> None:
        """The watch shows the pod on this node: say why, if we decided about it and this is the first that is seen."""
        decision = self._decision_of(uid)
        if decision is None or decision.outcome is None or decision.outcome.bound_at != at:
            return
        if len(self._waiting) >= WAITING:
            self.counts.dropped += 1
            return
        self._waiting.append((decision, node))
        self._filled.set()

    async def write_next(self) -> None:
        """Write the next note, as soon as there is one, and wait until another may be written."""
        await self._filled.wait()
        decision, node = self._waiting.popleft()
        if not self._waiting:
            self._filled.clear()
        started = self._timer()
        await self._write(decision, node)
        await asyncio.sleep(max(started + self._interval_s - self._timer(), 0.0))

    async def _write(self, decision: Decision, node: str) -> None:
        try:
            # asks the scorer about a few rows: not on the event loop
            text = await asyncio.to_thread(short_reason, decision, node, self._judge_of(decision), self._kubernetes)
            note = PodNote(decision.namespace, decision.name, decision.uid, text, self._form)
            await self._source.note(note)
        except NoteError as error:
            self.counts.failed += 1
            if self._timer() - self._logged >= LOG_EVERY_S:
                self._logged = self._timer()
                log.warning("a pod's note was not written", error=str(error), failed=self.counts.failed)
        except Exception:
            self.counts.failed += 1
            raise
        else:
            self.counts.written += 1
