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
from typing import Final

import structlog

from extender.cluster.listeners import PodListener
from extender.cluster.source import NoteTaker, PodNote
from extender.errors import NoteError, SettingsError
from extender.history.counterfactual import Judge
from extender.history.explain import short_reason
from extender.history.ledger import Decision
from extender.settings import Settings

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

    Raises:
        SettingsError: the source cannot write notes.
    """

    def __init__(
        self,
        settings: Settings,
        source: object,
        decision_of: Callable[[str], Decision | None],
        judge_of: Callable[[Decision], Judge | None],
    ) -> None:
        if not isinstance(source, NoteTaker):
            raise SettingsError(f"explain_on_pod is {settings.explain_on_pod}, and this cluster's pods take no notes")
        self.counts = Counts()
        self._settings = settings
        self._source = source
        self._decision_of = decision_of
        self._judge_of = judge_of
        self._waiting: deque[tuple[Decision, str]] = deque()
        self._filled = asyncio.Event()
        self._logged = float("-inf")

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
        started = time.monotonic()
        await self._write(decision, node)
        await asyncio.sleep(max(started + 1.0 / self._settings.explain_on_pod_rate - time.monotonic(), 0.0))

    async def _write(self, decision: Decision, node: str) -> None:
        try:
            # asks the scorer about a few rows: not on the event loop
            version = self._settings.kubernetes_version
            text = await asyncio.to_thread(short_reason, decision, node, self._judge_of(decision), version)
            note = PodNote(decision.namespace, decision.name, decision.uid, text, self._settings.explain_on_pod)
            await self._source.note(note)
        except NoteError as error:
            self.counts.failed += 1
            if time.monotonic() - self._logged >= LOG_EVERY_S:
                self._logged = time.monotonic()
                log.warning("a pod's note was not written", error=str(error), failed=self.counts.failed)
        except Exception:
            self.counts.failed += 1
            raise
        else:
            self.counts.written += 1
