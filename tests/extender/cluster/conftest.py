"""Fixtures: a fake API server, and sources that follow it."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from extender.cluster.api import ApiServer
from extender.cluster.kubernetes import KubernetesOptions, KubernetesSource
from extender.cluster.usage import UsageReader
from tests.extender.cluster.fake_api import FakeApi
from tests.extender.cluster.following import QUICK, Following, an_event_loop, followed


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
    with an_event_loop() as loop, ExitStack() as ending:

        def start(
            usage: Callable[[ApiServer], UsageReader] | None = None,
            options: dict[str, Any] | None = None,
            **timing: Any,
        ) -> Following:
            values = {"kubeconfig": kubeconfig, "timing": replace(QUICK, **timing), **(options or {})}
            return ending.enter_context(followed(loop, KubernetesSource(KubernetesOptions(**values), usage)))

        yield start
