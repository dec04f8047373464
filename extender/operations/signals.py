"""What an autoscaler should know: demand that waits, placements that risk their SLA, room. Refuses to scale anything.

Taken and worked out every few seconds, off the path of any request: `Signals.sample` copies on the event loop what the
table knows of the ready nodes (72 bytes a node), and `judge` does the arithmetic wherever it is called, in a thread.

A pod would be **in time** on a node if the rate that it is expected to run at there, in units of the reference core
(`policy.criteria.expected_speed`), times the slowdown that its SLA allows (one over its urgency) is at least 1. Urgency
0 allows any slowdown. How long it waited to be placed is not in this.
"""

from __future__ import annotations

import asyncio
import heapq
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from extender.cluster.listeners import PodListener
from extender.cluster.table import ClusterTable
from extender.history.ledger import Decision
from extender.pods import GIB
from policy.cluster import ClusterState, PodDemand
from policy.criteria import FASTEST_SPEED, expected_speed

MOST_CLASSES: Final = 32
"""Demands that are held against the nodes at a time, about 0.1 ms each on 5,000 nodes; those of most pods first."""

MOST_PLACEMENTS: Final = 4096
"""Placements that wait to be judged; more count as unknown."""

RATED: Final = ("well", "badly", "nowhere", "unrated")
AT_RISK: Final = ("true", "false", "unknown")
RESOURCES: Final = {"cpu": "core", "memory": "byte"}
ROUNDING: Final = 1e-9
"""Of sums of requests, which are kept as integers and shown as floats."""


@dataclass(frozen=True, slots=True)
class Pending:
    """Pods that wait, and what they ask for together: cores, bytes."""

    pods: int = 0
    cpu: float = 0.0
    memory: float = 0.0


@dataclass(frozen=True, slots=True)
class NodeSignals:
    """One node: the share of each resource that nobody requested, and the rate that a small pod would run at."""

    headroom: Mapping[str, float]
    expected_rate: float


@dataclass(frozen=True, slots=True)
class Sample:
    """What was known at one moment: the ready nodes ``[n]``, pods that wait, and placements since the last sample."""

    # names, state: of the ready nodes
    names: list[str]
    state: ClusterState
    waiting: Counter[PodDemand]  # how many pods ask for the same
    # the decision about a pod that was bound, and the position of its node among the rows kept with it
    placements: list[tuple[Decision, int]]
    unknown: int  # placements on nodes whose rows were not kept, or that were too many


@dataclass(frozen=True, slots=True)
class Judgement:
    """What a sample comes to."""

    pending: Mapping[str, Pending]  # by `RATED`
    placements: Mapping[str, int]  # pods bound since the last one, by `AT_RISK`
    # by resource and by whether of all ready nodes together ("cluster") or of the one with most ("node"); cores, bytes
    headroom: Mapping[tuple[str, str], float]
    headroom_ratio: Mapping[str, float]  # of all ready nodes together, over what they can allocate; NaN without nodes
    nodes: Mapping[str, NodeSignals]  # by name, those with the least room first


NOTHING: Final = Judgement({}, {}, {}, {}, {})


class Signals(PodListener):
    """Gathers samples. A `PodListener` that looks at pods that are bound alone, and is to be told after the ledger.

    Attributes:
        latest: what the last sample came to; `NOTHING` before the first.
        placements: pods judged since the start, by `AT_RISK`.
    """

    def __init__(self, table: ClusterTable, decision_of: Callable[[str], Decision | None]) -> None:
        self._table = table
        self._decision_of = decision_of
        self._placements: list[tuple[Decision, int]] = []
        self._unknown = 0
        self.latest = NOTHING
        self.placements = Counter(dict.fromkeys(AT_RISK, 0))

    def pod_bound(self, uid: str, node: str, at: float) -> None:
        """The watch shows the pod on this node: it is judged with the next sample, where we decided about it."""
        decision = self._decision_of(uid)
        if decision is None or decision.outcome is None or decision.outcome.bound_at != at:
            return  # not ours, or seen bound before: by an earlier process that left its ledger
        if decision.rows is None or node not in decision.names or len(self._placements) >= MOST_PLACEMENTS:
            self._unknown += 1
        else:
            self._placements.append((decision, decision.names.index(node)))

    def sample(self) -> Sample:
        """What is known now; on the event loop. Placements are handed out once."""
        names, rows = self._table.ready_nodes()
        placements, self._placements = self._placements, []
        unknown, self._unknown = self._unknown, 0
        return Sample(names, self._table.state.take(rows), self._table.waiting_classes(), placements, unknown)

    async def update(self, node_metrics: int) -> None:
        """Judge what is known now, in a thread, with so many nodes by name."""
        self.latest = await asyncio.to_thread(judge, self.sample(), node_metrics)
        self.placements.update(self.latest.placements)


