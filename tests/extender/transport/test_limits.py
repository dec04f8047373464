"""Nobody can hold the service up, fill it, or make it tell what it should not: each limit, over real sockets."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from http.client import HTTPResponse
from pathlib import Path
from typing import Any

import pytest
from uvicorn import Config
from uvicorn.server import ServerState

from extender import logs, server
from extender.transport.limits import LimitedConnection
from tests.control_plane.certificates import Authority
from tests.extender.scorers import open_gate
from tests.extender.service import Service, by_names, pod
from tests.extender.transport.ports import port
from tests.extender.transport.test_tls import counted, tls

Run = Callable[..., Service]
GET = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"


@contextlib.contextmanager
def connected(service: Service) -> Iterator[socket.socket]:
    """A connection to the verbs' port."""
    with socket.create_connection(("127.0.0.1", service.background.port), timeout=20.0) as connection:
        yield connection


def answered(connection: socket.socket) -> tuple[int, dict[str, str], bytes]:
    """Status, headers and body of the next answer."""
    response = HTTPResponse(connection)
    response.begin()
    headers = {name.lower(): value for name, value in response.getheaders()}
    return response.status, headers, response.read()


def is_closed(connection: socket.socket) -> bool:
    """Whether the other side closes without another byte."""
    try:
        return connection.recv(1) == b""
    except ConnectionResetError:
        return True


def verb(body: Any) -> bytes:
    """A POST to /prioritize."""
    content = json.dumps(body).encode()
    return b"POST /prioritize HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s" % (len(content), content)


@pytest.mark.parametrize("before", [b"", GET], ids=["first request", "after an answer"])
@pytest.mark.parametrize("begun", [b"P", b"POST /prioritize HTTP/1.1\r\nHost: x\r\nA: "], ids=["a byte", "lines"])
def test_a_head_that_does_not_end_is_refused(run_service: Run, before: bytes, begun: bytes) -> None:
    service = run_service(header_timeout_s=0.3)
    with connected(service) as connection:
        if before:
            connection.sendall(before)
            assert answered(connection)[0] == 200
        connection.sendall(begun)
        status, headers, body = answered(connection)
        assert (status, headers["connection"]) == (408, "close")
        assert "header_timeout_s" in json.loads(body)["Error"]
        assert is_closed(connection)
    assert counted(service, "maddpg_refusals_total", reason="header_timeout") == 1


def test_a_head_that_trickles_gets_no_more_time(run_service: Run) -> None:
    service = run_service(header_timeout_s=0.5)
    stop = threading.Event()
    with connected(service) as connection:

        def trickle() -> None:
            with contextlib.suppress(OSError):
                connection.sendall(b"GET /healthz HTTP/1.1\r\n")
                while not stop.wait(0.05):
                    connection.sendall(b"a: b\r\n")

        thread = threading.Thread(target=trickle)
        thread.start()
        try:
            service.eventually(lambda: counted(service, "maddpg_refusals_total", reason="header_timeout") == 1)
        finally:
            stop.set()
            thread.join()


def test_an_empty_line_after_an_answer_does_not_keep_a_connection_for_ever(run_service: Run) -> None:
    service = run_service(header_timeout_s=0.3)
    with connected(service) as connection:
        connection.sendall(GET)
        assert answered(connection)[0] == 200
        connection.sendall(b"\r\n")
        assert is_closed(connection)


def test_a_head_in_pieces_is_answered_when_it_is_whole_in_time(run_service: Run) -> None:
    service = run_service(header_timeout_s=20.0)
    with connected(service) as connection:
        for _ in range(2):
            for piece in (GET[:7], GET[7:20], GET[20:]):
                connection.sendall(piece)
                time.sleep(0.02)
            assert answered(connection)[0] == 200
    assert counted(service, "maddpg_refusals_total", reason="header_timeout") == 0


def test_a_long_head_is_refused(run_service: Run) -> None:
    service = run_service(max_header_bytes=2048)
    with connected(service) as connection:
        connection.sendall(b"GET /healthz HTTP/1.1\r\n" + b"a: " + b"b" * 4096)
        status, _, body = answered(connection)
        assert status == 431
        assert "max_header_bytes" in json.loads(body)["Error"]
        assert is_closed(connection)
    assert counted(service, "maddpg_refusals_total", reason="header_size") == 1


@pytest.mark.parametrize("path", ["prioritize", "bind"], ids=["from the connection", "by ASGI"])
def test_requests_beyond_the_most_at_once_get_503_and_their_connection_goes_on(run_service: Run, path: str) -> None:
    scorer = open_gate()
    service = run_service(loaded=scorer.loaded(), max_requests_in_flight=1, deadline_ms=20_000.0)
    names = service.add_nodes(3)
    scorer.gate.clear()
    before = len(scorer.calls)
    with connected(service) as first, connected(service) as second:
        first.sendall(verb(by_names(names)))
        service.eventually(lambda: len(scorer.calls) > before)
        # /bind is switched off, so its request takes the way through ASGI
        second.sendall(verb(by_names(names)).replace(b"/prioritize", f"/{path}".encode()))
        status, headers, body = answered(second)
        assert (status, headers["retry-after"]) == (503, "1")
        assert "max_requests_in_flight" in json.loads(body)["Error"]
        assert counted(service, "maddpg_refusals_total", reason="requests") == 1
        scorer.gate.set()
        assert answered(first)[0] == 200

        def served() -> bool:
            second.sendall(verb(by_names(names)))
            return answered(second)[0] == 200

        service.eventually(served)  # the first request ends just after its answer has left


