"""Whatever arrives on the socket is answered with a documented status or ends the connection, soon, at nobody's cost.

Bytes of HTTP written by hand: what no client sends on purpose, and what a broken or hostile one does.
"""

from __future__ import annotations

import json
import os
import re
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from extender.app import create_app
from extender.settings import Settings
from tests.extender.background import BackgroundService
from tests.extender.embedded import EmbeddedSource
from tests.extender.service import Service, by_names, pod

EXAMPLES = int(os.environ.get("ROBUSTNESS_EXAMPLES", "25"))
REFUSALS = {400, 404, 405, 408, 413, 417, 431, 501, 505}
"""Statuses of requests that are refused: those of the API's description, and of what is not HTTP as spoken here."""
PATIENCE_S = 30.0
BODY_TIMEOUT_S = 1.0

BODY = json.dumps(by_names(["node-0", "node-1"], pod("odd"))).encode()
HEAD = b"POST /prioritize HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
CLOSE = b"Connection: close\r\n"


def whole(*headers: bytes, body: bytes = BODY, length: int | None = None) -> bytes:
    """A request with a body and its length, or with another length than its own."""
    said = len(body) if length is None else length
    return HEAD + b"".join(headers) + b"Content-Length: %d\r\n\r\n" % said + body


def chunked(*parts: bytes, close: bytes = CLOSE) -> bytes:
    """A request whose body comes in these chunks."""
    chunks = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts)
    return HEAD + close + b"Transfer-Encoding: chunked\r\n\r\n" + chunks + b"0\r\n\r\n"


LAST = whole(CLOSE)
SERVED = {
    "one": ((LAST,), 1),
    "byte by byte": ((*(bytes([byte]) for byte in LAST[:60]), LAST[60:]), 1),
    "two pipelined": ((whole() + LAST,), 2),
    "twenty pipelined": ((whole() * 19 + LAST,), 20),
    "chunked": ((chunked(BODY[:10], BODY[10:]),), 1),
    "chunked by the byte": ((chunked(*(bytes([byte]) for byte in BODY)),), 1),
    "chunked then pipelined": ((chunked(BODY, close=b"") + LAST,), 2),
    "200 headers": ((whole(*(b"X-%d: y\r\n" % i for i in range(200)), CLOSE),), 1),
    "expects to continue": ((whole(b"Expect: 100-continue\r\n", CLOSE),), 1),
    "HTTP 1.0": ((LAST.replace(b"HTTP/1.1", b"HTTP/1.0"),), 1),
    "absolute target": ((LAST.replace(b" /prioritize", b" http://x/prioritize"),), 1),
    "another protocol offered": ((whole(b"Connection: Upgrade, close\r\n", b"Upgrade: h2c\r\n"),), 1),
    "with a query": ((LAST.replace(b"/prioritize", b"/prioritize?timeout=1s"),), 1),
}

REFUSED = {
    "a TLS hello": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(range(256)),
    "an HTTP/2 preface": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "no HTTP": b"hello\r\n\r\n",
    "another version": LAST.replace(b"HTTP/1.1", b"HTTP/7.3"),
    "an unknown method": LAST.replace(b"POST", b"SCHEDULE"),
    "CONNECT": b"CONNECT x:80 HTTP/1.1\r\nHost: x\r\n\r\n",
    "a path of bytes": LAST.replace(b"/prioritize", b"/\xff\xfe"),
    "an encoded path of bytes": LAST.replace(b"/prioritize", b"/%ff%00%fe"),
    "a path that climbs": LAST.replace(b"/prioritize", b"/../../prioritize"),
    "a target that is no URL": LAST.replace(b"/prioritize", b"http://[::1"),
    "a negative length": HEAD + b"Content-Length: -5\r\n\r\n" + BODY,
    "a length in words": HEAD + b"Content-Length: ten\r\n\r\n" + BODY,
    "a length beyond 64 bits": HEAD + b"Content-Length: %d\r\n\r\n" % 10**30 + BODY,
    "a length beyond the limit": whole(length=10**12),
    "two lengths": HEAD + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\n" + BODY,
    "a length and chunks": HEAD + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    "a chunk of no size": HEAD + b"Transfer-Encoding: chunked\r\n\r\nzz\r\nhello\r\n",
    "a chunk of any size": HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + b"f" * 17 + b"\r\nhello\r\n",
    "chunks beyond the limit": chunked(b"x" * (3 << 20)),
    "a header without a colon": whole(b"nothing\r\n"),
    "a header with a NUL": whole(b"X: a\x00b\r\n"),
    "a header of 1 MiB": whole(b"X: " + b"y" * (1 << 20) + b"\r\n", body=b"{"),
    "a length that is too short": whole(length=len(BODY) - 9),
    "a body that is no JSON": whole(CLOSE, body=b"\x00" * 100),
}

