"""An offered upgrade changes nothing, HEAD is GET without a body, nothing follows a request whose end is in doubt."""

from __future__ import annotations

import itertools
import json
import re
import socket
import time
from collections.abc import Callable, Sequence

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.extender.scorers import open_gate
from tests.extender.service import Service, by_names, pod
from tests.extender.transport.test_tls import counted
from tests.extender.transport.wire import GET, Answers, answered, connect, ended, everything, post, statuses

Run = Callable[..., Service]

OFFERS = {
    "h2c": "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQCAAAAAAIAAAAA\r\n",
    "websocket": "Connection: keep-alive, Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n",
    "several": "Upgrade: foo/1\r\nConnection: upgrade\r\nUpgrade: h2c, websocket\r\nCONNECTION: close2\r\n",
    "upper case": "UPGRADE: TLS/1.0\r\nCONNECTION: UPGRADE\r\n",
}


def offering(offer: str, request: bytes) -> bytes:
    """The request with such an offer in its head."""
    line, _, rest = request.partition(b"\r\n")
    return line + b"\r\n" + OFFERS[offer].encode() + rest


def chunked(content: bytes) -> bytes:
    """A POST with this content in two chunks."""
    parts = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in (content[:7], content[7:]))
    return b"POST /prioritize HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n" + parts + b"0\r\n\r\n"


def sent_in_pieces(connection: socket.socket, whole: bytes, cuts: Sequence[int]) -> None:
    """Send it cut at these places."""
    places = sorted({cut % len(whole) for cut in cuts} | {0, len(whole)})
    for begin, end in itertools.pairwise(places):
        connection.sendall(whole[begin:end])
        if len(places) > 2:
            time.sleep(0.002)


@pytest.mark.parametrize("offer", OFFERS)
@pytest.mark.parametrize("way", ["by length", "in chunks", "by ASGI"])
def test_an_offered_upgrade_is_ignored(run_service: Run, offer: str, way: str) -> None:
    service = run_service()
    names = service.add_nodes(3)
    body = json.dumps(by_names(names)).encode()
    plain = (
        chunked(body) if way == "in chunks" else post(body, "/prioritize?a=b" if way == "by ASGI" else "/prioritize")
    )
    whole = offering(offer, plain)
    with connect(service) as connection:
        for _ in range(2):
            connection.sendall(whole)
            status, headers, answer = answered(connection)
            assert status == 200
            assert {host["Host"] for host in json.loads(answer)} == set(names)
            assert "upgrade" not in headers
        connection.sendall(post(body))
        assert answered(connection)[0] == 200, "and the connection goes on in HTTP/1.1"


def test_an_offered_upgrade_is_ignored_wherever_it_is_cut(run_service: Run) -> None:
    service = run_service()
    names = service.add_nodes(3)
    bodies = [json.dumps(by_names(names, pod(f"p{i}"))).encode() for i in range(2)]
    plain = [post(bodies[0]), chunked(bodies[1]), GET, post(bodies[1], "/filter")]
    offered = [offering(offer, each) for offer, each in zip(OFFERS, plain, strict=True)]

    @settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
    @given(
        asked=st.lists(st.tuples(st.integers(0, 3), st.booleans()), min_size=1, max_size=5),
        cuts=st.lists(st.integers(0, 5000), max_size=5),
    )
    def exchange(asked: list[tuple[int, bool]], cuts: list[int]) -> None:
        whole = b"".join((offered if offers else plain)[kind] for kind, offers in asked)
        with connect(service) as connection:
            sent_in_pieces(connection, whole, cuts)
            answers = Answers(connection)
            for kind, _ in asked:
                status, _, answer = answers.next()
                assert status == 200
                document = json.loads(answer)
                if kind < 2:
                    assert {host["Host"] for host in document} == set(names)
                elif kind == 3:
                    assert document["NodeNames"] == names
                else:
                    assert document == {"alive": True}

    exchange()


@pytest.mark.parametrize("offer", OFFERS)
def test_an_offered_upgrade_is_ignored_at_the_operations_port(run_service: Run, offer: str) -> None:
    service = run_service(operations_port=0)
    with connect(service, operations=True) as connection:
        for request in (GET, GET.replace(b"\r\n\r\n", b"\r\nContent-Length: 4\r\n\r\nbody"), GET):
            connection.sendall(offering(offer, request))
            status, _, answer = answered(connection)
            assert (status, json.loads(answer)) == (200, {"alive": True})


