"""Runs an application on sockets: uvicorn with httptools and uvloop, one process, one event loop, TLS where configured.

A signal to stop makes readiness false first; after the configured delay no connection is accepted any more, answers in
progress are finished, and the source is stopped. A second signal ends at once. SIGHUP looks for another policy bundle.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
import ssl
from collections.abc import Callable, Iterator
from functools import partial
from operator import attrgetter
from typing import Final

import uvicorn

from extender import logs
from extender.app import Application
from extender.errors import SettingsError
from extender.operations.collectors.certificates import CERTIFICATES
from extender.transport.limits import ConnectionLimits, LimitedConnection
from extender.transport.tls import Certificates, CertificateWatch, Identity

BACKLOG: Final = 2048
TLS_GOODBYE_S: Final = 5.0
"""How long a caller may take to say goodbye in TLS before its connection is cut."""

_log = logs.get(__name__)


class _Server(uvicorn.Server):
    """uvicorn with an event once it serves or cannot, and without its signal handlers: two servers share a process.

    Args:
        config: uvicorn's.
        listener: the socket.
        connect: makes the protocol of each connection of uvicorn's parts.
        handshake_timeout_s: time for TLS.
        context_of: chooses this port's TLS from an identity; None: plain HTTP.
        identity: the first.
    """

    def __init__(
        self,
        config: uvicorn.Config,
        listener: socket.socket,
        connect: Callable[..., LimitedConnection],
        handshake_timeout_s: float,
        context_of: Callable[[Identity], ssl.SSLContext] | None = None,
        identity: Identity | None = None,
    ) -> None:
        super().__init__(config)
        self.listener = listener
        self.serving = asyncio.Event()
        self._connect = connect
        self._handshake_timeout_s = handshake_timeout_s
        self._context_of = context_of
        self._context = None if context_of is None or identity is None else context_of(identity)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        try:
            await super().startup([])  # the lifespan alone: `_listen` opens the socket
        except SystemExit:
            # uvicorn ends the process where the lifespan fails; `serve` raises what it failed of instead
            if not self.lifespan.should_exit:
                raise
            self.should_exit = True
        else:
            await self._listen()
        self.serving.set()

    async def renew(self, identity: Identity) -> None:
        """Show this identity to new connections; those that stand go on with the one they began with."""
        if self._context_of is not None and not self.should_exit:
            self._context = self._context_of(identity)
            await self._listen()

    async def _listen(self) -> None:
        """Take new connections with the TLS of now.

        The socket is duplicated: both have one queue of callers, so none is lost while one takes over from the other.
        """
        loop = asyncio.get_running_loop()
        parts = {"config": self.config, "server_state": self.server_state, "app_state": self.lifespan.state}
        opened = await loop.create_server(
            partial(self._connect, _loop=loop, **parts),
            sock=self.listener.dup(),
            backlog=BACKLOG,
            ssl=self._context,
            ssl_handshake_timeout=self._handshake_timeout_s if self._context else None,
            ssl_shutdown_timeout=TLS_GOODBYE_S if self._context else None,
        )
        if self.should_exit:  # meanwhile; uvicorn closes those it knows
            opened.close()
            return
        before, self.servers = self.servers, [opened]
        for server in before:
            server.close()

    @property
    def port(self) -> int:
        """The port it listens on."""
        port: int = self.listener.getsockname()[1]
        return port


def _configured(app: Application, identity: Identity | None, *, operations: bool) -> _Server:
    settings = app.settings
    port = (settings.operations_port or 0) if operations else settings.port
    config = uvicorn.Config(
        app.operations if operations else app,
        loop="uvloop",
        ws="none",
        lifespan="off" if operations else "on",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        date_header=False,
        timeout_keep_alive=int(settings.keep_alive_s),
        timeout_graceful_shutdown=max(1, round(settings.shutdown_grace_s)),
    )
    limits = ConnectionLimits(
        settings.header_timeout_s,
        settings.max_header_bytes,
        settings.body_timeout_s,
        settings.max_connections,
        settings.max_requests_in_flight,
        frozenset() if operations else frozenset(settings.tls_client_names),
    )
    refused = app.metrics.traffic.refused
    secured = settings.operations_tls if operations else identity is not None
    return _Server(
        config,
        _listener(settings.host, port),
        partial(LimitedConnection, limits, refused)
        if operations
        else partial(app.connection, app.verbs, limits, refused),
        settings.header_timeout_s,
        attrgetter("operations" if operations else "verbs") if secured else None,
        identity,
    )


def _listener(host: str, port: int) -> socket.socket:
    """A listening socket; raises `SettingsError` where the address cannot be had."""
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        return socket.create_server(address[:2], family=family, backlog=BACKLOG)
    except OSError as error:
        raise SettingsError(
            f"cannot listen on {host} port {port} ({error.strerror or error}); set host and port"
        ) from error


async def serve(
    app: Application,
    announce: Callable[[int, int], None] | None = None,
    until: asyncio.Event | None = None,
) -> None:
    """Serve until a signal to stop, or until an event.

    Args:
        app: what to serve.
        announce: called with the ports (verbs, operations) once requests are answered.
        until: stop when it is set; the process's signal handlers are then left alone.

    Raises:
        SettingsError: a port cannot be had, or the certificates cannot serve.
        SchedulerError: what kept the application from starting, such as `SourceError`.
    """
    settings = app.settings
    certificates = None if settings.tls_cert_file is None else Certificates(settings)
    app.metrics.register(certificates, CERTIFICATES)
    identity = None if certificates is None else certificates.identity
    servers = [_configured(app, identity, operations=False)]
    if settings.operations_port is not None:
        servers.append(_configured(app, identity, operations=True))
    loop = asyncio.get_running_loop()

    def stop() -> None:
        # log last: a log that cannot be written (its reader is gone, the disk is full) must not keep us from stopping
        if app.probes.stopping:
            for server in servers:
                server.should_exit = server.force_exit = True
            _log.warning("second signal: ending at once")
            return
        app.probes.stopping = True
        loop.call_later(settings.shutdown_delay_s, _end, servers)
        _log.info("stopping", delay_s=settings.shutdown_delay_s)

    signals = (signal.SIGTERM, signal.SIGINT) if until is None else ()
    for number in signals:
        loop.add_signal_handler(number, stop)
    if signals:
        loop.add_signal_handler(signal.SIGHUP, app.upkeep.reload)
    waiting = None if until is None else asyncio.create_task(until.wait())
    if waiting is not None:
        waiting.add_done_callback(lambda task: None if task.cancelled() else stop())

    async def renew(identity: Identity) -> None:
        for server in servers:
            await server.renew(identity)

    running = asyncio.gather(*(server.serve([server.listener]) for server in servers))
    serving = asyncio.gather(*(server.serving.wait() for server in servers))
    try:
        await asyncio.wait((running, serving), return_when=asyncio.FIRST_COMPLETED)
        if app.start_error is not None:
            raise app.start_error
        if serving.done():
            if certificates is not None:
                watch = CertificateWatch(certificates, renew)
                app.supervisor.start("certificates", watch.look, settings.tls_reload_interval_s)
            _log.info("serving", host=settings.host, port=servers[0].port, operations_port=servers[-1].port)
            if announce is not None:
                announce(servers[0].port, servers[-1].port)
        await running
    finally:
        serving.cancel()
        if waiting is not None:
            waiting.cancel()
        _end(servers)
        await asyncio.gather(running, serving, return_exceptions=True)
        for number in (*signals, signal.SIGHUP) if signals else ():
            loop.remove_signal_handler(number)
        for server in servers:
            server.listener.close()


def _end(servers: list[_Server]) -> None:
    for server in servers:
        server.should_exit = True
