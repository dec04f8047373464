"""Runs the demo: the service on the main thread, kube-scheduler's part in another, until Ctrl-C or a time limit."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import uvloop
from rich.console import Console
from rich.live import Live
from rich.table import Table

from extender import logs
from extender.app import Application, create_app
from extender.demo.cluster import SimulatedCluster
from extender.demo.scheduling import REQUEST_TIMEOUT_S, Baseline, SchedulingLoop
from extender.demo.view import Title, figures, screen
from extender.errors import DemoError
from extender.scorer.load import load_scorer
from extender.server import serve
from extender.settings import Settings
from policy.errors import InvalidInputError
from policy.heuristics import by_name
from training.simulator.scenarios import load_scenario

FRAMES_PER_SECOND: Final = 8
PLAIN_INTERVAL_S: Final = 2.0
"""How often a line is printed where the output is no terminal."""


@dataclass(frozen=True, slots=True)
class Options:
    """What the demo runs."""

    seconds: float | None  # how long; None until Ctrl-C
    pods_per_second: float  # pace of decisions, > 0
    load: float  # offered work over speed-weighted capacity, > 0
    seed: int  # of the arrivals
    scenario: str
    bundle: Path | None = None  # folder of the policy; None: the one that ships


def demo(options: Options, console: Console) -> None:
    """Serve a simulated cluster and schedule its pods, live, drawing on `console`.

    Raises:
        SchedulerError: an option does not fit, the policy is refused, or the demo cannot go on.
    """
    if not options.pods_per_second > 0.0:
        raise InvalidInputError(f"pods per second is {options.pods_per_second}; give a positive number")
    settings = Settings(
        port=0,
        enable_bind=True,
        bundle_path=options.bundle,
        log_level="error",
        log_format="console",
    )
    logs.configure(settings.log_level, settings.log_format)
    scenario = load_scenario(options.scenario)
    ours = SimulatedCluster(scenario, options.seed, options.load)
    usual = Baseline(SimulatedCluster(scenario, options.seed, options.load), by_name("kube-default"), options.seed)
    loaded = load_scorer(settings)
    app = create_app(settings, ours, loaded, clock=ours.now)
    uvloop.run(_serve(app, _Conductor(options, ours, usual, loaded.scorer.name, console)))


async def _serve(app: Application, conductor: _Conductor) -> None:
    loop = asyncio.get_running_loop()

    def on_service(change: Callable[[], None]) -> None:
        done = threading.Event()

        def run() -> None:
            change()
            done.set()

        loop.call_soon_threadsafe(run)
        if not done.wait(REQUEST_TIMEOUT_S):
            raise DemoError("the service's event loop does not turn")

    await serve(app, lambda port, _operations: conductor.start(port, on_service, lambda: app.probes.stopping))
    await asyncio.to_thread(conductor.finish)


@dataclass(eq=False)
class _Conductor:
    """Drives the scheduling loop in a thread and draws."""

    options: Options
    ours: SimulatedCluster
    baseline: Baseline
    scorer: str
    console: Console
    loop: SchedulingLoop | None = None
    thread: threading.Thread | None = None
    error: Exception | None = None

    def start(self, port: int, on_service: Callable[[Callable[[], None]], None], stopping: Callable[[], bool]) -> None:
        """Begin, now that the service answers on `port`."""
        self.loop = SchedulingLoop(self.ours, port, on_service, self.options.seed)
        title = Title(self.scorer, f"http://127.0.0.1:{port}/dashboard/", self.options.load)
        if not self.console.is_terminal:
            self.console.print(f"dashboard: {title.url}")
        self.thread = threading.Thread(target=self._run, args=(self.loop, title, stopping), name="kube-scheduler")
        self.thread.start()

    def finish(self) -> None:
        """Wait for the thread and print what came of it. Raises `DemoError` if the demo could not go on."""
        if self.thread is None or self.loop is None:
            return
        self.thread.join()
        self.loop.close()
        table = Table(title=f"{self.loop.progress.placed} pods placed over HTTP, the same arrivals for both")
        table.add_column("figure")
        table.add_column(self.scorer, justify="right")
        table.add_column("kube-default", justify="right")
        for row in figures(self.ours, self.baseline.cluster, self.loop.progress):
            table.add_row(*row)
        self.console.print(table)
        if self.error is not None:
            raise DemoError(f"the demo ended early: {self.error}") from self.error

    def _run(self, loop: SchedulingLoop, title: Title, stopping: Callable[[], bool]) -> None:
        try:
            self._schedule(loop, title, stopping)
        except Exception as error:
            if not stopping():  # a request cut off by Ctrl-C is no error
                self.error = error
        if not stopping():  # end as a signal ends the service: what is in progress is finished
            os.kill(os.getpid(), signal.SIGTERM)

    def _schedule(self, loop: SchedulingLoop, title: Title, stopping: Callable[[], bool]) -> None:
        began = drawn = time.monotonic()
        seconds, pause = self.options.seconds, 1.0 / self.options.pods_per_second
        live = Live(console=self.console, auto_refresh=False, screen=self.console.is_terminal)
        with live:
            while not stopping() and (seconds is None or time.monotonic() - began < seconds):
                cycle = time.monotonic()
                loop.step()
                self.baseline.step()
                if self.console.is_terminal and cycle - drawn >= 1.0 / FRAMES_PER_SECOND:
                    live.update(screen(title, self.ours, self.baseline.cluster, loop.progress), refresh=True)
                    drawn = cycle
                elif not self.console.is_terminal and (cycle - drawn >= PLAIN_INTERVAL_S or loop.progress.placed == 1):
                    self.console.print(self._line(loop))
                    drawn = cycle
                time.sleep(max(0.0, pause - (time.monotonic() - cycle)))

    def _line(self, loop: SchedulingLoop) -> str:
        rows = figures(self.ours, self.baseline.cluster, loop.progress)
        last = loop.progress.recent[0] if loop.progress.recent else None
        where = f"{last.pod} -> {last.node}" if last else "no pod fits yet"
        return f"{where}; " + "; ".join(f"{name}: {ours} vs {usual}" for name, ours, usual in rows[1:4])
