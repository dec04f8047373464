"""Runs an application on sockets: uvicorn with httptools and uvloop, one process, one event loop.

A signal to stop makes readiness false first; after the configured delay no connection is accepted any more, answers in
progress are finished, and the source is stopped. A second signal ends at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Self, cast

import uvicorn
import uvloop
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from extender.app import Application
from extender.errors import SettingsError
from extender.operations import logs
from extender.protocol.connection import connections_of

_log = logs.get(__name__)


class _Server(uvicorn.Server):
    """uvicorn with an event once it serves or cannot, and without its signal handlers: two servers share a process."""

    def __init__(self, config: uvicorn.Config, listener: socket.socket) -> None:
        super().__init__(config)
        self.listener = listener
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
        port: int = self.listener.getsockname()[1]
        return port


def _configured(app: Application, operations: bool) -> _Server:
    settings = app.settings
    port = (settings.operations_port or 0) if operations else settings.port
    config = uvicorn.Config(
        app.operations if operations else app,
        loop="uvloop",
        # uvicorn calls whatever it is given with the parts of a connection, but says it takes a class
        http=HttpToolsProtocol if operations else cast("type[asyncio.Protocol]", connections_of(app.verbs)),
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
    return _Server(config, _listener(settings.host, port))


def _listener(host: str, port: int) -> socket.socket:
    """A listening socket; raises `SettingsError` where the address cannot be had."""
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        return socket.create_server(address[:2], family=family, backlog=2048)
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
        SettingsError: a port cannot be had.
        SchedulerError: what kept the application from starting, such as `SourceError`.
    """
    settings = app.settings
    servers = [_configured(app, operations=False)]
    if settings.operations_port is not None:
        servers.append(_configured(app, operations=True))
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
    waiting = None if until is None else asyncio.create_task(until.wait())
    if waiting is not None:
        waiting.add_done_callback(lambda task: None if task.cancelled() else stop())
    running = asyncio.gather(*(server.serve([server.listener]) for server in servers))
    serving = asyncio.gather(*(server.serving.wait() for server in servers))
    try:
        await asyncio.wait((running, serving), return_when=asyncio.FIRST_COMPLETED)
        if app.start_error is not None:
            raise app.start_error
        if serving.done():
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
        for number in signals:
            loop.remove_signal_handler(number)
        for server in servers:
            server.listener.close()


def _end(servers: list[_Server]) -> None:
    for server in servers:
        server.should_exit = True


class BackgroundService:
    """A service in a thread of this process, as a context manager: for the demo, for tests and for embedding.

    Args:
        app: what to serve; its settings say where (port 0 takes a free one).

    Attributes:
        app: as given.
        port, operations_port: where it listens, once entered.
    """

    def __init__(self, app: Application) -> None:
        self.app = app
        self.port = self.operations_port = 0
        self._ready = threading.Event()
        self._error: BaseException | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._until: asyncio.Event | None = None
        self._thread = threading.Thread(target=self._run, name="service", daemon=True)

    @property
    def url(self) -> str:
        """Where the verbs are."""
        return f"http://{self.app.settings.host}:{self.port}"

    @property
    def operations_url(self) -> str:
        """Where the operations endpoints are."""
        return f"http://{self.app.settings.host}:{self.operations_port}"

    def __enter__(self) -> Self:
        """Start, and wait until requests are answered; raises what kept it from starting."""
        self._thread.start()
        self._ready.wait()
        if self._error is not None:
            raise self._error
        return self

    def __exit__(self, *_: object) -> None:
        """Stop, and wait for it; raises what it died of."""
        self.stop()
        self._thread.join(self.app.settings.shutdown_delay_s + self.app.settings.shutdown_grace_s + 10.0)
        if self._error is not None:
            raise self._error

    def stop(self) -> None:
        """Begin to stop; callable from any thread."""
        if self._loop is not None and self._until is not None and self._thread.is_alive():
            with contextlib.suppress(RuntimeError):  # the loop may have closed meanwhile
                self._loop.call_soon_threadsafe(self._until.set)

    def _run(self) -> None:
        try:
            uvloop.run(self._serve())
        except BaseException as error:  # handed to the thread that entered
            self._error = error
        finally:
            self._ready.set()

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._until = asyncio.Event()
        await serve(self.app, self._announce, self._until)

    def _announce(self, port: int, operations_port: int) -> None:
        self.port, self.operations_port = port, operations_port
        self._ready.set()
