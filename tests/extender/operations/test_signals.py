"""Signals for autoscalers: demand that waits, placements at risk, and room, worked out from what is known."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from extender import upkeep
from extender.cluster.table import GIB, ClusterTable
from extender.history.outcomes import Outcome
from extender.operations.signals import MOST_CLASSES, MOST_PLACEMENTS, Judgement, Sample, Signals, in_time, judge
from policy.cluster import ClusterState, PodDemand
from tests.extender.history.samples import a_decision
from tests.extender.service import Service, pod
from tests.policy.states import demands, random_state

Run = Callable[..., Service]
URGENT = PodDemand(1.0, 1.0, 1.0)


def nodes(*speeds: float, cpu: float = 8.0, memory: float = 32.0) -> ClusterState:
    """Idle nodes of these speeds."""
    return ClusterState.idle([cpu] * len(speeds), [memory] * len(speeds), list(speeds))


def judged(state: ClusterState, waiting: Counter[PodDemand] | None = None, node_metrics: int = 0) -> Judgement:
    names = [f"node-{i}" for i in range(len(state))]
    return judge(Sample(names, state, waiting or Counter(), [], 0), node_metrics)


@pytest.mark.parametrize(
    ("speeds", "demand", "rated"),
    [
        pytest.param([0.5, 1.0], URGENT, "well", id="one node is fast enough"),
        pytest.param([0.5, 0.9], URGENT, "badly", id="none is"),
        pytest.param([0.5, 0.9], PodDemand(1.0, 1.0, 0.9), "well", id="its SLA allows the slower one"),
        pytest.param([0.1], PodDemand(1.0, 1.0, 0.0), "well", id="it may take any time"),
        pytest.param([2.0], PodDemand(8.5, 1.0, 0.0), "nowhere", id="no node has the CPU"),
        pytest.param([2.0], PodDemand(1.0, 33.0, 0.0), "nowhere", id="no node has the memory"),
        pytest.param([2.0], PodDemand(8.0, 32.0, 0.5), "well", id="it fills the node, which is fast"),
        pytest.param([1.0], PodDemand(8.0, 32.0, 1.0), "badly", id="it fills the node, and slows itself down"),
        pytest.param([], PodDemand(0.0, 0.0, 0.0), "nowhere", id="there is no node"),
    ],
)
def test_waiting_pods_are_rated_by_the_best_node_with_room(speeds: list[float], demand: PodDemand, rated: str) -> None:
    pending = judged(nodes(*speeds), Counter({demand: 3})).pending
    assert {key: each.pods for key, each in pending.items() if each.pods} == {rated: 3}
    assert pending[rated].cpu == pytest.approx(3 * demand.cpu)
    assert pending[rated].memory == pytest.approx(3 * demand.memory * GIB)


def test_fast_node_without_room_does_not_count() -> None:
    full = replace(nodes(2.0, 0.5), cpu_requested=np.array([7.5, 0.0]))
    assert judged(full, Counter({URGENT: 1})).pending["badly"].pods == 1


def test_a_pod_that_fits_to_the_last_bit_has_room() -> None:
    tenths = replace(nodes(1.0), cpu_requested=np.array([sum([0.1] * 70)]))
    assert judged(tenths, Counter({PodDemand(1.0, 1.0, 0.1): 1})).pending["nowhere"].pods == 0


def test_kinds_of_pods_beyond_the_most_are_not_looked_at() -> None:
    waiting = Counter({PodDemand(0.001 * i, 1.0, 0.5): 2 for i in range(MOST_CLASSES)})
    waiting[PodDemand(5.0, 1.0, 0.5)] = 1
    pending = judged(nodes(1.0), waiting).pending
    assert (pending["well"].pods, pending["unrated"].pods, pending["unrated"].cpu) == (2 * MOST_CLASSES, 1, 5.0)


def test_headroom_is_of_all_nodes_and_of_the_one_with_most() -> None:
    state = replace(nodes(1.0, 1.0), cpu_requested=np.array([6.0, 9.0]), memory_requested=np.array([8.0, 16.0]))
    found = judged(state)
    assert found.headroom == {
        ("cpu", "cluster"): 2.0,  # more requested than allocatable is no room, and takes none from others
        ("cpu", "node"): 2.0,
        ("memory", "cluster"): 40.0 * GIB,
        ("memory", "node"): 24.0 * GIB,
    }
    assert found.headroom_ratio == {"cpu": 2.0 / 16.0, "memory": 40.0 / 64.0}
    assert all(math.isnan(ratio) for ratio in judged(nodes()).headroom_ratio.values())


def test_nodes_with_the_least_room_are_named_and_no_more_than_asked_for() -> None:
    state = replace(nodes(1.0, 1.5, 1.0), cpu_requested=np.array([2.0, 7.0, 4.0]), cpu_used=np.array([0.0, 7.2, 0.0]))
    assert judged(state).nodes == {}
    found = judged(state, node_metrics=2).nodes
    assert list(found) == ["node-1", "node-2"]
    assert found["node-1"].headroom == {"cpu": 1.0 / 8.0, "memory": 1.0}
    # nine tenths used: three quarters of the way from the knee to full use, which takes half
    assert found["node-1"].expected_rate == pytest.approx(1.5 * (1.0 - 0.5 * 0.75))
    assert found["node-2"].expected_rate == pytest.approx(1.0)


@settings(deadline=None)  # judged by its answer, not by how busy the machine is
@given(demand=demands, seed=st.integers(0, 1000))
def test_what_is_in_time_stays_so_for_a_less_urgent_pod(demand: PodDemand, seed: int) -> None:
    state = random_state(np.random.default_rng(seed), 7)
    patient = replace(demand, urgency=demand.urgency / 2.0)
    assert (in_time(state, demand) <= in_time(state, patient)).all()
    assert in_time(state, replace(demand, urgency=0.0)).all()


def test_placements_are_judged_by_their_node_as_it_was_when_decided(run_service: Run) -> None:
    service = run_service(urgency_by_qos={"Guaranteed": 1.0, "Burstable": 1.0, "BestEffort": 0.0})
    service.change(lambda table: table.upsert_node("slow", 8.0, 32.0, speed=0.5))
    service.change(lambda table: table.upsert_node("fast", 8.0, 32.0, speed=1.5))
    bound = {"late": "slow", "in-time": "fast", "elsewhere": "unheard-of"}
    for name in bound:
        service.prioritize(["slow", "fast"], pod(name, cpu="100m"))
    service.change(lambda table: table.upsert_node("slow", 8.0, 32.0, speed=2.0))
    for name, node in [*bound.items(), ("not-ours", "slow")]:
        service.change(lambda table, n=name, at=node: table.pod_bound(f"uid-{n}", at, 0.1, 1.0))
        service.change(lambda table, n=name, at=node: table.pod_bound(f"uid-{n}", at, 0.1, 1.0))  # the watch, again
    service.eventually(lambda: service.metric("maddpg_placements_total", at_risk="false") == 1)
    assert service.metric("maddpg_placements_total", at_risk="true") == 1
    assert service.metric("maddpg_placements_total", at_risk="unknown") == 1


@pytest.fixture(autouse=True)
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Signals come sooner than every five seconds."""
    monkeypatch.setattr(upkeep, "SIGNALS_INTERVAL_S", 0.02)


