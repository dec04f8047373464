"""Kubelets on loopback, as far as /stats/summary goes: over TLS, in a thread, with the faults that are asked for."""

from __future__ import annotations

import contextlib
import json
import socket
import ssl
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Self

from tests.control_plane.certificates import KeyPair

GIB = 1024**3


def time_of(at: float) -> str:
    """A time as Kubernetes writes it: whole seconds."""
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _psi(avg10: float) -> dict[str, Any]:
    share = {"total": 123_456_789, "avg10": 100.0 * avg10, "avg60": 1.25, "avg300": 0.5}
    return {"full": share, "some": share}


def _cpu(at: str, cores: float, seconds: float, pressure: float | None) -> dict[str, Any]:
    cpu: dict[str, Any] = {
        "time": at,
        "usageNanoCores": round(cores * 1e9),
        "usageCoreNanoSeconds": round(seconds * 1e9),
    }
    return cpu if pressure is None else {**cpu, "psi": _psi(pressure)}


def _memory(at: str, gib: float, pressure: float | None) -> dict[str, Any]:
    used = round(gib * GIB)
    memory: dict[str, Any] = {
        "time": at, "availableBytes": 7 * used, "usageBytes": 2 * used, "workingSetBytes": used, "rssBytes": used // 2,
        "pageFaults": 123_456, "majorPageFaults": 12,
    }  # fmt: skip
    return memory if pressure is None else {**memory, "psi": _psi(pressure)}


def _disk(at: str) -> dict[str, Any]:
    return {
        "time": at, "availableBytes": 81_234_567_168, "capacityBytes": 104_857_600_000, "usedBytes": 12_345_344,
        "inodesFree": 6_123_456, "inodes": 6_553_600, "inodesUsed": 13,
    }  # fmt: skip


def summary_of(
    node: str,
    at: str,
    cpu_seconds: Mapping[str, float],
    cpu: float = 1.0,
    memory_gib: float = 2.0,
    pressure: float | None = None,
    containers: int = 1,
) -> dict[str, Any]:
    """What a kubelet answers, with everything that makes its answers long.

    Args:
        node: its name.
        at: time of all samples.
        cpu_seconds: CPU time by UID of a pod.
        cpu: use of the node, cores.
        memory_gib: working set of the node, GiB.
        pressure: of CPU, memory and I/O of everything, 0..1; None: as before Kubernetes 1.34.
        containers: of each pod.
    """
    io = {} if pressure is None else {"io": {"time": at, "psi": _psi(pressure)}}

    def container(name: str) -> dict[str, Any]:
        return {
            "name": name,
            "startTime": at,
            "cpu": _cpu(at, 0.05, 1.0, pressure),
            "memory": _memory(at, 0.05, pressure),
            **io,
            "rootfs": _disk(at),
            "logs": _disk(at),
            "swap": {"time": at, "swapAvailableBytes": 0, "swapUsageBytes": 0},
        }

    network = {"time": at, "name": "eth0", "rxBytes": 12_345_678, "rxErrors": 0, "txBytes": 2_345_678, "txErrors": 0}
    network["interfaces"] = [dict(network, name=name) for name in ("eth0", "lo")]
    return {
        "node": {
            "nodeName": node,
            "systemContainers": [container(name) for name in ("kubelet", "runtime", "pods")],
            "startTime": at,
            "cpu": _cpu(at, cpu, 98_765.0, pressure),
            "memory": _memory(at, memory_gib, pressure),
            **io,
            "network": network,
            "fs": _disk(at),
            "runtime": {"imageFs": _disk(at), "containerFs": _disk(at)},
            "rlimit": {"time": at, "maxpid": 4_194_304, "curproc": 512},
        },
        "pods": [
            {
                "podRef": {"name": f"pod-{number}", "namespace": "default", "uid": uid},
                "startTime": at,
                "containers": [container(f"container-{index}") for index in range(containers)],
                "cpu": _cpu(at, 0.05, seconds, pressure),
                "memory": _memory(at, 0.05, pressure),
                **io,
                "network": network,
                "volume": [{**_disk(at), "name": name} for name in ("kube-api-access-x7x7x", "data")],
                "ephemeral-storage": _disk(at),
                "process_stats": {"process_count": 3},
                "swap": {"time": at, "swapUsageBytes": 0},
            }
            for number, (uid, seconds) in enumerate(cpu_seconds.items())
        ],
    }


