"""A client as thin as Python allows, so that the difference between two servers is the servers' own.

One keep-alive connection, requests made beforehand, and only the status and the length of each answer looked at.
"""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Sequence
from types import TracebackType
from typing import Self


class KeepAliveClient:
    """POSTs prepared bodies over one connection, as kube-scheduler does."""

    def __init__(self, port: int, timeout_s: float = 30.0) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=timeout_s)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._port = port

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._socket.close()

    def prepare(self, path: str, body: bytes) -> bytes:
        """The request's bytes, with the headers that Go's client sends."""
        head = (
            f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1:{self._port}\r\nUser-Agent: Go-http-client/1.1\r\n"
            f"Content-Length: {len(body)}\r\nContent-Type: application/json\r\nAccept-Encoding: gzip\r\n\r\n"
        )
        return head.encode() + body

    def exchange(self, request: bytes) -> tuple[float, bytes]:
        """Send one prepared request; returns (seconds until the answer was complete, its body).

        Raises:
            RuntimeError: the answer's status is not 200, or it has no Content-Length.
        """
        started = time.perf_counter()
        self._socket.sendall(request)
        received = self._socket.recv(1 << 20)
        while (end := received.find(b"\r\n\r\n")) < 0:
            received += self._more()
        head = received[:end].lower()
        if not head.startswith(b"http/1.1 200"):
            raise RuntimeError(f"answered {received[:200]!r}")
        marker = head.find(b"content-length:")
        if marker < 0:
            raise RuntimeError(f"no Content-Length in {head!r}: kube-scheduler would open a connection per call")
        length = int(head[marker + 15 :].split(b"\r\n", 1)[0])
        parts = [received[end + 4 :]]
        missing = length - len(parts[0])
        while missing > 0:
            parts.append(self._more())
            missing -= len(parts[-1])
        return time.perf_counter() - started, b"".join(parts)

    def _more(self) -> bytes:
        part = self._socket.recv(1 << 20)
        if not part:
            raise RuntimeError("the server closed the connection in the middle of an answer")
        return part


def node_names(count: int) -> list[str]:
    """Names of the kind that clouds give: 12 characters."""
    return [f"node-{index:07d}" for index in range(count)]


def pod(index: int, *, cpu: str = "500m", memory: str = "1Gi") -> dict[str, object]:
    """A pod as kube-scheduler sends it: about 1.8 KB of JSON, with a projected volume and tolerations."""
    name = f"web-{index:06d}"
    return {
        "metadata": {
            "name": name,
            "namespace": "default",
            "uid": f"00000000-0000-4000-8000-{index:012d}",
            "resourceVersion": "113109",
            "generation": 1,
            "creationTimestamp": "2026-01-01T00:00:00Z",
            "labels": {"app": "web", "pod-template-hash": "5d4f8c7b9"},
        },
        "spec": {
            "volumes": [
                {
                    "name": "kube-api-access-4vpm7",
                    "projected": {
                        "sources": [
                            {"serviceAccountToken": {"expirationSeconds": 3607, "path": "token"}},
                            {
                                "configMap": {
                                    "name": "kube-root-ca.crt",
                                    "items": [{"key": "ca.crt", "path": "ca.crt"}],
                                }
                            },
                            {
                                "downwardAPI": {
                                    "items": [
                                        {
                                            "path": "namespace",
                                            "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"},
                                        }
                                    ]
                                }
                            },
                        ],
                        "defaultMode": 420,
                    },
                }
            ],
            "containers": [
                {
                    "name": "web",
                    "image": "registry.example/web:1",
                    "env": [{"name": "MODE", "value": "production"}],
                    "resources": {"requests": {"cpu": cpu, "memory": memory}, "limits": {"memory": memory}},
                    "volumeMounts": [
                        {
                            "name": "kube-api-access-4vpm7",
                            "readOnly": True,
                            "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount",
                        }
                    ],
                    "terminationMessagePath": "/dev/termination-log",
                    "terminationMessagePolicy": "File",
                    "imagePullPolicy": "IfNotPresent",
                }
            ],
            "restartPolicy": "Always",
            "terminationGracePeriodSeconds": 30,
            "dnsPolicy": "ClusterFirst",
            "serviceAccountName": "default",
            "securityContext": {},
            "schedulerName": "maddpg-scheduler",
            "tolerations": [
                {
                    "key": f"node.kubernetes.io/{taint}",
                    "operator": "Exists",
                    "effect": "NoExecute",
                    "tolerationSeconds": 300,
                }
                for taint in ("not-ready", "unreachable")
            ],
            "priority": 0,
            "enableServiceLinks": True,
            "preemptionPolicy": "PreemptLowerPriority",
        },
        "status": {"phase": "Pending", "qosClass": "Burstable"},
    }


def extender_args(names: Sequence[str], index: int = 0, **resources: str) -> bytes:
    """Body of /filter and /prioritize when nodeCacheCapable, compact as Go encodes it."""
    document = {"Pod": pod(index, **resources), "Nodes": None, "NodeNames": list(names)}
    return json.dumps(document, separators=(",", ":")).encode()
