"""A running service as tests see it: over HTTP, with an embedded cluster behind it."""

from __future__ import annotations

import ssl
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import httpx

from extender.cluster.table import ClusterTable
from tests.extender.background import BackgroundService
from tests.extender.embedded import EmbeddedSource


def pod(name: str = "web", cpu: str = "500m", memory: str = "1Gi", **metadata: Any) -> dict[str, Any]:
    """A pod as kube-scheduler sends it, with one container."""
    return {
        "metadata": {"name": name, "namespace": "default", "uid": f"uid-{name}", **metadata},
        "spec": {"containers": [{"name": "c", "resources": {"requests": {"cpu": cpu, "memory": memory}}}]},
        "status": {"phase": "Pending", "qosClass": "Burstable"},
    }


def by_names(names: Sequence[str], of: dict[str, Any] | None = None) -> dict[str, Any]:
    """ExtenderArgs of a nodeCacheCapable extender."""
    return {"Pod": pod() if of is None else of, "Nodes": None, "NodeNames": list(names)}


def by_objects(names: Sequence[str], of: dict[str, Any] | None = None) -> dict[str, Any]:
    """ExtenderArgs of an extender that is not nodeCacheCapable."""
    items = [{"metadata": {"name": name, "labels": {"a": "b"}}, "status": {"capacity": {"cpu": "4"}}} for name in names]
    return {"Pod": pod() if of is None else of, "Nodes": {"metadata": {}, "items": items}, "NodeNames": None}


@dataclass
class Service:
    """One service in this process; `verify` is how its certificate is checked, where it has one."""

    background: BackgroundService
    source: EmbeddedSource
    verify: ssl.SSLContext | bool = True

    def __post_init__(self) -> None:
        self.http = httpx.Client(base_url=self.background.url, timeout=10.0, verify=self.verify)
        self.operations = httpx.Client(base_url=self.background.operations_url, timeout=10.0, verify=self.verify)

    def close(self) -> None:
        """Close the clients, then stop the service."""
        self.http.close()
        self.operations.close()
        self.background.__exit__()

    def eventually(self, condition: Callable[[], bool], timeout_s: float = 20.0) -> None:
        """Wait until it holds."""
        deadline = time.monotonic() + timeout_s
        while not condition():
            assert time.monotonic() < deadline, f"not within {timeout_s:g} s"
            time.sleep(0.01)

    def change(self, change: Callable[[ClusterTable], Any], *inputs: str) -> Any:
        """Change the table on its event loop and wait until it is done; returns what `change` returns."""
        done, result = threading.Event(), []

        def apply(table: ClusterTable) -> None:
            try:
                result.append(change(table))
            finally:
                done.set()

        self.source.post(apply, *inputs)
        assert done.wait(10.0)
        return result[0]

    def add_nodes(self, count: int, cpu: float = 8.0, memory: float = 32.0) -> list[str]:
        """Tell of `count` nodes, node-0 first, each half as fast again as the last of every four."""
        names = [f"node-{i}" for i in range(count)]

        def add(table: ClusterTable) -> None:
            for i, name in enumerate(names):
                table.upsert_node(name, cpu, memory, speed=1.0 + 0.25 * (i % 4))

        self.change(add)
        return names

    def post(self, verb: str, body: Any) -> httpx.Response:
        """POST JSON, or bytes as they are."""
        if isinstance(body, bytes):
            return self.http.post(f"/{verb}", content=body, headers={"content-type": "application/json"})
        return self.http.post(f"/{verb}", json=body)

    def prioritize(self, names: Sequence[str], of: dict[str, Any] | None = None) -> dict[str, int]:
        """Priorities by name; fails unless the answer is a well-formed HostPriorityList without duplicates."""
        answer = self.post("prioritize", by_names(names, of))
        assert answer.status_code == 200, answer.text
        hosts = answer.json()
        assert all(type(host["Score"]) is int and 0 <= host["Score"] <= 10 for host in hosts)
        scores = {host["Host"]: host["Score"] for host in hosts}
        assert len(scores) == len(hosts)
        return scores

    def decision(self, uid: str) -> dict[str, Any]:
        """The decision remembered for a pod."""
        answer = self.operations.get(f"/v1/decisions/{uid}")
        assert answer.status_code == 200, answer.text
        return dict(answer.json())

    def metric(self, name: str, **labels: str) -> float:
        """One sample of /metrics."""
        self.operations.get("/metrics").raise_for_status()
        value = self.background.app.metrics.registry.get_sample_value(name, labels)
        return 0.0 if value is None else value
