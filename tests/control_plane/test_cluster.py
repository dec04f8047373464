"""The control plane that other tests stand on does what a real one does."""

import json
import subprocess
import time
from collections.abc import Iterator

import pytest
from kubernetes import client

from tests.control_plane import access, binaries
from tests.control_plane.cluster import METRIC_RESOLUTION_S, RBAC_MANIFESTS, ControlPlane
from tests.control_plane.processes import Process, StartError, answers_ok
from tests.control_plane.recorder import RecordingExtender, node_names
from tests.control_plane.scheduler import PROFILE, kube_scheduler, plain_configuration, shipped_configuration
from tests.control_plane.workload import Binds, create, create_nodes, node, node_usage, pod

VERSIONS = ["1.35.4", "1.37.2"]


def _nodes(count: int, cpu: str = "32") -> list[access.Manifest]:
    return [node(f"node-{number}", cpu=cpu) for number in range(count)]


def _pods(count: int, cpu: str = "100m", scheduler: str = PROFILE) -> list[access.Manifest]:
    return [pod(f"pod-{number}", cpu=cpu, scheduler=scheduler) for number in range(count)]


def _names(objects: list[access.Manifest]) -> list[str]:
    return [each["metadata"]["name"] for each in objects]


@pytest.mark.parametrize("version", VERSIONS)
def test_default_scheduler_binds_twenty_pods_on_five_nodes(cluster: ControlPlane, version: str) -> None:
    create_nodes(cluster.api, _nodes(5, cpu="4"))
    pods = _pods(20, cpu="1", scheduler="default-scheduler")
    with kube_scheduler(cluster, plain_configuration(), version), Binds(cluster.api) as binds:
        create(cluster.api, pods)
        bound = binds.wait(_names(pods))
    per_node = [sum(bind.node == f"node-{number}" for bind in bound.values()) for number in range(5)]
    assert per_node == [4] * 5, "one core each: four fit a node, so all nodes are full"


def test_pod_that_fits_nowhere_stays_pending_with_a_reason(cluster: ControlPlane) -> None:
    create_nodes(cluster.api, _nodes(2, cpu="4"))
    with kube_scheduler(cluster, plain_configuration()), Binds(cluster.api) as binds:
        create(cluster.api, [pod("huge", cpu="5"), pod("small", cpu="1")])
        binds.wait(["small"])
        with pytest.raises(TimeoutError, match="Insufficient cpu"):
            binds.wait(["huge"], timeout_s=1.0)


def test_metrics_server_answers_for_the_nodes(cluster: ControlPlane) -> None:
    create_nodes(cluster.api, _nodes(2))
    used = {"kwok.x-k8s.io/usage-cpu": "1500m", "kwok.x-k8s.io/usage-memory": "3Gi"}
    busy = pod("busy", annotations=used)
    busy["spec"]["nodeName"] = "node-1"  # placed without a scheduler
    create(cluster.api, [busy])

    itself = (0.05, 0.25)  # kwok-metrics.yaml
    usage: dict[str, tuple[float, float]] = {}
    deadline = time.monotonic() + 6 * METRIC_RESOLUTION_S  # a rate needs two scrapes after the pod runs
    while time.monotonic() < deadline:
        usage = node_usage(cluster.api)
        if usage.keys() == {"node-0", "node-1"} and usage["node-1"][0] > 1.5 and usage["node-0"][0] > 0.9 * itself[0]:
            break
        time.sleep(0.5)

    assert usage.keys() == {"node-0", "node-1"}
    assert usage["node-0"] == pytest.approx(itself, rel=0.1)
    assert usage["node-1"] == pytest.approx((1.5 + itself[0], 3.0 + itself[1]), rel=0.1)


