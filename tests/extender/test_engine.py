"""Decisions over HTTP: who answers, within what time, what is assumed, and what is remembered."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest

from extender.cluster.source import Binding
from extender.cluster.table import ClusterTable
from extender.errors import BindError
from policy.bundle import load_bundle
from policy.cluster import PodDemand
from policy.priorities import priorities
from policy.urgency import SOURCES
from tests.extender.embedded import EmbeddedSource
from tests.extender.scorers import Controlled, open_gate
from tests.extender.service import Service, by_names, pod
from tests.extender.tables import node_of

Run = Callable[..., Service]


def until(condition: Callable[[], bool], seconds: float = 5.0) -> None:
    """Wait until it holds; fails if it does not within that time."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(0.005)


def test_priorities_on_the_wire_are_those_of_the_policy(run_service: Run, bundle_path: object) -> None:
    service = run_service()
    names = service.add_nodes(40)
    service.change(lambda table: [table.pod_bound(f"p{i}", f"node-{i}", i / 5, i / 2) for i in range(40)])
    state, rows = service.change(lambda table: (table.state.take(table.rows_of(names)), table.rows_of(names)))
    assert len(set(rows.tolist())) == 40
    scores = service.prioritize(names)
    bundle = load_bundle(service.background.app.settings.bundle_path)  # type: ignore[arg-type]
    preferences = bundle.scorer().preferences(state, PodDemand(0.5, 1.0, 0.5))
    expected = priorities(preferences, bundle.manifest.temperature)
    first = int(preferences.argmax())
    expected[(expected == 10) & (np.arange(40) != first)] = 9
    assert scores == dict(zip(names, expected.tolist(), strict=True))


def test_an_answer_from_kept_preferences_equals_a_fresh_one(run_service: Run) -> None:
    kept, fresh = run_service(), run_service()
    for service in (kept, fresh):
        service.add_nodes(30)
    names = [f"node-{i}" for i in range(30)]
    for service in (kept, fresh):
        service.change(lambda table: [table.pod_bound(f"p{i}", f"node-{i}", i / 9, i / 7) for i in range(30)])
    for i in range(5):
        kept.prioritize(names, pod(f"warm{i}"))
        kept.change(lambda table, uid=f"uid-warm{i}": table.withdraw(uid))
    for service in (kept, fresh):
        service.change(lambda table: table.pod_bound("q", "node-3", 4.0, 4.0))
    assert kept.prioritize(names) == fresh.prioritize(names)


def test_exactly_one_node_is_rated_best_and_assumed(run_service: Run) -> None:
    service = run_service(scorer="kube-default")
    names = service.add_nodes(8)
    scores = service.prioritize(names)
    [best] = [name for name, score in scores.items() if score == 10]
    assert sorted(set(scores.values())) == [9, 10]
    assert service.change(lambda table: node_of(table, "uid-web")) == best
    decision = service.decision("uid-web")
    assert (decision["assumed"], decision["rated_best"], decision["top"][0]["node"]) == (best, 8, best)


def test_a_pod_asked_about_again_does_not_see_its_own_placement(run_service: Run) -> None:
    service = run_service(scorer="kube-default")
    names = service.add_nodes(3)
    service.change(lambda table: [table.pod_bound(f"p{i}", f"node-{i}", 1.0 + 0.2 * i, 1.0) for i in range(3)])
    answers = [service.prioritize(names) for _ in range(3)]
    assert answers[0] == answers[1] == answers[2]
    assert service.change(lambda table: table.assumed_count) == 1


def test_a_burst_of_equal_pods_spreads_before_the_watch_shows_any(run_service: Run) -> None:
    service = run_service(scorer="kube-default")
    names = service.add_nodes(10)
    for i in range(30):
        service.prioritize(names, pod(f"burst{i}", cpu="1"))
    placed = [service.change(lambda table, uid=f"uid-burst{i}": node_of(table, uid)) for i in range(30)]
    assert {placed.count(name) for name in names} == {3}
    assert service.metric("maddpg_assumed_placements") == 30


