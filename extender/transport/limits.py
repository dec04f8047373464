"""What one connection is held to: time, length, number, and the caller's name. Refuses to know what is asked.

uvicorn's httptools protocol with what that one lets through: heads of requests that never end or arrive one byte a
second, connections that never ask, more connections and requests at once than wanted, and callers whose certificate
has another name than those let in.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Final, cast

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from extender.transport.tls import names_of

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

REFUSALS: Final = ("connections", "requests", "header_timeout", "header_size", "client_name")
"""What a request can be refused for before anything looks at it."""

RETRY_AFTER_S: Final = 1
NO_ROOM: Final = "too many requests at once; see max_requests_in_flight"
EXCESS: Final = 100
"""Connections beyond the most that are wanted which still get an answer; further ones are closed without."""


@dataclass(frozen=True, slots=True)
class ConnectionLimits:
    """What callers at one port are held to.

    Attributes:
        header_timeout_s: time for the head of a request.
        max_header_bytes: its length.
        body_timeout_s: time for the body of a request that is refused; others are timed by who reads them.
        max_connections: connections that are served at once.
        max_requests: requests that are worked on at once.
        names: a client certificate must have one of them; empty: any, or none.
    """

    header_timeout_s: float
    max_header_bytes: int
    body_timeout_s: float
    max_connections: int
    max_requests: int
    names: frozenset[str] = frozenset()


class LimitedConnection(HttpToolsProtocol):
    """uvicorn's protocol within limits.

    Args:
        limits: what the caller is held to.
        refused: told the reason of each refusal, one of `REFUSALS`; an attribute too.
        parts: what uvicorn gives every protocol.
    """

    def __init__(self, limits: ConnectionLimits, refused: Callable[[str], None], **parts: Any) -> None:
        super().__init__(**parts)
        self._limits = limits
        self.refused = refused
        self._in_head = False
        self._head_bytes = 0
        self._late: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Let the caller in, or decide what each of its requests will be answered."""
        super().connection_made(transport)
        # until it asks for the first time: uvicorn begins to count only after the first answer
        self.timeout_keep_alive_task = self.loop.call_later(self.timeout_keep_alive, self.timeout_keep_alive_handler)
        limits = self._limits
        excess = len(self.connections) - limits.max_connections
        if excess > EXCESS:
            self.refused("connections")
            transport.abort()
        elif excess > 0:
            self.app = self._refusal("connections", 503, "too many connections; see max_connections", close=True)
        elif limits.names and limits.names.isdisjoint(names_of(transport.get_extra_info("peercert"))):
            self.app = self._refusal("client_name", 403, "no name of the client certificate is in tls_client_names")

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the timers."""
        self.head_arrived()
        self._unset_keepalive_if_required()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse; then see whether the caller owes us the rest of something."""
        super().data_received(data)
        if self._in_head:
            self._head_bytes += len(data)
            if self._head_bytes > self._limits.max_header_bytes:
                self._refuse_head("header_size", 431, "the head of the request is longer than max_header_bytes")
            else:
                self._await_rest()
        elif self.timeout_keep_alive_task is None and not self._answering():
            # an empty line, or the rest of a body that was answered already: no timer runs any more
            self._await_rest()

    def on_message_begin(self) -> None:
        """A head begins."""
        self._in_head = True
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """It is whole."""
        self.head_arrived()
        super().on_headers_complete()

    def timeout_keep_alive_handler(self) -> None:
        """Close an idle connection, at once if the caller does not read its answer: closing would wait for that."""
        if self.transport.get_write_buffer_size():
            self.transport.abort()
        else:
            super().timeout_keep_alive_handler()

    @property
    def let_in(self) -> bool:
        """Whether what this caller asks is answered, not refused."""
        return self.app is self.config.loaded_app

    def has_room(self) -> bool:
        """Whether one more request may be worked on."""
        return len(self.tasks) < self._limits.max_requests

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        if app is self.config.loaded_app and not self.has_room():
            app = self._refusal("requests", 503, NO_ROOM)
        super()._start_asgi_task(cycle, app)

    def _answering(self) -> bool:
        cycle = cast("RequestResponseCycle | None", self.cycle)
        return cycle is not None and not cycle.response_complete

    def _await_rest(self) -> None:
        if self._late is None and not self.transport.is_closing():
            self._late = self.loop.call_later(self._limits.header_timeout_s, self._rest_late)

    def head_arrived(self) -> None:
        """The head of a request is whole: forget how long it took."""
        self._in_head = False
        self._head_bytes = 0
        if self._late is not None:
            self._late.cancel()
            self._late = None

    def _rest_late(self) -> None:
        self._late = None
        if self._answering():
            self._await_rest()  # the answer before it is on its way: after that
        elif self._in_head:
            self._refuse_head("header_timeout", 408, "the head of the request did not arrive within header_timeout_s")
        else:
            self.transport.close()

    def _refuse_head(self, reason: str, status: int, message: str) -> None:
        """Answer a request that is none yet, and close."""
        if self.transport.is_closing():
            return
        self.refused(reason)
        body = error_body(message)
        self.transport.write(
            b"HTTP/1.1 %d %s\r\ncontent-type: application/json\r\ncontent-length: %d\r\nconnection: close\r\n\r\n%s"
            % (status, HTTPStatus(status).phrase.encode(), len(body), body)
        )
        self.transport.close()

    def _refusal(self, reason: str, status: int, message: str, *, close: bool = False) -> Any:
        """An ASGI application that answers every request so, after its body: who still sends would not read it."""
        body = error_body(message)
        headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
        if status == HTTPStatus.SERVICE_UNAVAILABLE:
            headers.append((b"retry-after", b"%d" % RETRY_AFTER_S))

        async def answer(scope: Scope, receive: Receive, send: Send) -> None:
            self.refused(reason)
            end = close
            try:
                async with asyncio.timeout(self._limits.body_timeout_s):
                    while (await receive()).get("more_body", False):
                        pass
            except TimeoutError:
                end = True
            head = [*headers, (b"connection", b"close")] if end else headers
            await send({"type": "http.response.start", "status": status, "headers": head})
            await send({"type": "http.response.body", "body": body})

        return answer


def error_body(message: str) -> bytes:
    """An error as kube-scheduler reads it; the message is one of ours, without quotes."""
    return b'{"Error":"%s"}' % message.encode()
