"""What nodes and pods mean, told from their JSON."""

import math
import time
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from extender.benchmark import Measured
from extender.cluster.assumption import AssumedPlacements
from extender.cluster.backlog import WaitingPods
from extender.cluster.benchmarks import Benchmarks
from extender.cluster.completed import CompletedPods, Completion
from extender.cluster.cpu_times import CpuTimes
from extender.cluster.decoding import Node, WatchedPod, decode_node, decode_pod, observed_pod
from extender.cluster.estimation import NodeSpeeds
from extender.cluster.machines import SpeedRules, declared_speed
from extender.cluster.receivers import Findings, NodeChanges, PodChanges, WaitingRules, bound_since, is_ready
from extender.cluster.status import ReadReport
from extender.cluster.table import ClusterTable
from extender.workloads import CronRun
from policy.cluster import PodDemand
from policy.urgency import UrgencyRules
from tests.extender.cluster import following
from tests.extender.cluster.jobs import completed

KEY = "maddpg-scheduler.io/speed"
TYPE = "node.kubernetes.io/instance-type"


def a_node(**metadata: Any) -> Node:
    return decode_node(msgspec.Raw(msgspec.json.encode(following.node("n", **metadata))))


def a_pod(content: dict[str, Any]) -> WatchedPod:
    return decode_pod(msgspec.Raw(msgspec.json.encode(content)))


@pytest.mark.parametrize(
    ("labels", "annotations", "speed", "source"),
    [
        pytest.param({}, {}, 1.0, "default", id="reference"),
        pytest.param({KEY: "1.5"}, {}, 1.5, "label", id="label"),
        pytest.param({KEY: "1.5"}, {KEY: "0.75"}, 0.75, "annotation", id="annotation-wins"),
        pytest.param({TYPE: "fast"}, {}, 2.0, "setting", id="instance-type"),
        pytest.param({TYPE: "fast", KEY: "1.5"}, {}, 1.5, "label", id="label-before-instance-type"),
        pytest.param({TYPE: "unheard-of"}, {}, 1.0, "default", id="unknown-instance-type"),
        pytest.param({TYPE: "n4-standard-8"}, {}, 22207 / 17321, "published", id="published"),
    ],
)
def test_speed_comes_from_annotation_label_or_instance_type(
    labels: dict[str, str], annotations: dict[str, str], speed: float, source: str
) -> None:
    rules = SpeedRules(KEY, {"fast": 2.0}, published=True)
    found = declared_speed(a_node(labels=labels, annotations=annotations), rules)
    assert found == (pytest.approx(speed), source, None)


@pytest.mark.parametrize("text", ["1_0", "\uff12", "fast", "", "0", "-1", "nan", "inf", "1.5GHz", "11", "1e9", "0.01"])
def test_a_speed_that_is_none_is_ignored_with_a_warning(text: str) -> None:
    bad = a_node(labels={TYPE: "fast"}, annotations={KEY: text})
    speed, source, warning = declared_speed(bad, SpeedRules(KEY, {"fast": 2.0}))
    assert (speed, source) == (2.0, "setting")
    assert warning is not None
    assert KEY in warning


def test_below_the_restricted_prefix_the_label_alone_gives_the_speed() -> None:
    """NodeRestriction keeps a kubelet from setting such a label on its own node, and not from annotating it."""
    rules = SpeedRules("node-restriction.kubernetes.io/speed", {})
    annotated = a_node(annotations={rules.key: "4"})
    assert declared_speed(annotated, rules) == (1.0, "default", None)
    both = a_node(labels={rules.key: "1.5"}, annotations={rules.key: "4"})
    assert declared_speed(both, rules) == (1.5, "label", None)


@pytest.mark.parametrize(
    ("status", "cordoned", "ready"),
    [
        pytest.param("True", None, True, id="ready"),
        pytest.param("True", True, False, id="cordoned"),
        pytest.param("False", None, False, id="not-ready"),
        pytest.param("Unknown", None, False, id="lost"),
        pytest.param(None, None, False, id="says-nothing"),
    ],
)
def test_a_node_is_ready_if_it_says_so_and_nobody_cordoned_it(
    status: str | None, cordoned: bool | None, ready: bool
) -> None:
    conditions = [{"type": "MemoryPressure", "status": "True"}, {"type": "Ready", "status": status or "True"}]
    content = {
        "metadata": {"name": "n"},
        "spec": {"unschedulable": cordoned},
        "status": {"conditions": conditions[: 2 if status else 1]},
    }
    assert is_ready(decode_node(msgspec.Raw(msgspec.json.encode(content)))) is ready


