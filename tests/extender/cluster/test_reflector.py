"""The reflector's patience, on a clock of its own: when it lists, how long it waits, what it takes for proof."""

import itertools
import json
import random
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from extender.cluster.answers import UNREACHED, ApiError
from extender.cluster.decoding import decode_node
from extender.cluster.reflector import FREE_LIST, LONGEST_WAIT, Reflector
from extender.cluster.resource import Resource, Timing
from extender.supervision import Failures

NODES: Resource[Any] = Resource(
    name="nodes",
    path="/api/v1/nodes",
    decode=decode_node,
    key=lambda node: node.metadata.name,
    version=lambda node: node.metadata.resource_version,
)
TIMING = Timing(page=10, watch=30.0, grace=10.0, resync=0.0)


def event(kind: str, version: int, name: str = "n") -> bytes:
    return json.dumps({"type": kind, "object": {"metadata": {"name": name, "resourceVersion": str(version)}}}).encode()


def error(code: int, reason: str = "InternalError") -> bytes:
    return json.dumps({"type": "ERROR", "object": {"code": code, "reason": reason, "message": "s3cr3t"}}).encode()


class Stop:
    """An event to wait for that passes time instead, and is set once the time is over."""

    def __init__(self, server: "Server", until: float) -> None:
        self.server, self.until = server, until
        self.waits: list[float] = []

    def is_set(self) -> bool:
        return self.server.now >= self.until

    def wait(self, seconds: float) -> bool:
        assert 0.0 <= seconds <= 60.0
        self.waits.append(seconds)
        self.server.now += max(seconds, 1e-3)
        return self.is_set()


class Server:
    """An API server on a clock that moves while it answers: a list takes 10 ms, a watch what its script says."""

    def __init__(self, watch: Callable[["Server"], Iterator[bytes | float]]) -> None:
        self.now = 1000.0
        self.lists: list[float] = []
        self.watches: list[tuple[float, str]] = []
        self.list_fails: ApiError | None = None
        self.watch_fails: ApiError | None = None
        self.script = watch
        self.version = 100

    def get(self, path: str, query: dict[str, str]) -> bytes:
        self.now += 0.01
        self.lists.append(self.now)
        if self.list_fails is not None:
            raise self.list_fails
        self.version += 1
        return json.dumps({"metadata": {"resourceVersion": str(self.version)}, "items": []}).encode()

    def lines(self, path: str, query: dict[str, str], silence: float) -> "Watch":
        self.now += 0.01
        self.watches.append((self.now, query["resourceVersion"]))
        if self.watch_fails is not None:
            raise self.watch_fails
        return Watch(self, float(query["timeoutSeconds"]))


class Watch:
    """One watch: bytes of the script are lines, numbers are seconds that pass; an error ends it."""

    def __init__(self, server: Server, lasting: float) -> None:
        self.server, self.until = server, server.now + lasting

    def __enter__(self) -> "Watch":
        return self

    def __exit__(self, *_: object) -> None: ...

    def __iter__(self) -> Iterator[bytes]:
        for step in self.server.script(self.server):
            if isinstance(step, bytes):
                yield step
            else:
                self.server.now = min(self.server.now + step, self.until)
                if self.server.now >= self.until:
                    return

    def abort(self) -> None: ...


class Told:
    def present(self, received: object) -> None: ...
    def absent(self, received: object) -> None: ...
    def complete(self, keys: set[str]) -> None: ...


def followed(server: Server, seconds: float, receiver: Any = None, timing: Timing = TIMING) -> Reflector[Any]:
    """A reflector that has followed the server for so long."""
    reflector = Reflector(
        NODES,
        receiver or Told(),
        server,
        timing,
        Failures(),
        lambda: server.now,
        random.Random(7),  # type: ignore[arg-type]
    )
    proceed(reflector, server, seconds)
    return reflector


def proceed(reflector: Reflector[Any], server: Server, seconds: float) -> Stop:
    stop = Stop(server, server.now + seconds)
    reflector._stopping = stop  # type: ignore[assignment]
    reflector._run()
    return stop


def ends_at_once(server: Server) -> Iterator[bytes | float]:
    return iter(())


def quiet(server: Server) -> Iterator[bytes | float]:
    """As the real one: a bookmark before the watch ends."""
    yield 20.0
    yield event("BOOKMARK", server.version)
    yield 100.0


def fails(line: bytes) -> Callable[[Server], Iterator[bytes | float]]:
    return lambda server: iter([0.1, line])


