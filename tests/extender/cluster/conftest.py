"""Fixtures: a fake API server, and sources that follow it."""

import asyncio
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from extender.cluster.api import ApiServer
from extender.cluster.kubernetes import KubernetesOptions, KubernetesSource
from extender.cluster.table import ClusterTable
from extender.cluster.usage import UsageReader
from tests.extender.cluster.fake_api import FakeApi
from tests.extender.cluster.following import QUICK, Following


@pytest.fixture
def api() -> Iterator[FakeApi]:
    with FakeApi().running() as server:
        yield server


@pytest.fixture
def kubeconfig(api: FakeApi, tmp_path: Path) -> Path:
    return api.kubeconfig(tmp_path)


@pytest.fixture
def follow(kubeconfig: Path) -> Iterator[Callable[..., Following]]:
    """Start a source over the fake server; keywords are those of Timing, and `usage`, `options`."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    started: list[Following] = []

    def start(
        usage: Callable[[ApiServer], UsageReader] | None = None, options: dict[str, Any] | None = None, **timing: Any
    ) -> Following:
        values = {"kubeconfig": kubeconfig, "timing": replace(QUICK, **timing), **(options or {})}
        following = Following(loop, ClusterTable(), KubernetesSource(KubernetesOptions(**values), usage))
        started.append(following)
        loop.call_soon_threadsafe(following.table.claim)
        following.run(following.source.start(following.table))
        return following

    yield start
    for following in started:
        following.run(following.source.stop())
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()
