"""`helm install` into a real API server, and what was installed at work: configuration, tokens and rights."""

import ssl
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from kubernetes import client

from tests.chart.audit import AuditedControlPlane, Right, granted
from tests.chart.deployed import Extender
from tests.chart.helm import CHART, CLUSTER_NAME, NAMESPACE, RELEASE, template
from tests.chart.installation import RBAC, SERVICE, SIDECAR, Installation, installed
from tests.control_plane import access
from tests.control_plane.processes import Process
from tests.control_plane.scheduler import PROFILE
from tests.control_plane.workload import Binds, create, pod

Running = tuple[Installation, Extender, Process]


@pytest.fixture(scope="module", params=[SIDECAR, SERVICE])
def installation(
    request: pytest.FixtureRequest,
    control_plane: AuditedControlPlane,
    nodes: None,
    home: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Installation]:
    """The chart, installed in one mode and then the other, there with TLS on every port."""
    more = {"tls": {"operations": True}} if request.param == SERVICE else {}
    with installed(control_plane, home, tmp_path_factory.mktemp("installed"), request.param, more) as made:
        yield made


@pytest.fixture(scope="module")
def running(installation: Installation) -> Iterator[Running]:
    """The installation, with its extender and its kube-scheduler at work as its ServiceAccounts."""
    with (
        installation.deployed.extender(installation.extender_account) as extender,
        installation.deployed.scheduler(installation.scheduler_account, extender.url) as scheduler,
    ):
        yield installation, extender, scheduler


def test_installed_pods_are_ready_and_on_different_nodes(installation: Installation) -> None:
    listed = access.request(installation.api, "GET", f"/api/v1/namespaces/{NAMESPACE}/pods")["items"]
    by_component: dict[str, set[str]] = {}
    for each in listed:
        labels = each["metadata"]["labels"]
        by_component.setdefault(labels["app.kubernetes.io/component"], set()).add(each["spec"]["nodeName"])
        assert {container["ready"] for container in each["status"]["containerStatuses"]} == {True}
    components = {"scheduler"} if installation.mode == SIDECAR else {"scheduler", "extender"}
    assert by_component.keys() == components
    assert [len(places) for places in by_component.values()] == [2] * len(components), "replicas keep apart"


def test_service_has_the_ready_pods_behind_it(installation: Installation) -> None:
    path = f"/apis/discovery.k8s.io/v1/namespaces/{NAMESPACE}/endpointslices"
    query = f"labelSelector=kubernetes.io/service-name={RELEASE}-extender"
    deadline = time.monotonic() + 20.0
    while True:
        slices = access.request(installation.api, "GET", f"{path}?{query}")["items"]
        ready = [each for piece in slices for each in piece["endpoints"] or () if each["conditions"]["ready"]]
        if len(ready) == 2:
            break
        assert time.monotonic() < deadline, slices
        time.sleep(0.2)
    ports = {port["name"]: port["port"] for port in slices[0]["ports"]}
    assert ports == ({"operations": 8889} if installation.mode == SIDECAR else {"operations": 8889, "verbs": 8888})


def test_pod_that_asks_for_the_policy_is_bound_by_it_and_others_are_not_touched(
    running: Running,
) -> None:
    installation, extender, _ = running
    chosen = {f"{installation.mode}-chosen-{number}" for number in range(5)}
    others = {f"{installation.mode}-other-{number}" for number in range(5)}
    with Binds(installation.api) as binds:
        create(installation.api, [pod(name, scheduler=PROFILE) for name in chosen])
        create(installation.api, [pod(name) for name in others])
        binds.wait(chosen | others)
    listed = access.request(installation.api, "GET", "/api/v1/namespaces/default/pods")["items"]
    made = {each["metadata"]["name"]: each["metadata"]["uid"] for each in listed}
    assert {name for name in chosen | others if extender.decided(made[name])} == chosen
    binders = _binders(installation.api, {made[name]: name for name in chosen | others})
    assert binders == dict.fromkeys(chosen, PROFILE) | dict.fromkeys(others, "default-scheduler")


def _binders(api: client.ApiClient, pods: dict[str, str]) -> dict[str, str]:
    """Pod -> the profile whose event says that it was scheduled; events come a moment later."""
    deadline = time.monotonic() + 10.0
    while True:
        events = access.request(api, "GET", "/apis/events.k8s.io/v1/namespaces/default/events")["items"]
        found = {
            pods[each["regarding"]["uid"]]: each["reportingController"]
            for each in events
            if each["reason"] == "Scheduled" and each["regarding"]["uid"] in pods
        }
        if len(found) == len(pods) or time.monotonic() > deadline:
            return found
        time.sleep(0.2)


def test_rights_are_what_is_used_and_no_more(running: Running) -> None:
    """The audit log of the API server against the rules that the chart made."""
    installation, extender, _ = running
    with Binds(installation.api) as binds:
        create(installation.api, [pod(f"{installation.mode}-only", scheduler=PROFILE)])
        binds.wait([f"{installation.mode}-only"])
    rules = access.request(installation.api, "GET", f"{RBAC}/clusterroles/{CLUSTER_NAME}-extender")["rules"]
    wanted = granted(rules) - {Right("", "nodes/stats", "get")}  # kubelets look at it, and no node here has one
    deadline = time.monotonic() + 20.0
    while (missing := wanted - installation.plane.used(installation.extender_account)) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert not missing, "granted, and never used"
    if installation.mode == SERVICE:
        assert installation.plane.used(installation.extender_account) == wanted
        assert not installation.plane.refused(installation.extender_account)
    assert not installation.plane.refused(installation.scheduler_account)
    assert extender.metric("maddpg_synced") == 1.0


