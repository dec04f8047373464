"""However a request comes over its connection, it gets its own answer, whole, in one write, and in its turn."""

from __future__ import annotations

import asyncio
import gc
import itertools
import json
import socket
import time
from collections.abc import Callable
from http.client import HTTPResponse
from typing import Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from uvicorn import Config
from uvicorn.server import ServerState

from extender.transport.connection import VerbConnection, VerbExchange
from tests.extender.service import Service, by_names, pod
from tests.extender.transport.ports import port


def request(body: bytes, path: str = "/prioritize", version: str = "1.1", **headers: str) -> bytes:
    """A POST as bytes; underscores of header names become dashes."""
    lines = [f"POST {path} HTTP/{version}", "Host: x", f"Content-Length: {len(body)}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode() + body


def connected(service: Service) -> socket.socket:
    return socket.create_connection(("127.0.0.1", service.background.port), timeout=10.0)


class Answers:
    """Reads one answer after the other from a socket."""

    def __init__(self, connection: socket.socket) -> None:
        self._file = connection.makefile("rb")

    def read(self) -> tuple[int, Any]:
        """Status and JSON of the next answer."""
        response = HTTPResponse(cast("socket.socket", self), method="POST")
        response.begin()
        return response.status, json.loads(response.read())

    def makefile(self, _mode: str) -> Any:
        """`HTTPResponse` asks for a file of its own; buffered bytes must not be lost between answers."""
        return Unclosed(self._file)

    @property
    def ended(self) -> bool:
        """Whether the other side has closed the connection."""
        return self._file.read(1) == b""


class Unclosed:
    """A file that `HTTPResponse` may not close."""

    def __init__(self, file: Any) -> None:
        self._file = file

    def close(self) -> None:
        pass

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


def rated(answer: tuple[int, Any]) -> set[str]:
    status, hosts = answer
    assert status == 200
    return {host["Host"] for host in hosts}


def bodies(names: list[str]) -> list[bytes]:
    """Three requests that can be told apart by their answers."""
    return [json.dumps(by_names(names[: i + 2], pod(f"web-{i}"))).encode() for i in range(3)]


def test_a_body_may_come_in_many_pieces(run_service: Callable[..., Service]) -> None:
    service = run_service()
    names = service.add_nodes(300)
    whole = request(json.dumps(by_names(names)).encode())
    with connected(service) as connection:
        answers = Answers(connection)
        for step in (1000, 37, 5000):
            for start in range(0, len(whole), step):
                connection.sendall(whole[start : start + step])
                time.sleep(0.001)
            assert rated(answers.read()) == set(names)


def test_requests_sent_ahead_are_answered_in_their_order(run_service: Callable[..., Service]) -> None:
    service = run_service()
    names = service.add_nodes(5)
    first, second, third = bodies(names)
    probe = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"
    with connected(service) as connection:
        connection.sendall(request(first) + probe + request(second) + request(b"{") + request(third, path="/filter"))
        answers = Answers(connection)
        assert rated(answers.read()) == set(names[:2])
        assert answers.read()[0] == 200
        assert rated(answers.read()) == set(names[:3])
        assert answers.read()[0] == 400
        assert answers.read()[1]["NodeNames"] == names[:4]


def test_a_head_that_was_parsed_before_is_not_parsed_again(
    run_service: Callable[..., Service], monkeypatch: pytest.MonkeyPatch
) -> None:
    parsed: list[bytes] = []
    on_url = VerbConnection.on_url
    monkeypatch.setattr(VerbConnection, "on_url", lambda self, url: (parsed.append(url), on_url(self, url)))
    service = run_service()
    names = service.add_nodes(5)
    sent = bodies(names)
    with connected(service) as connection:
        answers = Answers(connection)
        for body, headers in ((sent[0], {}), (sent[1], {}), (sent[2], {"Traceparent": "00"}), (sent[0], {})):
            connection.sendall(request(body, **headers))
            assert rated(answers.read()) == set(json.loads(body)["NodeNames"])
        assert parsed == [b"/prioritize"] * 3, "each that differs from the one before it is parsed"
        parsed.clear()
        for body in sent:  # as kube-scheduler asks
            connection.sendall(request(body, path="/filter"))
            assert answers.read()[1]["NodeNames"] == json.loads(body)["NodeNames"]
            connection.sendall(request(body))
            assert rated(answers.read()) == set(json.loads(body)["NodeNames"])
        assert parsed == [b"/filter"]
        connection.sendall(request(b"{", path="/filter"))
        assert answers.read()[0] == 400


def test_however_requests_are_cut_each_gets_its_own_answer_in_its_turn(run_service: Callable[..., Service]) -> None:
    service = run_service()
    names = service.add_nodes(5)
    first, second, _ = bodies(names)
    probe = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"
    asked = [request(first), request(second), request(first, path="/filter"), probe, request(b"[1]"), request(b"")]

    @settings(max_examples=40, deadline=None)
    @given(kinds=st.lists(st.integers(0, 5), min_size=1, max_size=8), cuts=st.lists(st.integers(0, 4000), max_size=6))
    def exchange(kinds: list[int], cuts: list[int]) -> None:
        whole = b"".join(asked[kind] for kind in kinds)
        places = sorted({min(cut, len(whole)) for cut in cuts} | {0, len(whole)})
        with connected(service) as connection:
            for start, end in itertools.pairwise(places):
                connection.sendall(whole[start:end])
                time.sleep(0.002)
            answers = Answers(connection)
            for kind in kinds:
                status, content = answers.read()
                assert status == [200, 200, 200, 200, 400, 400][kind]
                if kind < 2:
                    assert {host["Host"] for host in content} == set(names[: 2 + kind])
                if kind == 2:
                    assert content["NodeNames"] == names[:2]

    exchange()


@pytest.mark.parametrize(
    ("version", "headers"), [("1.1", {"Connection": "close"}), ("1.0", {})], ids=["asked to close", "HTTP/1.0"]
)
def test_a_connection_that_shall_not_be_kept_is_closed_after_the_answer(
    run_service: Callable[..., Service], version: str, headers: dict[str, str]
) -> None:
    service = run_service()
    names = service.add_nodes(2)
    with connected(service) as connection:
        connection.sendall(request(bodies(names)[0], version=version, **headers))
        answers = Answers(connection)
        assert rated(answers.read()) == set(names)
        assert answers.ended


@pytest.mark.parametrize("how", ["chunked", "expecting 100-continue", "with a query"])
def test_an_unusual_request_gets_the_usual_answer(run_service: Callable[..., Service], how: str) -> None:
    service = run_service()
    names = service.add_nodes(2)
    body = bodies(names)[0]
    with connected(service) as connection:
        if how == "chunked":
            head = b"POST /prioritize HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
            connection.sendall(head + b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body))
        elif how == "with a query":
            connection.sendall(request(body, path="/prioritize?timeout=5s"))
        else:
            whole = request(body, Expect="100-continue")
            connection.sendall(whole[: -len(body)])
            assert connection.recv(1024) == b"HTTP/1.1 100 Continue\r\n\r\n"
            connection.sendall(body)
        assert rated(Answers(connection).read()) == set(names)


