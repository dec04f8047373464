"""A coroutine begun at once runs as it would in a task, whether it has to wait or not."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from extender.transport.coroutine import start


def test_what_needs_no_waiting_is_done_without_a_task() -> None:
    done: list[str] = []

    async def work() -> None:
        done.append("done")

    async def run() -> None:
        assert start(asyncio.get_running_loop(), work()) is None
        assert done == ["done"]

    asyncio.run(run())


WAITS: dict[str, Callable[[], Awaitable[object]]] = {
    "a turn of the loop": lambda: asyncio.sleep(0, "x"),
    "a timer": lambda: asyncio.sleep(0.001, "x"),
    "a thread": lambda: asyncio.to_thread(lambda: "x"),
    "several futures": lambda: asyncio.wait((asyncio.ensure_future(asyncio.sleep(0)),), timeout=1.0),
}


@pytest.mark.parametrize("wait", WAITS)
def test_what_waits_goes_on_in_a_task(wait: str) -> None:
    done: list[object] = []

    async def work() -> None:
        done.append(await WAITS[wait]())
        done.append(await asyncio.sleep(0, "later"))

    async def run() -> None:
        task = start(asyncio.get_running_loop(), work())
        assert task is not None
        assert done == []
        await task
        assert done[-1] == "later"
        assert len(done) == 2

    asyncio.run(run())


def test_errors_come_out_where_they_happen() -> None:
    async def work(wait: bool) -> None:
        if wait:
            await asyncio.sleep(0)
        raise ValueError("broken")

    async def run() -> None:
        loop = asyncio.get_running_loop()
        with pytest.raises(ValueError, match="broken"):
            start(loop, work(wait=False))
        task = start(loop, work(wait=True))
        assert task is not None
        with pytest.raises(ValueError, match="broken"):
            await task

    asyncio.run(run())


def test_a_cancellation_reaches_what_waits() -> None:
    ended: list[str] = []

    async def work() -> None:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            await asyncio.sleep(0)
            ended.append("tidied up")
            raise

    async def run() -> None:
        task = start(asyncio.get_running_loop(), work())
        assert task is not None
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert ended == ["tidied up"]

    asyncio.run(run())
