"""What one connection is held to: time, number, bytes, and the caller's name. Refuses to know what is asked.

uvicorn's protocol with what that one lets through: heads of requests that never end or arrive one byte a second,
connections that never ask, answers that nobody reads, more of everything than there is room for, and callers whose
certificate has another name than those let in.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from http import HTTPStatus
from typing import Any, Final

from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

from extender.certificates import names_of
from extender.transport.framing import HEAD_TOO_LONG, RETRY_AFTER_S, FramedConnection, Refusal, error_body
from extender.transport.port import PROBES, Port

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

CERTIFIED: Final = "certified"
"""Key of a scope's state: the names in the caller's verified certificate; absent where it showed none."""

NO_ROOM: Final = "too many requests at once; see max_requests_in_flight"
NO_BYTES: Final = "too many bytes of requests and answers at once; see max_bytes_in_flight"


class LimitedConnection(FramedConnection):
    """uvicorn's protocol within limits."""

    def __init__(self, port: Port, **parts: Any) -> None:
        super().__init__(port, **parts)
        self._head_bytes = 0
        """Bytes that arrived since the head began."""
        self._body_bytes = 0
        self._unread_bytes = 0
        self._queued = False
        """Whether a request waits for its turn."""
        self._late: asyncio.TimerHandle | None = None
        self._unread: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Let the caller in, or decide what each of its requests will be answered."""
        super().connection_made(transport)
        # until it asks for the first time: uvicorn begins to count only after the first answer
        self.timeout_keep_alive_task = self.loop.call_later(self.timeout_keep_alive, self.timeout_keep_alive_handler)
        limited, certificate = self.port.limits.names, transport.get_extra_info("peercert")
        names = names_of(certificate)
        if certificate:
            self.app_state = {**self.app_state, CERTIFIED: names}  # uvicorn copies it into the scope of each request
        if not self.port.enter(self):
            self.app = self._refusing(Refusal("connections", 503, "too many connections; see max_connections"), True)
        elif limited and limited.isdisjoint(names):
            message = "no name of the client certificate is in tls_client_names"
            self.app = self._refusing(Refusal("client_name", 403, message))

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the timers, and what is counted for this connection."""
        self.head_arrived()
        self._unset_keepalive_if_required()
        if self._unread is not None:
            self._unread.cancel()
        self._body_bytes = self._unread_bytes = 0
        self._hold()
        self.port.leave(self)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse; then see whether the caller owes us the rest of something."""
        if self.deaf:
            return
        self._unset_keepalive_if_required()
        self.parse(data)
        if self.in_head:
            self._head_bytes += len(data)
            if self._head_bytes > self.port.limits.max_header_bytes:
                self.refuse(Refusal("header_size", 431, HEAD_TOO_LONG))
            else:
                self._await_rest()
        elif self.timeout_keep_alive_task is None and self.pending is None:
            # an empty line, or the rest of a body that was answered already: no timer runs any more
            self._await_rest()

    def on_headers_complete(self) -> None:
        """The head is whole."""
        self.head_arrived()
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """A part of the body."""
        if self.pending is None:
            return  # answered without it
        super().on_body(body)
        if not self.hold_body(self._body_bytes + len(body)):
            self.stop(Refusal("bytes", 503, NO_BYTES))

    def on_response_complete(self) -> None:
        """An answer is on its way."""
        cycle: object = self.cycle
        if isinstance(cycle, RequestResponseCycle) and cycle.response_complete:
            cycle.body = bytearray()  # what nobody read of the body would stay until the next request
            if cycle.more_body and not self.transport.is_closing():
                self.end()  # the rest of a body that nobody wants: reading it would be work for nothing
        self.hold_body(0)
        self.port.used(self)
        if not self.ended:
            super().on_response_complete()

    def timeout_keep_alive_handler(self) -> None:
        """Close an idle connection, at once if the caller does not read its answer: closing would wait for that."""
        if self.transport.get_write_buffer_size():
            self.transport.abort()
        else:
            super().timeout_keep_alive_handler()

    def pause_writing(self) -> None:
        """The caller does not read as fast as it is answered: give it so long, and count what it makes us hold."""
        super().pause_writing()
        if self._unread is None:
            self._unread = self.loop.call_later(self.port.limits.answer_timeout_s, self._unread_late)
        self._unread_bytes = self.transport.get_write_buffer_size()
        if not self._hold():
            self.port.refused("bytes")
            self.loop.call_soon(self.transport.abort)  # not within the write that led here

    def resume_writing(self) -> None:
        """The caller has read on."""
        super().resume_writing()
        if self._unread is not None:
            self._unread.cancel()
            self._unread = None
        self._unread_bytes = 0
        self._hold()

    def end(self) -> None:
        """Close, after what was written, though the caller may still send."""
        self.hold_body(0)
        super().end()

    @property
    def let_in(self) -> bool:
        """Whether what this caller asks is answered, not refused."""
        return self.app is self.config.loaded_app

    def has_room(self) -> bool:
        """Whether one more request may be worked on."""
        return len(self.tasks) < self.port.limits.max_requests

    @property
    def waits(self) -> bool:
        """Whether it is the caller's turn, to ask, to go on sending, or to read; or its request was not begun yet."""
        cycle = self.pending
        return cycle is None or self._queued or (cycle.more_body and not self.pipeline) or self.flow.write_paused

    def give_way(self) -> None:
        """End at once: a new connection needs the place."""
        self.transport.abort()

    def give_up_bytes(self) -> None:
        """Refuse the body that is under way, or leave the answer that nobody reads: others need the room."""
        if self._unread_bytes or self.deaf:
            self.port.refused("bytes")
            self.transport.abort()
        else:
            self.refuse(Refusal("bytes", 503, NO_BYTES))

    def hold_body(self, size: int) -> bool:
        """Count the bytes that have arrived of a body; return whether there is room for them."""
        self._body_bytes = size
        return self._hold()

    def head_arrived(self) -> None:
        """The head of a request is whole: forget how long it took."""
        self.in_head = False
        self._head_bytes = 0
        if self._late is not None:
            self._late.cancel()
            self._late = None

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        path = cycle.scope["path"]
        if app is not self.config.loaded_app:
            super()._start_asgi_task(cycle, app)
        elif path in self.port.verbs:
            self._begin(cycle, app)
        else:
            self._queued = True
            probe = path in PROBES
            caller = self.client[0] if self.client else ""
            self.port.turns.take(lambda: self._begin(cycle, app, always=probe), caller, probe=probe)

    def _begin(self, cycle: RequestResponseCycle, app: Any, *, always: bool = False) -> bool:
        """Begin to answer, unless the caller has left; return whether that is so."""
        self._queued = False
        if cycle.disconnected or self.transport.is_closing():
            return False
        if not always and not self.has_room():
            app = self._refusing(Refusal("requests", 503, NO_ROOM))
        super()._start_asgi_task(cycle, app)
        return True

    def _hold(self) -> bool:
        return self.port.budget.hold(self, self._body_bytes + self._unread_bytes)

    def _await_rest(self) -> None:
        if self._late is None and not self.transport.is_closing():
            self._late = self.loop.call_later(self.port.limits.header_timeout_s, self._rest_late)

    def _rest_late(self) -> None:
        self._late = None
        if self.pending is not None:
            self._await_rest()  # the answer before it is on its way: after that
        elif self.in_head:
            message = "the head of the request did not arrive within header_timeout_s"
            self.refuse(Refusal("header_timeout", 408, message))
        else:
            self.transport.close()

    def _unread_late(self) -> None:
        self._unread = None
        self.port.refused("answer_timeout")
        self.transport.abort()

    def _refusing(self, refusal: Refusal, close: bool = False) -> Any:
        """An ASGI application that answers every request so, after its body: who still sends would not read it."""
        body = error_body(refusal.message)
        headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
        if refusal.status == HTTPStatus.SERVICE_UNAVAILABLE:
            headers.append((b"retry-after", b"%d" % RETRY_AFTER_S))

        async def answer(scope: Scope, receive: Receive, send: Send) -> None:
            self.port.refused(refusal.reason)
            end = close
            try:
                async with asyncio.timeout(self.port.limits.body_timeout_s):
                    while (await receive()).get("more_body", False):
                        pass
            except TimeoutError:
                end = True
            head = [*headers, (b"connection", b"close")] if end else headers
            await send({"type": "http.response.start", "status": refusal.status, "headers": head})
            await send({"type": "http.response.body", "body": body})

        return answer
