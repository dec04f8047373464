"""Background work goes on after failures that nobody expected, and they are counted; stopping always completes."""

from __future__ import annotations

import asyncio
import itertools
import random
from collections.abc import Awaitable, Callable, Iterator
from typing import Final

import pytest

from extender.supervision import LOG_INTERVAL_S, Failures, Supervisor
from policy.errors import InvalidInputError

SECRET: Final = "Bearer eyJ.secret"


def supervised(**options: float) -> Supervisor:
    return Supervisor(random.Random(1), first_retry_s=0.01, longest_retry_s=0.02, **options)


async def eventually(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(5.0):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.005)


@pytest.mark.parametrize(
    "error",
    [UnicodeEncodeError("latin-1", SECRET, 0, 1, SECRET), SystemExit(SECRET), asyncio.CancelledError(SECRET)],
    ids=["exception", "exit of a library", "cancelled from elsewhere"],
)
def test_work_that_fails_is_counted_logged_by_kind_and_tried_again(
    error: BaseException, caplog: pytest.LogCaptureFixture
) -> None:
    outcomes: Iterator[BaseException | None] = iter([error, error, None])
    steps: list[BaseException | None] = []

    async def work() -> None:
        outcome = next(outcomes, None)
        steps.append(outcome)
        if outcome is not None:
            raise outcome

    async def run() -> None:
        supervisor = supervised()
        supervisor.start("polling", work, pause_s=0.001)
        await eventually(lambda: len(steps) >= 5)
        assert supervisor.failures.counts() == {"polling": 2}
        assert supervisor.retrying() == {"polling": False}
        assert await supervisor.stop()

    asyncio.run(run())
    assert type(error).__name__ in caplog.text
    assert __name__ in caplog.text, "where it was raised"
    assert SECRET not in caplog.text


def test_a_task_is_shown_while_it_waits_to_be_tried_again() -> None:
    async def work() -> None:
        raise ValueError(SECRET)

    async def run() -> None:
        supervisor = Supervisor(first_retry_s=60.0, longest_retry_s=60.0)
        supervisor.start("polling", work)
        assert supervisor.failures.counts() == {"polling": 0}
        await eventually(lambda: supervisor.retrying()["polling"])
        assert supervisor.failures.counts() == {"polling": 1}
        assert await supervisor.end("polling")
        assert supervisor.retrying() == {}

    asyncio.run(run())


def test_the_back_off_grows_and_a_step_that_works_resets_it() -> None:
    at: list[float] = []

    async def work() -> None:
        at.append(asyncio.get_running_loop().time())
        if len(at) < 5:
            raise ValueError

    async def run() -> None:
        supervisor = Supervisor(random.Random(1), first_retry_s=0.02, longest_retry_s=10.0)
        supervisor.start("polling", work, pause_s=0.001)
        await eventually(lambda: len(at) > 6)
        await supervisor.stop()

    asyncio.run(run())
    gaps = [later - earlier for earlier, later in itertools.pairwise(at)]
    assert all(gap >= 0.02 * 2**n * 0.5 for n, gap in enumerate(gaps[:4]))
    assert gaps[4] < 0.08


async def _forever() -> None:
    await asyncio.Event().wait()


async def _deaf() -> None:
    """Ignore the first wish to end."""
    try:
        await _forever()
    except asyncio.CancelledError:
        await asyncio.sleep(1.0)


async def _untidy() -> None:
    """Fail while it ends."""
    try:
        await _forever()
    finally:
        raise ValueError(SECRET)


def test_stopping_completes_whatever_a_task_does() -> None:
    async def run() -> None:
        supervisor = supervised(stop_timeout_s=0.1)
        for name, work in {"good": _forever, "deaf": _deaf, "untidy": _untidy}.items():
            supervisor.start(name, work)
        await asyncio.sleep(0.01)
        assert not await supervisor.stop()
        assert supervisor.failures.counts() == {"good": 0, "deaf": 0, "untidy": 1}
        assert await supervisor.stop(), "nothing is left to end"

    asyncio.run(run())


def test_each_part_is_stopped_though_the_one_before_it_failed(caplog: pytest.LogCaptureFixture) -> None:
    stopped: list[str] = []

    def part(name: str, error: BaseException | None = None) -> Callable[[], Awaitable[None]]:
        async def stop() -> None:
            if error is not None:
                raise error
            stopped.append(name)

        return stop

    async def run() -> list[bool]:
        supervisor = supervised(stop_timeout_s=0.1)
        return [
            await supervisor.attempt("first", part("first", SystemExit(SECRET))),
            await supervisor.attempt("second", _forever),
            await supervisor.attempt("third", part("third", asyncio.CancelledError(SECRET))),
            await supervisor.attempt("fourth", part("fourth")),
        ]

    assert asyncio.run(run()) == [False, False, False, True]
    assert stopped == ["fourth"]
    assert SECRET not in caplog.text


def test_what_callbacks_and_forgotten_tasks_raise_is_recorded(caplog: pytest.LogCaptureFixture) -> None:
    def callback() -> None:
        raise ValueError(SECRET)

    async def task() -> None:
        raise KeyError(SECRET)

    async def run() -> None:
        supervisor = supervised()
        loop = asyncio.get_running_loop()
        supervisor.attend(loop)
        loop.call_soon(callback)
        forgotten = loop.create_task(task())
        await asyncio.sleep(0.01)
        del forgotten
        await eventually(lambda: supervisor.failures.counts() == {"event_loop": 2})

    asyncio.run(run())
    assert SECRET not in caplog.text


def test_a_name_is_given_to_one_task() -> None:
    async def run() -> None:
        supervisor = supervised()
        supervisor.start("polling", _forever)
        with pytest.raises(InvalidInputError, match="polling"):
            supervisor.start("polling", _forever)
        await supervisor.stop()

    asyncio.run(run())


def test_every_failure_is_counted_and_the_same_kind_logged_once_in_a_while(caplog: pytest.LogCaptureFixture) -> None:
    now = [0.0]
    failures = Failures(timer=lambda: now[0])
    for _ in range(3):
        failures.record("ledger", ValueError(SECRET))
    failures.record("ledger", KeyError(SECRET))
    assert len(caplog.records) == 2
    now[0] = LOG_INTERVAL_S
    failures.record("ledger", KeyError(SECRET))
    assert len(caplog.records) == 3
    assert failures.counts() == {"ledger": 5}
