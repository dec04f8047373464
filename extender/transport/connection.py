"""One connection of kube-scheduler: a request for a verb goes from the parser to the answer without ASGI in between.

uvicorn's protocol stays in charge of the connection: parsing, TLS, keep-alive, pipelining, limits, graceful shutdown.
It hands each request to a "cycle"; for the ordinary request of a verb, a POST whose length is known and within the
limit, that is a `VerbExchange`, which answers in one write. Everything else (another path or method, a chunked body,
`Expect: 100-continue`, a request sent before the last answer was read, a caller not let in) goes the usual way to the
ASGI application, where `SchedulingVerbs` answers the same verbs with the same words.

kube-scheduler's heads are all alike but for the length of the body. So a head that differs from one that was parsed on
this connection in those digits alone means what that one meant, and is not parsed again.
"""

from __future__ import annotations

import asyncio
import math
import re
from typing import Any, Final, NamedTuple, cast

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, RequestResponseCycle

from extender.protocol.verbs import Answer, SchedulingVerbs
from extender.transport.coroutine import start
from extender.transport.framing import RETRY_AFTER_S, error_body
from extender.transport.limits import NO_BYTES, NO_ROOM, LimitedConnection
from extender.transport.port import Port

_HEAD: Final = b"%bcontent-type: application/json\r\ncontent-length: %d\r\n%b\r\n"
_CLOSE: Final = b"connection: close\r\n"


class VerbExchange:
    """One request for a verb and its answer; to uvicorn it looks like one of its own cycles.

    Attributes:
        response_complete, response_started, keep_alive, disconnected: as uvicorn's cycle has them.
        more_body: whether a part of the body is still to come.
    """

    response_started = False
    """An answer is started and completed in one write."""

    def __init__(self, connection: VerbConnection, verb: str, received: float, keep_alive: bool) -> None:
        self.response_complete = False
        self.keep_alive = keep_alive
        self.disconnected = False
        self._connection = connection
        self._verbs = connection.verbs
        self.verb = verb
        self._received = received
        self._parts: list[bytes] = []
        self._size = 0
        self._timeout: asyncio.TimerHandle | None = None
        self.more_body = True

    @property
    def message_event(self) -> VerbExchange:
        """What uvicorn tells by `set` that the connection is lost: this.

        Not an attribute: it would close a cycle, and the body would stay until the collector comes by.
        """
        return self

    def add(self, part: bytes) -> None:
        """A part of the body has arrived."""
        if not self.response_complete:
            self._parts.append(part)
            self._size += len(part)

    def complete(self) -> None:
        """The whole body has arrived: decide, and answer."""
        if self._timeout is not None:
            self._timeout.cancel()
        self.more_body = False
        if self.response_complete:
            return
        connection = self._connection
        if connection.has_room():
            task = start(connection.loop, self._run())
            if task is not None:
                connection.tasks.add(task)
                task.add_done_callback(connection.tasks.discard)
                connection.hold_body(self._size)
        else:
            connection.port.refused("requests")
            self._send(Answer(503, error_body(NO_ROOM), retry_after_s=RETRY_AFTER_S))

    def wait(self) -> None:
        """The body has not arrived in full with what was read: it may take `body_timeout_s` from now."""
        if not self.more_body or self.response_complete:
            return
        if self._timeout is None:
            self._timeout = self._connection.loop.call_later(self._verbs.body_timeout_s, self._too_slow)
        if not self._connection.hold_body(self._size):
            self.no_bytes()

    def no_bytes(self) -> None:
        """There is no room for this body among all that are under way."""
        self._connection.port.refused("bytes")
        self._send(Answer(503, error_body(NO_BYTES), close=True, retry_after_s=RETRY_AFTER_S))

    def too_large(self) -> None:
        """The body is going to be larger than it may be."""
        self._send(self._verbs.refused(self._verbs.too_large()))

    def set(self) -> None:
        """The connection is lost, before the answer or after it."""
        if self._timeout is not None:
            self._timeout.cancel()
        if self.more_body and not self.response_complete:
            self.response_complete = True
            self._verbs.answered(self.verb, self._verbs.broken_off(), self._received)

    def _too_slow(self) -> None:
        self._send(self._verbs.refused(self._verbs.too_slow()))

    async def _run(self) -> None:
        parts = self._parts
        body = parts[0] if len(parts) == 1 else b"".join(parts)
        self._send(await self._verbs.answer(self.verb, body, self._received))

    def _send(self, answer: Answer) -> None:
        """Write head and body at once: two segments would wake the client twice. uvloop sends them right away."""
        self.response_complete = True
        self._parts.clear()
        connection = self._connection
        closing = answer.close or not self.keep_alive
        if not connection.transport.is_closing():
            more = _CLOSE if closing else b""
            if answer.retry_after_s:
                more += b"retry-after: %d\r\n" % answer.retry_after_s
            head = _HEAD % (STATUS_LINE[answer.status], len(answer.body), more)
            connection.transport.write(head + answer.body)
            if closing and self.more_body:
                connection.end()
            elif closing:
                connection.transport.close()
            connection.on_response_complete()
        self._verbs.answered(self.verb, answer, self._received)