DOUBTS = {
    "a length and chunks": (b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", b"5\r\nhello\r\n0\r\n\r\n", 400),
    "chunks and a length": (b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n", b"5\r\nhello\r\n0\r\n\r\n", 400),
    "two lengths": (b"Content-Length: 5\r\nContent-Length: 6\r\n", b"hello", 400),
    "the same length twice": (b"Content-Length: 5\r\nContent-Length: 5\r\n", b"hello", 400),
    "a list of lengths": (b"Content-Length: 5, 5\r\n", b"hello", 400),
    "a length with a sign": (b"Content-Length: +5\r\n", b"hello", 400),
    "a blank before the colon": (b"Content-Length : 5\r\n", b"hello", 400),
    "a folded field": (b"X: a\r\n b\r\nContent-Length: 5\r\n", b"hello", 400),
    "a folded length": (b"Content-Length:\r\n 5\r\n", b"hello", 400),
    "a bare line feed": (b"X: a\nContent-Length: 5\r\n", b"hello", 400),
    "a bare carriage return": (b"X: a\rContent-Length: 5\r\n", b"hello", 400),
    "another coding": (b"Transfer-Encoding: gzip, chunked\r\n", b"5\r\nhello\r\n0\r\n\r\n", 501),
    "another coding in a line of its own": (
        b"Transfer-Encoding: identity\r\nTransfer-Encoding: chunked\r\n", b"5\r\nhello\r\n0\r\n\r\n", 501
    ),
    "a coding without chunks": (b"Transfer-Encoding: gzip\r\n", b"hello", 501),
    "a coding after the chunks": (b"Transfer-Encoding: chunked, gzip\r\n", b"5\r\nhello\r\n0\r\n\r\n", 400),
    "an expectation nobody knows": (b"Expect: the-unexpected\r\nContent-Length: 5\r\n", b"hello", 417),
    "a chunk that ends in a line feed": (b"Transfer-Encoding: chunked\r\n", b"5\r\nhello\n0\r\n\r\n", 400),
    "a chunk longer than it says": (b"Transfer-Encoding: chunked\r\n", b"4\r\nhello\r\n0\r\n\r\n", 400),
    "a chunk of a negative size": (b"Transfer-Encoding: chunked\r\n", b"-5\r\nhello\r\n0\r\n\r\n", 400),
}  # fmt: skip


@pytest.mark.parametrize("case", DOUBTS)
def test_a_request_whose_end_is_in_doubt_is_the_last(run_service: Run, case: str) -> None:
    service = run_service(operations_port=0)
    fields, body, status = DOUBTS[case]
    told = 0
    for line, operations in ((b"POST /prioritize HTTP/1.1\r\n", False), (b"GET /healthz HTTP/1.1\r\n", True)):
        whole = line + b"Host: x\r\n" + fields + b"\r\n" + body + GET
        for cut in (0, 30, -3 - len(GET)):
            with connect(service, operations=operations) as connection:
                sent_in_pieces(connection, whole, [cut])
                found = statuses(everything(connection))
            # at the operations port no body is waited for: the answer may come before the doubt, but nothing after it
            assert found == [status] or (operations and found == [200])
            told += 1
            assert counted(service, "maddpg_refusals_total", reason="malformed") == told


@pytest.mark.parametrize(
    ("line", "status"),
    [(b"GET /healthz HTTP/2.0", 505), (b"GET /healthz HTTP/0.9", 505), (b"GET /healthz HTTP/1.2", 400),
     (b"CONNECT x:80 HTTP/1.1", 405), (b"PRI * HTTP/2.0", 400), (b"\x16\x03\x01\x02\x00", 400)],
)  # fmt: skip
def test_what_is_not_spoken_here_is_refused_and_the_connection_ends(run_service: Run, line: bytes, status: int) -> None:
    service = run_service()
    with connect(service) as connection:
        connection.sendall(line + b"\r\nHost: x\r\n\r\n" + GET)
        assert statuses(everything(connection)) == [status]


def test_what_is_no_request_leaves_the_answers_before_it_in_their_place(run_service: Run) -> None:
    scorer = open_gate()
    service = run_service(loaded=scorer.loaded(), deadline_ms=20_000.0)
    names = service.add_nodes(3)
    scorer.gate.clear()
    before = len(scorer.calls)
    with connect(service) as connection:
        connection.sendall(post(by_names(names)))
        service.eventually(lambda: len(scorer.calls) > before)
        connection.sendall(GET + b"no request at all\r\n\r\n")
        service.eventually(lambda: counted(service, "maddpg_refusals_total", reason="malformed") == 1)
        scorer.gate.set()
        answer = everything(connection)
    assert statuses(answer) == [200, 200]
    assert b'"Host"' in answer.split(b"\r\n\r\n")[1]


@pytest.mark.parametrize(
    "path", ["/healthz", "/readyz", "/metrics", "/v1/decisions", "/v1/report", "/v1/policy", "/no"]
)
@pytest.mark.parametrize("port", ["own", "shared"])
def test_head_is_get_without_its_body(run_service: Run, path: str, port: str) -> None:
    service = run_service(**({"operations_port": 0} if port == "own" else {}))
    service.add_nodes(1)
    got = service.operations.get(path)
    with connect(service, operations=True) as connection:
        for _ in range(2):
            connection.sendall(f"HEAD {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            status, headers, body = answered(connection, "HEAD")
            assert (status, body) == (got.status_code, b"")
            assert headers["content-type"] == got.headers["content-type"]
            if path != "/metrics":  # it changes by itself
                assert headers["content-length"] == got.headers["content-length"]
        connection.sendall(GET)
        assert answered(connection)[2] == b'{"alive":true}', "no body was in between"


def test_head_of_a_verb_is_refused_like_get(run_service: Run) -> None:
    service = run_service(operations_port=0)
    with connect(service) as connection:
        connection.sendall(b"HEAD /prioritize HTTP/1.1\r\nHost: x\r\n\r\nHEAD /no HTTP/1.1\r\nHost: x\r\n\r\n")
        answers = Answers(connection)
        status, headers, _ = answers.next("HEAD")
        assert (status, headers["allow"]) == (405, "POST")
        assert answers.next("HEAD")[0] == 404


@pytest.mark.parametrize("path", ["/prioritize", "/bind"], ids=["answered", "switched off"])
def test_a_connection_ends_after_a_caller_that_waited_to_go_on(run_service: Run, path: str) -> None:
    service = run_service()
    body = json.dumps(by_names(service.add_nodes(2))).encode()
    with connect(service) as connection:
        connection.sendall(post(body, path, "Expect: 100-continue")[: -len(body)])
        if path == "/prioritize":
            assert connection.recv(1024) == b"HTTP/1.1 100 Continue\r\n\r\n"
            connection.sendall(body)
        assert answered(connection)[0] == (200 if path == "/prioritize" else 404)
        assert ended(connection), "it may send its body or the next request now: nobody can tell which"


def test_a_caller_of_http_1_0_is_not_told_to_go_on(run_service: Run) -> None:
    service = run_service()
    body = json.dumps(by_names(service.add_nodes(2))).encode()
    with connect(service) as connection:
        connection.sendall(post(body, "/prioritize", "Expect: 100-continue").replace(b"HTTP/1.1", b"HTTP/1.0"))
        answer = everything(connection)
    assert statuses(answer) == [200]
    assert not re.search(rb"100 Continue", answer)


@pytest.mark.parametrize(
    "request_of", [lambda body: post(body), chunked, lambda body: GET], ids=["verb", "chunks", "GET"]
)
def test_a_caller_that_ends_its_half_is_answered(run_service: Run, request_of: Callable[[bytes], bytes]) -> None:
    service = run_service()
    body = json.dumps(by_names(service.add_nodes(2))).encode()
    with connect(service) as connection:
        connection.sendall(request_of(body))
        connection.shutdown(socket.SHUT_WR)
        assert statuses(everything(connection)) == [200]
    service.eventually(lambda: counted(service, "maddpg_connections", port="verbs") <= 1)


def test_a_caller_that_ends_its_half_while_it_is_answered_is_answered(run_service: Run) -> None:
    scorer = open_gate()
    service = run_service(loaded=scorer.loaded(), deadline_ms=20_000.0)
    names = service.add_nodes(3)
    scorer.gate.clear()
    before = len(scorer.calls)
    with connect(service) as connection:
        connection.sendall(post(by_names(names)))
        service.eventually(lambda: len(scorer.calls) > before)
        connection.shutdown(socket.SHUT_WR)
        time.sleep(0.1)
        scorer.gate.set()
        assert statuses(everything(connection)) == [200]


def test_a_refusal_arrives_though_the_caller_still_sends(run_service: Run) -> None:
    service = run_service(max_header_bytes=2048)
    with connect(service) as connection:
        try:
            for _ in range(100):
                connection.sendall(b"GET /healthz HTTP/1.1\r\n" + b"a: " + b"b" * 100_000)
        except ConnectionError:
            pass
        assert answered(connection)[0] == 431