def head(status: int, *headers: str) -> bytes:
    return "\r\n".join((f"HTTP/1.1 {status} Whatever", "Content-Type: application/json", *headers, "", "")).encode()


def chunked(body: bytes, size: int = 4096) -> bytes:
    """A body as Go sends one that is longer than 2 KiB."""
    pieces = [body[begin : begin + size] for begin in range(0, len(body), size)]
    return b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"


@dataclass
class FakeKubelet:
    """One kubelet, as a context manager. Its attributes may be changed at any time.

    Attributes:
        node: its name.
        pair: its certificate.
        token: what it accepts, else 401; None: whatever comes.
        status: of its answers.
        cpu, memory_gib, pressure, cpu_seconds: see `summary_of`.
        raw: bytes it answers with instead; None: an answer as its other attributes say.
        silent: whether it never answers.
        delay: seconds before each answer.
        closes: whether it closes the connection after each answer; a raw one ends with it too.
        asked: times at which it was asked.
        heads: what it was asked, headers and all.
        opened: connections so far.
        host: where it listens.
    """

    node: str
    pair: KeyPair
    token: str | None = None
    status: int = 200
    cpu: float = 1.0
    memory_gib: float = 2.0
    pressure: float | None = None
    cpu_seconds: dict[str, float] = field(default_factory=dict)
    raw: bytes | None = None
    silent: bool = False
    delay: float = 0.0
    closes: bool = False
    asked: list[float] = field(default_factory=list)
    heads: list[str] = field(default_factory=list)
    opened: int = 0
    port: int = 0
    host: str = "127.0.0.1"

    def __enter__(self) -> Self:
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(self.pair.certificate, self.pair.key)
        self._open: set[socket.socket] = set()
        self._ended = threading.Event()
        family = socket.AF_INET6 if ":" in self.host else socket.AF_INET
        self._listener = socket.create_server((self.host, 0), family=family, backlog=512)
        self.port = self._listener.getsockname()[1]
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._ended.set()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.drop()
        for thread in self._threads:
            thread.join(5)

    @property
    def open_now(self) -> int:
        """Connections that are open."""
        return len({each.fileno() for each in list(self._open)} - {-1})

    def rotate(self, pair: KeyPair) -> None:
        """Show another certificate from the next connection on."""
        self._context.load_cert_chain(pair.certificate, pair.key)

    def drop(self) -> None:
        """Close every connection."""
        for each in list(self._open):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)

    def _accept(self) -> None:
        while True:
            try:
                plain, _ = self._listener.accept()
            except OSError:
                return
            thread = threading.Thread(target=self._serve, args=(plain,), daemon=True)
            self._threads.append(thread)
            thread.start()

    def _serve(self, plain: socket.socket) -> None:
        self.opened += 1
        self._open.add(plain)
        try:
            plain.settimeout(5.0)
            with self._context.wrap_socket(plain, server_side=True) as wrapped:
                self._open.add(wrapped)
                plain.close()
                try:
                    self._answer_all(wrapped)
                finally:
                    self._open.discard(wrapped)
        except OSError:
            pass  # who asked is gone
        finally:
            self._open.discard(plain)
            plain.close()

    def _answer_all(self, connection: ssl.SSLSocket) -> None:
        while True:
            asked = b""
            while not asked.endswith(b"\r\n\r\n"):
                received = connection.recv(65536)
                if not received:
                    return
                asked += received
            self.asked.append(time.monotonic())
            self.heads.append(asked.decode())
            if self.silent:
                self._ended.wait(60.0)
                return
            time.sleep(self.delay)
            connection.sendall(self._answer(asked.decode()))
            if self.closes or self.raw is not None:
                return

    def _answer(self, asked: str) -> bytes:
        if self.raw is not None:
            return self.raw
        if self.token is not None and f"Authorization: Bearer {self.token}\r\n" not in asked:
            return head(401, "Content-Length: 12") + b"Unauthorized"
        if not asked.startswith("GET /stats/summary HTTP/1.1\r\n"):
            return head(404, "Content-Length: 0")
        if self.status != 200:
            return head(self.status, "Content-Length: 3") + b"no\n"
        at = time_of(time.time() - 1.0)
        summary = summary_of(self.node, at, self.cpu_seconds, self.cpu, self.memory_gib, self.pressure)
        return head(200, "Transfer-Encoding: chunked") + chunked(json.dumps(summary).encode())
