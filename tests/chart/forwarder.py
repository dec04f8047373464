"""Stands in for a Service on one machine: hands each connection to one of two extenders, dead ones among them.

It is harsher than kube-proxy, which takes a dead pod away after a while: this one never learns of it.
"""

import contextlib
import itertools
import socket
import threading
from collections.abc import Sequence
from types import TracebackType

CHUNK = 65536


class Forwarder:
    """Listens on a free loopback port while the block lasts."""

    def __init__(self, ports: Sequence[int]) -> None:
        self._next = itertools.cycle(ports)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()
        self._stopping = False
        self._threads = [threading.Thread(target=self._accept, daemon=True)]

    @property
    def url(self) -> str:
        """Where kube-scheduler is to call."""
        return f"http://127.0.0.1:{self._listener.getsockname()[1]}"

    def __enter__(self) -> "Forwarder":
        """Start to forward."""
        self._threads[0].start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End every connection."""
        self._stopping = True
        self._close(self._listener)
        with self._lock:
            still_open = list(self._open)
        for each in still_open:
            self._close(each)
        for thread in self._threads:
            thread.join()

    def _accept(self) -> None:
        while not self._stopping:
            try:
                caller, _ = self._listener.accept()
            except OSError:
                return
            try:
                called = socket.create_connection(("127.0.0.1", next(self._next)), timeout=5)
                called.settimeout(None)
            except OSError:
                caller.close()  # as a dead pod's address answers: at once, and with nothing
                continue
            with self._lock:
                self._open |= {caller, called}
            for source, sink in ((caller, called), (called, caller)):
                source.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self._threads.append(threading.Thread(target=self._pour, args=(source, sink), daemon=True))
                self._threads[-1].start()

    def _pour(self, source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(CHUNK):
                sink.sendall(data)
        self._close(source)
        self._close(sink)
        with self._lock:
            self._open -= {source, sink}

    @staticmethod
    def _close(each: socket.socket) -> None:
        """Wake whoever waits for it, then close it."""
        with contextlib.suppress(OSError):
            each.shutdown(socket.SHUT_RDWR)
        each.close()
