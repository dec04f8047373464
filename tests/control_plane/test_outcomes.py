"""What became of a pod, as a real API server and a real kube-scheduler tell it to those who watch."""

from collections.abc import Callable

from extender.history.ledger import Decision, Ledger
from tests.control_plane.access import Manifest, request
from tests.control_plane.cluster import ControlPlane
from tests.control_plane.scheduler import kube_scheduler, plain_configuration
from tests.control_plane.test_source import finish, following, placed, remove
from tests.control_plane.workload import create, create_nodes, node, pod
from tests.extender.cluster.following import Following, eventually
from tests.extender.history.samples import a_decision

PODS = "/api/v1/namespaces/default/pods"


def remembered(cluster: ControlPlane, source: Following, names: list[str]) -> tuple[Ledger, dict[str, str]]:
    """A ledger that follows the source and has a decision about each of these pods; and their UIDs by name."""
    uids = {name: str(request(cluster.api, "GET", f"{PODS}/{name}")["metadata"]["uid"]) for name in names}
    ledger = Ledger(100, row_of=lambda name: -1)
    for name in names:
        ledger.record(a_decision(uids[name], at=0.0))
    source.see(lambda table: table.listeners.subscribe(ledger))
    return ledger, uids


def state_of(ledger: Ledger, uid: str) -> Callable[[], str]:
    def state() -> str:
        decision: Decision | None = ledger.get(uid)
        return decision.outcome.state if decision is not None and decision.outcome is not None else "waiting"

    return state


def test_how_pods_end_is_seen_although_they_hold_nothing_any_more(cluster: ControlPlane) -> None:
    names = ["succeeds", "fails", "killed", "deleted", "drained"]
    create_nodes(cluster.api, [node("node-0")])
    create(cluster.api, [placed(name, "node-0") for name in names])
    with following(cluster) as source:
        ledger, uids = remembered(cluster, source, names)
        finish(cluster, "succeeds", "Succeeded")
        finish(cluster, "fails", "Failed")
        state = {"terminated": {"exitCode": 137, "reason": "OOMKilled", "finishedAt": "2026-01-01T00:00:00Z"}}
        container = {"name": "main", "image": "fake", "imageID": "", "ready": False, "restartCount": 2}
        body = {"status": {"phase": "Failed", "containerStatuses": [{**container, "state": state, "lastState": {}}]}}
        request(cluster.api, "PATCH", f"{PODS}/killed/status", body, "application/strategic-merge-patch+json")
        remove(cluster, f"{PODS}/deleted")
        eviction: Manifest = {
            "apiVersion": "policy/v1",
            "kind": "Eviction",
            "metadata": {"name": "drained", "namespace": "default"},
        }
        request(cluster.api, "POST", f"{PODS}/drained/eviction", eviction)
        ends = {
            "succeeds": "succeeded",
            "fails": "failed",
            "killed": "failed",
            "deleted": "deleted",
            "drained": "evicted",
        }
        for name, end in ends.items():
            state_now = state_of(ledger, uids[name])
            eventually(lambda state_now=state_now, end=end: state_now() == end, f"{name} {end}", 20.0)
        killed = ledger.get(uids["killed"])
        assert killed is not None
        assert killed.outcome is not None
        assert (killed.outcome.oom_killed, killed.outcome.restarts) == (True, 2)


def test_what_kube_scheduler_cannot_place_and_what_it_preempts_is_told_in_its_words(
    cluster: ControlPlane,
) -> None:
    create_nodes(cluster.api, [node("node-0", cpu="2")])
    create(cluster.api, [placed("victim", "node-0", cpu_m=1900), pod("large", cpu="8")])
    request(
        cluster.api,
        "POST",
        "/apis/scheduling.k8s.io/v1/priorityclasses",
        {"apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass", "metadata": {"name": "urgent"}, "value": 1000},
    )
    with following(cluster) as source:
        ledger, uids = remembered(cluster, source, ["victim", "large"])
        with kube_scheduler(cluster, plain_configuration()):
            eventually(lambda: state_of(ledger, uids["large"])() == "unschedulable", "unschedulable", 20.0)
            large = ledger.get(uids["large"])
            assert large is not None
            assert large.outcome is not None
            assert "Insufficient cpu" in (large.outcome.message or "")
            create(cluster.api, [pod("urgent", cpu="1", priority_class="urgent")])
            eventually(lambda: state_of(ledger, uids["victim"])() == "preempted", "preempted", 30.0)
