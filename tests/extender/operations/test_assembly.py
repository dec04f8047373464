"""Large answers are put together one at a time, shared by those that ask for the same, in threads that rest."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Coroutine
from typing import Any

import pytest
from prometheus_client import generate_latest

from extender.errors import BusyError
from extender.operations.assembly import Assembly
from extender.operations.families import Family
from extender.operations.metrics import Metrics
from extender.pace import PIECE_S, SHARE, unhurried


def run(work: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(work, 20.0))


def test_one_at_a_time() -> None:
    working, most = 0, 0

    def build() -> bytes:
        nonlocal working, most
        working += 1
        most = max(most, working)
        time.sleep(0.01)
        working -= 1
        return b"answer"

    async def ask() -> None:
        answers = Assembly(lambda reason: None)
        assert await asyncio.gather(*(answers.of(build) for _ in range(5))) == [b"answer"] * 5

    run(ask())
    assert most == 1


def test_whoever_asks_meanwhile_shares_an_answer_that_was_begun_after_it_asked() -> None:
    gate, begun, built = threading.Event(), threading.Event(), []

    def build() -> bytes:
        built.append(1)
        begun.set()
        gate.wait(10.0)
        return b"%d" % len(built)

    async def ask() -> None:
        answers = Assembly(lambda reason: None)
        first = asyncio.create_task(answers.shared("report", build))
        await asyncio.to_thread(begun.wait, 10.0)
        others = [asyncio.create_task(answers.shared("report", build)) for _ in range(10)]
        await asyncio.sleep(0.01)
        gate.set()
        assert await first == b"1"
        assert set(await asyncio.gather(*others)) == {b"2"}, "what they see is not older than their question"

    run(ask())
    assert len(built) == 2


def test_whoever_finds_no_turn_is_told_to_come_again() -> None:
    gate, told = threading.Event(), list[str]()

    async def ask() -> None:
        answers = Assembly(told.append, patience_s=0.05)
        first = asyncio.create_task(answers.of(lambda: b"x" if gate.wait(10.0) else b""))
        await asyncio.sleep(0.01)
        with pytest.raises(BusyError, match="ask again"):
            await answers.of(lambda: b"y")
        gate.set()
        assert await first == b"x"
        assert await answers.of(lambda: b"y") == b"y"

    run(ask())
    assert told == ["busy"]


def test_work_without_a_rest_is_followed_by_one() -> None:
    def build() -> bytes:
        end = time.thread_time() + 0.05
        while time.thread_time() < end:
            pass
        return b""

    async def ask() -> None:
        answers = Assembly(lambda reason: None, patience_s=10.0)
        began = time.perf_counter()
        await answers.of(build)
        await answers.of(lambda: b"")
        assert time.perf_counter() - began >= 0.95 * 0.05 / SHARE

    run(ask())


def test_a_failure_leaves_the_turn_to_others() -> None:
    def build() -> bytes:
        raise RuntimeError("broken")

    async def ask() -> None:
        answers = Assembly(lambda reason: None)
        for _ in range(2):
            with pytest.raises(RuntimeError):
                await answers.shared("report", build)
        assert await answers.shared("report", lambda: b"x") == b"x"

    run(ask())


def test_a_thread_rests_while_it_goes_through_much() -> None:
    def work(milliseconds: float) -> None:
        end = time.thread_time() + milliseconds / 1000.0
        while time.thread_time() < end:
            pass

    began, used = time.perf_counter(), time.thread_time()
    for _ in unhurried(range(50)):
        work(2.0 * PIECE_S * 1000.0)
    assert list(unhurried(range(1000))) == list(range(1000))
    assert time.thread_time() - used < 0.6 * (time.perf_counter() - began)


def test_metrics_written_in_parts_are_what_they_are_as_a_whole() -> None:
    metrics = Metrics()
    many = Family("maddpg_many", "Many", lambda part: {str(i): float(i) for i in range(part)}, ("number",))
    metrics.register(1000, (many,))
    metrics.register(3, (Family("maddpg_some_total", "Some", lambda part: {str(i): i for i in range(part)}, ("n",)),))
    metrics.register(0, (Family("maddpg_none", "None", lambda part: {}, ("n",)),))
    metrics.traffic.answered("filter", 200, 0.1)
    metrics.settle()

    def steady(text: bytes) -> list[bytes]:
        return [line for line in text.split(b"\n") if not line.startswith((b"process_", b"python_gc_"))]

    assert steady(metrics.exposition()) == steady(generate_latest(metrics.registry))


def test_a_service_that_ends_does_not_wait_for_a_document() -> None:
    gate = threading.Event()

    async def ask() -> None:
        answers = Assembly(lambda reason: None)
        asking = asyncio.create_task(answers.of(lambda: b"x" if gate.wait(20.0) else b""))
        await asyncio.sleep(0.05)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking

    began = time.perf_counter()
    run(ask())
    assert time.perf_counter() - began < 10.0
    gate.set()
