"""What the service sees of the simulated cluster is what the simulator shows a policy in training."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable

import numpy as np
import pytest

from extender.cluster.source import Binding, ClusterSource
from extender.cluster.table import ClusterTable
from extender.demand import pod_demand
from extender.demo.cluster import SimulatedCluster
from extender.errors import BindError
from extender.pods import Pod
from extender.protocol.wire import decode_scheduling
from extender.supervision import Supervisor
from policy.observation import observe
from policy.urgency import UrgencyRules
from training.simulator.scenarios import load_scenario


def started(seed: int) -> tuple[SimulatedCluster, ClusterTable]:
    cluster = SimulatedCluster(load_scenario("reference"), seed, load=0.5)
    table = ClusterTable(clock=cluster.now)
    asyncio.run(cluster.start(table, Supervisor()))
    return cluster, table


def decoded(cluster: SimulatedCluster) -> Pod:
    body = {"Pod": cluster.pod(), "Nodes": None, "NodeNames": cluster.feasible()}
    return decode_scheduling(json.dumps(body).encode()).pod


def bind(cluster: SimulatedCluster, node: str, uid: str | None = None) -> None:
    metadata = cluster.pod()["metadata"]
    asyncio.run(cluster.bind(Binding(metadata["namespace"], metadata["name"], uid or metadata["uid"], node)))


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_the_service_observes_what_the_policy_was_trained_on(seed: int) -> None:
    cluster, table = started(seed)
    rules = UrgencyRules({}, {"Guaranteed": 1.0, "Burstable": 0.5, "BestEffort": 0.0})
    for turn in range(300):
        rows = table.rows_of(cluster.names)
        demand, warning, _ = pod_demand(decoded(cluster), rules)
        assert warning is None
        served = observe(table.state.take(rows), demand)
        trained = observe(cluster.simulator.state, cluster.simulator.demand)[0]
        np.testing.assert_allclose(served, trained, atol=2e-6, err_msg=f"decision {turn}")
        feasible = cluster.feasible()
        if feasible:
            bind(cluster, feasible[turn % len(feasible)])
        else:
            cluster.leave_pending()


def test_a_simulated_cluster_keeps_the_protocol_of_sources() -> None:
    cluster, _ = started(1)
    assert isinstance(cluster, ClusterSource)
    assert cluster.synced
    assert cluster.waiting_for() == ()
    assert set(cluster.staleness()) == {"nodes", "pods", "usage"}


def test_equal_seeds_meet_the_same_pods() -> None:
    clusters = [SimulatedCluster(load_scenario("reference"), 9, load=0.4) for _ in range(2)]
    for _ in range(50):
        assert clusters[0].pod() == clusters[1].pod()
        bind(clusters[0], clusters[0].feasible()[0])
        bind(clusters[1], clusters[1].feasible()[-1])


@pytest.mark.parametrize(
    ("node", "uid", "message"),
    [
        (lambda cluster: "elsewhere", None, "unknown"),
        (lambda cluster: cluster.names[0], "another", "not the one"),
    ],
    ids=["unknown node", "another pod"],
)
def test_a_binding_that_cannot_be_is_refused(
    node: Callable[[SimulatedCluster], str], uid: str | None, message: str
) -> None:
    cluster, _ = started(1)
    with pytest.raises(BindError, match=message):
        bind(cluster, node(cluster), uid)