def test_a_body_that_breaks_off_is_counted_and_forgotten(run_service: Callable[..., Service]) -> None:
    service = run_service()
    names = service.add_nodes(2)
    with connected(service) as connection:
        connection.sendall(request(bodies(names)[0])[:-5])
    deadline = time.monotonic() + 10.0
    while not service.metric("maddpg_requests_total", verb="prioritize", code="400"):
        assert time.monotonic() < deadline
    assert set(service.prioritize(names)) == set(names)


def test_a_request_whose_body_is_still_coming_is_answered_before_the_service_ends(
    run_service: Callable[..., Service],
) -> None:
    service = run_service(shutdown_grace_s=10.0)
    names = service.add_nodes(2)
    whole = request(bodies(names)[0])
    with connected(service) as connection:
        connection.sendall(whole[:-5])
        service.background.stop()
        wait_until_nothing_is_accepted(service)
        connection.sendall(whole[-5:])
        answers = Answers(connection)
        assert rated(answers.read()) == set(names)
        assert answers.ended


def wait_until_nothing_is_accepted(service: Service) -> None:
    try:
        while True:
            connected(service).close()
    except ConnectionError:
        return


class Recorder(asyncio.Transport):
    """A transport that records what it is asked to send."""

    def __init__(self) -> None:
        super().__init__()
        self.sent: list[bytes] = []

    def write(self, data: Any) -> None:
        self.sent.append(bytes(data))

    def is_closing(self) -> bool:
        return False