def test_a_late_scorer_is_replaced_within_the_deadline_and_its_answer_kept(run_service: Run) -> None:
    scorer = Controlled()
    scorer.gate.set()
    service = run_service(loaded=scorer.loaded(), deadline_ms=150.0)
    names = service.add_nodes(8)
    scorer.gate.clear()
    began = time.perf_counter()
    service.prioritize(names, pod("late"))
    assert 0.1 < time.perf_counter() - began < 2.0
    began = time.perf_counter()
    service.prioritize(names, pod("busy"))
    assert time.perf_counter() - began < 0.14, "no second request waits for a scorer that is overdue"
    scorer.gate.set()
    until(
        lambda: (
            service.prioritize(names, pod("again")) is not None
            and service.decision("uid-again")["scorer"] == "controlled"
        )
    )
    assert [service.decision(f"uid-{name}")["fallback_reason"] for name in ("late", "busy", "again")] == [
        "late",
        "busy",
        None,
    ]
    assert service.decision("uid-late")["scorer"] == "kube-default"
    assert service.metric("maddpg_fallbacks_total", reason="late") == 1
    assert service.metric("maddpg_fallbacks_total", reason="busy") >= 1


def test_what_is_late_already_does_not_depend_on_how_quick_the_thread_is(run_service: Run) -> None:
    for attempt in range(20):
        service = run_service(deadline_ms=0.001)
        service.prioritize(service.add_nodes(3))
        assert service.decision("uid-web")["fallback_reason"] == "late", f"attempt {attempt}"
        service.background.stop()


def test_a_fallback_is_rated_by_its_own_temperature(run_service: Run) -> None:
    """The policy's is that of its softmax in training, and may be much sharper than a heuristic's preferences bear."""
    service = run_service(loaded=replace(open_gate().loaded(), temperature=0.012), deadline_ms=0.001)
    names = service.add_nodes(3)
    service.change(lambda table: [table.pod_bound(f"p{i}", f"node-{i}", i * 0.8, i * 3.2) for i in range(3)])
    scores = service.prioritize(names)
    assert service.decision("uid-web")["fallback_reason"] == "late"
    preferences = np.array([node["preference"] for node in service.decision("uid-web")["nodes"]])
    assert sorted(scores.values(), reverse=True) == priorities(preferences).tolist()
    assert 0 < min(scores.values()) < 10


def test_a_stuck_scorer_neither_stops_the_service_nor_its_end(run_service: Run) -> None:
    scorer = open_gate()
    service = run_service(loaded=scorer.loaded(), deadline_ms=50.0)
    names = service.add_nodes(3)
    scorer.gate.clear()
    service.prioritize(names)
    assert service.operations.get("/healthz").status_code == 200
    began = time.monotonic()
    service.background.stop()
    service.background._thread.join(10.0)
    assert not service.background._thread.is_alive()
    assert time.monotonic() - began < 8.0
    scorer.gate.set()


@pytest.mark.parametrize(
    ("mode", "reason"), [("blank", "non_finite"), ("raises", "failed"), ("breaks", "failed"), ("short", "failed")]
)
def test_a_failing_scorer_is_replaced_counted_and_tried_again(run_service: Run, mode: str, reason: str) -> None:
    scorer = open_gate()
    service = run_service(loaded=scorer.loaded())
    names = service.add_nodes(8)
    scorer.mode = mode
    assert max(service.prioritize(names, pod("first")).values()) == 10
    assert service.decision("uid-first")["fallback_reason"] == reason
    assert service.decision("uid-first")["scorer"] == "kube-default"
    assert service.metric("maddpg_fallbacks_total", reason=reason) == 1
    scorer.mode = "well"
    service.prioritize(names, pod("second"))
    assert service.decision("uid-second")["fallback_reason"] is None
    assert service.metric("maddpg_decisions_total", scorer="controlled") == 1


