"""A running service is asked itself, and whatever answers in its place gets one sentence."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from extender.cli import app
from extender.errors import ClientError
from extender.operations.client import Client
from tests.extender.service import Service, pod


@contextmanager
def listener(body: bytes = b"{}", status: int = 200) -> Iterator[tuple[str, list[str]]]:
    """Something that answers every GET alike: its URL, and what it was asked."""
    seen: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            seen.append(self.path)
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.send_header("Location", "/elsewhere")
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the standard library's name
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}", seen
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
@pytest.mark.parametrize("variable", ["HTTP_PROXY", "http_proxy", "ALL_PROXY"])
def test_a_proxy_is_not_asked_for_loopback(
    run_service: Callable[..., Service], variable: str, host: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = run_service()
    service.prioritize(service.add_nodes(3), pod("web"))
    with listener() as (proxy, seen):
        monkeypatch.setenv(variable, proxy)
        url = service.background.operations_url.replace("127.0.0.1", host)
        for command in (["explain", "web"], ["report"], ["experiment"]):
            CliRunner().invoke(app, [*command, "--url", url])
        assert Client(url).ask("/v1/report") is not None
        assert seen == []


def test_a_proxy_is_asked_for_others(monkeypatch: pytest.MonkeyPatch) -> None:
    with listener(b'{"a": 1}') as (proxy, seen):
        monkeypatch.setenv("HTTP_PROXY", proxy)
        monkeypatch.delenv("NO_PROXY", raising=False)
        monkeypatch.delenv("no_proxy", raising=False)
        assert Client("http://service.example:8888").ask("/v1/report") == {"a": 1}
        assert seen == ["http://service.example:8888/v1/report"]


@pytest.mark.parametrize(
    "url",
    ["", "127.0.0.1:8888", "ftp://x", "http://", "http://:8888", "http://h:port", "http://h:99999", "http://[::1",
     "http://h /", "http://h\n"],
)  # fmt: skip
def test_what_is_no_url_is_refused(url: str) -> None:
    with pytest.raises(ClientError, match="is no http or https URL; give --url"):
        Client(url).ask("/v1/report")


@pytest.mark.parametrize("url", ["http://h:8888/?a=b", "http://h:8888#top"])
def test_what_no_path_can_follow_is_refused(url: str) -> None:
    with pytest.raises(ClientError, match="--url has a query or a fragment, after which no path can follow"):
        Client(url)


def test_a_password_is_refused_and_not_shown() -> None:
    with pytest.raises(ClientError) as refused:
        Client("http://reader:secret@127.0.0.1:8888").ask("/v1/report")
    assert "secret" not in str(refused.value)


def test_a_password_of_a_proxy_is_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://reader:secret@127.0.0.1:9")
    with pytest.raises(ClientError, match="Connection refused") as refused:
        Client("http://service.example").ask("/v1/report")
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize(
    ("body", "status", "complaint"),
    [
        (b"[]", 200, "no JSON object"),
        (b"<html>", 200, "no JSON object"),
        (b"\xff", 200, "no JSON object"),
        (b"[" * 100_000, 200, "no JSON object"),
        (b"{}", 302, "answered 302"),
        (b"{}", 500, "answered 500"),
    ],
    ids=["a list", "a page", "no UTF-8", "nested deep", "elsewhere", "an error"],
)
def test_what_no_such_service_answers_is_told(body: bytes, status: int, complaint: str) -> None:
    with listener(body, status) as (url, _), pytest.raises(ClientError, match=complaint):
        Client(url).ask("/v1/report")


@pytest.mark.parametrize("command", [["explain", "web"], ["report"], ["experiment"]], ids=lambda words: words[0])
@pytest.mark.parametrize("body", [b"{}", b'{"decisions": [{}]}', b'{"decisions": 3, "candidate": 1, "pod": []}'])
def test_an_answer_of_something_else_ends_a_command_with_a_sentence(command: list[str], body: bytes) -> None:
    with listener(body) as (url, _):
        done = CliRunner().invoke(app, [*command, "--url", url])
    assert done.exit_code == 1
    assert "answered what this version does not know" in done.output


def test_no_name_or_message_changes_what_a_terminal_shows(run_service: Callable[..., Service]) -> None:
    service = run_service()
    odd = pod("odd\x1b[2J", uid="uid-odd")
    odd["metadata"]["ownerReferences"] = [
        {"kind": "Job\x1b]0;x\x07", "name": "\u202egnp.exe", "uid": "o", "controller": True}
    ]
    service.prioritize(service.add_nodes(3), odd)
    asked = ["explain", "uid-odd", "--url", service.background.operations_url]
    told = CliRunner().invoke(app, asked)
    assert told.exit_code == 0
    assert "odd\ufffd[2J" in told.output
    assert not {"\x1b", "\x07", "\u202e"} & set(told.output)
    exact = CliRunner().invoke(app, [*asked, "--json"])
    assert json.loads(exact.output)["pod"]["name"] == "odd\x1b[2J"


def test_a_busy_service_is_asked_again() -> None:
    asked: list[str] = []

    class Busy(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            busy = len(asked) < 3
            body = b'{"detail": "ask again"}' if busy else b'{"decisions": 7}'
            self.send_response(503 if busy else 200)
            self.send_header("Retry-After", "0")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the standard library's name
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Busy) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        assert Client(f"http://127.0.0.1:{server.server_address[1]}").ask("/v1/report") == {"decisions": 7}
        server.shutdown()
        thread.join()
    assert asked == ["/v1/report"] * 3


def test_a_service_that_stays_busy_is_said_to_be(monkeypatch: pytest.MonkeyPatch) -> None:
    with listener(status=503) as (url, _), pytest.raises(ClientError, match="answered 503: it is busy"):
        Client(url).ask("/v1/report")


def test_a_token_is_shown_over_tls_alone_and_never_told(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("token-of-a-reader\n")
    with pytest.raises(ClientError, match="--token-file needs https") as refused:
        Client("http://127.0.0.1:8888", token_file=file)
    for content in ("", "two words", "two\nlines", "\u00fc"):
        file.write_text(content, encoding="utf-8")
        with pytest.raises(ClientError, match=r"--token-file .* (holds no token|cannot be read)") as refused:
            Client("https://127.0.0.1:9", token_file=file).ask("/v1/report")
        assert "words" not in str(refused.value)
    file.unlink()
    with pytest.raises(ClientError, match="cannot be read: No such file"):
        Client("https://127.0.0.1:9", token_file=file).ask("/v1/report")


@pytest.mark.parametrize(("status", "complaint"), [(401, "--token-file"), (403, "operations_users")])
def test_a_service_that_lets_nobody_in_says_what_to_do(status: int, complaint: str) -> None:
    with listener(b'{"detail": "x"}', status) as (url, _), pytest.raises(ClientError, match=complaint):
        Client(url).ask("/v1/report")
