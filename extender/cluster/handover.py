"""Changes on their way from watching threads to the event loop that owns the table. Knows nothing of what they change.

Threads decode; the loop applies, at most `BATCH` changes between two of its turns, so that requests never wait long. A
thread that is too fast waits, so a list of any size needs the memory of a few batches. While the loop is busy changes
gather, and one wake-up serves them all.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable
from typing import Final

import structlog

from extender.cluster.source import BATCH
from extender.supervision import Failures
from policy.errors import SchedulerError

CAPACITY: Final = 4 * BATCH
TASK: Final = "table"
"""What the application of changes is called where failures of background work are counted."""

log = structlog.stdlib.get_logger(__name__)


class Handover:
    """A bounded queue of changes, first in, first out.

    Args:
        failures: records what nobody expected of a change; the others go on.

    Attributes:
        refused: changes that raised an error when applied, so far.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, failures: Failures) -> None:
        self._loop = loop
        self._failures = failures
        failures.expect(TASK)
        self._waiting: deque[Callable[[], object]] = deque()
        self._room = threading.Condition()
        self._awake = False
        self._closed = False
        self.refused = 0

    def put(self, change: Callable[[], object]) -> bool:
        """Let the loop call `change`; from any thread but the loop's. Waits for room. Returns False once closed."""
        with self._room:
            while len(self._waiting) >= CAPACITY and not self._closed:
                self._room.wait()
            if self._closed:
                return False
            self._waiting.append(change)
            if not self._awake:
                self._awake = True
                self._loop.call_soon_threadsafe(self._apply)
            return True

    def close(self) -> None:
        """Forget what waits and let every thread that waits go on; nothing is applied from now on."""
        with self._room:
            self._closed = True
            self._waiting.clear()
            self._room.notify_all()

    def _apply(self) -> None:
        with self._room:
            batch = [self._waiting.popleft() for _ in range(min(BATCH, len(self._waiting)))]
            self._room.notify_all()
        try:
            for change in batch:
                try:
                    change()
                except SchedulerError as error:
                    self.refused += 1
                    log.warning("a change of the cluster was refused", error=str(error))
                except Exception as error:
                    self.refused += 1
                    self._failures.record(TASK, error)
        finally:
            with self._room:
                self._awake = bool(self._waiting)
                if self._awake:
                    self._loop.call_soon(self._apply)