def judge(sample: Sample, node_metrics: int = 0) -> Judgement:
    """What the sample comes to, with so many nodes by name; in any thread."""
    state = sample.state
    free = {
        "cpu": np.maximum(state.cpu_allocatable - state.cpu_requested, 0.0),
        "memory": np.maximum(state.memory_allocatable - state.memory_requested, 0.0) * GIB,
    }
    allocatable = {"cpu": state.cpu_allocatable, "memory": state.memory_allocatable * GIB}
    headroom: dict[tuple[str, str], float] = {}
    for resource, each in free.items():
        headroom[resource, "cluster"] = float(each.sum())
        headroom[resource, "node"] = float(each.max(initial=0.0))
    return Judgement(
        pending=_pending(state, free, sample.waiting),
        placements=_placements(sample),
        headroom=headroom,
        headroom_ratio={
            resource: headroom[resource, "cluster"] / float(total.sum()) if len(state) else float("nan")
            for resource, total in allocatable.items()
        },
        nodes=_nodes(sample, {resource: free[resource] / allocatable[resource] for resource in free}, node_metrics),
    )


def in_time(state: ClusterState, demand: PodDemand) -> NDArray[np.bool_]:
    """Whether the pod would be in time on each node, ``[n]``; see the module's docstring."""
    result: NDArray[np.bool_] = FASTEST_SPEED * expected_speed(state, demand) >= demand.urgency
    return result


def _pending(
    state: ClusterState, free: Mapping[str, NDArray[np.float64]], waiting: Counter[PodDemand]
) -> dict[str, Pending]:
    """Pods that wait, by how the best node with room for them would serve them."""
    sums = {rated: Pending() for rated in RATED}
    largest = heapq.nlargest(MOST_CLASSES, waiting.items(), key=lambda item: item[1])
    rated = {demand: _rated(state, free, demand) for demand, _ in largest}
    for demand, pods in waiting.items():
        key = rated.get(demand, "unrated")
        before = sums[key]
        sums[key] = Pending(
            before.pods + pods, before.cpu + pods * demand.cpu, before.memory + pods * demand.memory * GIB
        )
    return sums


def _rated(state: ClusterState, free: Mapping[str, NDArray[np.float64]], demand: PodDemand) -> str:
    room = (free["cpu"] + ROUNDING >= demand.cpu) & (free["memory"] + ROUNDING * GIB >= demand.memory * GIB)
    if not room.any():
        return "nowhere"
    return "well" if in_time(state, demand)[room].any() else "badly"


def _placements(sample: Sample) -> dict[str, int]:
    counts = dict.fromkeys(AT_RISK, 0)
    counts["unknown"] = sample.unknown
    for decision, position in sample.placements:
        if decision.rows is not None:
            counts["false" if in_time(decision.rows, decision.demand)[position] else "true"] += 1
    return counts


def _nodes(sample: Sample, ratios: Mapping[str, NDArray[np.float64]], most: int) -> dict[str, NodeSignals]:
    """The nodes with the least room, by the scarcer of their resources."""
    if not most or not sample.names:
        return {}
    rate = FASTEST_SPEED * expected_speed(sample.state, PodDemand(0.0, 0.0, 0.0))
    scarcer = np.minimum(ratios["cpu"], ratios["memory"])
    return {
        sample.names[i]: NodeSignals({name: float(ratio[i]) for name, ratio in ratios.items()}, float(rate[i]))
        for i in np.argsort(scarcer, kind="stable")[:most].tolist()
    }
