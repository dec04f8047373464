"""One thread that scores, so that the event loop never waits for a model. Refuses to know what it runs.

A daemon thread of our own and not a ThreadPoolExecutor: the interpreter joins an executor's threads at exit, and a
model that hangs would then keep the process from ending.
"""

from __future__ import annotations

import asyncio
import contextvars
import queue
import threading
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

from extender.errors import kind_of

T = TypeVar("T")

_Job = tuple[Callable[[], Any], "asyncio.Future[Any]"]


class Worker:
    """Runs jobs one after the other in a thread, and hands each result to the event loop that asked."""

    def __init__(self, name: str = "scoring") -> None:
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._started = False

    def submit(self, job: Callable[[], T]) -> asyncio.Future[T]:
        """Run `job` in the thread; the future belongs to the running event loop."""
        if not self._started:
            self._started = True
            self._thread.start()
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        # the job sees the context variables of whoever asked: so its spans belong to the request
        self._jobs.put((partial(contextvars.copy_context().run, job), future))
        return future

    def stop(self, timeout: float = 1.0) -> bool:
        """End the thread after the jobs already given; returns whether it ended within `timeout` seconds."""
        if not self._started:
            return True
        self._jobs.put(None)
        self._thread.join(timeout)
        return not self._thread.is_alive()

    def _run(self) -> None:
        while (entry := self._jobs.get()) is not None:
            job, future = entry
            try:
                result, error = job(), None
            except BaseException as raised:  # whatever it was, whoever waits must learn of it
                result, error = None, raised
            try:
                future.get_loop().call_soon_threadsafe(_settle, future, result, error)
            except RuntimeError:
                return  # the loop is closed: nobody waits any more


def _settle(future: asyncio.Future[Any], result: Any, error: BaseException | None) -> None:
    if future.done():
        return
    if error is None:
        future.set_result(result)
    else:
        future.set_exception(error if isinstance(error, Exception) else RuntimeError(kind_of(error)))
