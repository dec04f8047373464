"""Where a request begins and ends. Refuses to guess: what two readers could take differently is the last thing read.

llhttp, httptools' parser, is strict by itself: it refuses two lengths, a length beside chunks, folded lines, bare line
feeds and blanks before a colon. This module adds what it leaves to its caller: other versions, transfer codings and
expectations, an offered upgrade, and what comes of a connection after a refusal.
"""

from __future__ import annotations

from http import HTTPStatus
from typing import Any, Final, NamedTuple, NoReturn, cast

import httptools
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from extender.transport.port import Port

RETRY_AFTER_S: Final = 1
HEAD_TOO_LONG: Final = "the head of the request is longer than max_header_bytes"

FIELD_BYTES: Final = 32
"""What a field of a head counts beyond its text, as in HTTP/2 (RFC 9113, 6.5.2): each is an object here."""

REQUEST_BYTES: Final = 256
"""What a request counts beyond its head."""

LINGER_S: Final = 0.5
"""How long a connection stays open after a refusal that its caller may not have stopped sending for. Closed at once,
TCP would reset it, and the caller might never see the refusal."""


class Refusal(NamedTuple):
    """Why nothing more is read of a connection: the reason that is counted, and what the caller is told."""

    reason: str
    status: int
    message: str


class FramedConnection(HttpToolsProtocol):
    """uvicorn's protocol, which ignores an offered upgrade and reads nothing after a request whose end is in doubt.

    Attributes:
        in_head: whether a head has begun that is not whole.
        deaf: whether nothing more is read: the connection ends after the answers that are still to come.
        ended: whether none is to come.
    """

    def __init__(self, port: Port, **parts: Any) -> None:
        super().__init__(**parts)
        self.port = port
        self.in_head = self.deaf = self.ended = False
        self._weight = self._weight_before = 0
        """What the heads weigh that wait for an answer, with and without the last; see `FIELD_BYTES`."""
        self._refusal: Refusal | None = None
        """Why a callback stopped the parser."""

    @property
    def pending(self) -> RequestResponseCycle | None:
        """The last request, if it is not answered."""
        cycle = cast("RequestResponseCycle | None", self.cycle)
        return None if cycle is None or cycle.response_complete else cycle

    def parse(self, data: bytes) -> None:
        """Feed the parser. What it cannot read, and what it must not, ends the connection."""
        try:
            while data and not self.deaf:
                try:
                    self.parser.feed_data(data)
                except httptools.HttpParserUpgrade as offered:
                    data = data[offered.args[0] :]
                    self._ignore_offer()
                else:
                    return
        except httptools.HttpParserError:
            self.refuse(self._refusal or Refusal("malformed", 400, "this is no request of HTTP/1.1"))

    def stop(self, refusal: Refusal) -> NoReturn:
        """Stop the parser, in one of its callbacks, at something that must not be read any further."""
        self._refusal = refusal
        raise ValueError(refusal.message)

    def refuse(self, refusal: Refusal) -> None:
        """Answer a request of which not all was read, or that is none, and read no more of this connection.

        Where answers to earlier requests are still to come, these are the last.
        """
        if self.deaf or self.transport.is_closing():
            return
        self.port.refused(refusal.reason)
        cycle = self.pending
        if cycle is not None and (self.pipeline or self.in_head or not cycle.more_body):
            self.deaf = True
            cycle.keep_alive = False
            return
        if cycle is None or not cycle.response_started:
            body = error_body(refusal.message)
            more = b"retry-after: %d\r\n" % RETRY_AFTER_S if refusal.status == HTTPStatus.SERVICE_UNAVAILABLE else b""
            head = STATUS_LINE[refusal.status] + b"content-type: application/json\r\nconnection: close\r\n"
            self.transport.write(b"%b%bcontent-length: %d\r\n\r\n%b" % (head, more, len(body), body))
        if cycle is not None:  # whoever waits for the rest of it need not answer any more
            cycle.disconnected = True
            cycle.message_event.set()
        self.end()

    def end(self) -> None:
        """Close, after what was written, though the caller may still send."""
        self.deaf = self.ended = True
        if self.scheme == "http" and self.transport.can_write_eof():
            self.transport.write_eof()
            self.flow.pause_reading()
            self.loop.call_later(LINGER_S, self.transport.abort)
        else:
            self.transport.close()

    def eof_received(self) -> bool:  # type: ignore[override]  # asyncio.Protocol allows it, uvicorn always says None
        """Note that the caller sends no more; return whether an answer is still to be written."""
        cycle = self.pending
        if cycle is None or cycle.more_body or self.scheme == "https":  # TLS knows no half of a connection
            return False
        cycle.keep_alive = False
        return True

    def on_message_begin(self) -> None:
        """A head begins."""
        self.in_head = True
        if self.pending is None:
            self._weight = 0
        self._weight_before = self._weight
        self._weigh(REQUEST_BYTES)
        super().on_message_begin()

    def on_url(self, url: bytes) -> None:
        """A part of the target."""
        self._weigh(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """A field of the head, or behind a chunked body."""
        self._weigh(len(name) + len(value) + FIELD_BYTES)
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """The head is whole."""
        self.in_head = False
        if self.parser.should_upgrade():
            return  # `_ignore_offer` parses it again
        version = self.parser.get_http_version()
        if version not in ("1.1", "1.0"):
            self.stop(Refusal("malformed", 505, "only HTTP/1.1 and HTTP/1.0 are spoken here"))
        for name, value in self.headers:
            if name == b"transfer-encoding" and value.lower() != b"chunked":
                self.stop(Refusal("malformed", 501, "no Transfer-Encoding but chunked is understood"))
            if name == b"expect" and value.lower() != b"100-continue":
                self.stop(Refusal("malformed", 417, "no Expect but 100-continue can be met"))
        expecting = self.expect_100_continue = self.expect_100_continue and version == "1.1"
        super().on_headers_complete()
        if expecting:
            # refused before it was told to go on, a caller may send its body or leave it: nobody else can tell
            self.cycle.keep_alive = False

    def on_message_complete(self) -> None:
        """The request is whole, unless it offers an upgrade: then it is parsed again."""
        if not self.parser.should_upgrade():
            super().on_message_complete()

    def _weigh(self, size: int) -> None:
        self._weight += size
        if self._weight > self.port.limits.max_header_bytes:
            self.stop(Refusal("header_size", 431, HEAD_TOO_LONG))

    def _ignore_offer(self) -> None:
        """Parse a head again without the upgrade it offers (RFC 9110, 7.8): what follows is the body, in HTTP/1.1.

        httptools takes whatever follows such a head for another protocol (MagicStack/httptools#124).
        """
        method = self.parser.get_method()
        if method == b"CONNECT":
            self.refuse(Refusal("malformed", 405, "this is no proxy: CONNECT is not answered"))
            return
        version = self.parser.get_http_version().encode()
        fields = [b"%b: %b\r\n" % field for field in self.headers if field[0] != b"upgrade"]
        head = b"%b %b HTTP/%b\r\n%b\r\n" % (method, self.url, version, b"".join(fields))
        self._weight = self._weight_before
        self.parser = httptools.HttpRequestParser(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)  # as uvicorn has it: what follows is left
        self.parser.feed_data(head)


def error_body(message: str) -> bytes:
    """An error as kube-scheduler reads it; the message is one of ours, without quotes."""
    return b'{"Error":"%s"}' % message.encode()
