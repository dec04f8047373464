"""The source follows a real API server, with the ServiceAccount and the rights that we ship."""

import random
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from kubernetes.utils import parse_quantity

from extender.cluster.kubernetes import KubernetesOptions, KubernetesSource
from extender.cluster.metrics_server import MetricsServer
from extender.cluster.resource import Timing
from extender.cluster.source import Binding
from extender.cluster.table import ClusterTable
from extender.errors import BindError
from tests.control_plane.access import Manifest, apply, delete, request, send
from tests.control_plane.cluster import METRIC_RESOLUTION_S, ControlPlane
from tests.control_plane.workload import create, create_nodes, node, pod
from tests.extender.cluster.following import Following, an_event_loop, eventually, followed
from tests.extender.tables import node_names, node_of

GIB = 2**30
SPEED = "maddpg-scheduler.io/speed"


@contextmanager
def following(cluster: ControlPlane, usage: bool = False, **timing: Any) -> Iterator[Following]:
    """A source with the extender's own credentials, synced."""
    options = KubernetesOptions(
        kubeconfig=cluster.extender_kubeconfig(), timing=Timing(page=100, **timing), usage_interval=1.0
    )
    source = KubernetesSource(options, MetricsServer if usage else None)
    with an_event_loop() as loop, followed(loop, source) as started:
        eventually(lambda: source.synced, f"first list: {source.waiting_for()}", 20.0)
        yield started


def placed(name: str, on: str, cpu_m: int = 100, memory_mi: int = 64) -> Manifest:
    """A pod that names its node, so that no scheduler is needed."""
    content = pod(name, cpu=f"{cpu_m}m", memory=f"{memory_mi}Mi")
    content["spec"]["nodeName"] = on
    return content


def quantity(text: str) -> float:
    return float(parse_quantity(text))  # type: ignore[no-untyped-call]


Picture = dict[str, tuple[float, ...]]
"""Node -> allocatable cores and GiB, speed, requested cores and GiB."""


def truth(cluster: ControlPlane) -> tuple[Picture, dict[str, str]]:
    """What whole lists from the API server add up to, and the node of every pod that holds something."""
    sums: dict[str, list[float]] = {}
    where: dict[str, str] = {}
    for item in request(cluster.api, "GET", "/api/v1/pods")["items"]:
        on = item["spec"].get("nodeName")
        if on and item["status"].get("phase") not in ("Succeeded", "Failed"):
            where[item["metadata"]["uid"]] = on
            for container in item["spec"]["containers"]:
                asked = container["resources"]["requests"]
                total = sums.setdefault(on, [0.0, 0.0])
                total[0] += quantity(asked["cpu"])
                total[1] += quantity(asked["memory"]) / GIB
    picture = {}
    for item in request(cluster.api, "GET", "/api/v1/nodes")["items"]:
        name, offered = item["metadata"]["name"], item["status"]["allocatable"]
        speed = float(item["metadata"]["annotations"].get(SPEED, 1.0))
        requested = sums.get(name, [0.0, 0.0])
        picture[name] = (quantity(offered["cpu"]), quantity(offered["memory"]) / GIB, speed, *requested)
    return picture, where


def known(table: ClusterTable) -> tuple[Picture, dict[str, str]]:
    """What the table holds."""
    names, state = node_names(table), table.state
    rows = table.rows_of(names)
    columns = (
        state.cpu_allocatable,
        state.memory_allocatable,
        state.node_speed,
        state.cpu_requested,
        state.memory_requested,
    )
    numbers = zip(*(column[rows].tolist() for column in columns), strict=True)
    return dict(zip(names, numbers, strict=True)), {uid: str(node_of(table, uid)) for uid in table._pods}


def equals_the_truth(cluster: ControlPlane, source: Following) -> bool:
    (nodes, where), (seen, seen_where) = truth(cluster), source.see(known)
    return (
        nodes.keys() == seen.keys()
        and where == seen_where
        and all(seen[name] == pytest.approx(nodes[name], rel=1e-9, abs=1e-9) for name in nodes)
    )


