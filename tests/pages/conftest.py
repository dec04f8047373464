"""A running extender over the simulated cluster, and a real Chromium that looks at it."""

from __future__ import annotations

import os
import shlex
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NoReturn

import pytest
from playwright.sync_api import sync_playwright

from extender.app import create_app
from extender.demo.cluster import SimulatedCluster
from extender.demo.scheduling import SchedulingLoop
from extender.scorer.load import load_scorer
from extender.settings import Settings
from tests.bench.report import Result, publish
from tests.control_plane.toolchain import REPOSITORY, BuildError
from tests.extender.background import BackgroundService
from tests.extender.embedded import EmbeddedSource
from tests.extender.service import Service
from tests.pages.browser import axe, chromium
from training.simulator.scenarios import load_scenario

FIGURES: list[Result] = []
"""What the tests measured; written to build/pages.json at the end."""


def _unavailable(error: Exception) -> NoReturn:
    """Skip, saying why; in CI a browser that cannot be had is a failure."""
    if os.environ.get("CI", "").lower() in {"1", "true", "yes"}:
        raise error
    pytest.skip(f"no browser here: {error}")


@dataclass
class Simulated:
    """A service over the simulated cluster, in this process, with a loop that schedules pods while `going` is set."""

    service: BackgroundService
    cluster: SimulatedCluster
    going: threading.Event

    @property
    def url(self) -> str:
        """Where the pages are."""
        return f"{self.service.operations_url}/dashboard/"

    def placed(self, count: int) -> None:
        """Let so many more pods be placed, and wait for that."""
        ledger = self.service.app.ledger
        wanted = ledger.counts.decisions + count
        self.going.set()
        deadline = time.monotonic() + 120.0
        while ledger.counts.decisions < wanted:
            assert time.monotonic() < deadline, "the cluster is not scheduled"
            time.sleep(0.02)
        self.going.clear()


@pytest.fixture(scope="session")
def simulated() -> Iterator[Simulated]:
    """The service that all tests look at, with some pods placed."""
    settings = Settings(port=0, operations_port=0, operations_host="127.0.0.1", enable_bind=True, shadow="kube-default")
    cluster = SimulatedCluster(load_scenario("reference"), 1, 0.4, epoch=time.time() - 3600.0)
    service = BackgroundService(create_app(settings, cluster, load_scorer(settings), clock=cluster.now))
    with service:
        going, stopped = threading.Event(), threading.Event()
        run = _on(service)
        loop = SchedulingLoop(cluster, service.port, run, 1)
        # the demo shows each pod's reason: here the operations endpoints are elsewhere, and browsers ask for reasons
        loop._reason = lambda uid, node: ""  # type: ignore[method-assign]

        def schedule() -> None:
            while not stopped.is_set():
                if going.wait(0.05):
                    loop.step()

        thread = threading.Thread(target=schedule, name="kube-scheduler", daemon=True)
        thread.start()
        found = Simulated(service, cluster, going)
        found.placed(200)
        yield found
        stopped.set()
        thread.join(10.0)
        loop.close()


@contextmanager
def restartable(ledger: Path | None) -> Iterator[Callable[[], AbstractContextManager[Service]]]:
    """A function that starts a service; each of them has the port of the first for its pages, and its `ledger`."""
    port = 0

    @contextmanager
    def start() -> Iterator[Service]:
        nonlocal port
        settings = Settings(
            port=0, operations_port=port, operations_host="127.0.0.1", ledger_path=ledger, scorer="kube-default"
        )
        source = EmbeddedSource()
        with BackgroundService(create_app(settings, source)) as background:
            port = background.operations_port
            service = Service(background, source)
            yield service
            service.http.close()
            service.operations.close()

    yield start


def _on(service: BackgroundService) -> Callable[[Callable[[], None]], None]:
    def run(change: Callable[[], None]) -> None:
        done = threading.Event()

        def now() -> None:
            change()
            done.set()

        assert service._loop is not None
        service._loop.call_soon_threadsafe(now)
        assert done.wait(10.0)

    return run


@pytest.fixture(scope="session")
def launch() -> Iterator[Callable[..., Any]]:
    """A function that starts a Chromium; one that gives way to other processes, if asked to."""
    try:
        path = chromium()
    except BuildError as error:
        _unavailable(error)
    with sync_playwright() as driver, TemporaryDirectory() as folder:
        polite = Path(folder) / "chromium"
        polite.write_text(f'#!/bin/sh\nexec nice -n 19 {shlex.quote(str(path))} "$@"\n')
        polite.chmod(0o755)

        def start(gives_way: bool = False) -> Any:
            arguments = ["--no-sandbox", "--disable-gpu"]
            return driver.chromium.launch(executable_path=polite if gives_way else path, args=arguments)

        yield start


@pytest.fixture(scope="session")
def browser(launch: Callable[..., Any]) -> Iterator[Any]:
    """A Chromium."""
    found = launch()
    yield found
    found.close()


@pytest.fixture(scope="session")
def axe_script() -> str:
    """axe-core."""
    return axe()


@pytest.fixture(scope="session")
def screenshots() -> Path:
    """The folder they go to."""
    folder = REPOSITORY / "build" / "pages"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def pytest_sessionfinish() -> None:
    """Write what was measured."""
    if FIGURES:
        publish("the pages", FIGURES, REPOSITORY / "build" / "pages.json")
