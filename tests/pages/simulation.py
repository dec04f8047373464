"""A running extender over the simulated cluster, with pods placed on demand."""

from __future__ import annotations

import json
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from extender.app import create_app
from extender.demo.cluster import SimulatedCluster
from extender.demo.scheduling import SchedulingLoop
from extender.scorer.load import load_scorer
from extender.settings import Settings
from tests.extender.background import BackgroundService
from training.simulator.scenarios import load_scenario


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

    def explained(self, uid: str) -> dict[str, Any]:
        """The explanation of one decision, as the operations endpoints tell it."""
        with urllib.request.urlopen(f"{self.service.operations_url}/v1/decisions/{uid}", timeout=30) as answer:
            return dict(json.load(answer))

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


class _Unexplained(SchedulingLoop):
    """The demo's loop, which shows each pod's reason: here the operations endpoints are elsewhere, and browsers ask."""

    def _reason(self, uid: str, node: str) -> str:
        return ""


@contextmanager
def simulation(epoch: float) -> Iterator[Simulated]:
    """A service over the simulated cluster, whose time begins at `epoch`, in seconds since the epoch of Unix."""
    settings = Settings(
        port=0,
        operations_port=0,
        operations_host="127.0.0.1",
        enable_bind=True,
        shadow="kube-default",
    )
    cluster = SimulatedCluster(load_scenario("reference"), 1, 0.4, epoch=epoch)
    service = BackgroundService(create_app(settings, cluster, load_scorer(settings), clock=cluster.now))
    with service:
        going, stopped = threading.Event(), threading.Event()
        run = _on(service)
        loop = _Unexplained(cluster, service.port, run, 1)

        def schedule() -> None:
            while not stopped.is_set():
                if going.wait(0.05):
                    loop.step()

        thread = threading.Thread(target=schedule, name="kube-scheduler", daemon=True)
        thread.start()
        try:
            yield Simulated(service, cluster, going)
        finally:
            stopped.set()
            thread.join(10.0)
            loop.close()


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
