"""TLS handshakes, counted among the connections of their port: a caller without a finished one takes a place too.

asyncio tells a protocol of its connection only after the handshake. Callers that never finish one would be bounded by
nothing but the number of open files.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from typing import Any, Final, cast

from extender.transport.coroutine import start
from extender.transport.limits import LimitedConnection
from extender.transport.port import Port

GOODBYE_S: Final = 5.0
"""How long a caller may take to say goodbye in TLS before its connection is cut."""


class Handshake(asyncio.Protocol):
    """A new caller, until its handshake is done and its connection takes over.

    Args:
        context: the TLS of now, asked once for each caller: renewed certificates are shown from then on.
    """

    def __init__(
        self, context: Callable[[], ssl.SSLContext], port: Port, connect: Callable[..., LimitedConnection], **parts: Any
    ) -> None:
        self._context = context
        self._port = port
        self._connect = connect
        self._parts = parts
        self._connections: set[Any] = parts["server_state"].connections
        self._transport: asyncio.Transport | None = None
        self._task: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin the handshake, or refuse where nobody gives way."""
        self._transport = cast("asyncio.Transport", transport)
        self._connections.add(self)  # uvicorn tells it of the end by `shutdown`
        if self._port.enter(self):
            # begun at once: the first bytes must meet TLS, not this protocol
            self._task = start(asyncio.get_running_loop(), self._shake(self._transport))
        else:
            self._port.refused("connections")
            self._transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the caller."""
        self._leave()

    @property
    def waits(self) -> bool:
        """It is always the caller's turn."""
        return True

    def give_way(self) -> None:
        """End at once."""
        if self._transport is not None:
            self._transport.abort()

    def shutdown(self) -> None:
        """The service ends: no request that comes after this handshake would be answered."""
        self.give_way()

    def _leave(self) -> None:
        self._port.leave(self)
        self._connections.discard(self)

    async def _shake(self, transport: asyncio.Transport) -> None:
        try:
            secured = await asyncio.get_running_loop().start_tls(
                transport,
                self,
                self._context(),
                server_side=True,
                ssl_handshake_timeout=self._port.limits.header_timeout_s,
                ssl_shutdown_timeout=GOODBYE_S,
            )
        except OSError:
            return  # refused by either side, late, or broken off; `extender.transport.tls` counts what TLS refuses
        finally:
            self._leave()
        if secured is not None and not secured.is_closing():
            # before the first bytes of a request: the loop delivers them after this step
            connection = self._connect(**self._parts)
            secured.set_protocol(connection)
            connection.connection_made(secured)
