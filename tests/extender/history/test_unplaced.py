"""Pods that kube-scheduler could not place: kept in bounded memory, and told with the best node for each."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from extender.cluster.decoding import WatchedPod
from extender.cluster.receivers import PodChanges, WaitingRules
from extender.cluster.status import LONGEST_MESSAGE
from extender.cluster.table import ClusterTable
from extender.history import unplaced
from extender.history.unplaced import Unplaced
from policy.urgency import UrgencyRules
from tests.extender.service import Service, pod

Run = Callable[..., Service]
FOREIGN = "<img src=x onerror=alert(1)>{{7*7}}"


def watched(name: str, cpu: str = "1", scheduler: str = "ours", **condition: Any) -> WatchedPod:
    """A pod that kube-scheduler gave up."""
    said = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", **condition}
    document = pod(name, cpu=cpu)
    document["spec"]["schedulerName"] = scheduler
    document["status"] = {"conditions": [said]}
    return msgspec.convert(document, WatchedPod)


def present(table: ClusterTable, received: WatchedPod) -> None:
    """The watch shows the pod."""
    PodChanges(table, lambda change: change(), WaitingRules("ours", UrgencyRules())).present(received)


def pending(service: Service) -> str:
    """The part of the page Now about them."""
    text = service.operations.get("/dashboard/").text
    return text[text.index('id="pending"') :] if 'id="pending"' in text else ""


def test_the_page_tells_why_a_pod_waits_and_which_node_is_best_with_room(run_service: Run) -> None:
    service = run_service(scorer="expected-speed")

    def add(table: ClusterTable) -> None:
        table.upsert_node("fast-but-full", 4.0, 16.0, speed=2.0)
        table.pod_bound("held", "fast-but-full", 3.5, 1.0)
        table.upsert_node("roomy", 8.0, 32.0, speed=1.0)
        table.upsert_node("fastest-not-ready", 8.0, 32.0, speed=4.0, ready=False)
        present(table, watched("small", message="0/3 nodes are available"))
        present(table, watched("huge", "64", message=FOREIGN))
        present(table, watched("of-others", scheduler="another"))
        present(table, watched("gated", reason="SchedulingGated"))

    service.change(add)
    told = pending(service)
    assert re.search(r"small</a></th><td>Unschedulable: 0/3 nodes are available</td><td>roomy</td>", told), told
    assert "roomy, but no node has room</td>" in told
    assert "&lt;img src=x onerror=alert(1)&gt;{{7*7}}" in told
    assert "<img" not in told
    assert "of-others" not in told
    assert "gated" not in told
    service.change(lambda table: table.pod_bound("uid-small", "roomy", 1.0, 1.0))
    service.change(lambda table: table.pod_removed("uid-huge"))
    assert pending(service) == ""


def test_the_page_names_ten_and_says_how_many_more(run_service: Run) -> None:
    service = run_service()

    def add(table: ClusterTable) -> None:
        for i in range(25):
            present(table, watched(f"web-{i}"))

    service.change(add)
    told = pending(service)
    assert (told.count("no node is ready"), "And 15 more." in told) == (10, True)


def test_a_message_is_cut() -> None:
    table = ClusterTable()
    table.claim()
    kept = Unplaced()
    table.listeners.subscribe(kept)
    present(table, watched("web", message="x" * 5000))
    assert len(kept.pods["uid-web"].message) == LONGEST_MESSAGE


def test_memory_is_bounded_and_pods_that_are_gone_make_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unplaced, "MOST", 3)
    table = ClusterTable()
    table.claim()
    kept = Unplaced()
    table.listeners.subscribe(kept)
    for i in range(5):
        present(table, watched(f"p{i}"))
    assert list(kept.pods) == ["uid-p0", "uid-p1", "uid-p2"]
    assert table.keep_only_pods({"uid-p2", "uid-p3"}) == 3, "what a list no longer holds is gone, seen bound or not"
    present(table, watched("p5"))
    assert list(kept.pods) == ["uid-p2", "uid-p5"]
