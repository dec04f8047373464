"""Every right that the chart grants is needed: with any one of them taken away, something named breaks."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.chart.audit import AuditedControlPlane, Right, granted
from tests.chart.deployed import Extender
from tests.chart.helm import CHART, CLUSTER_NAME, NAMESPACE, RELEASE
from tests.chart.installation import LEASES, RBAC, SERVICE, Installation, installed
from tests.control_plane import access
from tests.control_plane.access import Manifest
from tests.control_plane.scheduler import PROFILE
from tests.control_plane.workload import Binds, create, create_nodes, node, pod

NOWHERE = "http://127.0.0.1:1"  # an extender that is away: it is ignorable, and rights are what is asked about here
EXTENDER_ROLE = f"{RBAC}/clusterroles/{CLUSTER_NAME}-extender"
LEASE_ROLE = f"{RBAC}/namespaces/{NAMESPACE}/roles/{RELEASE}"
EXTENDER_BINDING = f"{RBAC}/clusterrolebindings/{CLUSTER_NAME}-extender"
SCHEDULER_BINDING = f"{RBAC}/clusterrolebindings/{CLUSTER_NAME}"
VOLUME_BINDING = f"{RBAC}/clusterrolebindings/{CLUSTER_NAME}-volumes"


@pytest.fixture(scope="module")
def installation(
    control_plane: AuditedControlPlane, nodes: None, home: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Installation]:
    """The chart in mode service, where the two programs have an account each.

    No node here has a kubelet, which alone looks at the right to get nodes/stats: tests/kind shows that it is needed.
    """
    more = {"extender": {"settings": {"explain_on_pod": "event", "usage_source": "metrics-server"}}}
    with installed(control_plane, home, tmp_path_factory.mktemp("rights"), SERVICE, more) as made:
        yield made


@contextmanager
def _without(installation: Installation, path: str, right: Right | None = None) -> Iterator[None]:
    """Take one right out of a role, or a whole binding away, and put it back at the end."""
    api = installation.api
    whole = access.request(api, "GET", path)
    for owned in ("resourceVersion", "uid", "creationTimestamp", "managedFields"):
        whole["metadata"].pop(owned)
    if right is None:
        access.request(api, "DELETE", path)
    else:
        access.request(api, "PUT", path, {**whole, "rules": list(_reduced(whole["rules"], right))})
    try:
        yield
    finally:
        if right is None:
            access.request(api, "POST", path.rsplit("/", 1)[0], whole)
        else:
            access.request(api, "PUT", path, whole)


def _reduced(rules: list[Manifest], right: Right) -> Iterator[Manifest]:
    """The same rules without that right, each split by resource and verb."""
    for rule in rules:
        for group in rule["apiGroups"]:
            for resource in rule["resources"]:
                for verb in rule["verbs"]:
                    if Right(group, resource, verb) != right:
                        yield {**rule, "apiGroups": [group], "resources": [resource], "verbs": [verb]}


def _until(condition: Callable[[], bool], what: str, timeout_s: float = 15.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, f"{what} within {timeout_s:.0f} s"
        time.sleep(0.1)


def _until_refused(installation: Installation, account: str, right: Right, **where: str) -> None:
    """RBAC has a cache of its own."""
    _until(lambda: not installation.may(account, right, **where), f"{right} is refused")


def _until_allowed(installation: Installation, account: str, right: Right, **where: str) -> None:
    _until(lambda: installation.may(account, right, **where), f"{right} is allowed again")


EVENTS = Right("events.k8s.io", "events", "create")
PATCH = Right("", "pods", "patch")
EXTENDER_RIGHTS = {
    Right("", "nodes", "list"): "never ready, and says that nodes are missing",
    Right("", "pods", "list"): "never ready, and says that pods are missing",
    Right("", "nodes", "watch"): "a new node is not seen",
    Right("", "pods", "watch"): "a new pod is not seen",
    Right("metrics.k8s.io", "nodes", "list"): "measured use is never known",
    EVENTS: "no Event says why on the pod",
}


def test_table_of_what_breaks_is_complete(installation: Installation) -> None:
    assert granted(access.request(installation.api, "GET", EXTENDER_ROLE)["rules"]) == set(EXTENDER_RIGHTS)
    query = f"{RBAC}/clusterrolebindings?labelSelector=app.kubernetes.io/instance={RELEASE}"
    made = {each["metadata"]["name"] for each in access.request(installation.api, "GET", query)["items"]}
    assert {f"{RBAC}/clusterrolebindings/{name}" for name in made} == {*SCHEDULER_BINDINGS, EXTENDER_BINDING}
    assert granted(access.request(installation.api, "GET", LEASE_ROLE)["rules"]) == {
        Right("coordination.k8s.io", "leases", verb) for verb in ("get", "update")
    }


def _sees_new_node(installation: Installation, extender: Extender) -> bool:
    """Whether a node made now is counted within two seconds."""
    before = extender.metric('maddpg_nodes{ready="true"}')
    create_nodes(installation.api, [node(f"late-{time.monotonic_ns()}")])
    return _grows(extender, 'maddpg_nodes{ready="true"}', before)


def _sees_new_pod(installation: Installation, extender: Extender) -> bool:
    """Whether a pod bound now is counted within two seconds."""
    before = extender.metric("maddpg_pods")
    placed = pod(f"late-{time.monotonic_ns()}")
    placed["spec"]["nodeName"] = "node-1"
    create(installation.api, [placed])
    return _grows(extender, "maddpg_pods", before)


def _grows(extender: Extender, metric: str, before: float) -> bool:
    deadline = time.monotonic() + 2.0
    while time.monotonic() < deadline:
        if extender.metric(metric) > before:
            return True
        time.sleep(0.1)
    return False


def _usage_failures(extender: Extender) -> float | None:
    """How often measured use was asked for in vain; None before the first time that it was asked for."""
    try:
        return extender.metric('maddpg_source_events_total{event="failures",input="usage"}')
    except LookupError:
        return None


def test_with_all_rights_the_extender_sees_everything(installation: Installation) -> None:
    with installation.deployed.extender(installation.extender_account) as extender:
        assert _sees_new_node(installation, extender)
        assert _sees_new_pod(installation, extender)
        _until(lambda: _usage_failures(extender) is not None, "measured use is asked for")
        time.sleep(1.0)
    # nobody scrapes these nodes, so an answer without any of them counts as a failure, and a refusal would show here
    assert Right("metrics.k8s.io", "nodes", "list") not in installation.plane.refused(installation.extender_account)


Reasons = Callable[[Installation, str], list[str]]


def _events(installation: Installation, name: str) -> list[str]:
    """What Events of the extender say of that pod."""
    listed = access.request(installation.api, "GET", "/apis/events.k8s.io/v1/namespaces/default/events")["items"]
    return [
        each["note"]
        for each in listed
        if (each["regarding"]["name"], each.get("reportingController")) == (name, "maddpg-scheduler.io/extender")
    ]


def _annotations(installation: Installation, name: str) -> list[str]:
    """What the extender's annotation says on that pod."""
    found = access.request(installation.api, "GET", f"/api/v1/namespaces/default/pods/{name}")["metadata"]
    return [text for key, text in found.get("annotations", {}).items() if key == "maddpg-scheduler.io/reason"]


