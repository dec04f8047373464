"""Plays kube-scheduler: for each arriving pod it asks the service to filter, prioritize and bind, over HTTP.

Beside it runs a second simulated cluster that meets the same pods and is scheduled by kube-default, in process.
"""

from __future__ import annotations

import json
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import urllib3

from extender.demo.cluster import SimulatedCluster
from extender.errors import DemoError
from extender.history.explain import SHORTAGE
from policy.heuristics import by_name
from policy.scorers import Scorer

REQUEST_TIMEOUT_S: Final = 5.0
"""kube-scheduler's default httpTimeout."""

REMEMBERED: Final = 2_000
"""Latencies that the quantiles are taken over."""


@dataclass(frozen=True, slots=True)
class Placement:
    """One pod that was placed."""

    pod: str
    uid: str
    cpu: float  # CPU request, cores
    memory: float  # memory request, GiB
    urgency: float  # 0..1
    node: str
    priorities: dict[str, int]  # what the service answered, by node name
    baseline: str  # where kube-default would have put it, in the same state
    reason: str  # the criterion that counted most for the node, as the service explains it


@dataclass(slots=True)
class Progress:
    """What happened so far."""

    placed: int = 0  # pods bound
    pending: int = 0  # attempts that left a pod in the queue, because it fitted nowhere
    recent: deque[Placement] = field(default_factory=lambda: deque(maxlen=12))  # the last placements, newest first
    # the last latencies of `/prioritize` over HTTP, seconds
    latencies: deque[float] = field(default_factory=lambda: deque(maxlen=REMEMBERED))

    def latency_ms(self, quantile: float) -> float:
        """Quantile of the latencies, milliseconds; 0 before the first."""
        return float(np.quantile(self.latencies, quantile) * 1000.0) if self.latencies else 0.0


class Baseline:
    """A cluster that is scheduled in process by one scorer, ties broken at random as kube-scheduler does."""

    def __init__(self, cluster: SimulatedCluster, scorer: Scorer, seed: int) -> None:
        self.cluster = cluster  # nobody else steps it
        self._scorer = scorer
        self._generator = np.random.default_rng(seed)

    def step(self) -> None:
        """Place the pod whose turn it is."""
        row = best_feasible(self.cluster, self._scorer, self._generator)
        if row is None:
            self.cluster.leave_pending()
        else:
            self.cluster.place(row)


class SchedulingLoop:
    """One pod after the other, as kube-scheduler's scheduling cycle. Runs in a thread of its own.

    Args:
        on_service: runs a function on the service's event loop and waits for it; only there may the cluster step.
    """

    def __init__(
        self,
        cluster: SimulatedCluster,
        port: int,
        on_service: Callable[[Callable[[], None]], None],
        seed: int,
    ) -> None:
        self.progress = Progress()
        self._cluster = cluster
        self._on_service = on_service
        self._generator = np.random.default_rng(seed)
        self._baseline = by_name("kube-default")
        self._http = urllib3.HTTPConnectionPool(
            "127.0.0.1", port, maxsize=1, retries=False, timeout=urllib3.Timeout(total=REQUEST_TIMEOUT_S)
        )

    def step(self) -> Placement | None:
        """Schedule the pod whose turn it is; None if it fits nowhere and waits.

        Raises:
            DemoError: the service answered what kube-scheduler would not take.
        """
        cluster = self._cluster
        feasible = cluster.feasible()
        if not feasible:
            self._on_service(cluster.leave_pending)
            self.progress.pending += 1
            return None
        pod = cluster.pod()
        kept = self._post("/filter", {"Pod": pod, "Nodes": None, "NodeNames": feasible})["NodeNames"]
        started = time.perf_counter()
        scores = self._post("/prioritize", {"Pod": pod, "Nodes": None, "NodeNames": kept})
        self.progress.latencies.append(time.perf_counter() - started)
        priorities = {score["Host"]: score["Score"] for score in scores}
        best = [name for name, priority in priorities.items() if priority == max(priorities.values())]
        node = best[self._generator.integers(len(best))]
        placement = self._placement(pod, node, priorities)
        metadata = pod["metadata"]
        binding = {
            "PodName": metadata["name"],
            "PodNamespace": metadata["namespace"],
            "PodUID": metadata["uid"],
            "Node": node,
        }
        error = self._post("/bind", binding)["Error"]
        if error:
            raise DemoError(f"/bind refused {metadata['name']}: {error}")
        self.progress.placed += 1
        self.progress.recent.appendleft(placement)
        return placement

    def close(self) -> None:
        """Close the connection."""
        self._http.close()

    def _placement(self, pod: dict[str, Any], node: str, priorities: dict[str, int]) -> Placement:
        cluster = self._cluster
        demand = cluster.simulator.demand
        row = best_feasible(cluster, self._baseline, self._generator)
        metadata = pod["metadata"]
        return Placement(
            pod=metadata["name"],
            uid=metadata["uid"],
            cpu=float(demand.cpu[0, 0]),
            memory=float(demand.memory[0, 0]),
            urgency=float(demand.urgency[0, 0]),
            node=node,
            priorities=priorities,
            baseline="" if row is None else cluster.names[row],
            reason=self._reason(metadata["uid"], node),
        )

    def _reason(self, uid: str, node: str) -> str:
        return strongest_reason(self._request("GET", f"/v1/decisions/{uid}"), node)

    def _post(self, path: str, document: dict[str, Any]) -> Any:
        return self._request("POST", path, json.dumps(document, separators=(",", ":")).encode())

    def _request(self, method: str, path: str, body: bytes | None = None) -> Any:
        answer = self._http.request(method, path, body=body, headers={"Content-Type": "application/json"})
        if answer.status != 200:
            raise DemoError(f"{path} answered {answer.status}: {answer.data[:200]!r}")
        return answer.json()


def best_feasible(cluster: SimulatedCluster, scorer: Scorer, generator: np.random.Generator) -> int | None:
    """Row of the feasible node that `scorer` prefers for the next pod, ties at random; None if it fits nowhere."""
    feasible = cluster.simulator.feasible[0]
    if not feasible.any():
        return None
    preferences = scorer.preferences(cluster.simulator.state, cluster.simulator.demand)[0]
    best = np.where(feasible, preferences, -np.inf)
    return int(generator.choice(np.flatnonzero(best == best.max())))


def strongest_reason(explanation: Mapping[str, Any], node: str) -> str:
    """The criterion that sets `node` most apart from the other rated nodes, as ``name +0.12``.

    Contributions (bid x criterion) are compared with their mean over the other nodes of the explanation; those that
    may run out of memory count only where all others may, since they lose more than any criterion gives. Empty where
    the decision has none: a heuristic decided, or one node was left.
    """
    rated = {entry["node"]: entry["contributions"] for entry in explanation["nodes"]}
    chosen = rated.pop(node, None)
    if not chosen or not rated or not all(rated.values()):
        return ""
    others = [each for each in rated.values() if not each.get(SHORTAGE)] or list(rated.values())
    apart = {name: value - sum(other[name] for other in others) / len(others) for name, value in chosen.items()}
    name = max(apart, key=lambda criterion: apart[criterion])
    return f"{name} {apart[name]:+.2f}"
