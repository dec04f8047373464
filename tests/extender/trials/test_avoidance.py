"""Late placements avoided: the interval holds the truth where it is known, and nothing is invented where it is not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from scipy import stats

from extender.cluster.status import PodReport
from extender.cluster.table import ClusterTable
from extender.errors import EvidenceError
from extender.history.contenders import Contenders
from extender.history.ledger import Decision, Ledger
from extender.history.timeline import Timeline
from extender.scorer.load import load_heuristic
from extender.trials.avoidance import RESULTS, Avoidance
from extender.trials.effect import (
    FEWEST_PODS,
    NODE,
    RULE_OF_THREE,
    Estimate,
    Evidence,
    by_arms,
    by_model,
    jackknife,
)
from extender.trials.experiment import CANDIDATE, CONTROL, Experiment
from policy.cluster import ClusterState, DemandBatch, PodDemand
from policy.heuristics import kube_default
from tests.extender.history.samples import a_decision
from tests.extender.service import Service, pod

Run = Callable[..., Service]
Rate = Callable[[ClusterState], Any]
DAY = 86400.0


# ---- the truth is known ------------------------------------------------------------------------------------------


def linear(state: ClusterState) -> Any:
    return state.node_speed**0.8 * np.exp(-0.5 * state.cpu_used / state.cpu_allocatable)


def crowded(state: ClusterState) -> Any:
    use = state.cpu_used / state.cpu_allocatable
    return state.node_speed * (1.0 - 0.35 * np.clip((use - 0.55) / 0.45, 0.0, 1.0)) * (1.0 - state.cpu_pressure)


def indifferent(state: ClusterState) -> Any:
    return np.full(state.shape, 0.8)


def world(
    seed: int, rate: Rate, pods: int = 500, workloads: int = 40, noise: float = 0.25
) -> tuple[Evidence, float, float]:
    """Pods placed by a rule that looks at speed and use, and by how many more would have been late by kube-default.

    Returns:
        The evidence; the truth, of the pods whose other node is like those seen; and the late pods there were.
    """
    rng = np.random.default_rng(seed)
    shape = pods, 10
    cpu = rng.choice([8.0, 16.0, 32.0], shape)
    requested = cpu * rng.uniform(0.1, 0.9, shape)
    used = requested * rng.uniform(0.3, 1.0, shape)
    pressure = np.clip(0.75 * (used / cpu - 0.6), 0.0, 1.0) + rng.uniform(0.0, 0.05, shape)
    idle = ClusterState.idle(cpu, 4.0 * cpu, rng.choice([0.6, 0.8, 1.0, 1.3], shape))
    state = replace(
        idle, cpu_requested=requested, cpu_nonzero=requested, memory_requested=2.0 * requested,
        memory_nonzero=2.0 * requested, cpu_used=used, memory_used=1.5 * requested, cpu_pressure=pressure,
    )  # fmt: skip
    of = rng.integers(workloads, size=pods)

    def each(values: Any) -> Any:
        return values[of][:, None]

    size, urgency = each(rng.choice([0.25, 0.5, 1.0, 2.0], workloads)), each(rng.uniform(0.2, 1.0, workloads))
    expected, own_way = each(rng.uniform(10.0, 600.0, workloads)), each(rng.normal(0.0, 0.2, workloads))
    usual = kube_default(state, DemandBatch(size, 2.0 * size, urgency))
    liked = usual == usual.max(axis=1, keepdims=True)
    score = state.node_speed * (1.0 - pressure) * (1.5 - used / cpu) + rng.normal(0.0, 0.3, shape)
    went = score.argmax(axis=1)
    waited = expected * rng.exponential(0.05, (pods, 1))
    median = np.log(expected / rate(state)) + own_way
    allowed = expected / urgency
    chance = stats.norm.sf((np.log(np.maximum(allowed - waited, 1e-9)) - median) / noise)
    ran = np.exp(median + noise * rng.normal(size=(pods, 1)))
    columns = np.stack(
        np.broadcast_arrays(
            np.log(state.node_speed), used / cpu, pressure, (requested + size) / cpu,
            (2.0 * requested + 2.0 * size) / (4.0 * cpu), size / cpu, np.log(urgency), np.log(expected),
        ),
        axis=-1,
    )  # fmt: skip
    rows = np.arange(pods)
    elsewhere = liked & (np.arange(10) != went[:, None])
    weights = (elsewhere / liked.sum(axis=1, keepdims=True))[elsewhere]
    others = np.nonzero(elsewhere)[0]
    seen, other = columns[rows, went], columns[elsewhere]
    evidence = Evidence(
        seen, waited[:, 0], ran[rows, went], expected[:, 0], allowed[:, 0], of, other, others, weights
    )  # fmt: skip
    low, high = seen[:, :NODE].min(axis=0), seen[:, :NODE].max(axis=0)
    margin = 0.05 * (high - low) + 1e-6
    alike = ((other[:, :NODE] >= low - margin) & (other[:, :NODE] <= high + margin)).all(axis=1)
    more = weights * (chance[elsewhere] - chance[others, went[others]])
    return evidence, float(more[alike].sum()), float((waited[:, 0] + ran[rows, went] > allowed[:, 0]).sum())


@pytest.mark.parametrize(
    ("rate", "changes"),
    [
        (linear, {}),
        (crowded, {}),
        (crowded, {"pods": 200, "workloads": 20}),
        (indifferent, {}),
        (crowded, {"noise": 0.6}),
    ],
    ids=["linear", "crowded", "few pods", "nodes are alike", "noisy"],
)
def test_the_interval_holds_the_truth_in_95_of_100_worlds(rate: Rate, changes: dict[str, Any]) -> None:
    inside, errors, truths, halves = 0, list[float](), list[float](), list[float]()
    for seed in range(60):
        evidence, truth, _ = world(seed, rate, **changes)
        found = by_model(evidence)
        inside += found.low <= truth <= found.high
        errors.append(found.value - truth)
        truths.append(truth)
        halves.append(found.high - found.value)
    # 60 draws of 0.95 fall below 52 with a chance of 0.5 %
    assert inside >= 52, (inside, np.mean(errors), np.std(errors))
    assert abs(np.mean(errors)) < 0.35 * np.mean(halves), "the estimate leans to neither side"
    if rate is not indifferent and not changes:
        assert np.mean(truths) > 2.0 * np.mean(halves) / 2.0, "where there is an effect, the interval is no excuse"


def test_arms_of_an_experiment_differ_by_what_they_differ_in() -> None:
    inside = 0
    for seed in range(200):
        rng = np.random.default_rng(seed)
        sizes = rng.integers(1, 30, 80)
        kube = np.arange(80) % 2 == 0
        chances = np.clip(np.where(kube, 0.3, 0.2) + rng.normal(0.0, 0.08, 80), 0.0, 1.0)
        of = np.repeat(np.arange(80), sizes)
        found = by_arms(rng.random(len(of)) < chances[of], of, kube[of])
        inside += found.low <= 0.1 * sizes[~kube].sum() <= found.high
    assert 180 <= inside <= 199, inside


def test_a_jackknife_of_a_mean_is_its_standard_error() -> None:
    values = np.random.default_rng(5).normal(size=2000)
    mean, error, freedom = jackknife(lambda mask: float(values[mask].mean()), np.arange(2000))
    assert mean == pytest.approx(values.mean())
    assert error == pytest.approx(values.std(ddof=1) / np.sqrt(2000), rel=0.4)
    assert freedom == pytest.approx(19.0)


# ---- too little is known -----------------------------------------------------------------------------------------


EACH = ("seen", "waited_s", "ran_s", "expected_s", "allowed_s", "workloads")


def kept(evidence: Evidence, pods: Any) -> Evidence:
    """The evidence of these pods alone, bool ``[n]``."""
    place = np.cumsum(pods) - 1
    others = pods[evidence.pods]
    return Evidence(
        *(getattr(evidence, name)[pods] for name in EACH),
        evidence.other[others], place[evidence.pods[others]], evidence.weights[others],
    )  # fmt: skip


def test_nothing_is_said_where_too_little_was_seen() -> None:
    whole, _, _ = world(1, crowded)
    count = len(whole.ran_s)
    few = kept(whole, np.arange(count) < FEWEST_PODS - 1)
    with pytest.raises(EvidenceError, match="99 pods ended whose SLA and nodes are known; 100 are needed"):
        by_model(few)
    with pytest.raises(EvidenceError, match="0 pods ended"):
        by_model(kept(whole, np.zeros(count, dtype=np.bool_)))
    with pytest.raises(EvidenceError, match="workloads of these pods: 9"):
        by_model(replace(whole, workloads=whole.workloads % 9))
    with pytest.raises(EvidenceError, match="most of the pods are of few workloads"):
        by_model(replace(whole, workloads=np.where(np.arange(count) < 400, 0, whole.workloads)))
    with pytest.raises(EvidenceError, match="20 are needed"):
        by_model(replace(whole, weights=whole.weights * 0.01))
    strange = whole.other.copy()
    strange[:, 0] += 5.0
    with pytest.raises(EvidenceError, match=", 0 of them on nodes like those seen"):
        by_model(replace(whole, other=strange))
    with pytest.raises(EvidenceError, match="workloads of these pods: 3"):
        by_arms(np.ones(60, dtype=np.bool_), np.arange(60) % 3, np.arange(60) < 30)


def test_where_kube_default_chooses_the_same_nothing_is_avoided_for_sure() -> None:
    whole, _, _ = world(1, crowded)
    same = replace(whole, other=whole.other[:0], pods=whole.pods[:0], weights=whole.weights[:0])
    assert by_model(same) == Estimate(0.0, 0.0, 0.0)


def test_what_never_happened_is_no_certainty() -> None:
    whole, _, _ = world(1, crowded)
    found = by_model(replace(whole, allowed_s=1e9 * whole.allowed_s))
    assert (found.value, found.low, found.high) == (0.0, -RULE_OF_THREE, RULE_OF_THREE)


def test_a_pod_that_hung_decides_nothing() -> None:
    whole, _, _ = world(1, crowded)
    ran = whole.ran_s.copy()
    ran[7] *= 1e12
    before, after = by_model(whole), by_model(replace(whole, ran_s=ran))
    assert after.value == pytest.approx(before.value, abs=0.2 * (before.high - before.value))


# ---- from decisions to a sentence --------------------------------------------------------------------------------


NODES = 12


def lived(pods: int, *, hours_ago: float = 1.0, now: float = 1e6, sla: bool = True) -> tuple[Ledger, list[Decision]]:
    """A ledger after so many pods, of 25 workloads, placed at random on nodes of two speeds, the fast ones fuller."""
    table = ClusterTable(clock=lambda: now)
    table.claim()
    rng = np.random.default_rng(3)
    for i in range(NODES):
        table.upsert_node(f"node-{i}", 16.0, 64.0, speed=1.5 if i % 2 else 0.6)
        table.pod_bound(f"held-{i}", f"node-{i}", 8.0 if i % 2 else 1.0 + 0.1 * i, 4.0)
    ledger, timeline, decisions = Ledger(pods, table.row_of), Timeline(table), list[Decision]()
    state, version = table.state, table.version
    rows = np.arange(NODES)
    for i in range(pods):
        moment = timeline.at(version)
        assert moment is not None
        preferences = rng.permutation(np.linspace(0.0, 1.0, NODES))
        order = np.argsort(-preferences)[:5]
        went = int(order[0])
        at = now - hours_ago * 3600.0 - 200.0
        demand = PodDemand(0.5, 1.0, 0.7 if sla else 0.0)
        decision = a_decision(
            f"uid-web{chr(97 + i % 25)}-{i}", number=i, at=at, demand=demand, candidates=NODES,
            names=tuple(f"node-{row}" for row in order), preferences=preferences[order],
            priorities=np.array([10, 9, 9, 9, 9]), rows=state.take(order),
            contenders=Contenders(moment, rows, preferences, np.zeros(NODES, dtype=np.int64), (), 1.0),
        )  # fmt: skip
        ledger.record(decision)
        ledger.pod_bound(decision.uid, f"node-{went}", at + 1.0)
        ran = float(50.0 / state.node_speed[went] * np.exp(0.1 * rng.normal()))
        report = PodReport(created_at=at, finished_at=at + 1.0 + ran, expected_s=50.0)
        ledger.pod_reported(decision.uid, lambda report=report: report)
        decisions.append(decision)
    return ledger, decisions


def end(ledger: Ledger, decisions: list[Decision]) -> None:
    for decision in decisions:
        outcome = decision.outcome
        assert outcome is not None
        assert outcome.finished_at is not None
        ledger.pod_removed(decision.uid, "succeeded", outcome.finished_at)


def test_pods_that_kube_default_would_have_put_on_slow_nodes_are_counted() -> None:
    ledger, decisions = lived(150)
    avoidance = Avoidance(ledger, "1.37", clock=lambda: 1e6)
    avoidance.update()
    end(ledger, decisions)
    document = avoidance.update()
    late = sum(it.outcome is not None and it.outcome.late is True for it in decisions)
    # kube-default prefers the emptiest node, which is slow: every pod would have been late there
    assert document["method"] == "model"
    assert document["value"] == pytest.approx(150 - late, abs=5.0)
    assert document["low"] <= 150 - late <= document["high"]
    assert document["ended"]["same"] + document["ended"]["other"] == 150
    assert document["sentence"].startswith(
        f"About {document['value']:.0f} late placements avoided against kube-default"
    )
    assert "150 of 150 pods that ended" in document["sentence"]


def test_what_cannot_be_said_of_some_is_said() -> None:
    ledger, decisions = lived(150)
    for decision in decisions[:40]:
        ledger.recollection.forget(decision)
    avoidance = Avoidance(ledger, "1.37", clock=lambda: 1e6)
    avoidance.update()
    end(ledger, decisions)
    document = avoidance.update()
    assert document["ended"]["forgotten"] == 40
    assert "110 of 150 pods that ended" in document["sentence"]
    assert Avoidance(ledger, "1.37", clock=lambda: 1e6 + 2.0 * DAY).update()["ended"] == dict.fromkeys(RESULTS, 0)


@pytest.mark.parametrize(("pods", "sla"), [(1, True), (150, False)], ids=["the first pod", "no SLA"])
def test_the_first_day_and_pods_without_an_sla_bring_no_number(pods: int, sla: bool) -> None:
    ledger, decisions = lived(pods, sla=sla)
    avoidance = Avoidance(ledger, "1.37", clock=lambda: 1e6)
    assert "No pod has been looked at yet" in avoidance.latest["sentence"]
    avoidance.update()
    end(ledger, decisions)
    document = avoidance.update()
    assert [document[name] for name in ("value", "low", "high")] == [None, None, None]
    assert "not enough seen" in document["sentence"]
    assert document["ended"]["no_sla"] == (0 if sla else pods)


@pytest.mark.parametrize("kube_decides", [True, False])
def test_an_experiment_with_kube_default_measures_it(kube_decides: bool) -> None:
    ledger, decisions = lived(150)
    scorer, candidate = ("kube-default", "least-used") if kube_decides else ("least-used", "kube-default")
    experiment = Experiment(load_heuristic(candidate), 0.5, "")
    for i, decision in enumerate(decisions):
        decision.experiment, decision.workload = experiment.key, f"w-{i % 30}"
        decision.arm = CONTROL if (i % 30) % 2 == 0 else CANDIDATE
    avoidance = Avoidance(ledger, "1.37", experiment, scorer, clock=lambda: 1e6)
    avoidance.update()
    end(ledger, decisions)
    document = avoidance.update()
    kube = CONTROL if kube_decides else CANDIDATE
    late = [
        [bool(it.outcome and it.outcome.late) for it in decisions if (it.arm == kube) == each] for each in (True, False)
    ]
    assert document["method"] == "experiment"
    assert document["value"] == pytest.approx(75 * (np.mean(late[0]) - np.mean(late[1])))
    assert "measured by the experiment" in document["sentence"]


def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("extender.trials.avoidance.MOST_SIGHTS", 30)
    monkeypatch.setattr("extender.trials.avoidance.LOOKED_AT", 40)
    ledger, decisions = lived(150)
    avoidance = Avoidance(ledger, "1.37", clock=lambda: 1e6)
    avoidance.update()
    end(ledger, decisions)
    assert avoidance.update()["ended"]["forgotten"] == 120


def test_the_service_tells_it_everywhere(run_service: Run) -> None:
    service = run_service(scorer="kube-default")
    service.prioritize(service.add_nodes(3), pod("a"))
    service.background.app.avoidance.update()
    told = service.operations.get("/v1/report").json()["late_avoided"]
    assert (told["value"], told["method"]) == (None, "model")
    assert "not enough seen. 0 pods ended" in told["sentence"]
    assert told["sentence"] in service.operations.get("/dashboard/").text
    assert np.isnan(service.metric("maddpg_late_placements_avoided", bound="value"))
    assert service.metric("maddpg_late_placements_pods", result="same") == 0.0
