"""The transport's edges: what is lost, refused, endless or no JSON becomes one kind of error that says so."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from extender.cluster import lines as transport
from extender.cluster.answers import UNREACHED, ApiError
from extender.cluster.api import ApiServer
from tests.extender.cluster.fake_api import NODES, PODS, FakeApi, status


@contextmanager
def answering(reply: bytes, tmp_path: Path) -> Iterator[ApiServer]:
    """An API server of which every connection gets these bytes and then ends."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            try:
                while True:
                    connection, _ = listener.accept()
                    with connection:
                        connection.recv(65536)
                        connection.sendall(reply)
            except OSError:
                return

        thread = threading.Thread(target=serve)
        thread.start()
        fake = FakeApi()
        fake.port = listener.getsockname()[1]
        try:
            yield ApiServer(fake.kubeconfig(tmp_path))
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()


def test_a_body_that_ends_early_is_lost(tmp_path: Path) -> None:
    reply = b'HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n{"metadata":'
    with answering(reply, tmp_path) as api, pytest.raises(ApiError, match="the connection was lost") as raised:
        api.get(NODES)
    assert raised.value.status == UNREACHED


@pytest.mark.parametrize(
    "reply",
    [pytest.param(b"", id="nothing"), pytest.param(b"SSH-2.0-OpenSSH\r\n", id="another-protocol")],
)
def test_a_server_that_speaks_no_http_cannot_be_reached(tmp_path: Path, reply: bytes) -> None:
    with answering(reply, tmp_path) as api, pytest.raises(ApiError, match=r"cannot reach http://127\.0\.0\.1"):
        api.get(NODES)


@pytest.mark.parametrize(
    ("body", "reason", "said"),
    [
        pytest.param(status(403, "Forbidden", "nodes is forbidden"), "Forbidden", "nodes is forbidden", id="status"),
        pytest.param(status(403, "Bearer x.y", "z"), "Forbidden", "z", id="reason-that-is-none"),
        pytest.param(b'{"message": "Bearer x.y"}', "Forbidden", "", id="no-status"),
        pytest.param(b"<html>denied</html>", "Forbidden", "", id="html"),
        pytest.param(b"", "Forbidden", "", id="empty"),
        pytest.param(b"\xff\xfe", "Forbidden", "", id="binary"),
        pytest.param(b"[1]", "Forbidden", "", id="array"),
        pytest.param(b"[" * 100_000, "Forbidden", "", id="deep"),
    ],
)
def test_a_refusal_tells_status_and_reason_and_keeps_what_the_server_said_apart(
    api: FakeApi, kubeconfig: Path, body: bytes, reason: str, said: str
) -> None:
    api.answers[NODES] = lambda: (403, body, {})
    server = ApiServer(kubeconfig)
    with pytest.raises(ApiError) as raised:
        server.get(NODES)
    message = f"{server.url} answered 403 {reason} to GET {NODES}; the identity that it sees has no right to it"
    assert (str(raised.value), raised.value.status, raised.value.said) == (message, 403, said)


def test_a_secret_that_the_server_repeats_is_masked(api: FakeApi, tmp_path: Path) -> None:
    server = ApiServer(api.kubeconfig(tmp_path, {"token": "secret.of.ours"}))
    api.answers[NODES] = lambda: (500, status(500, "InternalError", "bad: Bearer secret.of.ours\n\x1b[31m"), {})
    with pytest.raises(ApiError) as raised:
        server.get(NODES)
    assert raised.value.said == "bad: Bearer *** [31m"
    assert "secret" not in raised.value.told


def test_a_refusal_of_any_length_stays_short(api: FakeApi, kubeconfig: Path) -> None:
    api.answers[NODES] = lambda: (500, b"x" * 1_000_000, {})
    with pytest.raises(ApiError) as raised:
        ApiServer(kubeconfig).get(NODES)
    assert len(str(raised.value)) < 1000


@pytest.mark.parametrize(
    ("header", "seconds"), [("7", 7.0), ("Wed, 21 Oct 2026 07:28:00 GMT", None), ("-1", None), ("9" * 400, 60.0)]
)
def test_retry_after_is_understood_in_seconds(
    api: FakeApi, kubeconfig: Path, header: str, seconds: float | None
) -> None:
    api.answers[NODES] = lambda: (429, b"", {"Retry-After": header})
    with pytest.raises(ApiError) as raised:
        ApiServer(kubeconfig).get(NODES)
    assert raised.value.retry_after == seconds


WATCH = {"watch": "true", "resourceVersion": "0", "timeoutSeconds": "5"}


def test_lines_arrive_whole_however_they_are_cut(tmp_path: Path) -> None:
    parts = [b'{"a":', b"1}\n\n{", b'"b":2}\n{"c":3}', b"\n"]
    reply = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    reply += b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\n"
    with answering(reply, tmp_path) as api, api.lines(PODS, WATCH, 5.0) as lines:
        assert list(lines) == [b'{"a":1}', b'{"b":2}', b'{"c":3}']
        lines.abort()


def test_a_line_without_end_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transport, "LONGEST_LINE", 1000)
    reply = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + b"200\r\n%b\r\n" % (b"x" * 512) * 3
    with (
        answering(reply, tmp_path) as api,
        api.lines(PODS, WATCH, 5.0) as lines,
        pytest.raises(ApiError, match="longer than 1000 bytes"),
    ):
        list(lines)


def test_abort_ends_a_read_that_waits_in_another_thread(api: FakeApi, kubeconfig: Path) -> None:
    with ApiServer(kubeconfig).lines(PODS, {**WATCH, "timeoutSeconds": "60"}, 60.0) as lines:
        threading.Timer(0.2, lines.abort).start()
        with pytest.raises(ApiError):
            list(lines)


def test_a_silent_watch_is_given_up(api: FakeApi, kubeconfig: Path) -> None:
    api.silent = True
    with ApiServer(kubeconfig).lines(PODS, WATCH, 0.2) as lines, pytest.raises(ApiError, match="ReadTimeoutError"):
        list(lines)


def test_credentials_are_read_again_only_when_they_are_refused(api: FakeApi, tmp_path: Path) -> None:
    path = api.kubeconfig(tmp_path, {"token": "old"})
    server = ApiServer(path)
    api.kubeconfig(tmp_path, {"token": "new"})
    server.get(NODES)
    api.accepted_token = "new"
    with pytest.raises(ApiError, match="401"):
        server.get(NODES)
    server.get(NODES)
    assert api.authorizations == ["Bearer old", "Bearer old", "Bearer new"]
    server.close()


def test_credentials_that_cannot_be_read_again_leave_the_old_ones(api: FakeApi, tmp_path: Path) -> None:
    path = api.kubeconfig(tmp_path, {"token": "old"})
    server = ApiServer(path)
    api.accepted_token = "new"
    path.write_text("being written")
    with pytest.raises(ApiError, match="401"):
        server.get(NODES)
    api.kubeconfig(tmp_path, {"token": "new"})
    with pytest.raises(ApiError, match="401"):
        server.get(NODES)
    assert server.get(NODES)
