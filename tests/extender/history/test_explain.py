"""What would have to change is true: with the change the node wins, with a little less it does not."""

from __future__ import annotations

import io
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from rich.console import Console

from extender import cli
from extender.history import sentences
from extender.history.counterfactual import CHANGEABLE, Judge, _with, smallest_changes
from extender.history.explain import short_reason
from extender.history.ledger import OddNode
from extender.operations import shapes
from extender.scorer.load import LoadedScorer
from policy import heuristics
from policy.actors import Actors
from policy.bundle import load_bundle, shipped_bundle_path
from policy.cluster import ClusterState, PodDemand
from policy.features import FEATURE_NAMES
from policy.scorers import ActorScorer, Scorer
from tests.extender.history.samples import a_decision, explanation
from tests.extender.service import Service
from tests.policy.states import actor_model, demands, random_state, requesting, silent_demands

Run = Callable[..., Service]
ACTORS = Actors(actor_model(np.random.default_rng(5).normal(size=(8, 4)) * 0.7))
SCORERS: list[Scorer] = [ActorScorer(ACTORS, "test"), *heuristics.DETERMINISTIC.values()]


def wins(scorer: Scorer, rows: ClusterState, demand: PodDemand, feature: str, value: float, other: int) -> bool:
    """Whether the row `other` beats row 0 with this value."""
    changed = _with(rows.take(np.array([other])), demand, feature, np.array([value]))
    return bool(scorer.preferences(changed, demand)[0] > scorer.preferences(rows, demand)[0])


def changes_of(scorer: Scorer, rows: ClusterState, demand: PodDemand) -> dict[str, Any]:
    """What would make row 1 win against row 0."""
    target = float(scorer.preferences(rows, demand)[0])
    return smallest_changes(Judge(scorer), rows.take(np.array([1])), demand, target)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), demand=demands | silent_demands, scorer=st.sampled_from(SCORERS))
def test_each_change_makes_the_node_win_and_half_of_it_does_not(seed: int, demand: PodDemand, scorer: Scorer) -> None:
    rows = random_state(np.random.default_rng(seed), 2)
    if scorer.preferences(rows, demand).argmax() == 1:
        rows = rows.take(np.array([1, 0]))
    told = changes_of(scorer, rows, demand)
    assert sorted([*told["not_by"], *(change["feature"] for change in told["changes"])]) == sorted(CHANGEABLE)
    for change in told["changes"]:
        feature, before, after = change["feature"], change["before"], change["after"]
        assert wins(scorer, rows, demand, feature, after, 1)
        assert after > before if feature == "node_speed" else after < before, "never a worse node"
        if scorer.name == heuristics.KUBE_DEFAULT:
            continue  # its whole percents make it win and lose in bands, some narrower than the values that are tried
        for part in np.linspace(0.1, 0.99, 12).tolist():
            between = before + part * (after - before)
            assert not wins(scorer, rows, demand, feature, between, 1) or abs(after - between) < 0.02, (
                "a smaller change would do"
            )


def test_a_change_known_by_hand() -> None:
    rows = replace(ClusterState.idle([10.0, 10.0], [10.0, 10.0]), cpu_used=np.array([2.0, 5.0]))
    told = changes_of(heuristics.by_name("least-used"), rows, PodDemand(1.0, 1.0, 0.5))
    [change] = told["changes"]
    assert (change["feature"], change["before"]) == ("cpu_used", 0.5)
    assert change["after"] == pytest.approx(0.2, abs=1e-4)
    assert told["not_by"] == [name for name in CHANGEABLE if name != "cpu_used"]


def test_changes_come_least_first(run_service: Run) -> None:
    rows = requesting(ClusterState.idle([8.0, 8.0], [16.0, 16.0]), [1.0, 4.0], [1.0, 1.0])
    told = changes_of(heuristics.by_name("kube-default"), rows, PodDemand(1.0, 1.0, 0.5))
    steps = [abs(change["after"] - change["before"]) for change in told["changes"]]
    assert [change["feature"] for change in told["changes"]] == ["cpu_requested", "memory_requested"] or len(steps) == 1
    assert steps == sorted(steps)


