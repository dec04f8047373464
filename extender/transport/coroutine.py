"""Coroutines begun at once: most answers need no waiting, and so no task and no further turn of the event loop.

Python 3.12 has this as `asyncio.Task(..., eager_start=True)`; the service runs on 3.11 too. In its first step the
coroutine has no task of its own: it may await futures, but not ask for `asyncio.current_task` (`asyncio.timeout` does).
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Generator
from types import coroutine
from typing import Any


def start(loop: asyncio.AbstractEventLoop, work: Coroutine[Any, Any, None]) -> asyncio.Task[None] | None:
    """Run `work` until it first waits; returns the task that goes on with it, or None if it has ended.

    What it raises before it first waits is raised here.
    """
    try:
        awaited = work.send(None)
    except StopIteration:
        return None
    return loop.create_task(_rest(work, awaited))


async def _rest(work: Coroutine[Any, Any, None], awaited: Any) -> None:
    await _go_on(work, awaited)


@coroutine
def _go_on(work: Coroutine[Any, Any, None], awaited: Any) -> Generator[Any, Any, None]:
    """Hand on what `work` waits for, and to `work` what comes of that, until it ends."""
    while True:
        result, error = None, None
        try:
            result = yield awaited
        except BaseException as raised:  # a cancellation is for the work
            error = raised
        try:
            awaited = work.send(result) if error is None else work.throw(error)
        except StopIteration:
            return