def scheduled(status: str = "True", at: str | None = "2026-01-01T00:01:00Z") -> list[dict[str, Any]]:
    return [{"type": "PodScheduled", "status": status, "lastTransitionTime": at}]


NEW_YEAR = 1767225600.0


@pytest.mark.parametrize(
    ("conditions", "created", "since"),
    [
        pytest.param(scheduled(), "2026-01-01T00:00:00Z", NEW_YEAR + 60.0, id="scheduled"),
        pytest.param(None, "2026-01-01T00:00:00Z", NEW_YEAR, id="static-pod"),
        pytest.param(scheduled("False"), "2026-01-01T00:00:00Z", NEW_YEAR, id="was-unschedulable"),
        pytest.param(scheduled(at="soon"), "2026-01-01T00:00:00Z", NEW_YEAR, id="garbage"),
        pytest.param(scheduled(at=None), None, None, id="says-nothing"),
    ],
)
def test_a_pod_is_bound_since_its_condition_says_so(
    conditions: list[dict[str, Any]] | None, created: str | None, since: float | None
) -> None:
    content = following.pod("p", on="n", conditions=conditions)
    content["metadata"]["creationTimestamp"] = created
    assert bound_since(a_pod(content)) == since


def test_cpu_and_memory_are_cores_and_gib() -> None:
    table = ClusterTable()
    NodeChanges(table, lambda change: change(), SpeedRules()).present(a_node())
    changes = PodChanges(table, lambda change: change())
    changes.present(a_pod(following.pod("p", on="n", cpu="250m", memory="512Mi")))
    row = table.rows_of(["n"])[0]
    assert (table.state.cpu_allocatable[row], table.state.memory_allocatable[row]) == (4.0, 16.0)
    assert (table.state.cpu_requested[row], table.state.memory_requested[row]) == (0.25, 0.5)


def test_a_resize_is_followed_from_the_wish_to_its_end() -> None:
    """One that no node can do counts for nothing: otherwise a pod's owner could fill its node by asking."""
    table = ClusterTable()
    NodeChanges(table, lambda change: change(), SpeedRules()).present(a_node())
    changes, row = PodChanges(table, lambda change: change()), table.rows_of(["n"])[0]

    def cores(wanted: str, actual: str, reason: str | None) -> float:
        content = following.pod("p", on="n", cpu=wanted, memory="512Mi")
        content["spec"]["containers"][0]["name"] = "c"
        told = {"name": "c", "restartCount": 0, "allocatedResources": {"cpu": actual}}
        content["status"]["containerStatuses"] = [told | {"resources": {"requests": {"cpu": actual}}}]
        if reason is not None:
            content["status"]["conditions"] = [{"type": "PodResizePending", "status": "True", "reason": reason}]
        changes.present(a_pod(content))
        return float(table.state.cpu_requested[row])

    assert cores("1", "1", None) == 1.0
    assert cores("900000", "1", "Infeasible") == 1.0
    assert cores("3", "1", "Deferred") == 3.0
    assert cores("500m", "3", None) == 3.0
    assert cores("500m", "500m", None) == 0.5


def test_requests_that_do_not_parse_leave_the_pod_out_and_are_counted() -> None:
    table = ClusterTable()
    changes = PodChanges(table, lambda change: change())
    changes.present(a_pod(following.pod("p", on="n", cpu="much")))
    assert table.pod_count == 0
    assert changes.ignored == 1


def test_an_ended_pod_is_never_counted_even_if_a_server_ignores_the_selector() -> None:
    table = ClusterTable()
    NodeChanges(table, lambda change: change(), SpeedRules()).present(a_node())
    PodChanges(table, lambda change: change()).present(a_pod(following.pod("p", on="n", phase="Succeeded")))
    assert table.pod_count == 0
    assert math.isclose(table.state.cpu_requested.sum(), 0.0)


WAITING = WaitingRules("ours", UrgencyRules({}, {"Guaranteed": 0.75, "Burstable": 0.5, "BestEffort": 0.0}))
GATED = [{"type": "PodScheduled", "status": "False", "reason": "SchedulingGated"}]
UNSCHEDULABLE = [{"type": "PodScheduled", "status": "False", "reason": "Unschedulable"}]


