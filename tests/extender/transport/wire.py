"""Bytes on sockets, for tests that do what no client library does."""

from __future__ import annotations

import json
import re
import select
import socket
from http.client import HTTPResponse
from typing import Any, cast

from tests.extender.service import Service

GET = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"


def connect(service: Service, *, operations: bool = False, timeout_s: float = 20.0) -> socket.socket:
    """A connection to one of the service's ports."""
    port = service.background.operations_port if operations else service.background.port
    return socket.create_connection(("127.0.0.1", port), timeout=timeout_s)


def post(body: Any, path: str = "/prioritize", *fields: str) -> bytes:
    """A POST with JSON, or with bytes as they are."""
    content = body if isinstance(body, bytes) else json.dumps(body, separators=(",", ":")).encode()
    lines = [f"POST {path} HTTP/1.1", "Host: x", f"Content-Length: {len(content)}", *fields]
    return "\r\n".join([*lines, "", ""]).encode() + content


class Answers:
    """Reads one answer after the other, of requests that were sent at once."""

    def __init__(self, connection: socket.socket) -> None:
        self._file = connection.makefile("rb")

    def next(self, method: str = "POST") -> tuple[int, dict[str, str], bytes]:
        """Status, headers and body of the next answer."""
        response = HTTPResponse(cast("socket.socket", self), method=method)
        response.begin()
        headers = {name.lower(): value for name, value in response.getheaders()}
        return response.status, headers, response.read()

    def makefile(self, _mode: str) -> Any:
        """`HTTPResponse` asks for a file of its own; what is buffered must not be lost between answers."""
        return _Unclosed(self._file)


class _Unclosed:
    """A file that `HTTPResponse` may not close."""

    def __init__(self, file: Any) -> None:
        self._file = file

    def close(self) -> None:
        pass

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


def answered(connection: socket.socket, method: str = "POST") -> tuple[int, dict[str, str], bytes]:
    """Status, headers and body of the next answer, the only one that is on its way."""
    return Answers(connection).next(method)


def ended(connection: socket.socket) -> bool:
    """Whether the other side closes, after whatever else it sends."""
    try:
        while connection.recv(1 << 16):
            pass
    except ConnectionError:
        pass
    return True


def closed(connection: socket.socket) -> bool:
    """Whether the other side has closed already."""
    readable, _, _ = select.select([connection], [], [], 0)
    if not readable:
        return False
    try:
        return connection.recv(1, socket.MSG_PEEK) == b""
    except ConnectionError:
        return True


def everything(connection: socket.socket) -> bytes:
    """All that the other side sends until it closes."""
    received = bytearray()
    try:
        while part := connection.recv(1 << 16):
            received += part
    except ConnectionError:
        pass
    return bytes(received)


def statuses(answer: bytes) -> list[int]:
    """The status of each answer in these bytes."""
    return [int(code) for code in re.findall(rb"HTTP/1\.1 (\d{3}) ", answer)]
