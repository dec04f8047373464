"""The least an extender in Python can do: decode a request, name every node, score them all 0. Prints its port.

The twin of `tests/bench/donothing`, on the libraries that serve ours: uvloop, httptools and msgspec, without a
framework. What it costs more than the one in Go is the language's, and no design of ours can do with less.
"""

from __future__ import annotations

import asyncio
import signal
from typing import Final, cast

import httptools
import msgspec
import uvloop


class Arguments(msgspec.Struct):
    """Of ExtenderArgs the names; the pod is skipped, not decoded."""

    NodeNames: list[str]


class HostPriority(msgspec.Struct):
    """One node's score."""

    Host: str
    Score: int = 0


_DECODER: Final = msgspec.json.Decoder(Arguments)
_ENCODER: Final = msgspec.json.Encoder()


class Connection(asyncio.Protocol):
    """Answers the requests of one connection, one after the other."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is none of asyncio's classes
        self._parser, self._body = httptools.HttpRequestParser(self), bytearray()

    def data_received(self, data: bytes) -> None:
        """Some of a request."""
        self._parser.feed_data(data)

    def on_body(self, body: bytes) -> None:
        """Some of a body."""
        self._body += body

    def on_message_complete(self) -> None:
        """The whole of a request."""
        names = _DECODER.decode(self._body).NodeNames
        self._body.clear()
        answer = _ENCODER.encode([HostPriority(name) for name in names])
        head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(answer)
        self._transport.write(head + answer)


async def main() -> None:
    """Serve on a free port of loopback until SIGTERM."""
    loop, ended = asyncio.get_running_loop(), asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, ended.set)
    server = await loop.create_server(Connection, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await ended.wait()
    server.close()


if __name__ == "__main__":
    uvloop.run(main())
