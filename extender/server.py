"""Runs an application on sockets: uvicorn with httptools and uvloop, one process, one event loop, TLS where configured.

A signal to stop makes readiness false first; after the configured delay no connection is accepted any more, answers in
progress are finished, and the source is stopped. A second signal ends at once. SIGHUP looks for another policy bundle.
"""

from __future__ import annotations

import asyncio
import contextlib
import resource
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from operator import attrgetter
from typing import Final, cast

import uvicorn

from extender import logs
from extender.app import Application
from extender.cluster.kubelets import FILES_PER_KEPT
from extender.errors import SettingsError
from extender.operations.collectors.connections import CERTIFICATES, CONNECTIONS
from extender.pace import SWITCH_S
from extender.protocol.verbs import PATHS
from extender.settings import Settings
from extender.transport.addresses import BACKLOG, listen, shown
from extender.transport.budget import ByteBudget
from extender.transport.handshake import Handshake
from extender.transport.limits import LimitedConnection
from extender.transport.port import ConnectionLimits, Port
from extender.transport.renewal import CertificateWatch
from extender.transport.tls import Certificates
from extender.transport.turns import Turns

OTHER_FILES: Final = 128
"""Files that are open beside connections: sockets that listen, the watches' connections, the ledger, libraries."""

_log = logs.get(__name__)


class _Server(uvicorn.Server):
    """uvicorn with an event once it serves or cannot, and without its signal handlers: two servers share a process.

    Attributes:
        serving: set once it serves or cannot.
    """

    def __init__(self, config: uvicorn.Config, sockets: list[socket.socket]) -> None:
        super().__init__(config)
        self.sockets = sockets
        self.serving = asyncio.Event()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        try:
            await super().startup(sockets)
        except SystemExit:
            # uvicorn ends the process where the lifespan fails; `serve` raises what it failed of instead
            if not self.lifespan.should_exit:
                raise
            self.should_exit = True
        self.serving.set()

    @property
    def port(self) -> int:
        """The port it listens on."""
        port: int = self.sockets[0].getsockname()[1]
        return port


def _listening(settings: Settings) -> list[list[socket.socket]]:
    """Sockets of the verbs, and of the operations endpoints where they have a port of their own."""
    sockets = [listen("host", settings.host, settings.port)]
    if settings.operations_port is not None:
        try:
            sockets.append(listen("operations_host", settings.operations_host, settings.operations_port))
        except SettingsError:
            for each in sockets[0]:
                each.close()
            raise
    return sockets


def _configured(
    app: Application, sockets: list[socket.socket], port: Port, certificates: Certificates | None, *, operations: bool
) -> _Server:
    settings = app.settings
    connect: Callable[..., asyncio.Protocol]
    verbs = not (operations or settings.observe)
    connect = partial(app.connection, app.verbs, port) if verbs else partial(LimitedConnection, port)
    if certificates is not None and (settings.operations_tls or not operations):
        which = attrgetter("operations" if operations else "verbs")
        connect = partial(Handshake, lambda: which(certificates.identity), port, connect)
    config = uvicorn.Config(
        app.operations if operations else app,
        loop="uvloop",
        http=cast("type[asyncio.Protocol]", connect),  # any callable will do
        ws="none",
        lifespan="off" if operations else "on",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        date_header=False,
        backlog=BACKLOG,
        timeout_keep_alive=int(settings.operations_keep_alive_s if operations else settings.keep_alive_s),
        timeout_graceful_shutdown=max(1, round(settings.shutdown_grace_s)),
    )
    return _Server(config, sockets)


def _allowed_connections(wanted: int, kept: int = 0) -> int:
    """As many connections at each of two ports as wanted, or as this process may have files open.

    Args:
        wanted: at each port.
        kept: connections to kubelets that may be kept.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = max(2 * wanted + OTHER_FILES + kept, FILES_PER_KEPT * kept)
    if soft < needed:
        soft = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    if soft < needed:
        allowed = max(1, (soft - OTHER_FILES - min(kept, soft // FILES_PER_KEPT)) // 2)
        _log.warning("max_connections is beyond the limit of open files", max_connections=wanted, allowed=allowed)
        return allowed
    return wanted


def _ports(app: Application) -> dict[str, Port]:
    """What the connections of the verbs' port share, and those of the operations' own port, where there is one."""
    settings = app.settings
    budget, turns = ByteBudget(settings.max_bytes_in_flight), Turns()
    limits = ConnectionLimits(
        header_timeout_s=settings.header_timeout_s,
        max_header_bytes=settings.max_header_bytes,
        body_timeout_s=settings.body_timeout_s,
        answer_timeout_s=settings.answer_timeout_s,
        max_connections=_allowed_connections(
            settings.max_connections, settings.kubelet_kept_connections if settings.asks_kubelets else 0
        ),
        max_requests=settings.max_requests_in_flight,
        names=frozenset(settings.tls_client_names),
    )
    refused = app.metrics.traffic.refused
    ports = {"verbs": Port(limits, budget, turns, frozenset(PATHS), refused)}
    if settings.operations_port is not None:
        ports["operations"] = Port(replace(limits, names=frozenset()), budget, turns, frozenset(), refused)
    return ports


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
    sys.setswitchinterval(SWITCH_S)
    certificates = None if settings.tls_cert_file is None else Certificates(settings)
    if app.peers is not None and certificates is not None and settings.operations_tls:
        app.peers.identity = lambda: certificates.identity
    if app.guard is not None and certificates is not None:
        app.guard.own_names = lambda: certificates.identity.names
    ports = _ports(app)
    app.metrics.register(certificates, CERTIFICATES)
    app.metrics.register(ports, CONNECTIONS)
    servers = [
        _configured(app, sockets, port, certificates, operations=name == "operations")
        for sockets, (name, port) in zip(_listening(settings), ports.items(), strict=True)
    ]
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

    running = asyncio.gather(*(server.serve(server.sockets) for server in servers))
    serving = asyncio.gather(*(server.serving.wait() for server in servers))
    try:
        await asyncio.wait((running, serving), return_when=asyncio.FIRST_COMPLETED)
        if app.start_error is not None:
            raise app.start_error
        if serving.done():
            if certificates is not None:
                watch = CertificateWatch(certificates)
                app.supervisor.start("certificates", watch.look, settings.tls_reload_interval_s)
            _log.info("serving", verbs=shown(servers[0].sockets), operations=shown(servers[-1].sockets))
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
            for listening in server.sockets:
                listening.close()


def _end(servers: list[_Server]) -> None:
    for server in servers:
        server.should_exit = True
