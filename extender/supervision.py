"""Supervision of background work: unexpected failures are counted, logged by kind, and retried with a back-off.

A service has one `Supervisor`, which runs all its background tasks. A thread that cannot be a task records what it did
not expect with the supervisor's `Failures`, and goes on. Neither publishes the text of foreign exceptions: those may
hold headers, tokens or bodies of requests.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import threading
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

from extender import logs
from extender.backoff import Backoff
from extender.errors import kind_of
from extender.logs import places_of
from policy.errors import InvalidInputError

FIRST_RETRY_S: Final = 0.5
LONGEST_RETRY_S: Final = 30.0
STEADY_S: Final = 60.0
"""Work that ran this long before it failed starts again with the shortest back-off."""

STOP_TIMEOUT_S: Final = 10.0
"""Longest that stopping waits for one task or part before it goes on with the next."""

LOG_INTERVAL_S: Final = 60.0
"""How often the same kind of failure of the same task is logged; all are counted."""

EVENT_LOOP: Final = "event_loop"
"""Task that failures of callbacks on the event loop count for."""

T = TypeVar("T")

_log = logs.get(__name__)


class Failures:
    """Counts and logs unexpected failures of background work. Thread safe."""

    def __init__(self, timer: Callable[[], float] = time.monotonic) -> None:
        self._timer = timer
        self._lock = threading.Lock()
        self._counts: Counter[str] = Counter()
        self._logged: dict[str, tuple[str, float]] = {}

    def expect(self, task: str) -> None:
        """Show a task with 0 failures: Prometheus misses the first step of a counter that appears with it."""
        with self._lock:
            self._counts.setdefault(task, 0)

    def record(self, task: str, error: BaseException) -> None:
        """Count a failure of a task, and log its kind and where it was raised."""
        kind, now = kind_of(error), self._timer()
        with self._lock:
            self._counts[task] += 1
            known, at = self._logged.get(task, ("", 0.0))
            if kind == known and now - at < LOG_INTERVAL_S:
                return
            self._logged[task] = kind, now
        _log.error("background task failed; it is tried again", task=task, error=kind, raised_at=places_of(error))

    def counts(self) -> dict[str, int]:
        """Return the failures since the start, by task."""
        with self._lock:
            return dict(self._counts)


@dataclass(eq=False)
class Supervisor:
    """Runs background tasks on the event loop until they are ended."""

    rng: random.Random = field(default_factory=random.Random)  # jitter of the back-off
    first_retry_s: float = FIRST_RETRY_S
    longest_retry_s: float = LONGEST_RETRY_S
    stop_timeout_s: float = STOP_TIMEOUT_S
    # of these tasks, and of threads that record theirs there
    failures: Failures = field(default_factory=Failures, init=False)
    _tasks: dict[str, asyncio.Task[None]] = field(default_factory=dict, init=False)
    _retrying: set[str] = field(default_factory=set, init=False)

    def start(self, task: str, work: Callable[[], Awaitable[object]], pause_s: float = 0.0) -> None:
        """Await `work()` again and again until the task is ended.

        Args:
            task: its name in logs and metrics.
            work: one step of the task, or a coroutine function that never returns.
            pause_s: seconds between the end of a step and the next.

        Raises:
            InvalidInputError: a task of this name is running.
        """
        if task in self._tasks:
            raise InvalidInputError(f"the background task {task} is running already; end it first")
        self.failures.expect(task)
        self._tasks[task] = asyncio.get_running_loop().create_task(self._keep(task, work, pause_s), name=task)

    def attend(self, loop: asyncio.AbstractEventLoop) -> None:
        """Record what a callback or a task that nobody awaits raises on this event loop."""
        self.failures.expect(EVENT_LOOP)
        loop.set_exception_handler(self._unhandled)

    def retrying(self) -> dict[str, bool]:
        """Return for each running task whether it failed and waits to be tried again."""
        return {task: task in self._retrying for task in list(self._tasks)}

    async def end(self, *tasks: str) -> bool:
        """End tasks, all at once; return whether all ended in time. Names of tasks that do not run are ignored."""
        ending = {task: self._tasks.pop(task) for task in tasks if task in self._tasks}
        for running in ending.values():
            running.cancel()
        if ending:
            await asyncio.wait(ending.values(), timeout=self.stop_timeout_s)
        late = [task for task, running in ending.items() if not running.done()]
        if late:
            _log.warning("background tasks did not end in time; stopping goes on", tasks=late)
        return not late

    async def stop(self) -> bool:
        """End every task; return whether all ended in time."""
        return await self.end(*self._tasks)

    async def attempt(self, part: str, stop: Callable[[], Awaitable[object]]) -> bool:
        """Stop one part of the service, so that the next can be stopped whatever becomes of it.

        Args:
            part: its name in logs and metrics.
            stop: stops it; returns False if that was not done in time.

        Returns:
            Whether it stopped in time, without a failure.
        """
        stopping = asyncio.get_running_loop().create_task(self._stopped(part, stop), name=f"stop {part}")
        await asyncio.wait((stopping,), timeout=self.stop_timeout_s)
        if not stopping.done():
            stopping.cancel()
        elif stopping.cancelled() or stopping.result() is None:
            return False  # recorded
        elif stopping.result():
            return True
        _log.warning("a part did not stop in time; the process ends without it", part=part)
        return False

    async def _stopped(self, part: str, stop: Callable[[], Awaitable[object]]) -> bool | None:
        try:
            return await stop() is not False
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            self.failures.record(part, error)
            return None

    def _unhandled(self, _: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        error = context.get("exception")
        if isinstance(error, BaseException):
            self.failures.record(EVENT_LOOP, error)
        else:
            _log.error("event loop", problem=context["message"])

    async def _keep(self, task: str, work: Callable[[], Awaitable[object]], pause_s: float) -> None:
        this = asyncio.current_task()
        backoff = Backoff(self.rng, self.first_retry_s, self.longest_retry_s)
        while this is not None and not this.cancelling():
            began, delay = time.monotonic(), pause_s
            try:
                await work()
                backoff.reset()
            except KeyboardInterrupt:
                raise
            except BaseException as error:  # a library may raise anything, SystemExit and CancelledError included
                if this.cancelling() and isinstance(error, asyncio.CancelledError):
                    raise
                self.failures.record(task, error)
                if time.monotonic() - began >= STEADY_S:
                    backoff.reset()
                delay = backoff.delay()
                self._retrying.add(task)
            try:
                if not this.cancelling():
                    await asyncio.sleep(delay)
            finally:
                self._retrying.discard(task)


def detached(function: Callable[[], T], name: str) -> asyncio.Future[T]:
    """Call a function that may block for long in a daemon thread, and return the future of its result.

    Threads of `asyncio.to_thread` are waited for when the loop and the interpreter end: a server that never answers
    would keep the service from stopping. Nobody waits for this one.
    """
    loop = asyncio.get_running_loop()
    result: asyncio.Future[T] = loop.create_future()

    def settle(value: T | None, error: BaseException | None) -> None:
        if result.done():
            return
        if error is None:
            result.set_result(value)  # type: ignore[arg-type]  # of type T where there is no error
        elif isinstance(error, StopIteration):
            result.set_exception(RuntimeError("StopIteration"))
        else:
            result.set_exception(error)

    def work() -> None:
        value, failed = None, None
        try:
            value = function()
        except BaseException as error:  # handed to whoever awaits
            failed = error
        with contextlib.suppress(RuntimeError):  # the loop may have closed meanwhile
            loop.call_soon_threadsafe(settle, value, failed)

    threading.Thread(target=work, name=name, daemon=True).start()
    return result