def lost_after(seconds: float, *lines: bytes) -> Callable[[Server], Iterator[bytes | float]]:
    def script(server: Server) -> Iterator[bytes | float]:
        yield from lines
        yield seconds
        raise ApiError("the connection was lost: ConnectionResetError")

    return script


def test_a_quiet_cluster_is_current_and_listed_once() -> None:
    server = Server(quiet)
    reflector = followed(server, 3600.0)
    assert len(server.lists) == 1
    assert 90 <= len(server.watches) <= 150
    assert reflector.tally.failures == 0
    assert reflector.trouble is None
    assert (reflector.staleness() or 0.0) < 40.0


@pytest.mark.parametrize(
    ("script", "free"),
    [
        pytest.param(ends_at_once, 0, id="ends-at-once"),
        pytest.param(fails(error(500)), 0, id="error"),
        pytest.param(fails(error(410, "Expired")), 1, id="gone"),
        pytest.param(fails(error(504, "Timeout")), 0, id="too-large-version"),
        pytest.param(fails(b"<html>bad gateway</html>"), 0, id="gateway"),
        pytest.param(fails(b'{"type":"ADDED"}'), 0, id="no-object"),
    ],
)
def test_watches_that_fail_list_ever_later_although_lists_work(script: Any, free: int) -> None:
    server = Server(script)
    followed(server, 15.0)
    assert 2 <= len(server.lists) <= 6, "36 in 15 s were seen"
    gaps = [after - before for before, after in zip(server.lists, server.lists[1:], strict=False)][free:]
    assert all(gap >= 0.8 for gap in gaps), gaps
    assert all(later > sooner for sooner, later in itertools.pairwise(gaps)), gaps


def test_waits_grow_to_half_a_minute_and_are_forgotten_after_two_quiet_minutes() -> None:
    server = Server(fails(error(500)))
    reflector = followed(server, 600.0)
    gaps = [after - before for before, after in zip(server.lists, server.lists[1:], strict=False)]
    assert max(gaps) <= LONGEST_WAIT + 1.0
    assert min(gaps[6:]) >= LONGEST_WAIT / 2.0
    server.script = quiet
    proceed(reflector, server, 90.0)
    server.script = fails(error(500))
    stop = proceed(reflector, server, 40.0)
    assert max(stop.waits) >= LONGEST_WAIT / 2.0, "a minute and a half of work forgets nothing"
    server.script = quiet
    proceed(reflector, server, 180.0)
    server.script = fails(error(500))
    stop = proceed(reflector, server, 10.0)
    assert 0.8 <= stop.waits[0] <= 1.6


def test_a_status_line_proves_nothing() -> None:
    """A gateway takes every watch and never lets an event through."""
    server = Server(lambda _: iter([1000.0]))
    reflector = followed(server, 60.0)
    assert (reflector.staleness() or 0.0) >= 30.0
    proceed(reflector, server, 300.0)
    assert 3 <= len(server.lists) <= 6, "listed again where nothing proves what is known"
    assert (reflector.staleness() or 0.0) <= 150.0
    assert reflector.tally.failures >= 2


def test_a_watch_that_ends_at_once_is_not_current_before_the_next_list() -> None:
    server = Server(ends_at_once)
    reflector = followed(server, 2.0)
    listed = server.lists[-1]
    server.list_fails = ApiError("down", 503)
    proceed(reflector, server, 60.0)
    assert reflector.current_at is not None
    assert reflector.current_at <= listed


def test_a_lost_connection_goes_on_from_the_last_version_at_once() -> None:
    server = Server(lost_after(5.0, event("ADDED", 700)))
    reflector = followed(server, 60.0)
    assert len(server.lists) == 1
    assert len(server.watches) >= 11
    assert {version for _, version in server.watches[1:]} == {"700"}
    assert reflector.tally.failures >= 10


def test_connections_that_are_lost_at_once_wait_ever_longer_and_list_in_the_end() -> None:
    server = Server(lost_after(0.0))
    reflector = followed(server, 15.0)
    assert (len(server.lists), 3 <= len(server.watches) <= 6) == (1, True)
    proceed(reflector, server, 300.0)
    assert 2 <= len(server.lists) <= 12


def test_watches_of_one_event_each_are_not_hammered() -> None:
    server = Server(lambda _: iter([event("ADDED", 700)]))
    followed(server, 30.0)
    assert len(server.watches) <= 31
    assert len(server.lists) == 1


