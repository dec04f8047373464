"""What became of a pod, told from the JSON that the API server shows of it."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import httpx
import msgspec
import pytest

from extender.cluster.decoding import WatchedPod, decode_pod
from extender.cluster.receivers import PodChanges
from extender.cluster.source import Binding
from extender.cluster.status import ending, report_of
from extender.cluster.table import ClusterTable
from extender.errors import BindError
from extender.history.ledger import Ledger
from extender.history.outcomes import Outcome, removed
from extender.pods import Pod
from extender.templates import template_of
from tests.extender.cluster import following
from tests.extender.embedded import EmbeddedSource
from tests.extender.service import Service, pod

Run = Callable[..., Service]
NEW_YEAR = 1767225600.0
EXPECTED = "maddpg-scheduler.io/expected-seconds"


def watched(
    phase: str = "Running",
    on: str | None = "node-0",
    annotations: dict[str, str] | None = None,
    deleted: bool = False,
    **status: Any,
) -> WatchedPod:
    """A pod of UID uid-web, as the watch shows it."""
    content = following.pod("uid-web", on=on, phase=phase, **status)
    content["metadata"]["annotations"] = annotations
    if deleted:
        content["metadata"]["deletionTimestamp"] = "2026-01-01T00:10:00Z"
    return decode_pod(msgspec.Raw(msgspec.json.encode(content)))


def container(ended: str | None = None, reason: str = "Completed", restarts: int = 0, last: str | None = None) -> Any:
    """One container status; `ended`: when, within the first hour of 2026."""
    state = {"terminated": {"reason": reason, "finishedAt": f"2026-01-01T00:{ended}Z"}} if ended else {"running": {}}
    return {
        "restartCount": restarts,
        "state": state,
        "lastState": {"terminated": {"reason": last, "exitCode": 137}} if last else {},
    }


def told(kind: str, status: str, reason: str, message: str = "") -> dict[str, str]:
    return {"type": kind, "status": status, "reason": reason, "message": message}


@pytest.mark.parametrize(
    ("shown", "word"),
    [
        pytest.param(watched("Succeeded"), "succeeded", id="succeeded"),
        pytest.param(watched("Failed"), "failed", id="failed"),
        pytest.param(watched("Failed", reason="Evicted"), "evicted", id="by-the-kubelet-for-want-of-memory"),
        pytest.param(watched("Failed", reason="Preempting"), "preempted", id="by-the-kubelet-for-a-critical-pod"),
        pytest.param(
            watched(deleted=True, conditions=[told("DisruptionTarget", "True", "PreemptionByScheduler")]),
            "preempted",
            id="by-kube-scheduler",
        ),
        pytest.param(
            watched(deleted=True, conditions=[told("DisruptionTarget", "True", "EvictionByEvictionAPI")]),
            "evicted",
            id="by-a-drain",
        ),
        pytest.param(
            watched("Failed", conditions=[told("DisruptionTarget", "True", "DeletionByTaintManager")]),
            "evicted",
            id="by-a-taint",
        ),
        pytest.param(
            watched("Failed", conditions=[told("DisruptionTarget", "False", "EvictionByEvictionAPI")]),
            "failed",
            id="an-eviction-that-was-withdrawn",
        ),
        pytest.param(watched(), "deleted", id="deleted"),
        pytest.param(watched("Succeeded", deleted=True), "deleted", id="deleted-and-ended-on-its-way"),
        pytest.param(watched("Failed", deleted=True), "deleted", id="deleted-and-killed-on-its-way"),
    ],
)
def test_how_a_pod_ended_is_one_word(shown: WatchedPod, word: str) -> None:
    assert ending(shown) == word


def test_a_report_adds_up_containers() -> None:
    report = report_of(
        watched(
            "Failed",
            startTime="2026-01-01T00:00:05Z",
            containerStatuses=[container("01:00", restarts=2, last="OOMKilled"), container("02:00", "Error", 1)],
        )
    )
    assert (report.restarts, report.oom_killed) == (3, True)
    assert (report.created_at, report.started_at, report.finished_at) == (NEW_YEAR, NEW_YEAR + 5, NEW_YEAR + 120)


@pytest.mark.parametrize(
    ("containers", "finished"),
    [
        pytest.param([container("01:00"), container()], None, id="one-still-runs"),
        pytest.param(None, None, id="none-known"),
        pytest.param([container("01:00"), container("garbage")], None, id="an-end-that-does-not-parse"),
    ],
)
def test_a_pod_has_finished_when_its_last_container_has(containers: list[Any] | None, finished: float | None) -> None:
    assert report_of(watched(containerStatuses=containers)).finished_at == finished


def show(service: Service, shown: WatchedPod, gone: bool = False) -> None:
    """Let the service see this pod, through what a watch goes through."""

    def apply(table: ClusterTable) -> None:
        changes = PodChanges(table, lambda change: change())
        (changes.absent if gone else changes.present)(shown)

    service.change(apply)


def decided(run_service: Run, **settings: Any) -> Service:
    """A service that has decided about pod uid-web once."""
    service = run_service(scorer="kube-default", **settings)
    service.prioritize(service.add_nodes(2))
    return service


def until(condition: Callable[[], bool], seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(0.01)


def counts(service: Service) -> dict[str, Any]:
    return dict(service.operations.get("/v1/decisions").json()["counts"])


def test_a_pod_that_ran_to_its_end_is_told_with_its_times(run_service: Run) -> None:
    service = decided(run_service)
    show(service, watched(startTime="2026-01-01T00:00:02Z"))
    assert service.decision("uid-web")["state"] == "bound"
    show(service, watched(containerStatuses=[container(restarts=2, last="OOMKilled")]))
    show(service, watched("Succeeded", containerStatuses=[container("01:40", restarts=3)]))
    found = service.decision("uid-web")
    outcome = found["outcome"]
    assert (found["state"], outcome["node"], outcome["restarts"], outcome["oom_killed"]) == (
        "succeeded",
        "node-0",
        3,
        True,
    )
    assert (outcome["started_at"], outcome["finished_at"]) == (NEW_YEAR + 2, NEW_YEAR + 100)
    assert 0.0 <= outcome["bind_s"] < 60.0
    assert (outcome["late"], EXPECTED in outcome["late_unknown"]) == (None, True)
    show(service, watched("Succeeded", deleted=True), gone=True)
    assert service.decision("uid-web")["state"] == "succeeded", "to be cleaned up later changes nothing"
    sums = counts(service)
    assert (sums["ended"], sums["restarts"], sums["oom_killed"], sums["lateness_unknown"]) == (
        {"succeeded": 1},
        3,
        1,
        1,
    )
    assert service.metric("maddpg_pods_ended_total", how="succeeded") == 1
    assert service.metric("maddpg_pod_restarts_total") == 3
    assert service.metric("maddpg_pods_oom_killed_total") == 1
    assert service.metric("maddpg_pods_late_total", late="unknown") == 1


@pytest.mark.parametrize(
    ("annotations", "urgency", "ended", "late", "unknown"),
    [
        pytest.param({EXPECTED: "60"}, "0.5", "01:59", False, None, id="within-twice-the-declared-time"),
        pytest.param({EXPECTED: "60"}, "0.5", "02:01", True, None, id="beyond-it"),
        pytest.param({EXPECTED: "60"}, "1", "01:01", True, None, id="no-slowdown-allowed"),
        pytest.param({EXPECTED: "60"}, "0", "59:00", None, "any slowdown is allowed", id="best-effort"),
        pytest.param({}, "0.5", "02:01", None, "declares no", id="undeclared"),
        pytest.param({EXPECTED: "soon"}, "0.5", "02:01", None, "'soon'; give seconds from 0.001", id="not-a-number"),
        pytest.param({EXPECTED: "-1"}, "0.5", "02:01", None, "'-1'; give seconds from 0.001", id="negative"),
        pytest.param({EXPECTED: "5e-324"}, "0.5", "02:01", None, "'5e-324'; give seconds from", id="tiny"),
        pytest.param({EXPECTED: "1e300"}, "0.5", "02:01", None, "'1e300'; give seconds from", id="huge"),
    ],
)
def test_late_is_what_the_pods_own_declaration_makes_late(
    run_service: Run, annotations: dict[str, str], urgency: str, ended: str, late: bool | None, unknown: str | None
) -> None:
    service = run_service(scorer="kube-default")
    service.prioritize(service.add_nodes(2), pod(annotations={"maddpg-scheduler.io/urgency": urgency}))
    show(service, watched(annotations=annotations))
    show(service, watched("Succeeded", annotations=annotations, containerStatuses=[container(ended)]))
    outcome = service.decision("uid-web")["outcome"]
    assert outcome["late"] is late
    assert unknown is None or unknown in outcome["late_unknown"]
    label = {True: "true", False: "false", None: "unknown"}[late]
    assert service.metric("maddpg_pods_late_total", late=label) == 1


@pytest.mark.parametrize(
    ("runs", "declared", "ended", "late", "inferred", "slowdown"),
    [
        pytest.param([60.0] * 3, None, "01:59", False, True, 119 / 60, id="within-twice-the-usual-time"),
        pytest.param([60.0] * 3, None, "02:01", True, True, 121 / 60, id="beyond-it"),
        pytest.param([60.0] * 3, "soon", "02:01", True, True, 121 / 60, id="a-declaration-that-does-not-parse"),
        pytest.param([60.0] * 3, "100", "02:01", False, False, 1.21, id="what-is-declared-wins"),
        pytest.param([60.0] * 2, None, "02:01", None, False, None, id="too-few-runs"),
    ],
)
def test_without_a_declaration_late_is_what_former_runs_make_late(
    run_service: Run,
    runs: list[float],
    declared: str | None,
    ended: str,
    late: bool | None,
    inferred: bool,
    slowdown: float | None,
) -> None:
    service = run_service(scorer="kube-default")
    names = service.add_nodes(2)
    asked = pod(annotations={"maddpg-scheduler.io/urgency": "0.5"})
    template = template_of(msgspec.json.decode(msgspec.json.encode(asked), type=Pod))
    for run_s in runs:
        service.change(lambda table, run_s=run_s: table.workloads.ran(template, run_s, 1.0))
    service.prioritize(names, asked)
    found = service.decision("uid-web")
    assert found["expected"] == {"seconds": 60.0, "runs": len(runs)}
    annotations = None if declared is None else {EXPECTED: declared}
    show(service, watched(annotations=annotations))
    show(service, watched("Succeeded", annotations=annotations, containerStatuses=[container(ended)]))
    outcome = service.decision("uid-web")["outcome"]
    assert (outcome["late"], outcome["inferred"], outcome["slowdown"]) == (late, inferred, pytest.approx(slowdown))
    report = service.operations.get("/v1/report").json()["remembered"]
    assert report["lateness_inferred"] == inferred
    counted = {True: ("true", 1), False: ("false", 1), None: ("true", 0)}
    label, count = counted[late]
    assert service.metric("maddpg_pods_late_inferred_total", late=label) == (count if inferred else 0)
    assert service.metric("maddpg_pods_late_total", late=label) == count


@pytest.mark.parametrize(
    ("created", "finished", "slowdown"),
    [
        pytest.param(100.0, 220.0, 2.0, id="clocks-agree"),
        pytest.param(100.0, None, 3.0, id="no-time-of-the-end"),
        pytest.param(100.0, 3820.0, 3.0, id="the-kubelet-is-ahead"),
        pytest.param(100.0, 40.0, 3.0, id="the-kubelet-is-behind"),
        pytest.param(3700.0, 220.0, 1.5, id="the-API-server-is-ahead"),
        pytest.param(3700.0, 3820.0, 2.5, id="both-are-ahead"),
    ],
)
def test_times_of_other_clocks_that_cannot_be_true_give_way_to_ours(
    created: float, finished: float | None, slowdown: float
) -> None:
    """Decided at 130, bound at 140, seen ended at 280, on our clock; declared to run for 60 s."""
    outcome = Outcome("n", bound_at=140.0, bind_s=10.0, created_at=created, finished_at=finished, expected_s=60.0)
    assert removed(outcome, "succeeded", 280.0, urgency=0.5).slowdown == pytest.approx(slowdown)


def test_a_pod_ended_for_outlasting_its_deadline_was_late_whatever_it_declared(run_service: Run) -> None:
    service = decided(run_service)
    show(service, watched())
    show(service, watched("Failed", reason="DeadlineExceeded"))
    assert (service.decision("uid-web")["state"], service.decision("uid-web")["outcome"]["late"]) == ("failed", True)


def test_a_pod_that_did_not_finish_is_not_called_late(run_service: Run) -> None:
    service = decided(run_service)
    show(service, watched(annotations={EXPECTED: "1"}))
    show(service, watched("Failed", annotations={EXPECTED: "1"}, containerStatuses=[container("50:00", "Error")]))
    outcome = service.decision("uid-web")["outcome"]
    assert (outcome["late"], outcome["late_unknown"]) == (None, "it did not finish")


def test_a_failed_attempt_keeps_what_kube_scheduler_said(run_service: Run) -> None:
    service = decided(run_service)
    said = told("PodScheduled", "False", "Unschedulable", "0/2 nodes are available: 2 Insufficient cpu.")
    show(service, watched("Pending", on=None, conditions=[said]))
    found = service.decision("uid-web")
    assert (found["state"], found["outcome"]["message"]) == ("unschedulable", said["message"])
    service.prioritize(["node-0", "node-1"])
    found = service.decision("uid-web")
    assert (found["attempt"], found["former_failure"]) == (2, f"unschedulable: {said['message']}")
    assert found["state"] == "waiting"
    assert counts(service)["failures"] == {"unschedulable": 1}
    show(service, watched())
    found = service.decision("uid-web")
    assert (found["state"], found["outcome"]["failure"]) == ("bound", None)
    assert found["outcome"]["bound_at"] - found["first_at"] == pytest.approx(found["outcome"]["bind_s"])
    assert found["first_at"] < found["at"], "time to bound counts from the first attempt"
    assert service.metric("maddpg_decision_failures_total", reason="unschedulable") == 1


def test_a_pod_asked_about_again_without_a_reason_says_just_that(run_service: Run) -> None:
    service = decided(run_service)
    service.prioritize(["node-0", "node-1"])
    assert service.decision("uid-web")["former_failure"] == "asked_again"
    assert counts(service)["failures"] == {"asked_again": 1}


def test_a_pod_deleted_before_it_was_bound_failed_by_that(run_service: Run) -> None:
    service = decided(run_service)
    show(service, watched("Pending", on=None), gone=True)
    assert service.decision("uid-web")["state"] == "deleted"
    sums = counts(service)
    assert (sums["failures"], sums["ended"], sums["lateness_unknown"]) == ({"deleted": 1}, {}, 0)


def test_an_assumption_that_expires_is_a_failure_until_the_pod_is_bound_after_all(run_service: Run) -> None:
    service = decided(run_service, assumed_time_limit_s=0.05, housekeeping_interval_s=0.02)
    until(lambda: service.decision("uid-web")["state"] == "expired")
    assert counts(service)["failures"] == {"expired": 1}
    service.prioritize(["node-0", "node-1"])
    show(service, watched())
    found = service.decision("uid-web")
    assert found["state"] == "bound"
    assert found["former_failure"].startswith("expired: ")
    assert counts(service)["failures"] == {"expired": 1}, "the same attempt is counted once"


def test_a_refused_binding_is_remembered_with_the_reason(run_service: Run) -> None:
    def refuse(binding: Binding) -> None:
        raise BindError("quota exceeded")

    service = run_service(EmbeddedSource(on_bind=refuse), enable_bind=True)
    service.prioritize(service.add_nodes(2))
    body = {"PodName": "web", "PodNamespace": "default", "PodUID": "uid-web", "Node": "node-0"}
    answer: httpx.Response = service.post("bind", body)
    assert answer.json() == {"Error": "quota exceeded"}
    found = service.decision("uid-web")
    assert (found["state"], found["outcome"]["message"]) == ("bind", "quota exceeded")
    assert counts(service)["failures"] == {"bind": 1}


def test_a_report_about_a_pod_nobody_decided_upon_is_not_even_read() -> None:
    ledger = Ledger(10, row_of=lambda name: -1)

    def read() -> Any:
        raise AssertionError("read for nobody")

    ledger.pod_reported("uid-stranger", read)
    assert len(ledger) == 0
