"""Fixtures: a small bundle, settings on free loopback ports, a service with an embedded cluster."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from extender import logs
from extender.app import create_app
from extender.scorer.load import LoadedScorer
from extender.settings import Settings
from tests.extender.background import BackgroundService
from tests.extender.embedded import EmbeddedSource
from tests.extender.service import Service
from tests.policy.states import write_bundle


@pytest.fixture(scope="session")
def bundle_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A valid bundle with a small random actor."""
    return write_bundle(tmp_path_factory.mktemp("bundle"))


@pytest.fixture
def run_service(bundle_path: Path) -> Iterator[Callable[..., Service]]:
    """Start services in this process; each keyword is a setting, or `source` or `loaded`."""
    running: list[Service] = []

    def start(source: EmbeddedSource | None = None, loaded: LoadedScorer | None = None, **settings: Any) -> Service:
        values = {"port": 0, "bundle_path": bundle_path, "random_seed": 1, "deadline_ms": 2000.0, **settings}
        if values.get("operations_port") is not None:
            values.setdefault("operations_host", "127.0.0.1")
        source = source or EmbeddedSource()
        background = BackgroundService(create_app(Settings(**values), source, loaded))
        background.__enter__()
        running.append(Service(background, source))
        return running[-1]

    yield start
    for service in running:
        service.close()


@pytest.fixture(autouse=True)
def plain_logs() -> None:
    """Log as the command does; unconfigured, structlog draws tracebacks with every local variable."""
    logs.configure("info", "json")
