"""A user's whole story on a real cluster, in order: install, schedule, lose a replica, upgrade, roll back, uninstall.

Each test goes on from the one before; the first that fails makes those after it fail too.
"""

import json
import time
from collections.abc import Iterator

import pytest

from tests.chart.helm import CHART, NAMESPACE, RELEASE
from tests.kind.cluster import Cluster, wait_until
from tests.kind.release import Release, make_workload, running, waited_s, workload

LOAD_S = 30.0
"""How long pods come and go while a replica is killed."""
BATCH = 10
LONGEST_WAIT_S = 5
"""From creation to a node: one unanswered call costs `httpTimeout`, 1 s, and the API's times are whole seconds."""

PLAIN_CALL = """
import ssl, sys, urllib.request, urllib.error
url = {url!r}
anyone = ssl.create_default_context(); anyone.check_hostname = False; anyone.verify_mode = ssl.CERT_NONE
for call, context in ((url.replace('https', 'http'), None), (url, anyone)):
    try:
        urllib.request.urlopen(urllib.request.Request(call + '/prioritize', b'{{}}'), timeout=5, context=context)
    except urllib.error.HTTPError as error:
        print('answered', error.code)
    except OSError as error:
        print('refused', error)
    else:
        print('answered')
"""


@pytest.fixture(scope="module")
def release(cluster: Cluster, image_name: str) -> Iterator[Release]:
    """The chart as it is installed for a first try, with its extender behind a Service."""
    made = Release(cluster, image_name)
    made.install()
    yield made
    if RELEASE in made.helm("list", "--short"):
        made.helm("uninstall", RELEASE, "--wait", "--timeout", "120s")
    cluster.kubectl("delete", "namespace", NAMESPACE, "--wait", "--timeout=60s")


def test_install_starts_two_extenders_and_two_schedulers_on_different_workers(release: Release) -> None:
    for component in ("extender", "scheduler"):
        pods = release.ready(component)
        assert {each["spec"]["nodeName"] for each in pods} == set(release.cluster.workers), component


def test_extender_runs_from_the_built_image_as_a_user_without_rights(release: Release, image_name: str) -> None:
    for pod in release.ready("extender"):
        (status,) = pod["status"]["containerStatuses"]
        assert status["image"].endswith(image_name)
        try_to_write = "import os; print(os.getuid()); open('/etc/written', 'w')"
        with pytest.raises(Exception, match="Read-only file system"):
            release.python(pod, try_to_write)
        assert release.python(pod, "import os; print(os.getuid())").strip() == "65532"


def test_helm_test_passes(release: Release) -> None:
    said = release.helm("test", RELEASE, "--timeout", "120s")
    assert "Phase:          Succeeded" in said or "Phase: Succeeded" in said, said


def test_scheduler_calls_over_mutual_tls_and_nobody_else_is_let_in(release: Release) -> None:
    (told,) = release.scheduler_configuration()["extenders"]
    assert told["urlPrefix"].startswith("https://")
    assert {"caFile", "certFile", "keyFile"} <= told["tlsConfig"].keys()
    caller = release.ready("extender")[0]
    said = release.python(caller, PLAIN_CALL.format(url=told["urlPrefix"])).splitlines()
    assert len(said) == 2
    assert all(line.startswith("refused") for line in said), said


def test_workload_is_placed_by_the_policy(release: Release) -> None:
    with workload(release.cluster, "placed-by-policy", 6) as pods:
        records = release.decided()
        for pod in pods:
            record = records[pod["metadata"]["uid"]]
            assert record["fallback_reason"] is None
            assert pod["spec"]["nodeName"] in release.cluster.workers
        agreed = sum(records[pod["metadata"]["uid"]]["assumed"] == pod["spec"]["nodeName"] for pod in pods)
        print(f"{agreed} of {len(pods)} pods went to the node that was rated best")
        assert agreed == len(pods), "no in-tree score that stays on tells these nodes apart"


def test_any_replica_explains_every_decision(release: Release) -> None:
    asked, other = release.ready("extender")
    with workload(release.cluster, "explained", 4) as pods:
        for pod in pods:
            uid = pod["metadata"]["uid"]
            told = [release.ask(each, f"/v1/decisions/{uid}") for each in (asked, other)]
            assert [each["pod"]["uid"] for each in told] == [uid, uid]
            assert told[0]["at"] == told[1]["at"], "the same decision"
        listed = release.ask(asked, "/v1/decisions?limit=1000")
        assert (len(listed["replicas"]), listed["silent"]) == (2, {})
        assert {pod["metadata"]["uid"] for pod in pods} <= {each["pod"]["uid"] for each in listed["decisions"]}


