"""All callers together make the service hold so many bytes and no more, however they are sent or left unread."""

from __future__ import annotations

import contextlib
import gc
import json
import socket
import time
from collections.abc import Callable, Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extender.protocol import bodies
from extender.transport import budget
from extender.transport.budget import ByteBudget
from tests.extender.service import Service, by_names, pod
from tests.extender.transport.test_tls import counted
from tests.extender.transport.wire import GET, answered, connect, ended, everything, post, statuses

Run = Callable[..., Service]
Kind = Callable[[int], tuple[bytes, bytes]]
MIB = 1 << 20
SIZE = MIB


def by_length(size: int) -> tuple[bytes, bytes]:
    """Head and body, of a request that says how long its body is, but for the last byte."""
    return b"POST /prioritize HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % size, b" " * (size - 1)


def in_chunks(size: int) -> tuple[bytes, bytes]:
    """The same in chunks."""
    head = b"POST /prioritize HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    part = 1 << 14
    return head, (b"%x\r\n%b\r\n" % (part, b" " * part)) * (size // part)


@contextlib.contextmanager
def unfinished(service: Service, kind: Kind, count: int, *, operations: bool = False) -> Iterator[list[socket.socket]]:
    """So many requests of `SIZE`, all but their end."""
    with contextlib.ExitStack() as stack:
        held = []
        for _ in range(count):
            connection = stack.enter_context(connect(service, operations=operations))
            held.append(connection)
            head, body = kind(SIZE)
            with contextlib.suppress(ConnectionError):
                connection.sendall(head)
                connection.sendall(body)
        yield held


def settled(service: Service) -> Iterator[float]:
    """Bytes held, until they no longer change."""
    before = -1.0
    while (now := counted(service, "maddpg_bytes_in_flight")) != before:
        yield now
        before = now
        time.sleep(0.1)


@pytest.mark.parametrize("kind", [by_length, in_chunks])
def test_bodies_under_way_are_bounded_together(run_service: Run, kind: Kind) -> None:
    service = run_service(max_bytes_in_flight=4 * MIB, max_body_bytes=2 * MIB, body_timeout_s=60.0)
    names = service.add_nodes(2)
    with unfinished(service, kind, 10) as held:
        assert max(settled(service)) <= 4 * MIB
        refused = counted(service, "maddpg_refusals_total", reason="bytes")
        assert refused >= 6
        told = [answered(each) for each in held if not _silent(each)]
        assert len(told) == refused
        for status, headers, body in told:
            assert (status, headers["retry-after"], headers["connection"]) == (503, "1", "close")
            assert b"max_bytes_in_flight" in body
        assert set(service.prioritize(names)) == set(names), "a small request is answered meanwhile"
    service.eventually(lambda: counted(service, "maddpg_bytes_in_flight") == 0)


def _silent(connection: socket.socket) -> bool:
    connection.settimeout(0.3)
    try:
        return not connection.recv(1, socket.MSG_PEEK)
    except TimeoutError:
        return True
    finally:
        connection.settimeout(20.0)


def test_a_body_whose_caller_stalls_gives_way_to_one_that_does_not(
    run_service: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(budget, "STALLED_S", 0.2)
    service = run_service(max_bytes_in_flight=2 * MIB + (1 << 16), max_body_bytes=2 * MIB, body_timeout_s=60.0)
    names = service.add_nodes(2)
    with unfinished(service, by_length, 1) as (oldest,), unfinished(service, by_length, 1) as (newer,):
        time.sleep(0.3)
        large = json.dumps(by_names(names, pod(padding="x" * MIB))).encode()
        with connect(service) as honest:
            honest.sendall(post(large))
            assert answered(honest)[0] == 200
        assert answered(oldest)[0] == 503
        assert ended(oldest)
        newer.sendall(b" ")
        assert answered(newer)[0] == 400, "it was read to its end: blanks are no JSON"


def test_the_operations_port_keeps_no_bodies(run_service: Run) -> None:
    service = run_service(max_bytes_in_flight=4 * MIB, max_body_bytes=2 * MIB, operations_port=0)
    with unfinished(service, by_length, 10, operations=True) as held:
        assert max(settled(service)) <= 4 * MIB
        assert service.operations.get("/healthz").status_code == 200
        for each in held:
            status, _, _ = answered(each)
            assert status in (404, 503)
    service.eventually(lambda: counted(service, "maddpg_bytes_in_flight") == 0)


@pytest.mark.parametrize("operations", [False, True], ids=["verbs", "operations"])
def test_the_rest_of_a_body_that_nobody_wants_is_not_read(run_service: Run, operations: bool) -> None:
    service = run_service(operations_port=0, max_body_bytes=2 * MIB)
    with connect(service, operations=operations) as connection:
        connection.sendall(b"POST /no HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % (1 << 30))
        sent, began = 0, time.monotonic()
        try:
            while time.monotonic() - began < 10.0:
                sent += connection.send(b" " * MIB)
        except ConnectionError:
            pass
        else:
            pytest.fail("it is still read")
        assert sent < 1 << 28
        with contextlib.suppress(ConnectionError):
            assert answered(connection)[0] in (404, 405)


def large_answer(size: int) -> bytes:
    """A request whose answer is as long: whole nodes come back from /filter."""
    node = {"metadata": {"name": "a", "annotations": {"padding": "x" * size}}}
    return post({"Pod": pod(), "Nodes": {"metadata": {}, "items": [node]}, "NodeNames": None}, "/filter")


def deaf(service: Service, stack: contextlib.ExitStack) -> socket.socket:
    """A connection of which little is taken before it is read."""
    connection = socket.socket()
    stack.enter_context(connection)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 12)
    connection.settimeout(20.0)
    connection.connect(("127.0.0.1", service.background.port))
    return connection


def test_answers_that_nobody_reads_are_bounded_together(run_service: Run) -> None:
    service = run_service(max_bytes_in_flight=24 * MIB, max_body_bytes=8 * MIB, answer_timeout_s=60.0)
    with contextlib.ExitStack() as stack:
        for _ in range(12):
            with contextlib.suppress(ConnectionError):
                deaf(service, stack).sendall(large_answer(6 * MIB))
        assert max(settled(service)) <= 24 * MIB
        assert counted(service, "maddpg_refusals_total", reason="bytes") > 0
        assert service.http.get("/healthz").status_code == 200
    service.eventually(lambda: counted(service, "maddpg_bytes_in_flight") == 0)


@pytest.mark.parametrize("reads", [False, True], ids=["not at all", "a little at a time"])
def test_an_answer_that_is_not_read_in_time_is_dropped(run_service: Run, reads: bool) -> None:
    service = run_service(answer_timeout_s=0.5)
    with contextlib.ExitStack() as stack:
        slow = deaf(service, stack)
        slow.sendall(large_answer(12 * MIB))
        service.eventually(lambda: counted(service, "maddpg_bytes_in_flight") > MIB)
        began = time.monotonic()
        while not counted(service, "maddpg_refusals_total", reason="answer_timeout"):
            if reads:
                slow.recv(1 << 10)
            time.sleep(0.01)
            assert time.monotonic() - began < 10.0
        service.eventually(lambda: counted(service, "maddpg_bytes_in_flight") == 0)


def test_a_large_answer_that_is_read_is_whole(run_service: Run) -> None:
    service = run_service(answer_timeout_s=20.0)
    with contextlib.ExitStack() as stack:
        slow = deaf(service, stack)
        slow.sendall(large_answer(8 * MIB))
        status, _, body = answered(slow)
        assert status == 200
        assert len(json.loads(body)["Nodes"]["items"][0]["metadata"]["annotations"]["padding"]) == 8 * MIB


def test_a_body_that_is_too_large_is_refused_before_it_comes_and_the_refusal_arrives(run_service: Run) -> None:
    service = run_service(max_body_bytes=MIB)
    with connect(service) as connection:
        connection.sendall(by_length(8 * MIB)[0])
        with contextlib.suppress(ConnectionError):
            connection.sendall(b" " * MIB)
        status, headers, body = answered(connection)
        assert (status, headers["connection"]) == (413, "close")
        assert b"max_body_bytes" in body
        assert ended(connection)


def test_an_idle_connection_holds_nothing_of_its_last_request(run_service: Run) -> None:
    service = run_service(max_body_bytes=8 * MIB, operations_port=0)
    names = service.add_nodes(2)
    mark = "left-over-" * 50_000
    with connect(service) as verbs, connect(service, operations=True) as operations:
        verbs.sendall(post(by_names(names, pod(padding=mark))))
        assert answered(verbs)[0] == 200
        operations.sendall(GET.replace(b"\r\n\r\n", b"\r\nContent-Length: 100000\r\n\r\n") + mark.encode()[:100_000])
        assert answered(operations)[0] == 200
        gc.collect()
        left = [len(each) for each in _buffers() if mark[:100].encode() in each]
        assert left == [], "bytes of bodies are still held"


def _buffers() -> list[bytes | bytearray]:
    """Buffers that an object of the service refers to; bytes are not tracked by the collector themselves."""
    kinds = {"VerbExchange", "RequestResponseCycle", "RecentRequests", "VerbConnection", "LimitedConnection"}
    found: list[bytes | bytearray] = []
    for each in gc.get_objects():
        if type(each).__name__ in kinds:
            for held in gc.get_referents(each):
                inner = gc.get_referents(held) if isinstance(held, list | dict | tuple) or held is not None else []
                found += [it for it in (held, *inner) if isinstance(it, bytes | bytearray)]
    return found


@pytest.mark.parametrize(
    "body",
    [
        json.dumps(by_names(["a"], pod(padding="x" * bodies.LONGEST_POD))),
        json.dumps(by_names(["x" * bodies.LONGEST_LIST])),
        json.dumps(by_names([""] * (bodies.MOST_NAMES + 1))),
    ],
    ids=["pod", "list", "names"],
)
def test_large_requests_are_answered_and_not_remembered(run_service: Run, body: str) -> None:
    service = run_service(max_nodes=100_000)
    recent = service.background.app.verbs._recent
    compact = json.dumps(json.loads(body), separators=(",", ":")).encode()
    for content in (compact, body.encode()):
        assert service.post("prioritize", content).status_code == 200
    assert not recent._requests
    kept = [each for each in recent._lists if len(each.text) > bodies.LONGEST_LIST or len(each.names) > 10]
    assert not kept


def test_more_names_than_any_cluster_has_are_refused(run_service: Run) -> None:
    service = run_service()
    for body in (
        by_names([""] * 100_001),
        {"Pod": pod(), "Nodes": {"items": [{"metadata": {"name": ""}}] * 100_001}},
    ):
        answer = service.post("prioritize", json.dumps(body, separators=(",", ":")).encode())
        assert answer.status_code == 413
        assert "100000" in answer.json()["Error"]


def test_requests_sent_ahead_are_bounded(run_service: Run) -> None:
    service = run_service(max_header_bytes=4096)
    with connect(service) as connection:
        connection.sendall(GET * 2000)
        answer = everything(connection)
    assert 1 <= len(statuses(answer)) <= 20
    assert set(statuses(answer)) == {200}, "those before are answered, and then the connection ends"
    assert counted(service, "maddpg_refusals_total", reason="header_size") == 1


def test_many_short_fields_are_too_long_a_head(run_service: Run) -> None:
    service = run_service(max_header_bytes=4096)
    with connect(service) as connection:
        connection.sendall(b"GET /healthz HTTP/1.1\r\n" + b"a:\r\n" * 500 + b"\r\n")
        assert answered(connection)[0] == 431
        assert ended(connection)


def test_fields_behind_a_chunked_body_count_too(run_service: Run) -> None:
    service = run_service(max_header_bytes=4096)
    with connect(service) as connection:
        connection.sendall(b"POST /prioritize HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n")
        with contextlib.suppress(ConnectionError):
            for _ in range(1000):
                connection.sendall(b"a: b\r\n" * 100)
        assert answered(connection)[0] == 431
    service.eventually(lambda: counted(service, "maddpg_connections", port="verbs") == 0)


class Holder:
    """Holds bytes for nobody."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.waits = True
        self.gave_up = 0

    def give_up_bytes(self) -> None:
        """Note it."""
        self.gave_up += 1


@given(
    steps=st.lists(st.tuples(st.integers(0, 4), st.integers(0, 60), st.floats(0.0, 2.0), st.booleans()), max_size=40)
)
def test_a_budget_holds_what_its_holders_say_and_never_too_much(steps: list[tuple[int, int, float, bool]]) -> None:
    now = 0.0
    counting = ByteBudget(100, timer=lambda: now)
    holders = [Holder(number) for number in range(5)]
    model: dict[int, tuple[tuple[float, int], int]] = {}
    for step, (number, size, passed, waits) in enumerate(steps):
        now += passed
        holder = holders[number]
        holder.waits = waits
        before = [each.gave_up for each in holders]
        since = model.pop(number, ((now, step), 0))[0]
        stalled = sorted((at, other) for other, (at, _) in model.items() if holders[other].waits)
        room = counting.hold(holder, size)
        if size:
            model[number] = since, size
        while sum(each for _, each in model.values()) > 100 and stalled and stalled[0][0][0] <= now - budget.STALLED_S:
            _, other = stalled.pop(0)
            del model[other]
            assert holders[other].gave_up == before[other] + 1
        if sum(each for _, each in model.values()) > 100:
            assert not room
            del model[number]
        else:
            assert room
        assert counting.held == sum(each for _, each in model.values()) <= 100