def test_calls_over_the_network_need_a_certificate_which_upgrades_keep(running: Running, home: Path) -> None:
    installation, extender, _ = running
    if installation.mode == SIDECAR:
        assert extender.url.startswith("http://")
        assert not [each for each in installation.own_objects() if each.startswith("secrets/") and "tls" in each]
        return
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with pytest.raises(OSError):  # noqa: PT011 - an alert or a reset, as TCP has it
        urllib.request.urlopen(f"{extender.url}/filter", timeout=5, context=context)

    def certificates() -> dict[str, dict[str, str]]:
        names = (f"{RELEASE}-extender-tls", f"{RELEASE}-client-tls")
        path = f"/api/v1/namespaces/{NAMESPACE}/secrets"
        return {name: access.request(installation.api, "GET", f"{path}/{name}")["data"] for name in names}

    before = certificates()
    installation.helm("upgrade", RELEASE, str(CHART), "--reuse-values")
    assert certificates() == before


def test_extender_process_answers_what_helm_test_asks(running: Running, home: Path, tmp_path: Path) -> None:
    """KWOK runs no container, so the hook's very command is run here, on the addresses of this machine."""
    installation, extender, _ = running
    secured = installation.mode == SERVICE
    values = {"extender": {"mode": installation.mode}, "tls": {"operations": secured}}
    hook = template(home, values).one("Pod", f"{RELEASE}-test")
    (container,) = hook["spec"]["containers"]
    script, *urls = container["args"]
    here = [extender.operations]
    if secured:
        folder = installation.deployed.certificates("kube-scheduler", tmp_path)
        here += [f"https://localhost:{extender.port}", str(folder)]
    assert [url.partition("://")[0] for url in urls[:-1]] == [url.partition("://")[0] for url in here[:-1]]
    assert len(urls) == len(here)

    def ask(*addresses: str) -> "subprocess.CompletedProcess[str]":
        command = [sys.executable, *container["command"][1:], script, *addresses]
        return subprocess.run(command, capture_output=True, text=True)

    assert ask(*here).stdout.startswith("ready")
    assert ask("http://127.0.0.1:1").returncode != 0


def test_pods_that_fit_nowhere_are_counted_while_they_wait(running: Running) -> None:
    installation, extender, _ = running
    huge = [pod(f"{installation.mode}-huge-{number}", cpu="1000", scheduler=PROFILE) for number in range(2)]
    create(installation.api, [*huge, pod(f"{installation.mode}-huge-other", cpu="1000")])

    def waiting() -> float | None:
        try:
            return extender.metric('maddpg_pending_pods{rated="nowhere"}')
        except LookupError:  # signals come every few seconds, and it has just started
            return None

    def wait_for(count: float) -> None:
        deadline = time.monotonic() + 20.0
        while (found := waiting()) != count:
            assert time.monotonic() < deadline, found
            time.sleep(0.2)

    wait_for(2)
    assert extender.metric('maddpg_pending_requests{rated="nowhere",resource="cpu",unit="core"}') == 2000.0
    for each in huge:
        name = each["metadata"]["name"]
        access.request(installation.api, "DELETE", f"/api/v1/namespaces/default/pods/{name}?gracePeriodSeconds=0")
    wait_for(0)


def test_operations_port_speaks_only_tls_where_that_is_asked_for(running: Running) -> None:
    installation, extender, _ = running
    assert extender.operations.startswith("http://" if installation.mode == SIDECAR else "https://")
    assert extender.get("/readyz") == (200, {"ready": True, "reasons": []})
    if installation.mode == SIDECAR:
        return
    plain = extender.operations.replace("https://", "http://")
    with pytest.raises(OSError):  # noqa: PT011 - closed or reset, as TCP has it
        urllib.request.urlopen(f"{plain}/metrics", timeout=5)
    with pytest.raises(urllib.error.URLError, match="CERTIFICATE_VERIFY_FAILED"):
        urllib.request.urlopen(f"{extender.operations}/metrics", timeout=5, context=ssl.create_default_context())
    assert extender.metric('maddpg_tls_expiry_timestamp_seconds{file="certificate"}') > time.time()


def test_metrics_of_the_scheduler_are_for_those_with_a_right_to_them(
    running: Running,
) -> None:
    installation, _, _ = running
    context = ssl.create_default_context(cafile=installation.plane.endpoint.authority)
    url = f"{installation.deployed.scheduler_url}/metrics"

    def status(token: str | None) -> int:
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        try:
            with urllib.request.urlopen(urllib.request.Request(url, None, headers), context=context) as answer:
                return int(answer.status)
        except urllib.error.HTTPError as error:
            return error.code

    reader = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "reader", "namespace": NAMESPACE}}
    role = {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRole",
        "metadata": {"name": "reader"},
        "rules": [{"nonResourceURLs": ["/metrics"], "verbs": ["get"]}],
    }
    binding = {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRoleBinding",
        "metadata": {"name": "reader"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "reader"},
        "subjects": [{"kind": "ServiceAccount", "name": "reader", "namespace": NAMESPACE}],
    }
    access.apply(installation.api, [reader, role, binding])
    try:
        assert status(None) == 403
        assert status(access.service_account_token(installation.api, NAMESPACE, installation.scheduler_account)) == 403
        assert status(access.service_account_token(installation.api, NAMESPACE, "reader")) == 200
    finally:
        access.delete(installation.api, [reader, role, binding])