def _is_explained(installation: Installation, extender: Extender, name: str, reasons: Reasons) -> bool:
    """Whether a pod that is placed now says why; if it does not, that must be counted."""
    failed = _failed_notes(extender)
    with installation.deployed.scheduler(installation.scheduler_account, extender.url):
        assert _is_bound(installation, name, 20.0)
    said: list[str] = []

    def settled() -> bool:
        said[:] = reasons(installation, name)
        return bool(said) or _failed_notes(extender) > failed

    _until(settled, "the note is written or given up")
    scorer = extender.get("/v1/policy")[1]["serving"]["scorer"]
    assert all(f" nodes by {scorer}, priority 10 of 10, preference " in text for text in said), said
    assert len(said) <= 1
    return bool(said)


def _failed_notes(extender: Extender) -> float:
    return extender.metric('maddpg_pod_notes_total{result="failed"}')


def test_with_all_rights_the_pod_says_why_it_is_where_it_is(installation: Installation) -> None:
    with installation.deployed.extender(installation.extender_account) as extender:
        assert _is_explained(installation, extender, "event", _events)


def test_annotation_needs_the_right_to_patch_pods_which_replaces_that_to_events(installation: Installation) -> None:
    account = installation.extender_account
    form = "extender.settings.explain_on_pod"
    upgrade = ["upgrade", RELEASE, str(CHART), "--reuse-values", "--wait", "--timeout", "60s", "--set"]
    installation.helm(*upgrade, f"{form}=annotation")
    rights = granted(access.request(installation.api, "GET", EXTENDER_ROLE)["rules"])
    assert rights == set(EXTENDER_RIGHTS) - {EVENTS} | {PATCH}
    _until_allowed(installation, account, PATCH)
    with installation.deployed.extender(account) as extender:
        assert _is_explained(installation, extender, "annotation", _annotations)
        with _without(installation, EXTENDER_ROLE, PATCH):
            _until_refused(installation, account, PATCH)
            assert not _is_explained(installation, extender, "no-annotation", _annotations)
    assert PATCH in installation.plane.refused(account)
    installation.helm(*upgrade, f"{form}=event", "--force-conflicts")  # the test has changed the role itself
    _until_allowed(installation, account, EVENTS)