def test_metrics_show_what_waits_and_what_room_there_is(run_service: Run) -> None:
    service = run_service(node_metrics=1)
    service.add_nodes(2)
    service.change(lambda table: table.upsert_node("not-ready", 100.0, 100.0, ready=False))
    service.change(lambda table: table.pod_waiting("a", PodDemand(2.0, 4.0, 1.0)))
    service.change(lambda table: table.pod_waiting("b", PodDemand(20.0, 4.0, 1.0)))
    service.eventually(lambda: service.metric("maddpg_pending_pods", rated="nowhere") == 1)
    assert service.metric("maddpg_pending_pods", rated="well") == 1
    requests = {"resource": "cpu", "unit": "core"}
    assert service.metric("maddpg_pending_requests", rated="nowhere", **requests) == 20.0
    assert service.metric("maddpg_pending_requests", rated="well", resource="memory", unit="byte") == 4.0 * GIB
    service.change(lambda table: table.pod_bound("a", "node-0", 2.0, 4.0))
    service.change(lambda table: table.pod_removed("b"))
    service.eventually(lambda: service.metric("maddpg_headroom", of="cluster", **requests) == 14.0)
    # The two changes may fall into two rounds of judging.
    service.eventually(lambda: service.metric("maddpg_pending_pods", rated="nowhere") == 0)
    assert service.metric("maddpg_headroom", of="node", **requests) == 8.0
    assert service.metric("maddpg_headroom_ratio", resource="cpu") == 14.0 / 16.0
    assert service.metric("maddpg_node_headroom_ratio", node="node-0", resource="cpu") == 6.0 / 8.0
    assert "node-1" not in service.operations.get("/metrics").text, "one node was asked for"


def test_a_pod_that_is_on_its_way_does_not_wait(run_service: Run) -> None:
    service = run_service()
    names = service.add_nodes(2)
    service.change(lambda table: table.pod_waiting("uid-web", PodDemand(0.5, 1.0, 0.5)))
    assert service.change(ClusterTable.waiting_classes) == {PodDemand(0.5, 1.0, 0.5): 1}
    service.prioritize(names)
    assert service.change(ClusterTable.waiting_classes) == {}
    service.change(lambda table: table.withdraw("uid-web"))
    assert service.change(ClusterTable.waiting_classes) == {PodDemand(0.5, 1.0, 0.5): 1}


def test_placements_that_nobody_judges_are_bounded() -> None:
    decision = a_decision("uid-web", outcome=Outcome(node="node-1", bound_at=1.0))
    signals = Signals(ClusterTable(), {"uid-web": decision}.get)
    for _ in range(MOST_PLACEMENTS + 5):
        signals.pod_bound("uid-web", "node-1", 1.0)
    signals.pod_bound("uid-web", "node-1", 2.0)  # after a restart: the ledger knows when it was bound
    signals.pod_bound("uid-other", "node-1", 1.0)
    sample = signals.sample()
    assert (len(sample.placements), sample.unknown) == (MOST_PLACEMENTS, 5)
    assert sum(judge(sample).placements.values()) == MOST_PLACEMENTS + 5
    assert (signals.sample().placements, signals.sample().unknown) == ([], 0)


def test_five_thousand_nodes_are_judged_in_time_that_nobody_notices() -> None:
    """Its thread holds the interpreter's lock for some of it, and requests wait for that."""
    state = random_state(np.random.default_rng(1), 5000)
    waiting = Counter({PodDemand(0.01 * i, 0.1 * i, 0.5): 100 for i in range(200)})
    started = time.perf_counter()
    judged(state, waiting, node_metrics=100)
    assert time.perf_counter() - started < 0.5