def test_a_replica_that_is_killed_is_named(release: Release) -> None:
    if release.cluster.engine is None:
        pytest.skip("to kill a replica from outside needs the engine that runs the nodes")
    asked, killed = release.ready("extender")
    address = killed["status"]["podIP"]
    # a pod that is deleted leaves DNS before it ends, so that nobody asks it any more
    release.cluster.kill(killed)
    wait_until(
        lambda: address in release.ask(asked, "/v1/decisions?limit=1")["silent"], f"{address} is named", 30.0, 0.1
    )
    wait_until(lambda: len(release.ask(asked, "/v1/decisions?limit=1")["replicas"]) == 2, "its successor answers", 90.0)


@pytest.mark.timeout(LOAD_S + 180)
def test_replica_that_is_killed_under_load_loses_no_pod(release: Release) -> None:
    cluster = release.cluster
    killed: list[str] = []
    waits: list[float] = []
    began = time.monotonic()
    while time.monotonic() - began < LOAD_S:
        name = f"under-load-{len(waits)}"
        make_workload(cluster, name, BATCH)
        if len(killed) < (time.monotonic() - began) / 10.0:
            victim = release.ready("extender")[0]["metadata"]["name"]
            options = [f"--namespace={NAMESPACE}", "--grace-period=0", "--force", "--wait=false"]
            cluster.kubectl("delete", "pod", victim, *options)
            killed.append(victim)
        waits += [waited_s(pod) for pod in running(cluster, name, BATCH, 60.0)]
        cluster.kubectl("delete", "deployment", name, "--wait=false")
    print(f"{len(waits)} pods ran while {len(killed)} replicas were killed; the longest wait was {max(waits):.0f} s")
    assert killed
    assert max(waits) <= LONGEST_WAIT_S
    wait_until(lambda: len(release.ready("extender")) == 2, "two extenders again")


def test_upgrade_and_rollback_replace_the_pods_and_go_on_scheduling(release: Release) -> None:
    def weight() -> int:
        return int(release.scheduler_configuration()["extenders"][0]["weight"])

    before = {each["metadata"]["uid"] for each in release.ready("extender")}
    changed = ["--set", "scheduler.extender.weight=3", "--set", "extender.settings.deadline_ms=20"]
    waiting = ["--wait", "--timeout", "180s"]
    release.helm("upgrade", RELEASE, str(CHART), "--reuse-values", *changed, *waiting)
    assert weight() == 3
    assert not before & {each["metadata"]["uid"] for each in release.pods("extender")}
    release.settle()
    with workload(release.cluster, "after-upgrade", 2) as pods:
        assert {each["metadata"]["uid"] for each in pods} <= release.decided().keys()
    release.helm("rollback", RELEASE, "1", *waiting)
    assert weight() == 10
    release.settle()
    with workload(release.cluster, "after-rollback", 2) as pods:
        assert {each["metadata"]["uid"] for each in pods} <= release.decided().keys()


def test_uninstall_leaves_no_pod_unschedulable(release: Release) -> None:
    cluster = release.cluster
    with workload(cluster, "stays", 3) as placed:
        release.helm("uninstall", RELEASE, "--wait", "--timeout", "120s")
        kinds = "deployments,replicasets,pods,services,secrets,networkpolicies,poddisruptionbudgets,roles,rolebindings"
        selected = f"--selector=app.kubernetes.io/instance={RELEASE}"
        for scope in ((kinds, f"--namespace={NAMESPACE}"), ("clusterroles,clusterrolebindings",)):
            wait_until(lambda scope=scope: not cluster.get(*scope, selected)["items"], f"no {scope[0]}", 60.0)  # type: ignore[misc]
        still = running(cluster, "stays", 3)
        assert {each["metadata"]["uid"] for each in still} == {each["metadata"]["uid"] for each in placed}
        # what docs/upgrade.md says to do with what still names the profile
        make_workload(cluster, "stays", 4, schedulerName="default-scheduler")
        wait_until(
            lambda: {each["spec"]["schedulerName"] for each in running(cluster, "stays", 4)} == {"default-scheduler"},
            "every pod is made again without the profile",
        )
        pending = cluster.get("pods", "--all-namespaces", "--field-selector=status.phase=Pending")["items"]
        assert not pending, json.dumps([each["metadata"]["name"] for each in pending])
