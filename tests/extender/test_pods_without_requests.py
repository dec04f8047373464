"""Pods that request nothing, or one resource alone, spread as pods of 100m and 200 MiB do, whoever rates the nodes.

kubernetes/kubernetes#129138, #18438: such pods change no sum of requests, so each next one finds the same best node.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from extender.cluster.table import ClusterTable
from policy import heuristics
from policy.bundle import load_bundle
from policy.cluster import NONZERO_CPU, NONZERO_MEMORY, PodDemand
from policy.scorers import Scorer
from tests.extender.service import Service, pod

MODEL = Path(__file__).parents[2] / "policy" / "models" / "default"
SCORERS: dict[str, Scorer] = {
    "policy": load_bundle(MODEL).scorer(),
    **{name: heuristics.by_name(name) for name in ("kube-default", "least-used", "expected-speed")},
}
PODS, NODES = 100, 10
DEMANDS = {
    "nothing": PodDemand(0.0, 0.0, 0.0, NONZERO_CPU, NONZERO_MEMORY),
    "CPU alone": PodDemand(NONZERO_CPU, 0.0, 0.0, NONZERO_CPU, NONZERO_MEMORY),
    "memory alone": PodDemand(0.0, NONZERO_MEMORY, 0.0, NONZERO_CPU, NONZERO_MEMORY),
}
ZERO = PodDemand(0.0, 0.0, 0.0)
"""Of a pod that requests zero, and says so."""
SAME = PodDemand(NONZERO_CPU, NONZERO_MEMORY, 0.0)


def burst(scorer: Scorer, demand: PodDemand, how: str, fastest: float = 1.0) -> list[int]:
    """Pods on each node, most first: each goes to the best node, and is bound or assumed there before the next."""
    now, draw, where = [1000.0], random.Random(1), Counter[int]()
    table = ClusterTable(clock=lambda: now[0])
    names = [f"n{i}" for i in range(NODES)]
    for i, name in enumerate(names):
        table.upsert_node(name, 8.0, 32.0, fastest if i == 3 else 1.0)
    for k in range(PODS):
        now[0] += 0.1
        preferences = scorer.preferences(table.state.take(table.rows_of(names)), demand)
        best = draw.choice(np.flatnonzero(preferences == preferences.max()).tolist())
        where[best] += 1
        asked = demand.cpu, demand.memory
        if how == "assumed":
            table.assume(f"p{k}", names[best], *asked, demand.cpu_nonzero, demand.memory_nonzero)
        else:
            table.pod_bound(f"p{k}", names[best], *asked, None, demand.cpu_nonzero, demand.memory_nonzero)
        if how == "measured" and k % 10 == 9:
            now[0] += 1.0
            for i, name in enumerate(names):
                table.set_usage(name, 0.05 + 0.005 * where[i], 1.0 + 0.05 * where[i], None, now[0])
    return sorted(where.values(), reverse=True)


@pytest.mark.parametrize("how", ["bound", "assumed", "measured"])
@pytest.mark.parametrize("name", SCORERS)
def test_they_spread_as_pods_of_100m_and_200_mib(name: str, how: str) -> None:
    usual = burst(SCORERS[name], SAME, how)
    assert usual[0] <= 15
    for asked, demand in DEMANDS.items():
        found = burst(SCORERS[name], demand, how)
        assert found[0] <= usual[0] + 1, f"{asked}: {found}; of 100m and 200 MiB: {usual}"


@pytest.mark.parametrize("how", ["bound", "assumed"])
@pytest.mark.parametrize("name", ["policy", "least-used", "expected-speed"])
def test_pods_that_request_zero_are_expected_to_use_something(name: str, how: str) -> None:
    """kube-default counts their zero as kube-scheduler does, and draws among equal nodes.

    Without it, all 100 went to one node. The policy is little moved by use while nodes are idle.
    """
    assert burst(SCORERS[name], ZERO, how)[0] <= (30 if name == "policy" else 15)


@pytest.mark.parametrize("how", ["bound", "assumed", "measured"])
@pytest.mark.parametrize("name", ["policy", "kube-default", "least-used"])
def test_a_node_a_little_faster_does_not_take_them_all(name: str, how: str) -> None:
    """`expected-speed` is left out: it prefers the faster node by its name, until that is busy."""
    for asked, demand in DEMANDS.items():
        found = burst(SCORERS[name], demand, how, fastest=1.02)
        assert found[0] <= 15, f"{asked}: {found}"


@pytest.mark.parametrize("scorer", ["policy", "kube-default"])
def test_a_burst_over_http_is_spread_by_assumption(run_service: Callable[..., Service], scorer: str) -> None:
    service = run_service(scorer=scorer, bundle_path=MODEL)
    names = [f"n{i}" for i in range(NODES)]
    service.change(lambda table: [table.upsert_node(name, 8.0, 32.0) for name in names])
    where: Counter[str] = Counter()
    for k in range(60):
        asked = pod(f"p{k}")
        asked["spec"]["containers"] = [{"name": "c", "resources": {}}, {"name": "d"}]
        scores = service.prioritize(names, asked)
        where[max(scores, key=lambda name: scores[name])] += 1
    assert max(where.values()) <= 8, where
    told = service.decision("uid-p59")
    assert told["demand"]["cpu"] == told["demand"]["memory"] == 0.0
    assert told["demand"]["cpu_nonzero"] == pytest.approx(0.2)
    assert told["demand"]["memory_nonzero"] == pytest.approx(400 / 1024)
    assert told["nodes"][0]["features"]["pod_size"] == pytest.approx(0.2 / 8.0)
    assert {node["criteria"].get("balance", 1.0) for node in told["nodes"]} == {1.0}  # the physical set has none
