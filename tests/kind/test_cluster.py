"""The cluster itself: its nodes, traffic between its pods, and that nothing of it reaches beyond this machine."""

import pytest

from tests.kind.cluster import Cluster, ClusterError, wait_until
from tests.kind.engine import Engine
from tests.kind.machine import OUTSIDE, CutOff, uplinks
from tests.kind.release import running, workload

CONNECT = "import socket, sys; socket.create_connection((sys.argv[1], int(sys.argv[2])), 5)"


def test_cluster_has_two_workers_whose_speeds_differ(cluster: Cluster) -> None:
    nodes = cluster.get("nodes")["items"]
    assert len(cluster.workers) == 2
    speeds = {
        each["metadata"]["labels"]["maddpg-scheduler.io/speed"]
        for each in nodes
        if each["metadata"]["name"] in cluster.workers
    }
    assert speeds == {"1.0", "1.6"}, "as deploy/kind/cluster.yaml says"


def test_the_clusters_own_scheduler_places_pods_on_both_workers(cluster: Cluster) -> None:
    with workload(cluster, "by-default", 4, schedulerName="default-scheduler") as pods:
        assert {each["spec"]["nodeName"] for each in pods} == set(cluster.workers)


@pytest.fixture
def own_engine(engine: Engine) -> Engine:
    """An engine of the tests' own."""
    if not engine.own:
        pytest.skip("the Docker Engine is the user's: it is not cut off")
    return engine


def test_no_container_reaches_beyond_this_machine(own_engine: Engine, cluster: Cluster, cut: CutOff) -> None:
    """The address is nobody's: without the rule the packet takes the default route, and is never answered."""
    assert {rule.device for rule in cut.rules} == set(uplinks()) != set()
    for node in cluster.nodes:
        before = cut.refused
        said = own_engine.docker("exec", node, "bash", "-c", f"timeout 5 bash -c '>/dev/tcp/{OUTSIDE}/80' 2>&1 || true")
        assert "Connection refused" in said, said
        assert cut.refused > before, "the rule refused it"
        assert cut.holds


def test_pods_do_not_reach_beyond_this_machine_either(
    own_engine: Engine, cluster: Cluster, cut: CutOff, image_name: str
) -> None:
    program = f"import socket\ntry: socket.create_connection(({OUTSIDE!r}, 80), 5)\nexcept OSError as error: print(type(error).__name__, error)\nimport time; time.sleep(60)"  # fmt: skip  # noqa: E501
    container = {
        "name": "main",
        "image": image_name,
        "imagePullPolicy": "Never",
        "command": ["/usr/bin/python3", "-uc", program],
    }
    before = cut.refused
    with workload(cluster, "reaches-out", 1, schedulerName="default-scheduler", containers=[container]) as pods:
        name = pods[0]["metadata"]["name"]
        said = ""
        while not said:
            said = cluster.kubectl("logs", name)
    assert said.startswith("ConnectionRefusedError"), said
    assert cut.refused > before


def test_pods_reach_pods_of_other_nodes_and_services_by_name(cluster: Cluster, image_name: str) -> None:
    serve = ["/usr/bin/python3", "-um", "http.server", "8080"]
    container = {
        "name": "main",
        "image": image_name,
        "imagePullPolicy": "Never",
        "command": serve,
        "workingDir": "/tmp",
    }
    with workload(cluster, "web", 2, schedulerName="default-scheduler", containers=[container]) as pods:
        cluster.kubectl("expose", "deployment", "web", "--port=80", "--target-port=8080")
        try:
            first, second = running(cluster, "web", 2)
            assert first["spec"]["nodeName"] != second["spec"]["nodeName"]
            for host, port in ((second["status"]["podIP"], "8080"), ("web.default.svc", "80")):
                ask = ["exec", first["metadata"]["name"], "--", "/usr/bin/python3", "-c", CONNECT, host, port]
                wait_until(lambda ask=ask: _succeeds(cluster, *ask), f"{host}:{port} is reached", 60.0)  # type: ignore[misc]
        finally:
            cluster.kubectl("delete", "service", "web")
    assert pods


def _succeeds(cluster: Cluster, *arguments: str) -> bool:
    """Whether kubectl does: what has just started may not listen yet."""
    try:
        cluster.kubectl(*arguments)
    except ClusterError:
        return False
    return True