def test_only_changed_rows_are_scored_again(run_service: Run) -> None:
    scorer = open_gate()
    service = run_service(loaded=scorer.loaded())
    names = service.add_nodes(200)
    scorer.calls.clear()
    service.prioritize(names, pod("one"))
    service.prioritize(names, pod("two"))
    time.sleep(0.05)
    assert scorer.calls == [200, 1], "all rows once, then the assumed one; nothing ahead for what may never come again"
    service.prioritize(names, pod("three"))
    until(lambda: sum(scorer.calls) >= 203)
    time.sleep(0.05)
    assert scorer.calls == [200, 1, 1, 1], "the demand comes again: the row of the last placement is scored ahead"


def test_nodes_that_come_and_go_while_the_scorer_works_are_not_mistaken(run_service: Run) -> None:
    scorer = open_gate()
    service = run_service(loaded=scorer.loaded())
    names = service.add_nodes(4)
    scorer.gate.clear()
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(service.prioritize, names, pod("slow"))
        until(lambda: 4 in scorer.calls)

        def swap(table: ClusterTable) -> None:
            table.remove_node("node-3")
            table.upsert_node("newcomer", 1.0, 1.0)

        service.change(swap)
        scorer.gate.set()
        scores = answer.result(10.0)
    assert set(scores) == set(names)
    assert scores["node-3"] == 5
    assert scores["node-2"] == 10


def test_many_requests_at_once_each_get_their_own_answer(run_service: Run) -> None:
    service = run_service(scorer="most-allocated")
    names = service.add_nodes(60)
    subsets = [names[i : i + 20] for i in range(40)]

    def ask(i: int) -> bool:
        return set(service.prioritize(subsets[i], pod(f"many{i}", cpu=f"{100 + i}m"))) == set(subsets[i])

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(ask, range(40)))
    assert service.metric("maddpg_decisions_total", scorer="most-allocated") == 40


def test_one_feasible_node_is_remembered_from_the_filter(run_service: Run) -> None:
    service = run_service()
    [name] = service.add_nodes(1)
    service.post("filter", by_names([name]))
    service.change(lambda table: table.pod_bound("uid-web", name, 0.5, 1.0))
    decision = service.decision("uid-web")
    assert (decision["verb"], decision["scorer"], decision["assumed"]) == ("filter", "only-feasible", name)
    assert decision["outcome"]["among_best"] is True


def test_an_outcome_is_joined_to_its_decision(run_service: Run) -> None:
    service = run_service(scorer="expected-speed")
    names = service.add_nodes(4)
    scores = service.prioritize(names)
    lower = min(scores, key=lambda name: scores[name])
    service.change(lambda table: table.pod_bound("uid-web", lower, 0.5, 1.0))
    outcome = service.decision("uid-web")["outcome"]
    assert (outcome["node"], outcome["priority"], outcome["among_best"]) == (lower, scores[lower], False)
    service.change(lambda table: table.pod_removed("uid-web", "evicted"))
    outcome = service.decision("uid-web")["outcome"]
    assert (outcome["node"], outcome["removed_reason"]) == (lower, "evicted")
    service.change(lambda table: table.pod_bound("uid-stranger", lower, 0.5, 1.0))
    listed = service.operations.get("/v1/decisions").json()
    assert listed["counts"] == {
        "decisions": 1,
        "fallbacks": 0,
        "urgency_sources": {**dict.fromkeys(SOURCES, 0), "qos": 1},
        "bound": 1,
        "bound_rated": 1,
        "bound_among_best": 0,
        "not_asked": 1,
        "failures": {},
        "ended": {"evicted": 1},
        "restarts": 0,
        "oom_killed": 0,
        "late": 0,
        "on_time": 0,
        "lateness_unknown": 1,
        "late_inferred": 0,
        "on_time_inferred": 0,
    }
    assert service.metric("maddpg_outcomes_total", kind="rated_lower") == 1