@pytest.mark.parametrize(
    ("scheduler", "changed", "waits"),
    [
        pytest.param("ours", {}, True, id="nobody has looked at it"),
        pytest.param("ours", {"conditions": UNSCHEDULABLE}, True, id="it fits nowhere"),
        pytest.param("ours", {"conditions": GATED}, False, id="a gate keeps it"),
        pytest.param("ours", {"on": "n"}, False, id="bound"),
        pytest.param("ours", {"phase": "Failed"}, False, id="ended"),
        pytest.param("ours", {"cpu": "much"}, False, id="asks for nonsense"),
        pytest.param("default-scheduler", {}, False, id="another scheduler's"),
        pytest.param(None, {}, False, id="says nothing"),
    ],
)
def test_unbound_pods_of_our_scheduler_wait(scheduler: str | None, changed: dict[str, Any], waits: bool) -> None:
    table = ClusterTable()
    changes = PodChanges(table, lambda change: change(), WAITING)
    content = following.pod("p", **{"on": None, "cpu": "250m", "memory": "512Mi", **changed})
    content["spec"]["schedulerName"] = scheduler
    content["status"]["qosClass"] = "Guaranteed"
    changes.present(a_pod(content))
    assert table.waiting_classes() == ({PodDemand(0.25, 0.5, 0.75): 1} if waits else {})
    changes.absent(a_pod(content))
    assert table.waiting_classes() == {}


def test_pods_that_wait_are_forgotten_when_a_list_leaves_them_out_or_they_change() -> None:
    table = ClusterTable()
    changes = PodChanges(table, lambda change: change(), WAITING)
    for uid, cpu in (("p", "1"), ("q", "1"), ("q", "2")):
        content = following.pod(uid, on=None, cpu=cpu, memory="1Gi")
        content["spec"]["schedulerName"] = "ours"
        content["status"]["qosClass"] = "Burstable"
        changes.present(a_pod(content))
    assert table.waiting_classes() == {PodDemand(1.0, 1.0, 0.5): 1, PodDemand(2.0, 1.0, 0.5): 1}
    changes.complete({a_pod(content).metadata.uid})
    assert table.waiting_classes() == {PodDemand(2.0, 1.0, 0.5): 1}


def test_waiting_pods_are_counted_without_a_look_at_every_assumed_one() -> None:
    class Uid(str):
        looked_at = 0

        def __hash__(self) -> int:
            Uid.looked_at += 1
            return super().__hash__()

    waiting, assumed = WaitingPods(), AssumedPlacements(60.0)
    demands = PodDemand(0.5, 1.0, 0.5), PodDemand(1.0, 2.0, 0.5)
    for uid, demand in zip("abc", (*demands, demands[0]), strict=True):
        waiting.add(uid, demand)
    for uid in (*map(Uid, range(1000)), "a", "b"):
        assumed.add(uid, "node-0", 0.0)
    Uid.looked_at = 0
    assert waiting.classes(without=assumed.uids()) == {demands[0]: 1}
    assert waiting.classes() == {demands[0]: 2, demands[1]: 1}
    assert Uid.looked_at == 0


def test_listeners_hear_what_a_pod_reports_before_they_hear_of_its_end() -> None:
    heard: list[tuple[str, ...]] = []

    class Heard:
        def pod_bound(self, uid: str, node: str, at: float) -> None:
            heard.append(("bound", uid, node))

        def pod_removed(self, uid: str, reason: str, at: float) -> None:
            heard.append(("removed", uid, reason))

        def pod_reported(self, uid: str, read: ReadReport) -> None:
            heard.append(("reported", uid, read().phase))

        def assumption_expired(self, uid: str, node: str, at: float) -> None:
            raise AssertionError("nothing was assumed")

    table = ClusterTable()
    table.listeners.subscribe(Heard())
    changes = PodChanges(table, lambda change: change())
    unplaced = following.pod("p", on=None)
    unplaced["status"] = {"phase": "Pending", "conditions": [{"type": "PodScheduled", "status": "False"}]}
    changes.present(a_pod(unplaced))
    changes.present(a_pod(following.pod("p", on="n", phase="Running")))
    changes.present(a_pod(following.pod("p", on="n", phase="Succeeded")))
    changes.absent(a_pod(following.pod("q", on="n", phase="Running")))
    assert heard == [
        ("reported", "p", "Pending"),
        ("bound", "p", "n"),
        ("reported", "p", "Running"),
        ("reported", "p", "Succeeded"),
        ("removed", "p", "succeeded"),
        ("reported", "q", "Running"),
        ("removed", "q", "deleted"),
    ]


