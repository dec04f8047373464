"""The service in a thread of this process, as a context manager."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from typing import Self

import uvloop

from extender.app import Application
from extender.server import serve
from extender.settings import separated


def _url(secured: bool, hosts: str, port: int) -> str:
    host = separated(hosts)[0]
    return f"{'https' if secured else 'http'}://{f'[{host}]' if ':' in host else host}:{port}"


class BackgroundService:
    """A service in a thread of this process, as a context manager.

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
        return _url(self.app.settings.tls_cert_file is not None, self.app.settings.host, self.port)

    @property
    def operations_url(self) -> str:
        """Where the operations endpoints are."""
        settings = self.app.settings
        secured = (
            settings.operations_tls if settings.operations_port is not None else settings.tls_cert_file is not None
        )
        hosts = settings.host if settings.operations_port is None else settings.operations_host
        return _url(secured, hosts, self.operations_port)

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