class Head(NamedTuple):
    """The head of an ordinary request: what stands around the digits of its length."""

    before: bytes
    after: bytes

    def length_in(self, data: bytes) -> tuple[int, int] | None:
        """Length of the body, and where it begins, if `data` begins with this head but for the digits of the length."""
        if not data.startswith(self.before):
            return None
        begin = len(self.before)
        end = data.find(b"\r", begin, begin + _MOST_DIGITS + 1)
        digits = data[begin:end]
        if end < 0 or not digits.isdigit() or not data.startswith(self.after, end):
            return None
        return int(digits), end + len(self.after)


_MOST_DIGITS: Final = 18
_LENGTH: Final = re.compile(rb"\r\ncontent-length: ?([0-9]+)\r\n", re.IGNORECASE)


class VerbConnection(LimitedConnection):
    """uvicorn's protocol with a shortcut for the verbs."""

    def __init__(self, verbs: SchedulingVerbs, port: Port, **parts: Any) -> None:
        super().__init__(port, **parts)
        self.verbs = verbs
        self._exchange: VerbExchange | None = None
        """The cycle in progress, if it is one of ours."""
        self._known: dict[str, Head] = {}
        """The last head of an ordinary request for each verb: they come in turns."""
        self._between = True
        """Whether the parser has read whole requests only."""
        self._begun = 0
        """Requests that the parser began to read in this turn."""
        self._missing = 0
        """Bytes still to come of the body of a request that the parser does not see."""
        self._idle_since = -math.inf
        """When a request was answered last during which the timer of an idle connection ran on."""

    def data_received(self, data: bytes) -> None:
        """Read on; a body that is not complete now has its time limit from now."""
        if self.deaf:
            return
        if self._missing:
            rest = data[self._missing :]
            self._go_on(data[: self._missing] if rest else data)
            if rest:
                self.data_received(rest)
            return
        if self._between and self._answered():
            for verb, head in self._known.items():
                found = head.length_in(data)
                if found is not None:
                    if self._repeated(verb, data, *found):
                        return
                    break
            self._begun, before = 0, self._exchange
            super().data_received(data)
            if self._exchange is not before and self._begun == 1:
                self._learn(data)
        else:
            super().data_received(data)
        if self._exchange is not None:
            self._exchange.wait()

    def give_up_bytes(self) -> None:
        """Refuse the body that is under way, or leave the answer that nobody reads: others need the room."""
        if self._exchange is not None and self._exchange.more_body and not self._exchange.response_complete:
            self._exchange.no_bytes()
        else:
            super().give_up_bytes()

    def _answered(self) -> bool:
        """Whether all that was asked so far is answered, and read."""
        before = cast("RequestResponseCycle | None", self.cycle)
        return not self.flow.write_paused and (before is None or before.response_complete)

    def _repeated(self, verb: str, data: bytes, length: int, begin: int) -> bool:
        """Take a request whose head is known already; False: the parser must read it."""
        if length > self.verbs.max_body_bytes or len(data) - begin > length or not length:
            return False
        self.head_arrived()
        exchange = self._exchange = VerbExchange(self, verb, self.verbs.timer(), keep_alive=True)
        self.cycle = cast("RequestResponseCycle", exchange)
        self._missing = length
        self._go_on(data[begin:])
        return True

    def on_response_complete(self) -> None:
        """Wait for the next request. A timer that still runs finds out how long; that is cheaper than a new one."""
        if self.timeout_keep_alive_task is None or self.pipeline or self.ended or self.transport.is_closing():
            super().on_response_complete()
        else:
            self._idle_since = self.loop.time()
            self.hold_body(0)
            self.port.used(self)
            self.server_state.total_requests += 1
            self.flow.resume_reading()

    def timeout_keep_alive_handler(self) -> None:
        """Close an idle connection; one that was used since the timer began has time left."""
        idle = 0.0 if self.pending is not None else self.loop.time() - self._idle_since
        if idle < self.timeout_keep_alive:
            left = self.timeout_keep_alive - idle
            self.timeout_keep_alive_task = self.loop.call_later(left, self.timeout_keep_alive_handler)
        else:
            super().timeout_keep_alive_handler()

    def _go_on(self, part: bytes) -> None:
        """A part of a body that the parser does not see has arrived."""
        self._missing -= len(part)
        if self._exchange is not None:
            if part:
                self._exchange.add(part)
            if self._missing:
                self._exchange.wait()
            else:
                self._exchange.complete()

    def _learn(self, data: bytes) -> None:
        """Remember the head with which `data` begins: it was that of an ordinary request."""
        end = data.find(b"\r\n\r\n") + 4
        length = _LENGTH.search(data, 0, end) if end >= 4 else None
        exchange = self._exchange
        if length is not None and exchange is not None and exchange.keep_alive:
            self._known[exchange.verb] = Head(data[: length.start(1)], data[length.end(1) : end])

    def on_message_begin(self) -> None:
        """The parser begins to read a request."""
        self._between = False
        self._begun += 1
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """Take the shortcut where the request is an ordinary one of a verb."""
        verb = self.verbs.by_url.get(self.url)
        length = -1 if verb is None else self._ordinary()
        if verb is not None and length >= 0:
            self.head_arrived()
            keep_alive = self.parser.should_keep_alive()
            self._exchange = VerbExchange(self, verb, self.verbs.timer(), keep_alive)
            self.cycle = cast("RequestResponseCycle", self._exchange)
            if length > self.verbs.max_body_bytes:
                self._exchange.too_large()
        else:
            self._exchange = None
            super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """Keep a part of the body, whose length is known to be within the limit."""
        if self._exchange is not None:
            self._exchange.add(body)
        else:
            super().on_body(body)

    def on_message_complete(self) -> None:
        """Answer."""
        self._between = True
        if self._exchange is not None:
            self._exchange.complete()
        else:
            super().on_message_complete()

    def _ordinary(self) -> int:
        """Length of the body of a POST over HTTP/1.1, all before it answered and read, of a caller let in; else -1."""
        if (
            self.parser.get_method() != b"POST"
            or self.parser.get_http_version() != "1.1"
            or self.parser.should_upgrade()
            or self.expect_100_continue
            or not self._answered()
            or not self.let_in
        ):
            return -1
        lengths = []
        for name, value in self.headers:
            if name == b"content-length":
                lengths.append(value)
            elif name == b"expect":
                return -1
        return int(lengths[0]) if len(lengths) == 1 and lengths[0].isdigit() else -1
