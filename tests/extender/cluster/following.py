"""Objects as an API server shows them, and a source that follows them on an event loop of its own."""

import asyncio
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

from extender.cluster.kubernetes import KubernetesSource
from extender.cluster.resource import Timing
from extender.cluster.table import ClusterTable
from extender.supervision import Supervisor
from tests.extender.tables import node_names, node_of

T = TypeVar("T")

QUICK = Timing(page=4, watch=1.0, grace=0.5, resync=0.0)


def node(name: str, cpu: str = "4", memory: str = "16Gi", ready: bool = True, **metadata: Any) -> dict[str, Any]:
    return {
        "metadata": {"name": name, **metadata},
        "spec": {},
        "status": {
            "allocatable": {"cpu": cpu, "memory": memory, "pods": "110"},
            "conditions": [{"type": "Ready", "status": "True" if ready else "Unknown"}],
        },
    }


def pod(uid: str, on: str | None = None, cpu: str = "500m", memory: str = "1Gi", **status: Any) -> dict[str, Any]:
    return {
        "metadata": {
            "name": f"pod-{uid}",
            "namespace": "default",
            "uid": uid,
            "creationTimestamp": "2026-01-01T00:00:00Z",
        },
        "spec": {
            **({"nodeName": on} if on else {}),
            "containers": [{"resources": {"requests": {"cpu": cpu, "memory": memory}}}],
        },
        "status": {"phase": "Running" if on else "Pending", **status},
    }


@dataclass
class Following:
    """A source at work on a loop of its own; the table is read there, as everything that reads it must."""

    loop: asyncio.AbstractEventLoop
    table: ClusterTable
    source: KubernetesSource

    def see(self, look: Callable[[ClusterTable], T]) -> T:
        """What `look` makes of the table."""

        async def there() -> T:
            return look(self.table)

        return self.run(there())

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(10.0)

    def wait(self, look: Callable[[ClusterTable], object], what: str, timeout: float = 30.0) -> None:
        """Until `look` is true."""
        eventually(lambda: self.see(look), what, timeout)

    def pods(self) -> dict[str, str]:
        """Pods on nodes: UID -> node."""
        return self.see(lambda table: {uid: node_of(table, uid) for uid in table._pods})

    def requested(self) -> dict[str, tuple[float, float]]:
        """Node -> cores and GiB requested on it."""

        def look(table: ClusterTable) -> dict[str, tuple[float, float]]:
            names = node_names(table)
            state, rows = table.state, table.rows_of(names)
            columns = zip(state.cpu_requested[rows].tolist(), state.memory_requested[rows].tolist(), strict=True)
            return dict(zip(names, columns, strict=True))

        return self.see(look)


@contextmanager
def an_event_loop() -> Iterator[asyncio.AbstractEventLoop]:
    """A loop that runs in a thread of its own."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        yield loop
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.run_until_complete(loop.shutdown_default_executor())
        loop.close()


@contextmanager
def followed(loop: asyncio.AbstractEventLoop, source: KubernetesSource) -> Iterator[Following]:
    """A table that the source fills, on that loop."""
    following = Following(loop, ClusterTable(), source)
    loop.call_soon_threadsafe(following.table.claim)
    following.run(source.start(following.table, Supervisor()))
    try:
        yield following
    finally:
        following.run(source.stop())


def eventually(condition: Callable[[], object], what: str, timeout: float = 30.0) -> None:
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, f"did not happen within {timeout} s: {what}"
        time.sleep(0.01)