def test_an_assumed_placement_ends_with_the_next_fact_against_it() -> None:
    """Gangs and preemptions ask for placements that are never made (GenericWorkload)."""
    table = ClusterTable()
    for name in ("n", "m"):
        table.upsert_node(name, 4.0, 16.0)
    changes, rows = PodChanges(table, lambda change: change(), WAITING), table.rows_of(["n", "m"])

    def seen(**status: Any) -> list[float]:
        content = following.pod("p", on=None, cpu="1", memory="1Gi")
        content["spec"]["schedulerName"] = "ours"
        deleted = status.pop("deleted", None)
        content["metadata"]["deletionTimestamp"] = deleted
        content["status"] |= status
        changes.present(a_pod(content))
        return [float(each) for each in table.state.cpu_requested[rows]]

    uid = a_pod(following.pod("p", on=None)).metadata.uid
    failed = [{"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "pod group"}]
    table.assume(uid, "n", 1.0, 1.0)
    assert seen() == [1.0, 0.0], "it was created: that is no news"
    assert seen(conditions=failed) == [0.0, 0.0]
    table.assume(uid, "n", 1.0, 1.0)
    assert seen(conditions=failed) == [1.0, 0.0], "what was said of the attempt before"
    assert seen(conditions=failed, nominatedNodeName="m") == [0.0, 1.0], "it is expected there"
    assert seen(conditions=[failed[0] | {"message": "preemption"}], nominatedNodeName="n") == [0.0, 0.0]
    table.assume(uid, "n", 1.0, 1.0)
    assert seen(conditions=failed, deleted="2026-01-01T00:00:00Z") == [0.0, 0.0]


@pytest.mark.parametrize("decode", [decode_pod, observed_pod], ids=["serving", "observing"])
def test_a_pod_that_succeeded_is_taken_for_a_completion(decode: Callable[[msgspec.Raw], WatchedPod]) -> None:
    told: list[Completion] = []
    completions = CompletedPods(CpuTimes(), told.append)
    changes = PodChanges(ClusterTable(), lambda change: change(), completed=completions)
    shown = completed("u", "node-a", 1_767_225_600.0, 100.0)
    changes.present(decode(msgspec.Raw(msgspec.json.encode(shown))))
    assert [(it.node, it.run_s) for it in told] == [("node-a", 100.0)]


class Learning:
    """A table that learns from pods, and what is learned of its nodes."""

    def __init__(self) -> None:
        self.table = ClusterTable()
        self.speeds = NodeSpeeds(self.table, refused="no CPU times")
        found = Findings(self.table, _at_once, self.speeds)
        self.nodes = NodeChanges(self.table, _at_once, SpeedRules(KEY), self.speeds)
        ended = CompletedPods(None, found.completed)
        measured = Benchmarks("maddpg/benchmark", found.probed)
        self.pods = PodChanges(self.table, _at_once, completed=ended, benchmarks=measured)


def _at_once(change: Callable[[], object]) -> None:
    change()


def test_pods_that_have_ended_tell_how_long_their_template_runs_at_the_speed_of_its_nodes() -> None:
    learning = Learning()
    learning.nodes.present(a_node(labels={KEY: "0.5"}))
    shown = [a_pod(completed(f"u{number}", node, 1e9, 100.0)) for number, node in enumerate(("n", "n", "gone"))]
    for pod in (*shown, *shown):
        learning.pods.present(pod)
    expected = learning.table.workloads.expected_s(shown[0])
    assert expected is not None
    assert (expected.seconds, expected.runs) == (pytest.approx(50.0), 3)


def test_pods_of_former_jobs_tell_the_period_of_their_cronjob() -> None:
    learning, now = Learning(), int(time.time() // 60)
    for number, minute in enumerate((now - 20, now - 10)):
        content = completed(f"u{number}", "n", 1e9, 100.0)
        content["metadata"]["ownerReferences"][0]["name"] = f"backup-{minute}"
        learning.pods.present(a_pod(content))
    assert learning.table.workloads.period_s(CronRun("default", "backup", now)) == 600.0


@pytest.mark.parametrize("order", ["node first", "pod first"])
def test_a_benchmark_gives_its_node_a_speed_unless_an_operator_does(order: str) -> None:
    learning = Learning()
    ended = {"exitCode": 0, "finishedAt": "2026-01-01T00:00:00Z", "message": Measured(1.5, 0.01, {}, 9).line()}
    pod = a_pod(
        {
            "metadata": {
                "name": "b", "uid": "b", "namespace": "maddpg",
                "ownerReferences": [{"kind": "DaemonSet", "name": "benchmark", "controller": True}],
            },
            "spec": {"nodeName": "n", "serviceAccountName": "benchmark", "containers": [{}]},
            "status": {"initContainerStatuses": [{"state": {"terminated": ended}}]},
        }
    )  # fmt: skip
    steps = [lambda: learning.nodes.present(a_node()), lambda: learning.pods.present(pod)]
    for step in steps if order == "node first" else reversed(steps):
        step()
    row = learning.table.row_of("n")
    assert (learning.table.state.node_speed[row], learning.table.basis_of("n").source) == (1.5, "probe")
    learning.nodes.present(a_node(labels={KEY: "0.5"}))
    assert (learning.table.state.node_speed[row], learning.table.basis_of("n").source) == (0.5, "label")
