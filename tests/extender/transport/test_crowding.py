"""However many connections there are, whoever asks now is answered: those that keep it waiting give way."""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.control_plane.certificates import Authority
from tests.extender.scorers import open_gate
from tests.extender.service import Service, by_names
from tests.extender.transport.test_bytes import deaf, large_answer
from tests.extender.transport.test_tls import client_context, counted, tls
from tests.extender.transport.wire import GET, answered, closed, connect, ended, post

Run = Callable[..., Service]
MOST = 20

IDLE = {
    "that never asked": b"",
    "with half a head": b"GET /healthz HTTP/1.1\r\nHost",
    "with half a body": b"POST /prioritize HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{",
    "with half of some chunks": b"POST /prioritize HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab",
    "that were answered": GET,
}


@contextlib.contextmanager
def crowd(service: Service, count: int, sent: bytes, *, operations: bool) -> Iterator[list[socket.socket]]:
    """So many connections, oldest first, that have sent this."""
    with contextlib.ExitStack() as stack:
        crowded = []
        for _ in range(count):
            connection = stack.enter_context(connect(service, operations=operations))
            connection.sendall(sent)
            if sent == GET and operations:
                assert answered(connection)[0] == 200
            crowded.append(connection)
        yield crowded


@pytest.mark.parametrize("kind", IDLE)
@pytest.mark.parametrize("operations", [False, True], ids=["verbs", "operations"])
def test_a_crowd_of_connections_keeps_nobody_out(run_service: Run, kind: str, operations: bool) -> None:
    service = run_service(operations_port=0, max_connections=MOST)
    names = service.add_nodes(2)
    with crowd(service, 3 * MOST, IDLE[kind], operations=operations):
        for _ in range(3):
            with connect(service, operations=operations) as newcomer:
                newcomer.sendall(GET if operations else post(by_names(names)))
                assert answered(newcomer)[0] == 200
        assert counted(service, "maddpg_refusals_total", reason="gave_way") >= 2 * MOST
        assert counted(service, "maddpg_refusals_total", reason="connections") == 0
        assert counted(service, "maddpg_connections", port="operations" if operations else "verbs") <= MOST


@pytest.mark.parametrize("times", [1, 3])
def test_the_one_that_was_used_longest_ago_gives_way(run_service: Run, times: int) -> None:
    service = run_service(max_connections=3)
    names = service.add_nodes(2)
    with connect(service) as first, connect(service) as second, connect(service) as third:
        for _ in range(times):  # from the second on, the head is known and not parsed again
            for each in (third, first, second):
                each.sendall(post(by_names(names)))
                assert answered(each)[0] == 200
        for each in (second, third, first):
            each.sendall(post(by_names(names)))
            assert answered(each)[0] == 200
        with connect(service) as fourth:
            fourth.sendall(post(by_names(names)))
            assert answered(fourth)[0] == 200
            assert ended(second)
            for each in (third, first):
                each.sendall(post(by_names(names)))
                assert answered(each)[0] == 200, "whoever asked later stays"


@pytest.mark.parametrize("tracing", [False, True])
def test_where_all_are_being_answered_the_newest_gets_503(run_service: Run, tracing: bool) -> None:
    traced = {"tracing_endpoint": "http://127.0.0.1:9/v1/traces", "tracing_sample_share": 0.0} if tracing else {}
    scorer = open_gate()
    service = run_service(loaded=scorer.loaded(), max_connections=1, deadline_ms=20_000.0, operations_port=0, **traced)
    names = service.add_nodes(3)
    scorer.gate.clear()
    before = len(scorer.calls)
    with connect(service) as first:
        first.sendall(post(by_names(names)))
        service.eventually(lambda: len(scorer.calls) > before)
        with connect(service) as second:
            second.sendall(post(by_names(names)))
            status, headers, body = answered(second)
            assert (status, headers["retry-after"], headers["connection"]) == (503, "1", "close")
            assert b"max_connections" in body
            assert ended(second)
        assert counted(service, "maddpg_refusals_total", reason="connections") == 1
        scorer.gate.set()
        assert answered(first)[0] == 200, "whoever was let in is answered"
    assert service.operations.get("/healthz").status_code == 200, "the other port has limits of its own"


def test_an_answer_that_nobody_reads_gives_way(run_service: Run) -> None:
    service = run_service(max_connections=2, max_body_bytes=16 << 20)
    with contextlib.ExitStack() as stack:
        # more than the kernel takes for a caller that does not read
        unread = deaf(service, stack)
        unread.sendall(large_answer(12 << 20))
        other = stack.enter_context(connect(service))
        service.eventually(lambda: counted(service, "maddpg_bytes_in_flight") > 1 << 20)
        other.sendall(GET)
        assert answered(other)[0] == 200
        with connect(service) as newcomer:
            newcomer.sendall(GET)
            assert answered(newcomer)[0] == 200
            service.eventually(lambda: counted(service, "maddpg_bytes_in_flight") == 0)
            assert not closed(other)


@pytest.mark.parametrize("begun", [b"", b"\x16\x03\x01\x02\x00"], ids=["silent", "half a hello"])
def test_handshakes_that_never_end_give_way(run_service: Run, tmp_path: Path, begun: bytes) -> None:
    authority = Authority(tmp_path, "authority")
    service = run_service(**tls(authority.issue("extender", "127.0.0.1")), operations_port=0, max_connections=MOST)
    context = client_context(authority)
    with crowd(service, 3 * MOST, begun, operations=False) as crowded:
        for _ in range(3):
            with connect(service) as raw, context.wrap_socket(raw, server_hostname="127.0.0.1") as newcomer:
                newcomer.sendall(post(by_names([])))
                assert answered(newcomer)[0] == 200
        assert counted(service, "maddpg_connections", port="verbs") <= MOST
        assert sum(closed(each) for each in crowded) >= 2 * MOST
        assert not closed(crowded[-1])


def test_a_handshake_that_was_done_counts_once(run_service: Run, tmp_path: Path) -> None:
    authority = Authority(tmp_path, "authority")
    service = run_service(**tls(authority.issue("extender", "127.0.0.1")), operations_port=0)
    with connect(service) as raw, client_context(authority).wrap_socket(raw, server_hostname="127.0.0.1") as secured:
        secured.sendall(post(by_names([])))
        assert answered(secured)[0] == 200
        assert counted(service, "maddpg_connections", port="verbs") == 1
    service.eventually(lambda: counted(service, "maddpg_connections", port="verbs") == 0)


def test_the_service_ends_though_handshakes_do_not(run_service: Run, tmp_path: Path) -> None:
    authority = Authority(tmp_path, "authority")
    service = run_service(**tls(authority.issue("extender", "127.0.0.1")), operations_port=0)
    with crowd(service, 5, b"\x16\x03", operations=False):
        service.eventually(lambda: counted(service, "maddpg_connections", port="verbs") == 5)
        began = time.monotonic()
        service.background.__exit__()
        assert time.monotonic() - began < 5.0


def test_probes_are_answered_while_all_requests_in_flight_are_taken(run_service: Run) -> None:
    service = run_service(operations_port=0, max_requests_in_flight=1, max_body_bytes=8 << 20)
    # nothing reads this answer, and the next one on its connection waits for that
    with connect(service, operations=True) as deaf:
        deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 12)
        deaf.sendall(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n" * 60)
        time.sleep(0.5)
        for path in ("/healthz", "/readyz"):
            assert service.operations.get(path).status_code == 200