def test_a_replaced_policy_is_not_made_to_speak_for_the_one_that_decided() -> None:
    scorer = ActorScorer(ACTORS, "test")
    decision = a_decision(preferences=scorer.preferences(a_decision().rows, a_decision().demand))  # type: ignore[arg-type]
    judge = Judge(scorer)
    assert explanation(decision, judge)["counterfactual"]["node"] == "node-1"
    replaced = ActorScorer(Actors(actor_model(np.random.default_rng(9).normal(size=(8, 4)))), "test")
    told = explanation(decision, Judge(replaced))
    assert (told["counterfactual"], told["nodes"][0]["bids"]) == (None, None)
    assert told["unexplained"] == "test has been replaced since, and would rate these nodes otherwise"
    assert explanation(decision, None)["unexplained"] == "test cannot be asked for its reasons now"
    assert told["nodes"][0]["features"] == explanation(decision, judge)["nodes"][0]["features"]


def test_a_node_that_may_run_out_of_memory_is_told_as_such() -> None:
    scorer = ActorScorer(ACTORS, "test")
    rows = requesting(ClusterState.idle([8.0, 8.0], [16.0, 16.0]), [1.0, 1.0], [1.0, 15.9])
    rows = replace(rows, memory_used=np.array([1.0, 15.9]), cpu_used=np.array([7.0, 0.0]))
    demand = PodDemand(1.0, 1.0, 0.5)
    decision = a_decision(nodes=2, rows=rows, demand=demand, preferences=scorer.preferences(rows, demand))
    first, second = explanation(decision, Judge(scorer))["nodes"]
    assert first["memory_shortage_chance"] < 0.01
    assert second["memory_shortage_chance"] > 0.5
    assert "memory may run out on node-1 (chance " in short_reason(decision, "node-0", Judge(scorer))
    assert not any(said.startswith("Memory may run out") for said in sentences.of_decision(explanation(decision, None)))


@pytest.mark.parametrize("nodes", [1, 2])
def test_a_best_node_that_may_run_out_of_memory_is_told_as_such_too(nodes: int) -> None:
    scorer = ActorScorer(ACTORS, "test")
    rows = requesting(ClusterState.idle([8.0] * nodes, [16.0] * nodes), [1.0] * nodes, [15.0] * nodes)
    rows = replace(rows, memory_used=np.linspace(15.5, 15.9, nodes))
    demand = PodDemand(1.0, 2.0, 0.5)
    decision = a_decision(nodes=nodes, rows=rows, demand=demand, preferences=scorer.preferences(rows, demand))
    told = explanation(decision, Judge(scorer))
    assert sum(told["nodes"][0]["contributions"].values()) == pytest.approx(told["nodes"][0]["preference"], abs=1e-5)
    assert any(said.startswith("Memory may run out on node-0 (chance ") for said in sentences.of_decision(told))
    assert "; memory may run out on node-0 (chance " in short_reason(decision, "node-0", Judge(scorer))


def test_equal_nodes_are_told_as_equal() -> None:
    scorer = ActorScorer(ACTORS, "test")
    rows, demand = ClusterState.idle([8.0] * 2, [16.0] * 2), PodDemand(0.0, 0.0, 0.0, 0.1, 0.2)
    decision = a_decision(nodes=2, rows=rows, demand=demand, preferences=scorer.preferences(rows, demand))
    told = explanation(decision, Judge(scorer), "node-1")
    assert "node-1 was preferred as much as the best node." in sentences.of_decision(told)
    assert sentences.of_node(told["why_not"], told)[1:] == ["node-1 was preferred as much as the best node."]
    assert "most of it" not in short_reason(decision, "node-0", Judge(scorer))