@pytest.mark.parametrize("right", EXTENDER_RIGHTS, ids=lambda right: f"{right.resource} {right.verb}, {right.group}")
def test_without_this_right_the_extender_breaks(installation: Installation, right: Right) -> None:
    account = installation.extender_account
    with _without(installation, EXTENDER_ROLE, right):
        _until_refused(installation, account, right)
        with installation.deployed.extender(account, wait=False) as extender:
            if right == EVENTS:
                _until(lambda: extender.get("/readyz")[0] == 200, "both lists are there")
                assert not _is_explained(installation, extender, "no-event", _events)
            elif right.group:
                _until(lambda: (_usage_failures(extender) or 0) > 0, "measured use is refused")
            elif right.verb == "list":
                status, answer = extender.get("/readyz")
                _until(lambda: right.resource in str(extender.get("/readyz")[1]["reasons"]), "the reason is given")
                assert status == 503, answer
            else:
                _until(lambda: extender.get("/readyz")[0] == 200, "both lists are there")
                sees = _sees_new_node if right.resource == "nodes" else _sees_new_pod
                assert not sees(installation, extender)
    _until_allowed(installation, account, right)
    assert right in installation.plane.refused(account)


def test_without_its_binding_the_extender_is_never_ready(installation: Installation) -> None:
    account, right = installation.extender_account, Right("", "nodes", "list")
    with _without(installation, EXTENDER_BINDING):
        _until_refused(installation, account, right)
        with installation.deployed.extender(account, wait=False) as extender:
            _until(lambda: right in installation.plane.refused(account), "the list is refused")
            assert extender.get("/readyz")[0] == 503
    _until_allowed(installation, account, right)


def _is_bound(installation: Installation, name: str, timeout_s: float) -> bool:
    with Binds(installation.api) as binds:
        create(installation.api, [pod(name, scheduler=PROFILE)])
        try:
            binds.wait([name], timeout_s)
        except TimeoutError:
            return False
    return True