@pytest.mark.parametrize("body", [json.dumps(by_names(["a", "b"])).encode(), b"{"], ids=["an answer", "a refusal"])
def test_an_answer_leaves_in_one_write(run_service: Callable[..., Service], body: bytes) -> None:
    app = run_service().background.app
    recorder = Recorder()

    async def exchange() -> None:
        parts = {"config": Config(app), "server_state": ServerState(), "app_state": {}, "_loop": None}
        connection = VerbConnection(app.verbs, port(), **parts)
        connection.connection_made(recorder)
        connection.data_received(request(body))
        deadline = time.monotonic() + 10.0
        while not recorder.sent:
            assert time.monotonic() < deadline
            await asyncio.sleep(0)
        await asyncio.sleep(0)
        connection.connection_lost(ConnectionError())

    app.table._owner = None  # the service's own loop sleeps meanwhile
    asyncio.run(exchange())
    assert len(recorder.sent) == 1
    head, _, content = recorder.sent[0].partition(b"\r\n\r\n")
    assert f"content-length: {len(content)}".encode() in head


def test_an_idle_connection_is_closed_when_its_time_is_over_however_often_it_was_used(
    run_service: Callable[..., Service],
) -> None:
    app = run_service().background.app
    app.table._owner = None  # the service's own loop sleeps meanwhile

    class Closing(Recorder):
        closed_at = 0.0

        def close(self) -> None:
            self.closed_at = self.closed_at or time.monotonic()

        def get_write_buffer_size(self) -> int:
            return 0

    async def run() -> float:
        transport = Closing()
        config = Config(app, timeout_keep_alive=1)
        parts = {"config": config, "server_state": ServerState(), "app_state": {}, "_loop": None}
        connection = VerbConnection(app.verbs, port(), **parts)
        connection.connection_made(transport)
        timers = set()
        for number in range(8):  # for longer than an idle connection is kept
            connection.data_received(request(json.dumps(by_names([], pod(f"p{number}"))).encode()))
            timers.add(id(connection.timeout_keep_alive_task))
            assert len(transport.sent) == number + 1
            await asyncio.sleep(0.2)
        assert len(timers) < 8, "a timer for every request"
        used, deadline = time.monotonic(), time.monotonic() + 10.0
        assert not transport.closed_at
        while not transport.closed_at:
            assert time.monotonic() < deadline
            await asyncio.sleep(0.01)
        connection.connection_lost(None)
        return transport.closed_at - (used - 0.2)

    assert asyncio.run(run()) == pytest.approx(1.0, abs=0.3)


@pytest.mark.parametrize("tracing", [False, True])
def test_a_request_is_gone_with_its_answer_without_the_cycle_collector(
    run_service: Callable[..., Service], tracing: bool
) -> None:
    # the collector comes by once in thousands of requests, and each may have a body of 100 kB
    traced = {"tracing_endpoint": "http://127.0.0.1:9/v1/traces", "tracing_sample_share": 0.0} if tracing else {}
    service = run_service(**traced)
    names = service.add_nodes(3)
    with connected(service) as connection:
        answers = Answers(connection)
        gc.collect()
        gc.disable()
        try:
            for number in range(30):
                body = json.dumps({"Pod": pod(f"p{number}", cpu=f"{number + 1}m"), "NodeNames": names}).encode()
                for path in ("/filter", "/prioritize"):
                    connection.sendall(request(body, path))
                    assert answers.read()[0] == 200
            left = sum(isinstance(each, VerbExchange) for each in gc.get_objects())
        finally:
            gc.enable()
    assert left <= 2  # the one just answered, and another that its thread may not have let go yet