def test_the_ledger_forgets_the_oldest_pods(run_service: Run) -> None:
    service = run_service(ledger_size=3)
    names = service.add_nodes(2)
    for i in range(5):
        service.prioritize(names, pod(f"p{i}"))
    service.prioritize(names, pod("p3"))
    listed = service.operations.get("/v1/decisions", params={"limit": 2}).json()["decisions"]
    assert [(entry["pod"]["name"], entry["attempt"]) for entry in listed] == [("p3", 2), ("p4", 1)]
    assert service.operations.get("/v1/decisions/uid-p0").status_code == 404
    assert service.metric("maddpg_ledger_decisions") == 3


def test_an_explanation_adds_up_to_the_preference(run_service: Run) -> None:
    service = run_service()
    service.prioritize(service.add_nodes(9))
    explained = service.decision("uid-web")
    assert len(explained["nodes"]) == 5
    for node in explained["nodes"]:
        assert sum(node["contributions"].values()) == pytest.approx(node["preference"], abs=1e-5)
        for name in node["bids"]:
            assert node["contributions"][name] == pytest.approx(node["bids"][name] * node["criteria"][name], abs=1e-6)
        assert node["features"]["pod_size"] == pytest.approx(0.5 / 8.0)
    ranks = [node["kube_default"]["rank"] for node in explained["nodes"]]
    assert ranks == [1] * 5, "equal requests are equal to kube-default"
    preferences = [node["preference"] for node in explained["nodes"]]
    assert preferences == sorted(preferences, reverse=True)


def test_an_explanation_of_a_fallback_shows_no_bids(run_service: Run) -> None:
    service = run_service(scorer="least-used")
    service.prioritize(service.add_nodes(3))
    assert all(node["bids"] is None for node in service.decision("uid-web")["nodes"])


def test_a_broken_urgency_annotation_is_ignored_counted_and_shown(run_service: Run) -> None:
    service = run_service()
    names = service.add_nodes(2)
    service.prioritize(names, pod(annotations={"maddpg-scheduler.io/urgency": "very"}))
    decision = service.decision("uid-web")
    assert "maddpg-scheduler.io/urgency" in decision["warning"]
    assert decision["demand"]["urgency"] == 0.5
    assert service.metric("maddpg_pod_warnings_total") == 1


def test_binding_believes_the_node_it_bound_to(run_service: Run) -> None:
    service = run_service(EmbeddedSource(on_bind=lambda binding: None), enable_bind=True, scorer="kube-default")
    names = service.add_nodes(3)
    scores = service.prioritize(names)
    other = min(scores, key=lambda name: scores[name])
    body = {"PodName": "web", "PodNamespace": "default", "PodUID": "uid-web", "Node": other}
    assert service.post("bind", body).json() == {"Error": ""}
    assert service.change(lambda table: node_of(table, "uid-web")) == other


def test_a_refused_binding_is_told_counted_and_no_longer_assumed(run_service: Run) -> None:
    def refuse(binding: Binding) -> None:
        raise BindError(f"pod {binding.name} was replaced")

    service = run_service(EmbeddedSource(on_bind=refuse), enable_bind=True)
    service.prioritize(service.add_nodes(3))
    body = {"PodName": "web", "PodNamespace": "default", "PodUID": "uid-web", "Node": "node-0"}
    answer = service.post("bind", body)
    assert (answer.status_code, answer.json()) == (200, {"Error": "pod web was replaced"})
    assert service.change(lambda table: node_of(table, "uid-web")) is None
    assert service.metric("maddpg_bind_failures_total") == 1


@pytest.mark.parametrize("verb", ["filter", "preempt"])
def test_a_pod_asked_about_again_was_not_placed(run_service: Run, verb: str) -> None:
    """kube-scheduler asks for victims, or for what is feasible, of pods that are nowhere."""
    service = run_service(scorer="kube-default")
    names = service.add_nodes(3)
    service.prioritize(names)
    assert service.change(lambda table: table.assumed_count) == 1
    body = {"Pod": pod(), "NodeNameToMetaVictims": {"node-0": {"Pods": []}}}
    answer = service.post(verb, by_names(names) if verb == "filter" else body)
    assert answer.status_code == 200, answer.text
    assert service.change(lambda table: table.assumed_count) == 0
