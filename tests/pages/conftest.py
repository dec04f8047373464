"""A running extender over the simulated cluster, and a real Chromium that looks at it."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, NoReturn

import pytest

from extender.app import create_app
from extender.settings import Settings
from tests.bench.report import Result, publish
from tests.control_plane.toolchain import REPOSITORY, BuildError
from tests.extender.background import BackgroundService
from tests.extender.embedded import EmbeddedSource
from tests.extender.service import Service
from tests.pages.browser import Launch, axe, chromium, launcher
from tests.pages.simulation import Simulated, simulation

FIGURES: list[Result] = []
"""What the tests measured; written to build/pages.json at the end."""


def _unavailable(error: Exception) -> NoReturn:
    """Skip, saying why; in CI a browser that cannot be had is a failure."""
    if os.environ.get("CI", "").lower() in {"1", "true", "yes"}:
        raise error
    pytest.skip(f"no browser here: {error}")


@pytest.fixture(scope="session")
def simulated() -> Iterator[Simulated]:
    """The service that all tests look at, with some pods placed."""
    with simulation(epoch=time.time() - 3600.0) as found:
        found.placed(200)
        yield found


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


@pytest.fixture(scope="session")
def launch() -> Iterator[Launch]:
    """A function that starts a Chromium."""
    try:
        chromium()
    except BuildError as error:
        _unavailable(error)
    with launcher() as start:
        yield start


@pytest.fixture(scope="session")
def browser(launch: Launch) -> Iterator[Any]:
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
