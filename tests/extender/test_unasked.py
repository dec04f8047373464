"""A pod with one feasible node leaves a record, though kube-scheduler asks nothing about it."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import msgspec

from extender.cluster.decoding import decode_pod
from extender.cluster.receivers import PodChanges, WaitingRules
from extender.cluster.table import ClusterTable
from extender.unasked import FOLLOWER
from policy.urgency import UrgencyRules
from tests.extender.service import Service, pod

Run = Callable[..., Service]
OURS = "maddpg-scheduler"
RULES = WaitingRules(OURS, UrgencyRules({}, {"Guaranteed": 1.0, "Burstable": 0.5, "BestEffort": 0.0}))


def show(service: Service, name: str, node: str | None = None, scheduler: str = OURS, **status: Any) -> None:
    """The watch shows the pod, waiting or on a node."""
    shown = pod(name)
    shown["spec"] |= {"schedulerName": scheduler, **({"nodeName": node} if node else {})}
    shown["status"] |= status
    received = decode_pod(msgspec.Raw(json.dumps(shown).encode()))

    def present(table: ClusterTable) -> None:
        PodChanges(table, lambda change: change(), RULES).present(received)

    service.change(present)


def names(service: Service) -> list[str]:
    """Pods of which a decision is remembered."""
    answer = service.operations.get("/v1/decisions", params={"limit": 1000}).json()
    return [each["pod"]["name"] for each in answer["decisions"]]


def test_a_pod_placed_without_a_question_is_recorded_as_the_watch_shows_it(run_service: Run) -> None:
    service = run_service()
    [node] = service.add_nodes(1)
    show(service, "web")
    assert names(service) == []
    show(service, "web", node)
    decision = service.decision("uid-web")
    assert (decision["verb"], decision["scorer"], decision["assumed"]) == ("watch", "only-feasible", node)
    assert (decision["pod"]["namespace"], decision["candidates"]) == ("default", 1)
    assert decision["demand"]["cpu"] == 0.5
    outcome = decision["outcome"]
    assert (outcome["node"], outcome["among_best"]) == (node, True)
    assert service.metric("maddpg_decisions_total", scorer="only-feasible") == 1
    counts = service.operations.get("/v1/decisions").json()["counts"]
    assert (counts["bound"], counts["not_asked"]) == (1, 0)
    assert service.change(lambda table: table.assumed_count) == 0


def test_a_pod_that_was_asked_about_keeps_the_record_of_that(run_service: Run) -> None:
    service = run_service()
    nodes = service.add_nodes(3)
    show(service, "web")
    service.prioritize(nodes)
    show(service, "web", nodes[0])
    decision = service.decision("uid-web")
    assert (decision["verb"], decision["attempt"], decision["outcome"]["node"]) == ("prioritize", 1, nodes[0])


def test_an_attempt_after_one_that_failed_has_a_record_of_its_own(run_service: Run) -> None:
    service = run_service()
    nodes = service.add_nodes(3)
    show(service, "web")
    service.prioritize(nodes)
    unplaced = {"type": "PodScheduled", "status": "False", "reason": "SchedulerError", "message": "binding rejected"}
    show(service, "web", conditions=[unplaced])
    show(service, "web", nodes[1])
    decision = service.decision("uid-web")
    assert (decision["verb"], decision["attempt"], decision["assumed"]) == ("watch", 2, nodes[1])
    assert decision["former_failure"].startswith("scheduler_error")
    assert decision["outcome"]["node"] == nodes[1]


def test_pods_that_did_not_wait_for_us_are_not_recorded(run_service: Run) -> None:
    service = run_service()
    [node] = service.add_nodes(1)
    show(service, "older", node)  # bound before this service began to watch
    show(service, "other", scheduler="default-scheduler")
    show(service, "other", node, scheduler="default-scheduler")
    assert names(service) == []
    assert service.operations.get("/v1/decisions").json()["counts"]["not_asked"] == 2


def test_a_replica_that_is_never_asked_stops_recording_until_it_is(run_service: Run) -> None:
    service = run_service()
    nodes = service.add_nodes(2)

    def place(name: str) -> None:
        show(service, name)
        show(service, name, nodes[0])

    for i in range(FOLLOWER + 5):
        place(f"pod-{i}")
    assert len(names(service)) == FOLLOWER
    assert service.operations.get("/v1/decisions").json()["counts"]["not_asked"] == 5
    service.prioritize(nodes)  # it leads now
    place("again")
    assert names(service)[0] == "again"
