"""Changes from threads reach the loop in order, a bounded batch at a time."""

import asyncio
import threading
from collections.abc import Callable

import pytest

from extender.cluster.handover import CAPACITY, Handover
from extender.cluster.source import BATCH
from extender.supervision import Failures
from policy.errors import InvalidInputError


def put_from_a_thread(handover: Handover, changes: list[Callable[[], object]]) -> tuple[threading.Thread, list[bool]]:
    taken: list[bool] = []

    def put() -> None:
        for change in changes:
            taken.append(handover.put(change))  # noqa: PERF401 - the test looks while it grows

    thread = threading.Thread(target=put)
    thread.start()
    return thread, taken


def test_changes_arrive_in_order_and_never_more_than_a_batch_between_two_turns() -> None:
    async def scenario() -> tuple[list[int], int]:
        handover = Handover(asyncio.get_running_loop(), Failures())
        applied: list[int] = []
        thread, _ = put_from_a_thread(handover, [lambda i=i: applied.append(i) for i in range(5 * BATCH)])  # type: ignore[misc]
        largest = seen = 0
        while len(applied) < 5 * BATCH:
            await asyncio.sleep(0)
            largest, seen = max(largest, len(applied) - seen), len(applied)
        thread.join()
        return applied, largest

    applied, largest = asyncio.run(scenario())
    assert applied == list(range(5 * BATCH))
    assert 1 < largest <= BATCH


def test_a_thread_that_is_too_fast_waits() -> None:
    async def scenario() -> int:
        handover = Handover(asyncio.get_running_loop(), Failures())
        thread, taken = put_from_a_thread(handover, [lambda: None] * (CAPACITY + 10))
        # The loop does not turn here, so nothing is applied.
        thread.join(0.2)
        waiting = len(taken)
        await asyncio.to_thread(thread.join)
        assert len(taken) == CAPACITY + 10
        return waiting

    assert asyncio.run(scenario()) == CAPACITY


def test_closing_releases_who_waits_and_applies_nothing_more() -> None:
    async def scenario() -> tuple[list[bool], list[int]]:
        handover = Handover(asyncio.get_running_loop(), Failures())
        applied: list[int] = []
        thread, taken = put_from_a_thread(handover, [lambda: applied.append(1)] * (CAPACITY + 10))
        thread.join(0.2)
        handover.close()
        thread.join(5.0)
        await asyncio.sleep(0.01)
        return taken, applied

    taken, applied = asyncio.run(scenario())
    assert taken == [True] * CAPACITY + [False] * 10
    assert applied == []


def test_a_refused_change_is_counted_and_the_rest_goes_on() -> None:
    def refuse() -> None:
        raise InvalidInputError("cpu of a pod is -1.0; give a finite number >= 0")

    async def scenario() -> tuple[int, list[int]]:
        handover = Handover(asyncio.get_running_loop(), Failures())
        applied: list[int] = []
        put_from_a_thread(handover, [refuse, lambda: applied.append(1)])[0].join()
        await asyncio.sleep(0.01)
        return handover.refused, applied

    assert asyncio.run(scenario()) == (1, [1])


def test_a_change_that_fails_unexpectedly_is_counted_and_costs_no_other(capsys: pytest.CaptureFixture[str]) -> None:
    def fail() -> None:
        raise ZeroDivisionError("secret")

    async def scenario() -> tuple[dict[str, int], int, list[int]]:
        failures = Failures()
        handover = Handover(asyncio.get_running_loop(), failures)
        applied: list[int] = []
        put_from_a_thread(handover, [lambda: applied.append(1), fail, lambda: applied.append(2)])[0].join()
        await asyncio.sleep(0.01)
        return failures.counts(), handover.refused, applied

    assert asyncio.run(scenario()) == ({"table": 1}, 1, [1, 2])
    assert "secret" not in capsys.readouterr().out