def finish(cluster: ControlPlane, name: str, phase: str) -> None:
    path = f"/api/v1/namespaces/default/pods/{name}/status"
    body = {"status": {"phase": phase}}
    request(cluster.api, "PATCH", path, body, "application/strategic-merge-patch+json")


def remove(cluster: ControlPlane, path: str) -> None:
    send(cluster.api, "DELETE", f"{path}?gracePeriodSeconds=0")


def churn(cluster: ControlPlane, rng: random.Random, nodes: list[str], pods: list[str], steps: int, tag: str) -> None:
    """Pods come, go and end, nodes change speed, go and come; `nodes` and `pods` are kept up to date."""
    for step in range(steps):
        match rng.choices(["create", "delete", "finish", "speed", "node"], [6, 4, 3, 2, 0.5])[0]:
            case "create":
                pods.append(f"{tag}-{step}")
                asked = (rng.randrange(50, 900), rng.randrange(32, 2048))
                create(cluster.api, [placed(pods[-1], rng.choice(nodes), *asked)], threads=1)
            case "delete":
                name = pods.pop(rng.randrange(len(pods)))
                remove(cluster, f"/api/v1/namespaces/default/pods/{name}")
            case "finish":
                finish(cluster, pods.pop(rng.randrange(len(pods))), rng.choice(["Succeeded", "Failed"]))
            case "speed":
                body = {"metadata": {"annotations": {SPEED: f"{rng.uniform(0.5, 2.0):.3f}"}}}
                path = f"/api/v1/nodes/{rng.choice(nodes)}"
                request(cluster.api, "PATCH", path, body, "application/merge-patch+json")
            case "node":
                remove(cluster, f"/api/v1/nodes/{nodes.pop(rng.randrange(len(nodes)))}")
                nodes.append(f"{tag}-node-{step}")
                create(cluster.api, [node(nodes[-1], cpu=str(rng.randrange(4, 64)))], threads=1)


def test_two_hundred_nodes_and_a_thousand_pods_equal_the_api_servers_truth_after_random_churn(
    cluster: ControlPlane,
) -> None:
    rng = random.Random(7)
    nodes = [f"node-{i}" for i in range(200)]
    pods = [f"pod-{i}" for i in range(1000)]
    create_nodes(cluster.api, [node(name, cpu=str(rng.randrange(4, 64))) for name in nodes])
    create(
        cluster.api,
        [placed(name, rng.choice(nodes), rng.randrange(10, 900), rng.randrange(1, 4096)) for name in pods],
    )
    with following(cluster) as source:
        eventually(lambda: equals_the_truth(cluster, source), "equal after the first list", 20.0)
        churn(cluster, rng, nodes, pods, 400, "churned")
        eventually(lambda: equals_the_truth(cluster, source), "equal after churn", 20.0)
        assert source.source.counts()["pods", "lists"] == 1, "followed by watching alone"
        assert source.source.counts()["pods", "undecodable"] == source.source.counts()["nodes", "undecodable"] == 0
        assert source.see(lambda table: table.pod_count) > 500


def test_scores_go_on_while_the_api_server_is_away_for_thirty_seconds_and_all_is_repaired_after(
    cluster: ControlPlane,
) -> None:
    rng = random.Random(8)
    nodes, pods = [f"node-{i}" for i in range(10)], [f"pod-{i}" for i in range(40)]
    create_nodes(cluster.api, [node(name) for name in nodes])
    create(cluster.api, [placed(name, rng.choice(nodes)) for name in pods])
    with following(cluster) as source:
        eventually(lambda: equals_the_truth(cluster, source), "equal before", 20.0)
        before = source.see(known)
        cluster.stop_api_server()
        try:
            time.sleep(30.0)
            stale = source.source.staleness()
            assert source.source.synced
            assert source.see(known) == before, "what is known stays"
            assert all((stale[name] or 0.0) >= 29.0 for name in ("nodes", "pods"))
        finally:
            cluster.start_api_server()
        churn(cluster, rng, nodes, pods, 40, "after")
        eventually(lambda: equals_the_truth(cluster, source), "equal after", 30.0)
        # The restarted server's watch cache begins after the version we had: 410, and a new list.
        assert source.source.counts()["pods", "expired"] >= 1
        assert source.source.counts()["pods", "lists"] >= 2
        eventually(lambda: (source.source.staleness()["pods"] or 99.0) < 5.0, "fresh again", 40.0)


