"""Answers leave in one piece."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import cast

import httpx
import pytest

from extender.server import JoiningTransport
from tests.extender.service import Service, by_names


class Recorder:
    """A transport that records what it is asked to send."""

    def __init__(self) -> None:
        self.sent: list[bytes] = []
        self.closed_after: int | None = None

    def write(self, data: bytes) -> None:
        self.sent.append(data)

    def close(self) -> None:
        self.closed_after = len(self.sent)

    def is_closing(self) -> bool:
        return self.closed_after is not None


@pytest.mark.parametrize(
    ("writes", "sent"),
    [
        ([b"head", b"body"], [b"headbody"]),
        ([b"head"], [b"head"]),
        ([b"head", b"", b"more"], [b"head", b"more"]),
        ([b"a", b"b", b"c"], [b"ab", b"c"]),
        ([], []),
    ],
    ids=["an answer", "a head alone", "an empty body", "a stream", "nothing"],
)
def test_everything_written_is_sent_in_order_and_a_pair_at_once(writes: list[bytes], sent: list[bytes]) -> None:
    async def run() -> Recorder:
        recorder = Recorder()
        transport = JoiningTransport(cast("asyncio.Transport", recorder), asyncio.get_running_loop())
        for data in writes:
            transport.write(data)
        await asyncio.sleep(0)
        return recorder

    assert asyncio.run(run()).sent == sent


def test_what_is_held_is_sent_before_the_connection_is_closed() -> None:
    async def run() -> Recorder:
        recorder = Recorder()
        transport = JoiningTransport(cast("asyncio.Transport", recorder), asyncio.get_running_loop())
        transport.write(b"head")
        transport.close()
        assert transport.is_closing()
        await asyncio.sleep(0)
        return recorder

    recorder = asyncio.run(run())
    assert (recorder.sent, recorder.closed_after) == ([b"head"], 1)


def test_answers_of_every_size_arrive_whole(run_service: Callable[..., Service]) -> None:
    service = run_service()
    names = service.add_nodes(3000)
    for count in (1, 100, 3000):
        assert len(service.prioritize(names[:count])) == count
        filtered: httpx.Response = service.post("filter", by_names(names[:count]))
        assert filtered.json()["NodeNames"] == names[:count]
