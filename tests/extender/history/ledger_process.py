"""A service with a durable ledger in a process of its own, to be killed or starved of disk. Run with -m.

Arguments: path of the ledger; bytes that any file may have (0: any). SIGUSR1 lifts that limit. Prints its port.
"""

from __future__ import annotations

import resource
import signal
import sys
import threading
from pathlib import Path

from extender import logs
from extender.app import create_app
from extender.settings import Settings
from tests.extender.background import BackgroundService
from tests.extender.embedded import EmbeddedSource


def main() -> None:
    """Serve until killed."""
    path, limit = Path(sys.argv[1]), int(sys.argv[2])
    logs.configure("warning", "json")
    source = EmbeddedSource()
    settings = Settings(port=0, scorer="kube-default", ledger_path=path, random_seed=1)
    with BackgroundService(create_app(settings, source)) as background:
        for i in range(5):
            source.post(lambda table, i=i: table.upsert_node(f"node-{i}", 8.0, 32.0))  # type: ignore[misc]
        hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
        if limit:
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
        signal.signal(signal.SIGUSR1, lambda *_: resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard)))
        print(background.port, flush=True)
        while True:
            threading.Event().wait(0.5)


if __name__ == "__main__":
    main()
