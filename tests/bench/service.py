"""The real service on a cluster told in advance: what `python -m tests.bench` measures, in a process of its own.

`python -m tests.bench.service NODES [DECISIONS]` prints the port as JSON once it answers, and remembers so many
decisions by then. On SIGUSR1 one node changes, so that its row must be scored again.
"""

from __future__ import annotations

import asyncio
import json
import signal
import sys

import uvloop

from extender import logs
from extender.app import create_app
from extender.cluster.table import ClusterTable
from extender.server import serve
from extender.settings import Settings
from tests.bench.client import node_names
from tests.extender.embedded import EmbeddedSource
from tests.extender.history.samples import a_decision

CORES, MEMORY_GIB = 32.0, 128.0
MEASURED_AT = 1e9
LEDGER_SIZE = 10_000


def fill(table: ClusterTable, count: int) -> None:
    """Nodes of five speeds, each with a different load."""
    for index, name in enumerate(node_names(count)):
        table.upsert_node(name, CORES, MEMORY_GIB, 0.7 + 0.2 * (index % 5))
        used = (index * 7919 % 1000) / 1000.0
        table.pod_bound(f"resident-{index}", name, used * CORES * 0.8, used * MEMORY_GIB * 0.7, since=MEASURED_AT - 1)
        table.set_usage(name, used * CORES * 0.6, used * MEMORY_GIB * 0.6, used * 0.3, MEASURED_AT)


async def main(count: int, decisions: int = 0) -> None:
    """Serve until a signal to stop, with so many nodes and decisions."""
    source = EmbeddedSource(synced=False)
    # measurements never expire here, and nothing is assumed for longer than the benchmark's own pause between figures
    settings = Settings(
        port=0,
        usage_time_limit_s=1e10,
        cluster_time_limit_s=1e10,
        log_level="error",
        deadline_ms=1000.0,
        ledger_size=max(decisions, LEDGER_SIZE),
    )
    logs.configure(settings.log_level, settings.log_format)
    app = create_app(settings, source)
    changes = 0

    def change_one_node() -> None:
        nonlocal changes
        changes += 1
        name = node_names(count)[changes % count]
        source.post(lambda table: table.set_usage(name, 1.0 + changes % 7, 8.0, 0.1, MEASURED_AT + changes), "usage")

    def announce(port: int, _operations: int) -> None:
        asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, change_one_node)
        source.post(lambda table: fill(table, count), "nodes", "pods", "usage")
        source.mark_synced()
        for index in range(decisions):
            app.ledger.record(a_decision(f"uid-old-{index}", 1_000_000 + index))
        print(json.dumps({"port": port}), flush=True)

    await serve(app, announce)


if __name__ == "__main__":
    uvloop.run(main(*map(int, sys.argv[1:])))
