"""The real service, over TLS, whose scorer can be made slow and whose measurements can be made to stop.

`python -m tests.bench.faulty_service NODES BUNDLE CERTIFICATE KEY` prints the port as JSON once it answers. SIGUSR1
makes the scorer slow, and quick again; SIGUSR2 stops the measurements, and lets them go on.
"""

from __future__ import annotations

import asyncio
import json
import signal
import sys
import time
from pathlib import Path
from typing import Final

import uvloop

from extender import logs
from extender.app import create_app
from extender.server import serve
from extender.settings import Settings
from policy.cluster import ClusterState, Demand
from policy.scorers import ActorScorer, Preferences
from tests.bench.client import node_names
from tests.extender.embedded import EmbeddedSource

SLOW_S: Final = 0.1
"""Twice the deadline."""
MEASURED_EVERY_S: Final = 0.2


async def main(count: int, bundle: Path, certificate: Path, key: Path) -> None:
    """Serve until a signal to stop."""
    source = EmbeddedSource(synced=False)
    settings = Settings(
        port=0,
        operations_port=0,
        operations_host="127.0.0.1",
        bundle_path=bundle,
        bundle_reload_s=0.0,
        tls_cert_file=certificate,
        tls_key_file=key,
        tls_reload_interval_s=0.2,
        usage_interval_s=0.5,
        usage_time_limit_s=1.0,
        housekeeping_interval_s=0.5,
        breaker_cooling_s=0.5,
        log_level="error",
    )
    logs.configure(settings.log_level, settings.log_format)
    slow, measured = asyncio.Event(), asyncio.Event()
    measured.set()
    quick = ActorScorer.preferences

    def preferences(scorer: ActorScorer, state: ClusterState, demand: Demand) -> Preferences:
        if slow.is_set():
            time.sleep(SLOW_S)
        return quick(scorer, state, demand)

    ActorScorer.preferences = preferences  # type: ignore[method-assign]  # the fault
    app = create_app(settings, source)
    names = node_names(count)

    async def measure() -> None:
        while True:
            await asyncio.sleep(MEASURED_EVERY_S)
            if measured.is_set():
                now = time.time()
                for index, name in enumerate(names):
                    app.table.set_usage(name, index % 20, index % 50, None, now)

    def toggle(event: asyncio.Event) -> None:
        if event.is_set():
            event.clear()
        else:
            event.set()

    def announce(port: int, operations: int) -> None:
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGUSR1, toggle, slow)
        loop.add_signal_handler(signal.SIGUSR2, toggle, measured)
        source.post(
            lambda table: [table.upsert_node(name, 32.0, 128.0, 0.7 + i % 5 / 5) for i, name in enumerate(names)]
        )
        source.mark_synced()
        print(json.dumps({"port": port, "operations_port": operations}), flush=True)

    measuring = asyncio.create_task(measure())
    try:
        await serve(app, announce)
    finally:
        measuring.cancel()


if __name__ == "__main__":
    uvloop.run(main(int(sys.argv[1]), *map(Path, sys.argv[2:5])))
