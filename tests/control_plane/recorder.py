"""An extender for tests of the control plane itself: it agrees with every node, scores as told, and keeps what it got.

It is no model of ours: extender/ is. It binds through the API server as any binding extender must.
"""

import json
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any

from kubernetes import client

from tests.control_plane.access import request


@dataclass(frozen=True)
class Received:
    """One request of kube-scheduler, as it came."""

    verb: str
    headers: dict[str, str]
    body: dict[str, Any]
    size: int
    """Of the body, in bytes."""


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        """A kube-scheduler that ends resets its idle connection; anything else is a fault of this file."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)  # type: ignore[arg-type]


class RecordingExtender:
    """Serves filter, prioritize, preempt and bind on a free loopback port while the block lasts."""

    def __init__(self, api: client.ApiClient, score: Callable[[str], int] = lambda _node: 0) -> None:
        """Prepare it.

        Args:
            api: who creates the binding for the verb bind.
            score: node -> 0..10.
        """
        self._api = api
        self._score = score
        self._lock = threading.Lock()
        self._received: list[Received] = []
        self._server = _Server(("127.0.0.1", 0), self._handler())
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)

    @property
    def url(self) -> str:
        """The urlPrefix."""
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    @property
    def received(self) -> list[Received]:
        """All requests so far, in order."""
        with self._lock:
            return list(self._received)

    def calls(self, verb: str) -> list[Received]:
        """The requests of one verb."""
        return [each for each in self.received if each.verb == verb]

    def __enter__(self) -> "RecordingExtender":
        """Start to serve."""
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop to serve."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def _answer(self, verb: str, body: dict[str, Any]) -> object:
        if verb == "filter":
            kept = {key: body[key] for key in ("Nodes", "NodeNames")}
            return {**kept, "FailedNodes": {}, "FailedAndUnresolvableNodes": {}, "Error": ""}
        if verb == "prioritize":
            return [{"Host": name, "Score": self._score(name)} for name in node_names(body)]
        if verb == "preempt":
            return {"NodeNameToMetaVictims": _meta_victims(body)}
        if verb == "bind":
            return {"Error": self._bind(body)}
        raise LookupError(f"no verb {verb}")

    def _bind(self, body: dict[str, Any]) -> str:
        binding = {
            "apiVersion": "v1",
            "kind": "Binding",
            "metadata": {"name": body["PodName"], "uid": body["PodUID"]},
            "target": {"kind": "Node", "name": body["Node"]},
        }
        path = f"/api/v1/namespaces/{body['PodNamespace']}/pods/{body['PodName']}/binding"
        try:
            request(self._api, "POST", path, binding)
        except client.ApiException as error:
            return str(error.body)
        return ""

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        extender = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True
            wbufsize = -1  # headers and body in one segment

            def do_POST(self) -> None:
                content = self.rfile.read(int(self.headers["Content-Length"]))
                verb, body = self.path.removeprefix("/"), json.loads(content)
                with extender._lock:
                    extender._received.append(Received(verb, dict(self.headers), body, len(content)))
                answer = json.dumps(extender._answer(verb, body)).encode()
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            def log_message(self, *_: object) -> None:
                """Quiet: what came is kept."""

        return Handler


def node_names(body: dict[str, Any]) -> list[str]:
    """The nodes that a filter or prioritize request asks about, in either mode of nodeCacheCapable."""
    if body["NodeNames"] is not None:
        return list(body["NodeNames"])
    return [item["metadata"]["name"] for item in body["Nodes"]["items"]]


def _meta_victims(body: dict[str, Any]) -> dict[str, Any]:
    """The same victims as proposed, by UID, which is the only form an answer may have."""
    if body.get("NodeNameToMetaVictims"):
        return dict(body["NodeNameToMetaVictims"])
    return {
        name: {
            "Pods": [{"UID": pod["metadata"]["uid"]} for pod in victims["Pods"]],
            "NumPDBViolations": victims["NumPDBViolations"],
        }
        for name, victims in body["NodeNameToVictims"].items()
    }
