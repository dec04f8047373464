"""A cluster that others schedule is looked at: each pod they place is rated, and nothing else happens."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from extender.cluster.decoding import observed_node, observed_pod
from extender.cluster.receivers import FactChanges, PodChanges, WaitingRules
from extender.cluster.table import ClusterTable
from extender.observer import as_text
from policy.urgency import UrgencyRules
from tests.extender.service import Service, by_names, pod

Run = Callable[..., Service]
RULES = WaitingRules(None, UrgencyRules({}, {"Guaranteed": 1.0, "Burstable": 0.5, "BestEffort": 0.0}))


def raw(document: dict[str, Any]) -> msgspec.Raw:
    """As it comes from the API server."""
    return msgspec.Raw(json.dumps(document).encode())


def with_nodes(service: Service, count: int, **labels: str) -> list[str]:
    """Nodes that the watch has shown, the first one of another label `kind`."""
    names = [f"node-{i}" for i in range(count)]
    service.change(lambda table: [table.upsert_node(name, 8.0, 32.0) for name in names])
    changes = FactChanges(lambda change: change())
    for index, name in enumerate(names):
        metadata = {"name": name, "labels": {"kind": "first" if index == 0 else "other", **labels}}
        changes.present(observed_node(raw({"metadata": metadata, "status": {"allocatable": {"pods": "10"}}})))
    service.source.facts = changes.facts  # type: ignore[attr-defined]  # the source of tests keeps none itself
    return names


def show(service: Service, name: str, node: str | None = None, **spec: Any) -> None:
    """The watch shows the pod, waiting or on a node."""
    shown = pod(name)
    shown["spec"] |= {"schedulerName": "default-scheduler", **({"nodeName": node} if node else {}), **spec}
    received = observed_pod(raw(shown))

    def present(table: ClusterTable) -> None:
        PodChanges(table, lambda change: change(), RULES).present(received)

    service.change(present)


def observed(service: Service) -> dict[str, Any]:
    """What the service says it saw."""
    found: dict[str, Any] = service.operations.get("/v1/observed").json()
    return found


def test_pods_of_others_are_rated_before_they_count_and_nothing_is_assumed(run_service: Run) -> None:
    service = run_service(observe=True)
    nodes = with_nodes(service, 3)
    for index, node in enumerate((nodes[0], nodes[0], nodes[1])):
        show(service, f"web-{index}")
        show(service, f"web-{index}", node)
    found = observed(service)
    assert found["pods"] == 3
    assert found["results"] == {"same": 2, "other": 1, "one_node": 0, "skipped": 0, "not_rated": 0}
    assert found["same_share"] == 2 / 3
    assert service.change(lambda table: table.assumed_count) == 0
    decision = service.decision("uid-web-1")
    assert (decision["verb"], decision["candidates"]) == ("observe", 3)
    assert decision["assumed"] in nodes[1:], "alike nodes: the one that has a pod already is not the best"
    assert (decision["outcome"]["node"], decision["outcome"]["among_best"]) == (nodes[0], False)
    assert found["where_other"]["cpu_requested"]["taken"] > found["where_other"]["cpu_requested"]["ours"]
    assert service.metric("maddpg_observed_pods_total", result="other") == 1
    assert "went to a node that we rate" in as_text(found)


def test_only_nodes_where_the_pod_could_run_are_rated(run_service: Run) -> None:
    service = run_service(observe=True)
    nodes = with_nodes(service, 3)
    show(service, "picky", nodeSelector={"kind": "first"})
    show(service, "picky", nodes[0], nodeSelector={"kind": "first"})
    assert observed(service)["results"]["one_node"] == 1
    assert service.decision("uid-picky")["candidates"] == 1


def test_what_is_not_modelled_is_counted(run_service: Run) -> None:
    service = run_service(observe=True)
    nodes = with_nodes(service, 3)
    spread = [{"whenUnsatisfiable": "DoNotSchedule", "topologyKey": "zone", "maxSkew": 1}]
    show(service, "web", topologySpreadConstraints=spread)
    show(service, "web", nodes[0], topologySpreadConstraints=spread)
    show(service, "odd", nodeSelector={"kind": "none"})
    show(service, "odd", nodes[1], nodeSelector={"kind": "none"})
    found = observed(service)
    assert (found["unmodelled"], found["not_foreseen"]) == ({"topology_spread": 1}, 1)
    assert service.metric("maddpg_observed_unmodelled_total", restriction="topology_spread") == 1
    assert service.metric("maddpg_observed_not_foreseen_total") == 1
    assert "not modelled" in as_text(found)


def test_pods_that_cannot_be_rated_are_counted(run_service: Run) -> None:
    service = run_service(observe=True)
    nodes = with_nodes(service, 2)
    show(service, "lost")
    show(service, "lost", "no-such-node")
    show(service, "broken", tolerations="all")
    show(service, "broken", nodes[0], tolerations="all")
    assert observed(service)["results"]["not_rated"] == 2


def test_text_that_is_no_text_spoils_only_its_own_node_and_pod(run_service: Run) -> None:
    service = run_service(observe=True)
    nodes = with_nodes(service, 2)
    changes = FactChanges(lambda change: change())
    for name, taint in ((b"good", b"key"), (b"bad", b"\xff")):
        node = b'{"metadata":{"name":"%b"},"spec":{"taints":[{"key":"%b","effect":"NoSchedule"}]}}' % (name, taint)
        changes.present(observed_node(msgspec.Raw(node)))
    assert set(changes.facts) == {"good"}
    shown = pod("web")
    shown["spec"] |= {"nodeName": nodes[0], "schedulerName": "default-scheduler", "tolerations": [{"key": "K"}]}
    broken = observed_pod(msgspec.Raw(json.dumps(shown).encode().replace(b'"K"', b'"\xff"')))
    show(service, "web")
    service.change(lambda table: PodChanges(table, lambda change: change(), RULES).present(broken))
    assert observed(service)["results"]["not_rated"] == 1


def test_ratings_take_a_share_of_the_time_and_pods_beyond_it_are_skipped(
    run_service: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("extender.observer.SAVED_S", 1e-9)
    service = run_service(observe=True)
    nodes = with_nodes(service, 3)
    for index in range(200):
        show(service, f"web-{index}")

    def all_at_once(table: ClusterTable) -> None:
        changes = PodChanges(table, lambda change: change(), RULES)
        for index in range(200):
            shown = pod(f"web-{index}")
            shown["spec"] |= {"schedulerName": "default-scheduler", "nodeName": nodes[0]}
            changes.present(observed_pod(raw(shown)))

    service.change(all_at_once)
    results = observed(service)["results"]
    assert results["skipped"] > 0
    assert results["same"] + results["other"] > 0
    assert sum(results.values()) == 200
    assert "are a sample" in as_text(observed(service))


def test_the_verbs_are_not_served(run_service: Run) -> None:
    service = run_service(observe=True)
    nodes = with_nodes(service, 2)
    assert service.post("prioritize", by_names(nodes)).status_code == 404
    assert service.operations.get("/v1/decisions").json()["decisions"] == []


def test_where_nothing_is_observed_the_document_says_so(run_service: Run) -> None:
    assert observed(run_service()) == {"pods": None}