def test_signs_are_those_of_preferences() -> None:
    """How much a pod harms its neighbours is less where the criterion is more."""
    scorer = load_bundle(shipped_bundle_path()).scorer("test")
    assert isinstance(scorer, ActorScorer)
    rows = replace(ClusterState.idle([8.0] * 2, [16.0] * 2, [1.5, 0.5]), cpu_used=np.array([7.0, 0.0]))
    demand = PodDemand(1.0, 1.0, 1.0)
    decision = a_decision(nodes=2, rows=rows, demand=demand, preferences=scorer.preferences(rows, demand))
    told = explanation(decision, Judge(scorer), "node-1")
    gained = -told["why_not"]["lost_by"]["neighbours"]
    assert gained > 0.0
    [said] = [said for said in sentences.of_node(told["why_not"], told) if "Compared" in said]
    assert "its preference differs by " in said
    assert f"how little it slows its neighbours ({gained:+.3f})" in said


def test_what_contributions_do_not_add_up_to_is_not_explained_by_them() -> None:
    scorer = ActorScorer(ACTORS, "test")
    rows = replace(ClusterState.idle([8.0] * 2, [16.0] * 2), cpu_used=np.array([1.0, 7.0]))
    demand = PodDemand(1.0, 1.0, 0.5)
    if scorer.preferences(rows, demand).argmax() == 1:
        rows = rows.take(np.array([1, 0]))
    preferences = scorer.preferences(rows, demand)
    plain = a_decision(nodes=2, rows=rows, demand=demand, preferences=preferences)
    assert ", most of it by " in sentences.of_decision(explanation(plain, Judge(scorer)))[1]
    odd = replace(plain, preferences=preferences - np.array([0.0, 1.0]), odd_nodes=(OddNode("node-1", "last"),), odd=1)
    assert "most of it by" not in " ".join(sentences.of_decision(explanation(odd, Judge(scorer))))


def test_the_service_tells_what_would_change_a_fallbacks_mind_too(run_service: Run) -> None:
    service = run_service(scorer="least-used")
    names = service.add_nodes(3)
    now = time.time()
    service.change(lambda table: [table.set_usage(name, 1.0 + i, 1.0, None, now) for i, name in enumerate(names)])
    service.prioritize(names)
    told = service.decision("uid-web")
    assert [node["node"] for node in told["nodes"]] == names
    assert told["counterfactual"]["node"] == "node-1"
    [change] = told["counterfactual"]["changes"]
    assert (change["feature"], change["before"], change["after"]) == (
        "cpu_used",
        pytest.approx(0.25),
        pytest.approx(0.125, abs=1e-4),
    )
    assert told["kube_default_choice"] == names, "equal requests are equal to kube-default"


class Blank(Actors):
    """Bids nothing finite on busy nodes."""

    def bids(self, observation: NDArray[np.float32]) -> NDArray[np.float32]:
        """Bids, ``[n, 4]``."""
        bids = super().bids(observation)
        bids[observation[:, FEATURE_NAMES.index("cpu_used")] > 0.8] = np.nan
        return bids


def test_a_node_without_finite_bids_is_told_without_contributions(run_service: Run) -> None:
    blank = Blank(actor_model(np.zeros((8, 4)) + 0.1))
    service = run_service(loaded=LoadedScorer(ActorScorer(blank, "blank"), 0.1, ""))
    names, now = service.add_nodes(3), time.time()
    service.change(lambda table: [table.set_usage(name, 3.5 * i, 1.0, None, now) for i, name in enumerate(names)])
    service.prioritize(names)
    answer = service.operations.get("/v1/decisions/uid-web?why_not=node-2")
    told = shapes.explained(answer.content)
    contributions = {node["node"]: node["contributions"] for node in told["nodes"]}
    assert contributions.pop("node-2") is None
    assert all(sum(each.values()) > 0.0 for each in contributions.values())
    assert (told["why_not"]["odd"], told["why_not"]["lost_by"], told["why_not"]["counterfactual"]) == (True, None, None)
    shown = io.StringIO()
    cli._show(told, Console(file=shown, width=200))
    assert "contributions: constant" in shown.getvalue()