def test_one_list_that_410_asks_for_is_free() -> None:
    """An API server that restarts has no history: it answers 410, and can be listed at once."""
    server = Server(quiet)
    reflector = followed(server, 300.0)
    server.watch_fails = ApiError("down", UNREACHED)
    proceed(reflector, server, 300.0)
    server.watch_fails = ApiError("gone", 410)
    lists = len(server.lists)
    while len(server.lists) == lists:
        proceed(reflector, server, 0.02)
    assert server.lists[-1] - server.watches[-1][0] < 0.1, "though the outage had made waits long"
    proceed(reflector, server, FREE_LIST - 1.0)
    assert len(server.lists) <= lists + 9, "and no other is"


def test_lists_that_are_always_gone_are_not_hammered() -> None:
    server = Server(quiet)
    server.list_fails = ApiError("gone", 410)
    followed(server, 15.0)
    assert len(server.lists) <= 7


@pytest.mark.parametrize(
    ("status", "lists"),
    [(UNREACHED, False), (401, False), (403, False), (429, False), (400, True), (500, True), (504, True)],
)
def test_a_watch_that_is_refused_lists_where_the_version_may_be_at_fault(status: int, lists: bool) -> None:
    server = Server(quiet)
    reflector = followed(server, 10.0)
    server.watch_fails = ApiError("refused", status)
    proceed(reflector, server, 60.0)
    assert (len(server.lists) > 1) is lists
    assert len(server.watches) <= 14


def test_a_deletion_that_does_not_decode_lists_again() -> None:
    """Nothing says which object went: without a list it would be held until the next one is due."""

    def script(server: Server) -> Iterator[bytes | float]:
        yield 5.0
        if len(server.lists) == 1:
            yield b'{"type": "DELETED", "object": {"metadata": []}}'
        yield 100.0

    server = Server(script)
    reflector = followed(server, 60.0)
    assert (len(server.lists), reflector.tally.undecodable, reflector.trouble) == (2, 1, None)


def test_a_server_that_is_away_is_found_again_within_ten_seconds() -> None:
    server = Server(quiet)
    reflector = followed(server, 10.0)
    server.watch_fails = ApiError("refused", UNREACHED)
    stop = proceed(reflector, server, 600.0)
    assert 5.0 <= max(stop.waits) <= 10.0


def test_a_server_that_asks_for_patience_gets_it() -> None:
    server = Server(quiet)
    server.list_fails = ApiError("busy", 429, 20.0)
    followed(server, 50.0)
    assert len(server.lists) == 3


def test_an_object_of_a_list_that_a_receiver_fails_on_does_not_keep_the_others_out() -> None:
    class Failing(Told):
        seen = 0

        def present(self, received: Any) -> None:
            if received.metadata.name == "odd":
                raise ZeroDivisionError("s3cr3t")
            self.seen += 1

    server, receiver = Server(quiet), Failing()
    items = [{"metadata": {"name": name, "resourceVersion": "1"}} for name in ("a", "odd", "b")]
    server.get = lambda path, query: json.dumps(  # type: ignore[method-assign]
        {"metadata": {"resourceVersion": "1"}, "items": items}
    ).encode()
    reflector = followed(server, 60.0, receiver)
    assert (receiver.seen, reflector.tally.lists, reflector.tally.undecodable) == (2, 1, 1)
    assert reflector._failures.counts() == {"watch-nodes": 1}


@pytest.mark.parametrize("raised", [ZeroDivisionError("s3cr3t"), SystemExit(1), MemoryError(), RecursionError()])
def test_whatever_is_raised_the_thread_goes_on_and_tells_its_kind_alone(
    raised: BaseException, caplog: pytest.LogCaptureFixture
) -> None:
    failing = iter([raised])

    def script(server: Server) -> Iterator[bytes | float]:
        if (error := next(failing, None)) is not None:
            raise error
        return quiet(server)

    server = Server(script)
    reflector = followed(server, 60.0)
    assert len(server.lists) == 2
    assert reflector._failures.counts() == {"watch-nodes": 1}
    assert reflector.trouble is None
    assert type(raised).__name__ in caplog.text
    assert "s3cr3t" not in caplog.text


def test_what_an_error_in_a_watch_says_is_not_published(caplog: pytest.LogCaptureFixture) -> None:
    server = Server(fails(error(500, "Bearer s3cr3t")))
    reflector = followed(server, 5.0)
    assert reflector.trouble == "the watch ended with 500"
    assert "s3cr3t" not in caplog.text