def test_with_all_rights_the_scheduler_binds(installation: Installation) -> None:
    """Beside being the other half of what follows, it leaves the lease that the next ones must take over."""
    with installation.deployed.scheduler(installation.scheduler_account, NOWHERE):
        assert _is_bound(installation, "with-all-rights", 20.0)
    assert _leases(installation) == [RELEASE]


def _leases(installation: Installation) -> list[str]:
    return [each["metadata"]["name"] for each in access.request(installation.api, "GET", LEASES)["items"]]


SCHEDULER_BINDINGS = {
    SCHEDULER_BINDING: Right("", "pods", "list"),
    # kube-scheduler waits for its list of storage classes before it places any pod, with volumes or without
    VOLUME_BINDING: Right("storage.k8s.io", "storageclasses", "list"),
}


@pytest.mark.parametrize("binding", SCHEDULER_BINDINGS, ids=["system:kube-scheduler", "system:volume-scheduler"])
def test_without_either_role_of_the_cluster_the_scheduler_binds_nothing(
    installation: Installation, binding: str
) -> None:
    account, right = installation.scheduler_account, SCHEDULER_BINDINGS[binding]
    with _without(installation, binding):
        _until_refused(installation, account, right)
        with installation.deployed.scheduler(account, NOWHERE, wait=False):
            _until(lambda: right in installation.plane.refused(account), "the list is refused")
            assert not _is_bound(installation, f"without-{right.resource}", 2.0)
    _until_allowed(installation, account, right)


@pytest.mark.parametrize("verb", ["get", "update"])
def test_without_the_right_to_its_lease_the_scheduler_never_leads(installation: Installation, verb: str) -> None:
    account, right = installation.scheduler_account, Right("coordination.k8s.io", "leases", verb)
    lease = {"namespace": NAMESPACE, "name": RELEASE}
    assert _leases(installation) == [RELEASE]
    with _without(installation, LEASE_ROLE, right):
        _until_refused(installation, account, right, **lease)
        with installation.deployed.scheduler(account, NOWHERE, wait=False):
            _until(lambda: right in installation.plane.refused(account), "the lease is refused")
            assert not _is_bound(installation, f"without-lease-{verb}", 2.0)
    _until_allowed(installation, account, right, **lease)


def _volume(name: str) -> list[Manifest]:
    """A volume on node-1, and a claim for it that waits for its first pod."""
    on_node = {"key": "kubernetes.io/hostname", "operator": "In", "values": ["node-1"]}
    size = {"storage": "1Gi"}
    return [
        {
            "apiVersion": "storage.k8s.io/v1",
            "kind": "StorageClass",
            "metadata": {"name": name},
            "provisioner": "kubernetes.io/no-provisioner",
            "volumeBindingMode": "WaitForFirstConsumer",
        },
        {
            "apiVersion": "v1",
            "kind": "PersistentVolume",
            "metadata": {"name": name},
            "spec": {
                "capacity": size,
                "accessModes": ["ReadWriteOnce"],
                "storageClassName": name,
                "local": {"path": "/data"},
                "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": [on_node]}]}},
            },
        },
        {
            "apiVersion": "v1",
            "kind": "PersistentVolumeClaim",
            "metadata": {"name": name, "namespace": "default"},
            "spec": {"accessModes": ["ReadWriteOnce"], "storageClassName": name, "resources": {"requests": size}},
        },
    ]


def test_pod_whose_volume_waits_for_it_is_bound_with_its_volume(installation: Installation) -> None:
    access.apply(installation.api, _volume("waiting"))
    wanting = pod("wanting", scheduler=PROFILE)
    wanting["spec"]["volumes"] = [{"name": "data", "persistentVolumeClaim": {"claimName": "waiting"}}]
    account = installation.scheduler_account
    with installation.deployed.scheduler(account, NOWHERE), Binds(installation.api) as binds:
        create(installation.api, [wanting])
        assert binds.wait(["wanting"], 20.0)["wanting"].node == "node-1", "the only node that has the volume"
    assert Right("", "persistentvolumes", "update") in installation.plane.used(account)
