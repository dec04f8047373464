"""How urgent a pod is comes from the right place, and says why."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from typing import Any

import msgspec
import pytest

from extender.demand import asks_alike, pod_demand, urgency_rules
from extender.pods import EXPECTED_ANNOTATION, URGENCY_ANNOTATION, Pod
from extender.settings import Settings
from extender.templates import template_of
from extender.workloads import CronRun, Workloads
from policy.urgency import UrgencyRules

RULES = UrgencyRules({"critical": 1.0})
THIS_MINUTE = int(time.time() // 60)


def owned(kind: str, name: str) -> dict[str, Any]:
    return {"ownerReferences": [{"kind": "Node", "name": "no"}, {"kind": kind, "name": name, "controller": True}]}


def made(metadata: dict[str, Any] | None = None, container: dict[str, Any] | None = None, **spec: Any) -> Pod:
    """A pod of QoS class Guaranteed, as kube-scheduler sends it: with priority 0, because every pod has one."""
    content = {
        "metadata": {"name": "p", "namespace": "ns", "uid": "u", **(metadata or {})},
        "spec": {
            "containers": [{"image": "i", "resources": {"requests": {"cpu": "1"}}, **(container or {})}],
            "priority": 0,
            **spec,
        },
        "status": {"qosClass": "Guaranteed"},
    }
    return msgspec.json.decode(json.dumps(content), type=Pod)


def annotated(text: str, **spec: Any) -> Pod:
    return made({"annotations": {"other": "x", URGENCY_ANNOTATION: text}}, **spec)


def backup(minute: int = THIS_MINUTE, annotations: dict[str, str] | None = None) -> Pod:
    """A pod of the CronJob backup."""
    return made({**owned("Job", f"backup-{minute}"), "annotations": annotations or {}})


def known(pod: Pod, *runs: float, minutes: tuple[int, ...] = ()) -> Workloads:
    """What is known after such pods ran, and after the CronJob backup started in these minutes."""
    workloads = Workloads()
    for run_s in runs:
        workloads.ran(template_of(pod), run_s, 1.0)
    for minute in minutes:
        workloads.started(CronRun("ns", "backup", minute))
    return workloads


@pytest.mark.parametrize(
    ("pod", "value", "source", "reason"),
    [
        (annotated("0.25", priorityClassName="critical"), 0.25, "annotation", "annotated"),
        (made(priorityClassName="critical", priority=7), 1.0, "priority_class", "PriorityClass critical, as set"),
        (made(priorityClassName="gold", priority=1000), 0.65, "priority", "priority 1000 of gold"),
        (made(priorityClassName="filler", priority=-10), 0.0, "priority", "priority -10 of filler"),
        (made(priority=2000001000), 1.0, "priority", "priority 2000001000"),
        (made(owned("Job", "once")), 0.5, "owner", "Job once"),
        (made(owned("ReplicaSet", "web-7f9c")), 0.5, "owner", "ReplicaSet web-7f9c"),
        (
            made(owned("ReplicaSet", "web-7f9c"), {"readinessProbe": {"httpGet": {"port": 80}}}),
            0.8, "owner", "ReplicaSet web-7f9c with a readiness probe",
        ),
        (made(owned("ReplicaSet", "web-7f9c"), {"readinessProbe": None}), 0.5, "owner", "ReplicaSet web-7f9c"),
        (made(owned("DaemonSet", "logs")), 0.5, "owner", "DaemonSet logs"),
        (made(owned("Workflow", "etl")), 0.8, "qos", "QoS class Guaranteed"),
        (made(), 0.8, "qos", "QoS class Guaranteed"),
        (made(activeDeadlineSeconds=100), 0.8, "qos", "QoS class Guaranteed"),
    ],
)  # fmt: skip
def test_urgency_of_a_pod(pod: Pod, value: float, source: str, reason: str) -> None:
    asked = pod_demand(pod, RULES, Workloads())
    assert asked.urgency == (value, source, reason)
    assert (asked.demand.urgency, asked.warning) == (value, None)


def test_a_cronjob_should_end_before_its_next_start() -> None:
    pod = backup()
    workloads = known(pod, 88.0, 90.0, 95.0, minutes=(THIS_MINUTE - 15, THIS_MINUTE - 5, THIS_MINUTE))
    reason = "Job of CronJob backup, expected 90 s of 300 s between starts"
    assert pod_demand(pod, RULES, workloads).urgency == (0.3, "deadline", reason)


def test_runs_of_one_cronjob_tell_of_the_next_and_other_namespaces_of_none() -> None:
    earlier = backup(THIS_MINUTE - 5)
    workloads = known(earlier, 150.0, 150.0, 150.0, minutes=(THIS_MINUTE - 5, THIS_MINUTE))
    assert pod_demand(backup(), RULES, workloads).urgency.value == 0.5
    elsewhere = made({**owned("Job", f"backup-{THIS_MINUTE}"), "namespace": "other"})
    assert pod_demand(elsewhere, RULES, workloads).urgency == (0.5, "owner", "Job of CronJob backup")


def test_a_deadline_is_compared_with_what_is_declared_before_what_was_seen() -> None:
    pod = made({"annotations": {EXPECTED_ANNOTATION: "60"}}, activeDeadlineSeconds=100)
    workloads = known(pod, 10.0, 10.0, 10.0)
    assert pod_demand(pod, RULES, workloads).urgency == (0.6, "deadline", "expected 60 s of 100 s until its deadline")
    broken = made({"annotations": {EXPECTED_ANNOTATION: "soon"}}, activeDeadlineSeconds=100)
    assert pod_demand(broken, RULES, workloads).urgency.value == 0.1


def test_runs_of_other_work_tell_nothing() -> None:
    workloads = known(backup(), 90.0, 90.0, 90.0, minutes=(THIS_MINUTE - 5, THIS_MINUTE))
    other = made(owned("Job", f"backup-{THIS_MINUTE}"), {"image": "other"})
    assert pod_demand(other, RULES, workloads).urgency.source == "owner"


def test_a_job_whose_name_ends_in_another_number_is_no_cronjobs() -> None:
    for number in ("20261231", "00000001", "99999999", "1", "123456789"):
        assert pod_demand(made(owned("Job", f"load-{number}")), RULES).urgency.reason == f"Job load-{number}"


@pytest.mark.parametrize("text", ["high", "", "nan", "1.1", "-0.1", "inf", "0x1", "0_1", "\uff10.5"])
def test_a_broken_annotation_is_ignored_with_a_warning(text: str) -> None:
    asked = pod_demand(annotated(text), RULES)
    assert asked.urgency == (0.8, "qos", "QoS class Guaranteed")
    assert asked.warning is not None
    assert URGENCY_ANNOTATION in asked.warning


@pytest.mark.parametrize(
    "spec",
    [
        {"priority": "high"}, {"priority": True}, {"priority": [1]}, {"priority": None}, {"activeDeadlineSeconds": -5},
        {"activeDeadlineSeconds": "5"}, {"activeDeadlineSeconds": {}}, {"activeDeadlineSeconds": 0},
    ],
)  # fmt: skip
def test_a_hint_that_makes_no_sense_fails_no_pod(spec: dict[str, Any]) -> None:
    pod = made({"annotations": {EXPECTED_ANNOTATION: "5"}}, **spec)
    assert pod_demand(pod, RULES, Workloads()).urgency.source == "qos"


@pytest.mark.parametrize(
    "owners",
    [None, [], [{}], [{"controller": True}], {"kind": "Job"}, [{"kind": 5, "controller": True}], [[]], "Job"],
)
def test_owners_that_make_no_sense_are_none(owners: object) -> None:
    assert pod_demand(made({"ownerReferences": owners}), RULES).urgency.source == "qos"


def test_names_of_any_length_are_taken_and_told_short() -> None:
    name = "n" * 244 + f"-{THIS_MINUTE}"
    urgency = pod_demand(made(owned("Job", name)), RULES, Workloads()).urgency
    assert urgency == (0.5, "owner", "Job of CronJob " + "n" * 63)


@pytest.mark.parametrize(
    ("spec", "status", "value"),
    [
        ({"containers": [{"resources": {"requests": {"cpu": "1"}}}]}, {}, 0.5),
        ({"containers": [{}]}, {}, 0.0),
        ({"containers": [{}]}, {"qosClass": "Odd"}, 0.0),
    ],
)
def test_a_pod_without_a_qos_class_is_judged_by_whether_it_asks(
    spec: dict[str, Any], status: dict[str, Any], value: float
) -> None:
    pod = msgspec.json.decode(json.dumps({"metadata": {"uid": "u"}, "spec": spec, "status": status}), type=Pod)
    assert pod_demand(pod, RULES).urgency.value == value


def test_the_settings_overrule_and_switch_off() -> None:
    pod, served = made(owned("Job", "once")), made(owned("StatefulSet", "db"))
    assert pod_demand(pod, urgency_rules(Settings())).urgency.value == 0.5
    overruled = urgency_rules(Settings(urgency_by_owner_kind={"Job": 0.1}))
    assert [pod_demand(each, overruled).urgency.value for each in (pod, served)] == [0.1, 0.8]
    off = urgency_rules(Settings(urgency_inferred=False))
    assert [pod_demand(each, off).urgency.source for each in (pod, made(priority=10**9))] == ["qos", "qos"]
    assert replace(off, inferred=True) == urgency_rules(Settings())


def test_replicas_ask_alike_and_pods_that_differ_in_what_counts_do_not() -> None:
    first = made({"uid": "a", "name": "web-1", **owned("ReplicaSet", "web")})
    assert asks_alike(first, made({"uid": "b", "name": "web-2", **owned("ReplicaSet", "web")}))
    for other in (
        made({"uid": "b", **owned("ReplicaSet", "shop")}),
        made({"uid": "b", **owned("ReplicaSet", "web"), "annotations": {URGENCY_ANNOTATION: "1"}}),
        made({"uid": "b", **owned("ReplicaSet", "web")}, {"resources": {"requests": {"cpu": "2"}}}),
        made({"uid": "b", **owned("ReplicaSet", "web")}, priorityClassName="critical"),
        made({"uid": "b", **owned("ReplicaSet", "web")}, priority=7),
    ):
        assert not asks_alike(first, other)
    resized = msgspec.json.decode(
        json.dumps({"metadata": {"uid": "b"}, "status": {"allocatedResources": {"cpu": "3"}}}), type=Pod
    )
    plain = msgspec.json.decode(json.dumps({"metadata": {"uid": "a"}}), type=Pod)
    assert asks_alike(plain, plain)
    assert not asks_alike(plain, resized)


def test_pods_as_urgent_as_their_runs_never_ask_alike() -> None:
    job = made(owned("Job", f"nightly-{THIS_MINUTE}"))
    assert not asks_alike(job, job)
    limited = made(owned("ReplicaSet", "web"), activeDeadlineSeconds=60)
    assert not asks_alike(limited, limited)