def test_a_frozen_api_server_is_noticed(cluster: ControlPlane) -> None:
    create_nodes(cluster.api, [node("node-0")])
    with following(cluster, watch=2.0, grace=1.0) as source:
        cluster.api_server.pause()
        try:
            eventually(lambda: source.source.counts()["pods", "failures"], "silence noticed", 15.0)
        finally:
            cluster.api_server.resume()
        create(cluster.api, [placed("after", "node-0")])
        eventually(lambda: equals_the_truth(cluster, source), "followed again", 40.0)


def test_short_watches_lose_nothing(cluster: ControlPlane) -> None:
    rng = random.Random(9)
    nodes, pods = [f"node-{i}" for i in range(10)], [f"pod-{i}" for i in range(40)]
    create_nodes(cluster.api, [node(name) for name in nodes])
    create(cluster.api, [placed(name, rng.choice(nodes)) for name in pods])
    with following(cluster, watch=1.0) as source:
        churn(cluster, rng, nodes, pods, 150, "short")
        eventually(lambda: equals_the_truth(cluster, source), "equal after churn", 20.0)
        assert source.source.counts()["pods", "lists"] == 1


def test_use_comes_from_a_real_metrics_server(cluster: ControlPlane) -> None:
    create_nodes(cluster.api, [node("node-0"), node("node-1")])
    busy = placed("busy", "node-1")
    busy["metadata"]["annotations"] = {"kwok.x-k8s.io/usage-cpu": "1500m", "kwok.x-k8s.io/usage-memory": "3Gi"}
    create(cluster.api, [busy])

    def used(table: ClusterTable) -> tuple[float, float]:
        row = table.rows_of(["node-1"])[0]
        return float(table.state.cpu_used[row]), float(table.state.memory_used[row])

    with following(cluster, usage=True) as source:
        # KWOK plays a kubelet that itself uses 0.05 cores and 0.25 GiB.
        expected = pytest.approx((1.55, 3.25), rel=0.1)
        eventually(lambda: source.see(used) == expected, "measured use", 6.0 * METRIC_RESOLUTION_S)
        age = source.source.staleness()["usage"]
        assert age is not None
        assert age < 3 * METRIC_RESOLUTION_S


def test_bind_binds_and_refuses_a_pod_that_was_replaced(cluster: ControlPlane) -> None:
    role = {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRoleBinding",
        "metadata": {"name": "source-test-bind"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "maddpg-extender-bind"},
        "subjects": [{"kind": "ServiceAccount", "name": "maddpg-extender", "namespace": "maddpg-scheduler"}],
    }
    create_nodes(cluster.api, [node("node-0")])
    create(cluster.api, [pod("first"), pod("second")])
    first = request(cluster.api, "GET", "/api/v1/namespaces/default/pods/first")["metadata"]["uid"]
    with following(cluster) as source:
        with pytest.raises(BindError, match="403"):
            source.run(source.source.bind(Binding("default", "first", first, "node-0")))
        apply(cluster.api, [role])
        try:
            binding = Binding("default", "first", first, "node-0")
            eventually(lambda: bound(source, binding), "bound once the role is there")
            source.wait(lambda table: node_of(table, first) == "node-0", "bind seen")
            with pytest.raises(BindError, match=r"default/second to node-0: .* answered 409"):
                source.run(source.source.bind(Binding("default", "second", first, "node-0")))
        finally:
            delete(cluster.api, [role])


def bound(source: Following, binding: Binding) -> bool:
    """The authorizer learns of a new role a moment after it is made."""
    try:
        source.run(source.source.bind(binding))
    except BindError as error:
        if "403" in str(error):
            return False
        raise
    return True
