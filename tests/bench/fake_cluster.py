"""An API server of its own process with a large cluster in it: nodes and pods of a realistic size, and churn on demand.

Prints {"port": ...} once it listens. Each line it then reads is a rate: from then on so many pods a second are replaced
(one deleted, one created and bound, which are two events); 0 stops that.
"""

import argparse
import json
import random
import sys
import threading
from typing import Any

from tests.extender.cluster.fake_api import NODES, PODS, FakeApi

ZONES = ("a", "b", "c")


def padded(content: dict[str, Any], size: int) -> dict[str, Any]:
    """The object with managedFields, as real ones have, that bring its JSON to `size` bytes."""
    missing = size - len(json.dumps(content)) - 120
    fields: dict[str, Any] = {
        f'f:entry-{i:04d}-{{"type":"Ready"}}': {".": {}, "f:status": {}} for i in range(max(0, missing) // 62)
    }
    content["metadata"]["managedFields"] = [{"manager": "kubelet", "operation": "Update", "fieldsV1": fields}]
    return content


def node(i: int, size: int) -> dict[str, Any]:
    resources = {"cpu": str(4 << i % 4), "memory": f"{(16 << i % 4) * 1024 * 1024}Ki", "pods": "110"}
    return padded(
        {
            "metadata": {
                "name": f"node-{i:05d}.example.internal",
                "uid": f"6e6f6465-0000-4000-8000-{i:012d}",
                "labels": {
                    "kubernetes.io/hostname": f"node-{i:05d}",
                    "topology.kubernetes.io/zone": ZONES[i % len(ZONES)],
                    "node.kubernetes.io/instance-type": "standard-8",
                },
                "annotations": {"maddpg-scheduler.io/speed": f"{0.75 + 0.25 * (i % 4)}"},
            },
            "spec": {},
            "status": {
                "capacity": resources,
                "allocatable": resources,
                "conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z"}],
            },
        },
        size,
    )


def pod(i: int, on: int, size: int) -> dict[str, Any]:
    requests = {"cpu": f"{50 * (1 + i % 20)}m", "memory": f"{64 * (1 + i % 31)}Mi"}
    container = {
        "name": "main",
        "image": "registry.example.internal/team/service@sha256:" + "0123456789abcdef" * 4,
        "env": [{"name": f"SETTING_{k}", "value": "value-" * 4} for k in range(10)],
        "resources": {"requests": requests, "limits": requests},
    }
    return padded(
        {
            "metadata": {
                "name": f"service-{i // 20}-{i:06d}",
                "namespace": f"team-{i % 50}",
                "uid": f"706f6400-0000-4000-8000-{i:012d}",
                "creationTimestamp": "2026-01-01T00:00:00Z",
                "labels": {"app": f"service-{i // 20}", "pod-template-hash": "5f6b8c7d9"},
            },
            "spec": {"nodeName": f"node-{on:05d}.example.internal", "containers": [container]},
            "status": {
                "phase": "Running",
                "conditions": [
                    {"type": kind, "status": "True", "lastTransitionTime": "2026-01-01T00:00:01Z"}
                    for kind in ("PodScheduled", "Initialized", "ContainersReady", "Ready")
                ],
            },
        },
        size,
    )


class Churn:
    """Replaces pods at a rate, in a thread of its own."""

    def __init__(self, api: FakeApi, nodes: int, pods: int, size: int) -> None:
        self._api = api
        self._nodes = nodes
        self._alive = list(range(pods))
        self._next = pods
        self._size = size
        self._rng = random.Random(1)
        self.rate = 0.0
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        pause = threading.Event()
        while True:
            pause.wait(0.02 if self.rate else 0.1)
            for _ in range(round(self.rate * 0.02)):
                place = self._rng.randrange(len(self._alive))
                self._api.delete(PODS, str(self._alive[place]))
                fresh = pod(self._next, self._rng.randrange(self._nodes), self._size)
                self._api.put(PODS, str(self._next), fresh)
                self._alive[place] = self._next
                self._next += 1
            events = self._api.collections[PODS].events
            if len(events) > 20_000:
                del events[:10_000]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nodes", type=int, default=5000)
    parser.add_argument("--pods", type=int, default=50_000)
    parser.add_argument("--bytes", type=int, default=5000, help="JSON size of each object")
    chosen = parser.parse_args()
    api = FakeApi()
    for i in range(chosen.nodes):
        api.put(NODES, str(i), node(i, chosen.bytes))
    for i in range(chosen.pods):
        api.put(PODS, str(i), pod(i, i % chosen.nodes, chosen.bytes))
    api.compact()
    churn = Churn(api, chosen.nodes, chosen.pods, chosen.bytes)
    with api.running():
        mean = sum(map(len, api.collections[PODS].objects.values())) / max(1, chosen.pods)
        print(json.dumps({"port": api.port, "pod_bytes": round(mean)}), flush=True)
        for line in sys.stdin:
            churn.rate = float(line)


if __name__ == "__main__":
    main()
