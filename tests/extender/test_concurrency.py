"""Several schedulers ask while the cluster changes: every answer is whole, and no scorer sees a half-written row."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import httpx
import numpy as np

from extender.cluster.table import ClusterTable
from extender.scorer.load import LoadedScorer
from policy.cluster import ClusterState, Demand
from policy.scorers import Preferences
from tests.extender.service import Service, by_names, pod

SCHEDULERS = 3
PODS = 10
NODES = 12
GIB_A_CORE = 4.0


@dataclass
class Witness:
    """Prefers empty nodes; looks at its rows before and after it has dawdled, in whichever thread it is called."""

    name: str = "witness"
    local: bool = True
    torn: list[str] = field(default_factory=list)
    rows: int = 0
    pause: threading.Event = field(default_factory=threading.Event)

    def preferences(self, state: ClusterState, demand: Demand) -> Preferences:
        self.rows += len(state)
        before = state.cpu_allocatable.copy(), state.memory_allocatable.copy(), state.cpu_requested.copy()
        self.pause.wait(0.002)  # the event loop goes on meanwhile, and changes its own rows
        after = state.cpu_allocatable, state.memory_allocatable, state.cpu_requested
        if any(not np.array_equal(old, new) for old, new in zip(before, after, strict=True)):
            self.torn.append("a row changed under the scorer")
        if not np.array_equal(state.memory_allocatable, GIB_A_CORE * state.cpu_allocatable):
            self.torn.append("a row is half of one node and half of another")
        if not np.allclose(state.memory_requested, GIB_A_CORE * state.cpu_requested):
            self.torn.append("a pod is counted in one column and not in the other")
        return (-state.cpu_requested / state.cpu_allocatable).astype(np.float32)


def test_schedulers_that_ask_at_once_get_whole_answers_of_whole_rows(run_service: Callable[..., Service]) -> None:
    witness = Witness()
    service = run_service(loaded=LoadedScorer(witness, 0.1, ""), deadline_ms=60_000.0)
    witness.torn.clear()  # the rows it is warmed up with are no cluster's
    witness.rows = 0
    names = [f"node-{number}" for number in range(NODES)]
    ending = threading.Event()

    def resize(table: ClusterTable, turn: int) -> None:
        for number, name in enumerate(names):
            cores = 4.0 + (turn + number) % 13
            table.upsert_node(name, cores, GIB_A_CORE * cores)
        on = names[turn % NODES]
        table.pod_bound(f"resident-{turn % 40}", on, 0.25, GIB_A_CORE * 0.25)
        if turn % 3 == 0:
            table.remove_node(on)

    def write() -> int:
        turn = 0
        while not ending.is_set():
            service.change(lambda table, turn=turn: resize(table, turn))
            turn += 1
        return turn

    def ask(scheduler: int) -> int:
        wrong = 0
        with httpx.Client(base_url=service.background.url, timeout=60.0) as client:
            for number in range(PODS):
                mine = names[scheduler::2] if number % 2 else names
                body = by_names(mine, pod(f"{scheduler}-{number}", cpu="250m", memory="1Gi"))
                hosts = client.post("/prioritize", json=body).raise_for_status().json()
                wrong += sorted(host["Host"] for host in hosts) != sorted(mine)
                wrong += not all(0 <= host["Score"] <= 10 for host in hosts)
        return wrong

    service.change(lambda table: resize(table, 1))
    with ThreadPoolExecutor(SCHEDULERS + 1) as pool:
        writer = pool.submit(write)
        try:
            wrong = list(pool.map(ask, range(SCHEDULERS)))
        finally:
            ending.set()
        turns = writer.result()
    assert wrong == [0] * SCHEDULERS
    assert witness.torn == []
    assert witness.rows > 0
    assert turns > 1, "nothing changed while they asked"
    assert service.metric("maddpg_decisions_total", scorer="witness") == SCHEDULERS * PODS


def test_assumed_placements_of_pods_that_never_come_are_taken_back(run_service: Callable[..., Service]) -> None:
    service = run_service(assumed_time_limit_s=0.5, housekeeping_interval_s=0.05)
    names = service.add_nodes(4)
    for number in range(12):
        service.prioritize(names, pod(f"p-{number}", cpu="1", memory="1Gi"))
    assert service.metric("maddpg_assumed_placements") <= 12
    service.change(lambda table: table.pod_bound("uid-p-0", "node-0", 1.0, 1.0))  # the watch shows it
    service.change(lambda table: table.pod_removed("uid-p-1"))  # deleted before it was bound
    deadline = threading.Event()
    for _ in range(600):
        if service.metric("maddpg_assumed_placements") == 0:
            break
        deadline.wait(0.05)
    assert service.metric("maddpg_assumed_placements") == 0
    requested = service.change(lambda table: float(table.state.cpu_requested[table.rows_of(names)].sum()))
    assert requested == 1.0, "only the pod that the watch shows is left"