class Unread(asyncio.Transport):
    """A transport with bytes that the other side does not read."""

    def __init__(self, unread: int) -> None:
        super().__init__()
        self.unread = unread
        self.ends: list[str] = []

    def get_write_buffer_size(self) -> int:
        return self.unread

    def is_closing(self) -> bool:
        return bool(self.ends)

    def close(self) -> None:
        self.ends.append("close")

    def abort(self) -> None:
        self.ends.append("abort")


@pytest.mark.parametrize(("unread", "end"), [(0, "close"), (1, "abort")], ids=["idle", "an answer nobody reads"])
def test_a_silent_connection_ends_when_its_time_is_over(unread: int, end: str) -> None:
    async def run() -> list[str]:
        config = Config(app=lambda *_: None, timeout_keep_alive=0)  # type: ignore[arg-type, misc]
        parts = {"config": config, "server_state": ServerState(), "app_state": {}, "_loop": None}
        connection = LimitedConnection(port(), **parts)
        transport = Unread(unread)
        connection.connection_made(transport)
        await asyncio.sleep(0.05)
        connection.connection_lost(None)
        return transport.ends

    assert asyncio.run(run())[0] == end


def test_a_tls_handshake_that_does_not_go_on_is_cut(run_service: Run, tmp_path: Path) -> None:
    pair = Authority(tmp_path, "authority").issue("extender", "127.0.0.1")
    service = run_service(**tls(pair), header_timeout_s=0.3, operations_port=0)
    with connected(service) as connection:
        connection.sendall(b"\x16\x03\x01\x02\x00")
        assert is_closed(connection)


SECRET = "s3cret-of-the-pod"


def with_secret(**changed: Any) -> dict[str, Any]:
    """A pod with a secret in its environment, its annotations and its arguments."""
    made = pod("web", annotations={"token": SECRET})
    made["spec"]["containers"][0] |= {"env": [{"name": "PASSWORD", "value": SECRET}], "args": [f"--key={SECRET}"]}
    made["spec"]["containers"][0] |= changed
    return made


@pytest.mark.parametrize(
    "body",
    [
        by_names(["node-0"], with_secret(resources={"requests": {"cpu": "many"}})),
        by_names(["node-0"], with_secret(resources={"requests": {"cpu": -1}})),
        by_names(["node-0"], with_secret(env={"PASSWORD": SECRET})),
        by_names(["node-0"], with_secret(env=SECRET)),
        by_names(["node-0", 7], with_secret()),  # type: ignore[list-item]
        {**by_names(["node-0"]), "Pod": with_secret() | {"spec": SECRET}},
    ],
    ids=["quantity", "negative", "environment", "environment as text", "name", "specification"],
)
@pytest.mark.parametrize("path", ["filter", "prioritize", "preempt", "bind"])
def test_neither_answers_nor_logs_repeat_what_a_pod_was_given(run_service: Run, path: str, body: Any) -> None:
    stream = io.StringIO()
    service = run_service(enable_bind=True)
    service.add_nodes(2)
    logs.configure("debug", "json", stream)
    answer = service.post(path, body)
    broken = service.post(path, json.dumps(body).encode()[:-2])
    for text in (answer.text, broken.text, stream.getvalue()):
        assert SECRET not in text
        assert "Traceback" not in text
    assert broken.status_code == 400


def broken(*_: object) -> Any:
    """Fails, with a secret in its message."""
    raise RuntimeError(SECRET)


@pytest.mark.parametrize("path", ["/v1/decisions", "/metrics"])
def test_a_failure_of_our_own_shows_no_trace_on_the_wire(
    run_service: Run, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    service = run_service()
    app = service.background.app
    monkeypatch.setattr(app.ledger, "newest_first", broken)
    monkeypatch.setattr(app.metrics, "exposition", broken)
    answer = service.operations.get(path)
    assert (answer.status_code, answer.text) == (500, "Internal Server Error")


@pytest.mark.parametrize(
    ("hard", "kept", "allowed", "files"),
    [
        (1_048_576, 1024, 1000, 4096),
        (1_048_576, 0, 1000, 2128),
        (1024, 0, 448, 1024),
        (1024, 1024, 320, 1024),  # a quarter is for connections to kubelets
    ],
)
def test_connections_share_the_files_with_those_kept_to_kubelets(
    monkeypatch: pytest.MonkeyPatch, hard: int, kept: int, allowed: int, files: int
) -> None:
    limit = [(1024, hard)]
    monkeypatch.setattr(server.resource, "getrlimit", lambda _: limit[-1])
    monkeypatch.setattr(server.resource, "setrlimit", lambda _, wanted: limit.append(wanted))
    assert server._allowed_connections(1000, kept) == allowed
    assert limit[-1] == (files, hard)
