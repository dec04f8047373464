"""A small API server for the edges a real one will not show on demand: expiry, garbage, silence, sudden death.

Speaks list (pages of one snapshot, continue), watch (versions, bookmarks, timeouts, chunked lines), bind and
metrics.k8s.io over plain HTTP on loopback. tests/control_plane proves that the real one speaks the same.
"""

import json
import socket
import ssl
import threading
import time
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from tests.control_plane.certificates import KeyPair

Json = dict[str, Any]
NODES, PODS = "/api/v1/nodes", "/api/v1/pods"
Answer = tuple[int, bytes, dict[str, str]]
"""HTTP status, body, headers."""
ENDED = ("Succeeded", "Failed")


@dataclass
class Event:
    version: int
    type: str
    body: bytes

    def line(self) -> bytes:
        return b'{"type":"%b","object":%b}\n' % (self.type.encode(), self.body)


@dataclass
class Collection:
    """Objects of one kind, as JSON, and what became of them."""

    objects: dict[str, bytes] = field(default_factory=dict)
    events: list[Event] = field(default_factory=list)
    compacted: int = 0
    """Versions up to here can no longer be watched from."""

    def since(self, version: int) -> list[Event]:
        return self.events[bisect_right(self.events, version, key=lambda event: event.version) :]


class FakeApi:
    """The server; `running` starts it. Everything may be called from the test's thread at any time."""

    def __init__(self) -> None:
        self.version = 100
        self.collections = {NODES: Collection(), PODS: Collection()}
        self.requests: Counter[str] = Counter()
        """How often was asked: "list /api/v1/pods", "watch /api/v1/nodes", "POST ..."."""
        self.queries: list[tuple[str, dict[str, str]]] = []
        self.authorizations: list[str | None] = []
        self.headers: list[Message] = []
        self.clients: list[str] = []
        """Common names of the certificates that were shown."""
        self.certificate: KeyPair | None = None
        """With which it serves over TLS."""
        self.client_authority: Path | None = None
        """Whose certificates clients must show."""
        self.bindings: list[tuple[str, Json]] = []
        self.metrics: Json | None = None
        self.answers: dict[str, Callable[[], Answer | None]] = {}
        """Path -> what to answer instead, or None for the normal answer."""
        self.accepted_token: str | None = None
        self.bookmark_at_end = True
        self.silent = False
        """Watches say nothing, not even their end."""
        self._changed = threading.Condition()
        self._snapshots: dict[str, tuple[str, list[bytes]]] = {}
        self._injected: dict[str, list[bytes]] = {NODES: [], PODS: []}
        self._cut = 0
        self._server: ThreadingHTTPServer | None = None
        self._thread: threading.Thread | None = None
        self.port = 0

    # ---- what a test does with it --------------------------------------------------------------------------------

    @contextmanager
    def running(self) -> Iterator["FakeApi"]:
        self.start()
        try:
            yield self
        finally:
            self.stop()

    def start(self) -> None:
        self._server = _Server(("127.0.0.1", self.port), _handler(self))
        if self.certificate is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(self.certificate.certificate, self.certificate.key)
            if self.client_authority is not None:
                context.load_verify_locations(self.client_authority)
                context.verify_mode = ssl.CERT_REQUIRED
            self._server.context = context
        self.port = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Nobody listens any more, and every connection ends."""
        server, self._server = self._server, None
        if server is None or self._thread is None:
            return
        server.shutdown()
        server.server_close()
        self._thread.join()
        self.cut_watches()
        server.cut()

    def kubeconfig(self, directory: Path, user: Json | None = None) -> Path:
        path = directory / "kubeconfig.json"
        content = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "fake", "cluster": {"server": f"http://127.0.0.1:{self.port}"}}],
            "users": [{"name": "fake", "user": user or {}}],
            "contexts": [{"name": "fake", "context": {"cluster": "fake", "user": "fake"}}],
            "current-context": "fake",
        }
        path.write_text(json.dumps(content))
        return path

    def put(self, path: str, key: str, content: Json) -> None:
        """Create or change an object; pods that end stay, as at the real one until somebody deletes them."""
        with self._changed:
            self.version += 1
            content["metadata"]["resourceVersion"] = str(self.version)
            body = json.dumps(content).encode()
            collection = self.collections[path]
            kind = "MODIFIED" if key in collection.objects else "ADDED"
            collection.objects[key] = body
            collection.events.append(Event(self.version, kind, body))
            self._changed.notify_all()

    def delete(self, path: str, key: str, watched: bool = True) -> None:
        """Remove an object; not `watched`: no watch ever tells, as if its event had been missed."""
        with self._changed:
            self.version += 1
            collection = self.collections[path]
            content = json.loads(collection.objects.pop(key))
            content["metadata"]["resourceVersion"] = str(self.version)
            if watched:
                collection.events.append(Event(self.version, "DELETED", json.dumps(content).encode()))
            self._changed.notify_all()

    def compact(self) -> None:
        """Forget history: watches from any version before now get 410."""
        with self._changed:
            for collection in self.collections.values():
                collection.compacted = self.version
                collection.events.clear()
            self._snapshots.clear()

    def send(self, path: str, line: bytes) -> None:
        """Send this line to one watch of `path`, now or when there is one."""
        with self._changed:
            self._injected[path].append(line)
            self._changed.notify_all()

    def cut_watches(self) -> None:
        """End the connection of every watch in the middle."""
        with self._changed:
            self._cut += 1
            self._changed.notify_all()

    def bookmark(self, path: str) -> None:
        self.send(path, self.bookmark_line())

    def bookmark_line(self) -> bytes:
        return b'{"type":"BOOKMARK","object":{"metadata":{"resourceVersion":"%d"}}}\n' % self.version

    # ---- what it answers -----------------------------------------------------------------------------------------

    def page(self, path: str, query: dict[str, str]) -> tuple[int, bytes]:
        with self._changed:
            if "continue" in query:
                token, _, start = query["continue"].partition(":")
                snapshot = self._snapshots.get(token)
                if snapshot is None:
                    return 410, status(410, "Expired", "The provided continue parameter is too old")
            else:
                token, start = f"t{len(self._snapshots)}-{self.version}", "0"
                snapshot = (str(self.version), list(self.collections[path].objects.values()))
                self._snapshots[token] = snapshot
        version, objects = snapshot
        first = int(start)
        last = first + int(query.get("limit") or len(objects) or 1)
        rest = f"{token}:{last}" if last < len(objects) else ""
        metadata = json.dumps({"resourceVersion": version, "continue": rest}).encode()
        return 200, b'{"kind":"List","metadata":%b,"items":[%b]}' % (metadata, b",".join(objects[first:last]))

    def watch(self, path: str, query: dict[str, str]) -> Iterator[bytes]:
        """Lines of one watch; raises `ConnectionAbortedError` where the connection is to be cut."""
        seen, until = int(query["resourceVersion"]), time.monotonic() + float(query["timeoutSeconds"])
        collection, cut = self.collections[path], self._cut
        if seen < collection.compacted:
            yield b'{"type":"ERROR","object":%b}\n' % status(410, "Expired", f"too old resource version: {seen}")
            return
        while True:
            with self._changed:
                fresh = collection.since(seen)
                lines = [event.line() for event in fresh] + self._injected[path]
                if not lines and self._cut == cut and self._server is not None:
                    self._changed.wait(max(0.0, min(until - time.monotonic(), 0.1)))
                    fresh = collection.since(seen)
                    lines = [event.line() for event in fresh] + self._injected[path]
                self._injected[path] = []
                seen = fresh[-1].version if fresh else seen
            if self._cut != cut:
                raise ConnectionAbortedError
            if self.silent:
                continue
            yield from lines
            if time.monotonic() >= until:
                if self.bookmark_at_end:
                    yield self.bookmark_line()
                return


def status(code: int, reason: str, message: str) -> bytes:
    return json.dumps({"kind": "Status", "code": code, "reason": reason, "message": message}).encode()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    allow_reuse_address = True
    block_on_close = False
    _standing: set[socket.socket]
    context: ssl.SSLContext | None = None

    def finish_request(self, request: Any, client_address: Any) -> None:
        if self.context is None:
            super().finish_request(request, client_address)
            return
        with self.context.wrap_socket(request, server_side=True) as secured:
            super().finish_request(secured, client_address)

    def server_activate(self) -> None:
        self._standing = set()
        super().server_activate()

    def process_request(self, request: Any, client_address: Any) -> None:
        self._standing.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        self._standing.discard(request)
        super().shutdown_request(request)

    def cut(self) -> None:
        """End the connections that are kept alive: the thread of each would answer on."""
        for connection in tuple(self._standing):
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def handle_error(self, request: object, client_address: object) -> None:
        """Clients of these tests come and go; what matters is what they make of it."""


def _handler(api: FakeApi) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def do_GET(self) -> None:
            path, query = self._question()
            watching = query.get("watch") == "true"
            api.requests[f"{'watch' if watching else 'list'} {path}"] += 1
            if self._refused(path):
                return
            if path.startswith("/apis/metrics.k8s.io/"):
                missing = status(404, "NotFound", "the server could not find the requested resource")
                self._answer(*((200, json.dumps(api.metrics).encode()) if api.metrics else (404, missing)))
            elif path not in api.collections:
                self._answer(404, status(404, "NotFound", f"nothing at {path}"))
            elif watching:
                self._stream(api.watch(path, query))
            else:
                self._answer(*api.page(path, query))

        def do_POST(self) -> None:
            path, _ = self._question()
            api.requests[f"POST {path}"] += 1
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            if not self._refused(path):
                api.bindings.append((path, body))
                self._answer(201, b'{"kind":"Status","status":"Success"}')

        def _question(self) -> tuple[str, dict[str, str]]:
            parts = urlsplit(self.path)
            query = {name: values[0] for name, values in parse_qs(parts.query).items()}
            api.queries.append((parts.path, query))
            api.authorizations.append(self.headers.get("Authorization"))
            api.headers.append(self.headers)
            if isinstance(self.connection, ssl.SSLSocket) and (shown := self.connection.getpeercert()):
                api.clients.append(dict(part[0] for part in shown["subject"])["commonName"])  # type: ignore[misc]
            return parts.path, query

        def _refused(self, path: str) -> bool:
            instead = api.answers.get(path)
            answer = instead() if instead is not None else None
            if answer is not None:
                self._answer(*answer)
                return True
            if api.accepted_token is not None and api.authorizations[-1] != f"Bearer {api.accepted_token}":
                self._answer(401, status(401, "Unauthorized", "Unauthorized"))
                return True
            return False

        def _answer(self, code: int, body: bytes, headers: dict[str, str] | None = None) -> None:
            self.send_response(code)
            for name, value in {"Content-Type": "application/json", **(headers or {})}.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def _stream(self, lines: Iterator[bytes]) -> None:
            self.send_response(200)
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            try:
                for line in lines:
                    self.wfile.write(b"%x\r\n%b\r\n" % (len(line), line))
                self.wfile.write(b"0\r\n\r\n")
            except ConnectionAbortedError:
                self.close_connection = True

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name http.server gives it
            """Nothing: the test looks at `requests`."""

    return Handler