@pytest.fixture
def donothing(control_plane: ControlPlane) -> Iterator[str]:
    """The URL of the Go extender that benchmarks compare with."""
    command = [str(binaries.build(binaries.DONOTHING) / "donothing"), "-listen", "127.0.0.1:0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=control_plane.directory) as process:
        try:
            assert process.stdout is not None
            yield f"http://127.0.0.1:{int(process.stdout.readline())}"
        finally:
            process.terminate()


@pytest.mark.parametrize(
    ("cache_capable", "filter_verb"),
    [(True, None), (True, "filter"), (False, None)],
    ids=["names", "names, filtered too", "objects"],
)
@pytest.mark.parametrize("version", VERSIONS)
def test_pods_are_bound_through_the_do_nothing_extender(
    cluster: ControlPlane, donothing: str, version: str, cache_capable: bool, filter_verb: str | None
) -> None:
    create_nodes(cluster.api, _nodes(3))
    # not ignorable: an answer that kube-scheduler does not accept would leave the pods pending
    configuration = shipped_configuration(
        donothing, nodeCacheCapable=cache_capable, filterVerb=filter_verb, ignorable=False, preemptVerb=None
    )
    pods = _pods(5)
    with kube_scheduler(cluster, configuration, version, verbosity=10) as scheduler, Binds(cluster.api) as binds:
        create(cluster.api, pods)
        binds.wait(_names(pods))
        log = scheduler.process.log()
    assert "Failed to run extender" not in log
    for name in _names(pods):
        scored = [line for line in log.splitlines() if "Extender scored node" in line and f"default/{name}" in line]
        assert len(scored) == 3, "prioritize was answered for each node"


@pytest.mark.parametrize("version", VERSIONS)
def test_shipped_configuration_lets_the_extender_decide(cluster: ControlPlane, version: str) -> None:
    create_nodes(cluster.api, _nodes(5))
    pods = _pods(10, cpu="2")
    with RecordingExtender(cluster.api, score=lambda name: 10 if name == "node-3" else 9) as extender:
        configuration = shipped_configuration(extender.url)
        with kube_scheduler(cluster, configuration, version) as scheduler, Binds(cluster.api) as binds:
            create(cluster.api, pods)
            bound = binds.wait(_names(pods))
            assert scheduler.version == version
        assert {bind.node for bind in bound.values()} == {"node-3"}, "one level outweighs kube-scheduler's spreading"
        assert (len(extender.calls("filter")), len(extender.calls("prioritize"))) == (0, len(pods))
        assert all(len(node_names(call.body)) == 5 for call in extender.received)


@pytest.mark.parametrize("version", VERSIONS)
def test_shipped_configuration_drops_two_scores_and_no_filter(cluster: ControlPlane, version: str) -> None:
    create_nodes(cluster.api, _nodes(2, cpu="4"))
    with RecordingExtender(cluster.api) as extender:
        configuration = shipped_configuration(extender.url)
        with kube_scheduler(cluster, configuration, version, verbosity=10) as scheduler, Binds(cluster.api) as binds:
            for name in ("first", "second"):  # only the second has a pod to keep away from
                create(cluster.api, [_choosy(name)])
                binds.wait([name])
            create(cluster.api, [pod("huge", cpu="5", scheduler=PROFILE)])
            with pytest.raises(TimeoutError, match="Insufficient cpu"):
                binds.wait(["huge"], timeout_s=0.5)
            log = scheduler.process.log()
    scored_by = {
        line.split('plugin="')[1].split('"')[0] for line in log.splitlines() if "Plugin scored node for pod" in line
    }
    assert {"NodeResourcesFit", "NodeResourcesBalancedAllocation"}.isdisjoint(scored_by)
    assert {"TaintToleration", "NodeAffinity", "PodTopologySpread", "InterPodAffinity", "ImageLocality"} <= scored_by


def _choosy(name: str) -> access.Manifest:
    """A pod that gives every score plugin a reason to score; one that has none is left out by kube-scheduler."""
    choosy = pod(name, scheduler=PROFILE, labels={"app": "choosy"})
    here = {"matchLabels": {"app": "choosy"}}
    host = {"topologyKey": "kubernetes.io/hostname"}
    term = {"matchExpressions": [{"key": "kubernetes.io/os", "operator": "In", "values": ["linux"]}]}
    choosy["spec"]["affinity"] = {
        "nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 1, "preference": term}]},
        "podAntiAffinity": {
            "preferredDuringSchedulingIgnoredDuringExecution": [
                {"weight": 1, "podAffinityTerm": {**host, "labelSelector": here}}
            ]
        },
    }
    choosy["spec"]["topologySpreadConstraints"] = [
        {**host, "maxSkew": 1, "whenUnsatisfiable": "ScheduleAnyway", "labelSelector": here}
    ]
    return choosy


def test_shipped_configuration_elects_a_leader_by_its_own_lease(cluster: ControlPlane) -> None:
    access.apply(cluster.api, access.read_manifests(RBAC_MANIFESTS))
    create_nodes(cluster.api, _nodes(2))
    with RecordingExtender(cluster.api) as extender:
        configuration = shipped_configuration(extender.url, leader_election=True)
        with kube_scheduler(cluster, configuration), Binds(cluster.api) as binds:
            create(cluster.api, [pod("first", scheduler=PROFILE)])
            binds.wait(["first"])
    lease = access.request(
        cluster.api, "GET", "/apis/coordination.k8s.io/v1/namespaces/maddpg-scheduler/leases/maddpg-scheduler"
    )
    assert lease["spec"]["leaseTransitions"] >= 0


@pytest.mark.parametrize("version", VERSIONS)
def test_pods_are_bound_without_the_extender_while_it_is_down(cluster: ControlPlane, version: str) -> None:
    create_nodes(cluster.api, _nodes(3))
    pods = _pods(5)
    with RecordingExtender(cluster.api) as extender:
        url = extender.url
    with kube_scheduler(cluster, shipped_configuration(url), version), Binds(cluster.api) as binds:
        create(cluster.api, pods)
        binds.wait(_names(pods))


def test_watch_of_binds_survives_an_absence_of_the_api_server(cluster: ControlPlane) -> None:
    create_nodes(cluster.api, _nodes(3))
    with kube_scheduler(cluster, plain_configuration()), Binds(cluster.api) as binds:
        create(cluster.api, [pod("before")])
        binds.wait(["before"])
        cluster.stop_api_server()
        assert not cluster.api_server.running
        cluster.start_api_server()
        create(cluster.api, [pod("after")])
        assert binds.wait(["after"]).keys() == {"after"}


def test_restarted_scheduler_goes_on_binding(cluster: ControlPlane) -> None:
    create_nodes(cluster.api, _nodes(2))
    with kube_scheduler(cluster, plain_configuration()) as scheduler, Binds(cluster.api) as binds:
        before = scheduler.process.pid
        scheduler.restart()
        assert scheduler.process.pid != before
        create(cluster.api, [pod("only")])
        binds.wait(["only"])


ALLOWED = ["/api/v1/nodes", "/api/v1/pods", "/apis/metrics.k8s.io/v1beta1/nodes"]
REFUSED = [
    ("GET", "/api/v1/nodes/node-0"),
    ("GET", "/api/v1/secrets"),
    ("GET", "/api/v1/configmaps"),
    ("GET", "/apis/metrics.k8s.io/v1beta1/pods"),
    ("DELETE", "/api/v1/nodes/node-0"),
    ("DELETE", "/api/v1/namespaces/default/pods/any"),
    ("POST", "/api/v1/namespaces/default/pods"),
    ("POST", "/api/v1/namespaces/default/pods/any/binding"),
]


@pytest.fixture
def as_extender(control_plane: ControlPlane) -> Iterator[client.ApiClient]:
    """A client with the ServiceAccount of deploy/rbac.yaml."""
    with access.connect(control_plane.extender_kubeconfig()) as api:
        yield api


@pytest.mark.parametrize("path", ALLOWED)
def test_extender_may_list_what_it_needs(as_extender: client.ApiClient, path: str) -> None:
    assert "items" in access.request(as_extender, "GET", path)


@pytest.mark.parametrize("path", ["/api/v1/nodes", "/api/v1/pods"])
def test_extender_may_watch_nodes_and_pods(as_extender: client.ApiClient, path: str) -> None:
    assert access.send(as_extender, "GET", f"{path}?watch=1&timeoutSeconds=1") is not None


def test_binding_needs_the_role_that_is_bound_apart(
    cluster: ControlPlane, as_extender: client.ApiClient, binding_role: None
) -> None:
    create_nodes(cluster.api, _nodes(1))
    create(cluster.api, [pod("bound-by-us")])
    binding = {
        "apiVersion": "v1",
        "kind": "Binding",
        "metadata": {"name": "bound-by-us"},
        "target": {"kind": "Node", "name": "node-0"},
    }
    access.request(as_extender, "POST", "/api/v1/namespaces/default/pods/bound-by-us/binding", binding)
    bound = access.request(cluster.api, "GET", "/api/v1/namespaces/default/pods/bound-by-us")
    assert bound["spec"]["nodeName"] == "node-0"


@pytest.fixture
def binding_role(control_plane: ControlPlane) -> Iterator[None]:
    """The ClusterRole for bindVerb, given to the extender's ServiceAccount."""
    binding = {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRoleBinding",
        "metadata": {"name": "maddpg-extender-bind"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "maddpg-extender-bind"},
        "subjects": [{"kind": "ServiceAccount", "name": "maddpg-extender", "namespace": "maddpg-scheduler"}],
    }
    access.apply(control_plane.api, [binding])
    yield
    access.delete(control_plane.api, [binding])


@pytest.mark.parametrize(("method", "path"), REFUSED, ids=[f"{method} {path}" for method, path in REFUSED])
def test_extender_may_do_nothing_else(as_extender: client.ApiClient, method: str, path: str) -> None:
    with pytest.raises(client.ApiException) as refused:
        access.request(as_extender, method, path, {} if method == "POST" else None)
    assert refused.value.status == 403


def test_process_that_ends_at_once_says_why(control_plane: ControlPlane) -> None:
    command = [str(control_plane.binaries.kube / "kube-scheduler"), "--no-such-flag"]
    process = Process("doomed", command, control_plane.directory, answers_ok("http://127.0.0.1:1/"))
    process.start()
    with pytest.raises(StartError, match="unknown flag: --no-such-flag"):
        process.wait()


def test_configuration_that_kube_scheduler_refuses_is_an_error(control_plane: ControlPlane) -> None:
    configuration = shipped_configuration("http://127.0.0.1:1", weight=-1)
    with pytest.raises(StartError, match="must have a positive weight"), kube_scheduler(control_plane, configuration):
        pass


def test_kubeconfigs_stand_alone(control_plane: ControlPlane) -> None:
    content = control_plane.kubeconfig("admin").read_text()
    assert str(control_plane.directory) not in content
    assert json.dumps(control_plane.endpoint.url).strip('"') in content
