"""Operators' requests take turns: probes first, then one address after the other, with a pause after each."""

from __future__ import annotations

import asyncio
import time

from extender.transport import turns
from extender.transport.turns import Turns


def begun(asked: list[tuple[str, str, bool]], left: frozenset[str] = frozenset()) -> tuple[list[str], float]:
    """In which order requests begin that are asked for at once: name, address, whether a probe; and how long it takes.

    Those in `left` are of callers that have left.
    """

    async def run() -> tuple[list[str], float]:
        order: list[str] = []
        taking = Turns()
        done = asyncio.Event()

        def begin(name: str) -> bool:
            if name not in left:
                order.append(name)
            if len(order) == len(asked) - len(left):
                done.set()
            return name not in left

        began = time.perf_counter()
        for name, caller, probe in asked:
            taking.take(lambda name=name: begin(name), caller, probe=probe)  # type: ignore[misc]
        await done.wait()
        return order, time.perf_counter() - began

    return asyncio.run(run())


def test_the_first_begins_at_once_and_the_others_after_pauses() -> None:
    order, took = begun([(str(i), "a", False) for i in range(10)])
    assert order == [str(i) for i in range(10)]
    assert took >= 9 * turns.PAUSE_S


def test_probes_go_first() -> None:
    order, _ = begun([("x", "a", False), ("y", "a", False), ("probe", "a", True), ("z", "a", False)])
    assert order == ["x", "probe", "y", "z"]


def test_an_address_with_many_connections_gets_no_more_turns() -> None:
    crowd = [(f"a{i}", "a", False) for i in range(20)]
    order, _ = begun([*crowd, ("b0", "b", False), ("c0", "c", False), ("b1", "b", False)])
    assert [order.index(each) for each in ("b0", "c0", "b1")] == [2, 3, 5]


def test_callers_that_have_left_take_no_time() -> None:
    gone = frozenset(f"gone{i}" for i in range(200))
    order, took = begun([("x", "a", False), *((name, "a", False) for name in gone), ("y", "a", False)], gone)
    assert order == ["x", "y"]
    assert took < 100 * turns.PAUSE_S