UNFINISHED = {
    "a length that is too long": whole(length=len(BODY) + 9),
    "a chunk that never ends": HEAD + b"Transfer-Encoding: chunked\r\n\r\nff\r\nhello",
    "chunks that never end": HEAD + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
    "half a body behind a whole request": whole() + whole()[:-10],
}


@pytest.fixture(scope="module")
def service(bundle_path: Path) -> Iterator[Service]:
    """One service for all of them, so that what one leaves behind meets the next."""
    limits = {"body_timeout_s": BODY_TIMEOUT_S, "max_body_bytes": 1 << 20}
    settings = Settings(port=0, bundle_path=bundle_path, **limits)
    source = EmbeddedSource()
    background = BackgroundService(create_app(settings, source))
    background.__enter__()
    running = Service(background, source)
    running.add_nodes(2)
    yield running
    running.close()


def exchange(service: Service, *pieces: bytes, end: bool = False) -> bytes:
    """All that the service answers to these bytes until it closes the connection.

    Args:
        service: whom to send to.
        pieces: sent with a pause after each.
        end: whether to end our direction after them.

    Raises:
        TimeoutError: it neither answers nor closes.
    """
    received = bytearray()
    with socket.create_connection(("127.0.0.1", service.background.port), timeout=PATIENCE_S) as connection:
        try:
            for piece in pieces:
                connection.sendall(piece)
                time.sleep(0.01)
            if end:
                connection.shutdown(socket.SHUT_WR)
            while part := connection.recv(1 << 16):
                received += part
        except OSError as error:
            if isinstance(error, TimeoutError):
                raise
            return bytes(received)  # it refuses by closing while we still send
    return bytes(received)


def statuses(answer: bytes) -> list[int]:
    """The status of each answer in these bytes, but for 100."""
    return [int(code) for code in re.findall(rb"HTTP/1\.1 (\d{3})", answer) if code != b"100"]


@pytest.fixture(autouse=True)
def well_afterwards(service: Service) -> Iterator[None]:
    """Whatever a test did, the next kube-scheduler is served, and nothing was a mistake of ours."""
    yield
    assert set(service.prioritize(["node-0", "node-1"])) == {"node-0", "node-1"}
    for verb in ("filter", "prioritize", "preempt", "bind"):
        assert service.metric("maddpg_requests_total", verb=verb, code="500") == 0


@pytest.mark.parametrize("case", SERVED)
def test_unusual_but_valid_http_is_served(service: Service, case: str) -> None:
    pieces, count = SERVED[case]
    assert statuses(exchange(service, *pieces)) == [200] * count


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_no_request_is_refused_and_never_waited_for(service: Service, case: str) -> None:
    found = statuses(exchange(service, REFUSED[case], end=True))
    assert set(found) <= REFUSALS


@pytest.mark.parametrize("case", UNFINISHED)
def test_a_request_that_stops_halfway_is_given_up(service: Service, case: str) -> None:
    began = time.monotonic()
    assert statuses(exchange(service, UNFINISHED[case]))[-1:] == [408]
    assert time.monotonic() - began >= BODY_TIMEOUT_S


@pytest.mark.parametrize("case", UNFINISHED)
def test_a_client_that_leaves_halfway_is_forgotten(service: Service, case: str) -> None:
    assert set(statuses(exchange(service, UNFINISHED[case], end=True))) <= {200, *REFUSALS}


def mutated() -> st.SearchStrategy[bytes]:
    """Requests with bytes changed, cut out, doubled or put in."""
    seeds = [LAST, chunked(BODY[:10], BODY[10:]), *REFUSED.values()]
    place = st.floats(0, 1, exclude_max=True)
    change = st.tuples(place, st.integers(0, 8), st.binary(max_size=8))

    def apply(seed: bytes, changes: list[tuple[float, int, bytes]]) -> bytes:
        for where, length, instead in changes:
            at = int(where * len(seed))
            seed = seed[:at] + instead + seed[at + length :]
        return seed

    small = [seed for seed in seeds if len(seed) < 4096]
    return st.builds(apply, st.sampled_from(small), st.lists(change, min_size=1, max_size=4))


@given(content=mutated())
@settings(
    max_examples=2 * EXAMPLES,
    derandomize=EXAMPLES <= 100,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
def test_broken_requests_are_served_or_refused(service: Service, content: bytes) -> None:
    assert set(statuses(exchange(service, content, end=True))) <= {200, 422, *REFUSALS}
