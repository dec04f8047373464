"""The study and its report: who plays what, which goals the numbers reach, and what is written of it."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from policy import heuristics
from policy.bundle import load_bundle, shipped_bundle_path
from policy.errors import InvalidInputError
from tests.training.command_line import invoke
from training.evaluation import plan
from training.evaluation.baselines import baselines
from training.evaluation.contestants import contestant, gather
from training.evaluation.parallel import Task, run_tasks
from training.evaluation.plan import QUICK, STUDY_SEEDS, Plan, large_conditions, small_conditions
from training.evaluation.protocol import Evaluation, play
from training.evaluation.report import evidence
from training.evaluation.report.coverage import coverage_goals
from training.evaluation.report.curves import CURVE_FILE, Curve, read_curve, write_curve
from training.evaluation.report.document import JSON_FILE, Provenance, as_document, read_document, to_text
from training.evaluation.report.evidence import Evidence
from training.evaluation.report.goals import better_on_both, by_load, judge
from training.evaluation.report.highest_load import crossing, highest_load, load_ratio
from training.evaluation.report.markdown import MARKDOWN_FILE, renew_report, write_report
from training.evaluation.report.summary import BEGIN, END, insert, render
from training.evaluation.study import Study, run_study
from training.processes import THREAD_VARIABLES
from training.simulator.draws import TEST_SEEDS, episode_seeds
from training.simulator.scenarios import load_scenario

SMALL = replace(load_scenario("reference").resized(3), warmup_arrivals=20, episode_arrivals=80)
SPEED = heuristics.by_name("expected-speed")

Rates = dict[str, float]


def made_up(conditions: dict[str, Rates], oracle: float | None = None, **roles: list[str]) -> Study:
    """A study whose SLA violation rates are given, condition -> scorer -> rate; other metrics follow from them."""
    first = next(iter(conditions.values()))
    trained = {"policy", *(name for names in roles.values() for name in names)}
    found = Study("policy", [name for name in first if name not in trained], **roles)
    for label, rates in conditions.items():
        name, load = label.split()[-1].split("@")
        nodes = int(name.split("-")[1]) if name.startswith("reference-") else 10
        scenario = replace(SMALL, name=name.split("-")[0], nodes=nodes)
        values = {
            scorer: {
                "sla_violation_rate": np.full(4, rate),
                "reward": np.full(4, 1.0 - 2.0 * rate),
                "completion_rate": np.full(4, 1.0 - rate / 10),
                "lateness": np.full(4, rate),
                "failure_rate": np.zeros(4),
                "cpu_allocated": np.full(4, 0.9),
                "cpu_used": np.full(4, 0.6),
                "load_variance": np.full(4, 0.1 - rate / 2),
                **{
                    f"{p}:{pod.name}": np.full(4, 1 + rate)
                    for p in ("p50_slowdown", "p95_slowdown")
                    for pod in SMALL.pod_classes
                },
            }
            for scorer, rate in rates.items()
        }
        found.evaluations[label] = Evaluation(scenario, float(load), TEST_SEEDS[:4], values)
    if oracle is not None:
        found.oracle = {"sla_violation_rate": np.full(2, oracle)}
    return found


RULES = {"kube-default": 0.15, "random": 0.2, "expected-speed": 0.05}

# ---- what is played


def test_a_study_plays_test_seeds_that_nobody_looked_at_before() -> None:
    assert STUDY_SEEDS[0] == TEST_SEEDS[10_000]
    assert STUDY_SEEDS[-1] == TEST_SEEDS[-1]


def test_the_frozen_plan_has_every_condition_that_is_asked_for() -> None:
    labels = [item.label for item in (*small_conditions(Plan()), *large_conditions(Plan()))]
    assert labels[0] == "reference@0.4"
    assert len(set(labels)) == len(labels)
    asked = {"steady@0.4", "peak@0.5", "services@0.4", "trace@0.35", "unseen@0.4", "reference@0.7"}
    asked |= {"urgent@0.25", "urgent@0.4", "first-look@0.4", "three@0.4", "knee-0.3@0.4", "memory-1.3-0.4@0.4"}
    asked |= {"memory-1.0-0.15@0.2", "memory-1.3-0.15@0.6"}
    asked |= {f"{told} reference@{load}" for told in ("learned", "unlabelled", "bare") for load in (0.2, 0.4, 0.6)}
    asked |= {"reference-50@0.4", "reference-200@0.4", "reference-1000@0.4", "reference-100@0.5", "reference-100@0.7"}
    assert asked <= set(labels)
    assert {item.sized().nodes for item in large_conditions(Plan())} == {50, 100, 200, 1000}
    assert QUICK.episodes < Plan().episodes


def test_unseen_machines_are_none_that_training_meets() -> None:
    from training.cli import DEFAULT_CONFIG
    from training.config import load_config

    met = {(node.cores, node.speed) for node in load_scenario("reference").node_classes}
    for arena in load_config(DEFAULT_CONFIG).arenas:
        met |= {(node.cores, node.speed) for node in arena.node_classes}
    unseen = load_scenario("unseen")
    assert not met & {(node.cores, node.speed) for node in unseen.node_classes}
    assert unseen.pod_classes == load_scenario("reference").pod_classes


def test_a_trace_of_the_caller_is_played_beside_the_sample(tmp_path: Path) -> None:
    found = {item.label: item for item in small_conditions(Plan(), tmp_path / "mine.csv")}
    assert found["openb@0.35"].scenario.arrivals.trace == str(tmp_path / "mine.csv")
    assert found["trace@0.35"].scenario.arrivals.trace == "sample.csv"


# ---- processes


def test_results_do_not_depend_on_the_number_of_processes() -> None:
    before = {name: os.environ.get(name) for name in THREAD_VARIABLES}
    rules = {rule.name: rule for rule in baselines()}
    scorers = [contestant(shipped_bundle_path()), rules["random"], rules["low-risk-overcommitment"]]
    tasks = [Task("small", scorer, SMALL, 0.4, STUDY_SEEDS[:3]) for scorer in scorers]
    tasks += [replace(tasks[1], seeds=STUDY_SEEDS[:3]), replace(tasks[2], seeds=STUDY_SEEDS[3:5])]
    played: list[str] = []
    here, there = run_tasks(tasks), run_tasks(tasks, 2, lambda task: played.append(task.scorer.name))
    for one, other in zip(here, there, strict=True):
        for metric, values in one.items():
            np.testing.assert_array_equal(values, other[metric], err_msg=metric)
    # who played before does not matter either
    np.testing.assert_array_equal(here[1]["cpu_used"], here[3]["cpu_used"])
    assert sorted(played) == sorted(task.scorer.name for task in tasks)
    assert before == {name: os.environ.get(name) for name in THREAD_VARIABLES}


def test_no_processes_are_refused() -> None:
    with pytest.raises(InvalidInputError, match="jobs is 0"):
        run_tasks([], 0)


def test_a_bundle_plays_as_its_actor_does() -> None:
    seeds = episode_seeds(STUDY_SEEDS[:2])
    sent = play(contestant(shipped_bundle_path(), "a"), SMALL, seeds, 0.4)
    kept = play(load_bundle(shipped_bundle_path()).scorer(), SMALL, seeds, 0.4)
    for metric, values in kept.items():
        np.testing.assert_array_equal(values, sent[metric], err_msg=metric)


def test_bundles_are_gathered_from_folders_and_named_after_them(tmp_path: Path) -> None:
    for name in ("seed-2", "seed-1", "balanced"):
        shutil.copytree(shipped_bundle_path(), tmp_path / "models" / name)
    (tmp_path / "models" / "figures").mkdir()
    assert [each.name for each in gather([tmp_path / "models"])] == ["balanced", "seed-1", "seed-2"]
    assert [each.name for each in gather([tmp_path / "models" / "seed-2"])] == ["seed-2"]
    with pytest.raises(InvalidInputError, match="seed-2"):
        gather([tmp_path / "models", tmp_path / "models" / "seed-2"])
    with pytest.raises(InvalidInputError, match="figures"):
        gather([tmp_path / "models" / "figures"])


# ---- the highest load


@pytest.mark.parametrize(
    ("rates", "expected"),
    [
        pytest.param([0.01, 0.03, 0.07, 0.09], 0.45, id="half way between two loads"),
        pytest.param([0.01, 0.02, 0.03, 0.13], 0.52, id="a fifth of the way"),
        pytest.param([0.01, 0.05, 0.07, 0.09], 0.4, id="on a load"),
        pytest.param([0.01, 0.06, 0.03, 0.09], 0.38, id="the first crossing counts"),
        pytest.param([0.01, 0.02, 0.03, 0.04], 0.6, id="never: the highest played"),
        pytest.param([0.05, 0.06, 0.07, 0.08], np.nan, id="not even at the lowest"),
    ],
)
def test_the_highest_load_is_where_violations_reach_the_limit(rates: list[float], expected: float) -> None:
    found = crossing(np.array([0.3, 0.4, 0.5, 0.6]), np.array(rates))
    np.testing.assert_allclose(found, expected)


def large(policy: list[float], rule: list[float]) -> Study:
    conditions = {"reference@0.4": {"policy": 0.01, **RULES}}
    for load, ours, theirs in zip((0.4, 0.5, 0.6), policy, rule, strict=True):
        conditions[f"reference-100@{load}"] = {"policy": ours, "kube-default": 0.2, "expected-speed": theirs}
    return made_up(conditions)


def test_the_goal_on_a_hundred_nodes_is_a_fifth_more_load_than_the_best_rule() -> None:
    goals = {goal.name: goal for goal in judge(large([0.01, 0.02, 0.06], [0.04, 0.06, 0.1]))}
    name = "reference-100: highest load with SLA violations under 5 %"
    assert goals[name].value == pytest.approx(0.575)
    assert goals[name].goal == ">= 0.540, 1.2 times that of expected-speed"
    assert goals[name].reached
    assert goals["reference-100@0.4: SLA violations over kube-default's"].reached
    assert goals["reference-100@0.4: SLA violations over the best rule's (expected-speed)"].reached
    missed = {goal.name: goal for goal in judge(large([0.02, 0.06, 0.07], [0.04, 0.06, 0.1]))}
    assert not missed[name].reached
    assert not missed["reference-100@0.4: SLA violations over the best rule's (expected-speed)"].reached


def test_a_rule_that_holds_no_load_is_no_bar() -> None:
    study = large([0.01, 0.02, 0.06], [0.06, 0.07, 0.1])
    assert highest_load(study, "expected-speed").value is None
    assert load_ratio(study, "policy", "expected-speed").value is None
    goal = next(goal for goal in judge(study) if goal.name.startswith("reference-100: highest"))
    assert goal.reached
    assert goal.goal == "any, where no rule has one"


# ---- goals


def test_goals_are_judged_by_the_numbers() -> None:
    good = {goal.name: goal for goal in judge(made_up({"reference@0.4": {"policy": 0.01, **RULES}}, oracle=0.005))}
    assert not {name for name, goal in good.items() if not goal.reached} - {
        "training seeds",
        "reference@0.4: load variance against kube-default (none is better on both axes; least load variance: bundle "
        "policy, SLA violations 0.0100)",
    }
    assert good["reference@0.4: gap to the oracle closed"].value == pytest.approx(0.04 / 0.045)
    bad = {goal.name: goal for goal in judge(made_up({"reference@0.4": {"policy": 0.06, **RULES}}, oracle=0.005))}
    assert not bad["reference@0.4: SLA violations"].reached
    assert bad["reference@0.4: SLA violations against kube-default"].value == pytest.approx(-0.6)
    assert not bad["reference@0.4: SLA violations against kube-default"].reached
    assert not bad["reference@0.4: SLA violations over the best rule's (expected-speed), 10 nodes"].reached
    assert not bad["reference@0.4: gap to the oracle closed"].reached
    assert bad["reference@0.4: completion"].reached


def test_a_policy_that_is_to_hold_everywhere_is_judged_by_condition() -> None:
    rules = {"marginal-cost": 0.02, **RULES}
    loads = {f"reference@{load}": {"policy": 0.005, **rules} for load in (0.2, 0.3, 0.4, 0.5)}
    study = made_up({**loads, "reference@0.6": {"policy": 0.03, **rules}})
    for label, rate in {
        "learned reference@0.4": 0.03,
        "bare reference@0.4": 0.03,
        "unlabelled reference@0.6": 0.01,
        "memory-1.0-0.15@0.4": 0.01,
        "memory-1.3-0.4@0.4": 0.16,
        "urgent@0.4": 0.02,
        "three@0.4": 0.021,
    }.items():
        study.evaluations |= made_up({label: {"policy": rate, **rules}}).evaluations
    study.values("memory-1.3-0.4@0.4", "policy", "failure_rate")[:] = 0.002
    study.values("memory-1.0-0.15@0.4", "kube-default", "failure_rate")[:] = 0.001
    goals = {goal.name: goal for goal in coverage_goals(study)}
    labelled = "labelled reference at 0.2 to 0.6: loads with SLA violations"
    below = goals[f"{labelled} below marginal-cost's, whole interval"]
    assert (below.value, below.reached) == (4.0, True)
    above = goals[f"{labelled} above marginal-cost's, whole interval"]
    assert (above.value, above.reached) == (1.0, False)
    assert goals["labelled reference@0.4: SLA violations"].reached
    assert not goals["learned reference@0.4: SLA violations"].reached
    assert goals["learned reference@0.4: SLA violations over kube-default's"].value == pytest.approx(0.2)
    best = "SLA violations less the best rule's (marginal-cost)"
    reached = {name.split(":")[0]: goal.reached for name, goal in goals.items() if name.endswith(best)}
    assert reached == {
        "learned reference@0.4": False,
        "bare reference@0.4": False,
        "unlabelled reference@0.6": True,
        "urgent@0.4": True,
        "three@0.4": False,
    }
    killed = "share of pods killed, less kube-default's"
    assert goals[f"memory-1.0-0.15@0.4: {killed}"].value == pytest.approx(-0.001)
    assert not goals[f"memory-1.3-0.4@0.4: {killed}"].reached
    assert goals["memory-1.0-0.15@0.4: SLA violations less kube-default's"].reached
    assert not goals["memory-1.3-0.4@0.4: SLA violations less kube-default's"].reached


def test_it_is_said_at_which_loads_a_goal_holds() -> None:
    study = made_up({f"reference@{load}": {"policy": load / 20, **RULES} for load in (0.4, 0.2, 0.8)})
    found = by_load(study)["SLA violations"]
    assert {label: goal.reached for label, goal in found.items()} == {
        "reference@0.2": True,
        "reference@0.4": True,
        "reference@0.8": False,
    }
    study = made_up({"reference@0.4": {"policy": 0.01, **RULES}, "reference@0.6": {"policy": 0.07, **RULES}})
    goal = next(goal for goal in judge(study) if goal.name.startswith("every load of the sweep"))
    assert not goal.reached
    assert goal.value == pytest.approx(1.4)
    assert "reference@0.6" in goal.name


def test_held_out_conditions_are_goals_of_their_own() -> None:
    labels = ("reference@0.4", "unseen@0.4", "trace@0.35", "openb@0.35", "reference-50@0.4", "reference-1000@0.4")
    names = [goal.name for goal in judge(made_up({label: {"policy": 0.01, **RULES} for label in labels}))]
    for label in labels:
        assert any(name.startswith(f"{label}: SLA violations over the best rule's") for name in names), label


def test_a_bundle_must_be_better_on_both_axes() -> None:
    rates = {"policy": 0.01, "balanced": 0.08, **RULES}
    study = made_up({"reference@0.4": rates}, others=["balanced"])
    variance = study.evaluations["reference@0.4"].values
    assert better_on_both(study) == []
    variance["balanced"]["load_variance"] = np.full(4, 0.02)
    assert better_on_both(study) == ["balanced"]
    goal = next(goal for goal in judge(study) if "load variance" in goal.name)
    assert goal.reached
    assert "bundle balanced" in goal.name
    assert goal.value == pytest.approx(0.02 / 0.025 - 1.0)


def test_training_seeds_must_be_five_beat_the_rules_and_stay() -> None:
    names = [f"seed-{number}" for number in range(1, 6)]
    steady = Curve([(100, 0.9), (200, 0.5), (300, 0.52)], {}, finite=True)
    drifted = Curve([(100, 0.9), (200, 0.4), (300, 0.52)], {}, finite=True)
    rates = {"policy": 0.01, **dict.fromkeys(names, 0.02), **RULES}
    study = made_up({"reference@0.4": rates}, seeds=names)
    good = [goal for goal in judge(study, dict.fromkeys(names, steady)) if "training seed" in goal.name]
    assert len(good) == 4
    assert all(goal.reached for goal in good)
    bad = {
        goal.name: goal for goal in judge(study, {**dict.fromkeys(names, steady), "seed-2": drifted, "seed-3": None})
    }
    assert bad["training seeds that diverged, or whose curve is not known"].value == 2.0
    study = made_up({"reference@0.4": {**rates, "seed-4": 0.06}}, seeds=names)
    missed = [goal for goal in judge(study, dict.fromkeys(names, steady)) if "training seed" in goal.name]
    assert [goal.reached for goal in missed] == [True, False, False, True]


def test_a_goal_without_a_number_is_null_rather_than_nan() -> None:
    document = as_document(made_up({"reference@0.4": {"policy": 0.0, "kube-default": 0.0, "random": 0.0}}))
    assert '"value": null' in to_text(document)


def test_a_gap_without_an_interval_is_written_without_one(tmp_path: Path) -> None:
    # Drawn twice, the second oracle's episode leaves no gap to the best rule to divide by.
    study = made_up({"reference@0.4": {"policy": 0.02, **RULES}})
    study.oracle = {"sla_violation_rate": np.array([0.0, RULES["expected-speed"]])}
    write_report(study, tmp_path)
    text = (tmp_path / MARKDOWN_FILE).read_text(encoding="utf-8")
    assert "the policy closes 120.00 % (too few episodes for an interval) of the gap" in text


# ---- how training went


def test_a_curve_keeps_what_a_report_shows(tmp_path: Path) -> None:
    records = [
        {"kind": "rival", "step": 0, "reference@0.4": 0.05},
        {"kind": "train", "step": 50, "reward": -0.251234567, "critic_loss": 1.5, "sigma": 0.3},
        {"kind": "selection", "step": 100, "reference@0.4": 0.02, "score": 0.4},
    ]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    path = write_curve(tmp_path / "metrics.jsonl", tmp_path)
    assert [json.loads(line) for line in path.read_text().splitlines()] == [
        records[0],
        {"kind": "train", "step": 50, "reward": -0.25123, "critic_loss": 1.5},
        records[2],
    ]
    curve = read_curve(tmp_path)
    assert curve == Curve([(100, 0.4)], {"reference@0.4": [(100, 0.02)]}, finite=True)
    assert not curve.diverged
    assert read_curve(tmp_path / "elsewhere") is None


@pytest.mark.parametrize(
    ("scores", "finite"),
    [
        pytest.param([0.5, 1.0], True, id="no better than the rule"),
        pytest.param([0.4, 0.51], True, id="drifted away"),
        pytest.param([0.4, 0.4], False, id="a loss that is not finite"),
        pytest.param([], True, id="never measured"),
    ],
)
def test_divergence_is_seen(scores: list[float], finite: bool) -> None:
    assert Curve(list(enumerate(scores)), {}, finite).diverged


def test_a_curve_that_does_not_read_is_refused(tmp_path: Path) -> None:
    (tmp_path / CURVE_FILE).write_text('{"step": 1}\n')
    with pytest.raises(InvalidInputError, match="line 1"):
        read_curve(tmp_path)


# ---- report

TINY = Plan(
    episodes=3,
    scenarios=("reference",),
    loads=(0.3,),
    variants=(),
    sizes={12: 1},
    large_loads=(),
    oracle_episodes=1,
    told=("bare",),
    told_loads=(0.4,),
    memory_loads=(),
)


@pytest.fixture(scope="module")
def study() -> Study:
    """Really played, on a reference of three nodes and eighty arrivals."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plan, "load_scenario", lambda _name: SMALL)
        return run_study(
            heuristics.Heuristic("policy", SPEED.rule), TINY, seeds=[heuristics.Heuristic("seed-1", SPEED.rule)]
        )


def test_a_study_writes_what_it_played(study: Study, tmp_path: Path) -> None:
    paths = write_report(study, tmp_path)
    assert all(500 < path.stat().st_size < 400_000 for path in paths)
    document = json.loads((tmp_path / JSON_FILE).read_text(encoding="utf-8"))
    assert set(document["scenarios"]) == {"reference@0.4", "reference@0.3", "reference-12@0.4", "bare reference@0.4"}
    assert list(study.sweep().values()) == ["reference@0.3", "reference@0.4"]
    assert "seed-1" not in document["scenarios"]["reference-12@0.4"]
    for scorers in document["scenarios"].values():
        assert {"policy", "kube-default", "sufficient-speed"} <= set(scorers)
        for metrics in scorers.values():
            for entry in metrics.values():
                assert entry["low"] <= entry["mean"] <= entry["high"]
                assert entry["seeds"] > 0
    assert {"name", "value", "goal", "pass"} == set(document["goals"][0])
    text = (tmp_path / MARKDOWN_FILE).read_text(encoding="utf-8")
    for path in paths[2:]:
        assert path.name in text
        assert path.stat().st_size < 100_000


def test_a_policy_that_is_a_rule_in_disguise_only_ties_with_it(study: Study) -> None:
    for label, evaluation in study.evaluations.items():
        np.testing.assert_array_equal(study.values(label, "policy"), study.values(label, "expected-speed"))
        if "seed-1" in evaluation.values:
            np.testing.assert_array_equal(study.values(label, "policy"), study.values(label, "seed-1"))


def everything() -> Study:
    """Made up, with every section and figure a report can have."""
    study = large([0.01, 0.02, 0.06], [0.04, 0.06, 0.1])
    for values in study.evaluations["reference@0.4"].values.values():
        values["sla_violation_rate"] = values["sla_violation_rate"] * np.array([0.5, 1.0, 1.5, 1.0])
    study.oracle = {"sla_violation_rate": np.array([0.001, 0.002])}
    return study


def test_equal_studies_give_equal_files_and_old_figures_go(tmp_path: Path) -> None:
    (tmp_path / "b" / "figures").mkdir(parents=True)
    (tmp_path / "b" / "figures" / "old.png").write_bytes(b"")
    first, second = write_report(everything(), tmp_path / "a"), write_report(everything(), tmp_path / "b")
    assert [path.name for path in first] == [path.name for path in second]
    assert {"load-sweep-100.png", "highest-load.png", "trade-off.png"} <= {path.name for path in first}
    for one, other in zip(first, second, strict=True):
        assert one.read_bytes() == other.read_bytes(), one.name
    assert not (tmp_path / "b" / "figures" / "old.png").exists()


def test_numbers_are_rounded_and_no_folder_is_named(tmp_path: Path) -> None:
    bundle = tmp_path / "seed-1"
    shutil.copytree(shipped_bundle_path(), bundle)
    (bundle / CURVE_FILE).write_text('{"kind": "selection", "step": 9, "score": 0.123456789}\n')
    provenance = Provenance("maddpg-train report", {"policy": contestant(bundle, "policy")})
    text = to_text(as_document(everything(), provenance))
    assert str(tmp_path) not in text
    document = json.loads(text)
    assert document["bundles"]["policy"]["last_selection_score"] == 0.12346
    assert document["bundles"]["policy"]["diverged"] is False
    assert document["model_sha256"] == load_bundle(bundle).manifest.model_sha256


def test_the_curves_of_bundles_are_drawn(tmp_path: Path) -> None:
    bundle = tmp_path / "seed-1"
    shutil.copytree(shipped_bundle_path(), bundle)
    (bundle / CURVE_FILE).write_text('{"kind": "selection", "step": 9, "score": 0.5}\n')
    paths = write_report(everything(), tmp_path / "out", Provenance("", {"seed-1": contestant(bundle, "seed-1")}))
    assert "learning-curves.png" in [path.name for path in paths]


def test_evidence_is_renewed_and_what_episodes_showed_stays(tmp_path: Path) -> None:
    write_report(everything(), tmp_path)
    before, text = read_document(tmp_path), (tmp_path / MARKDOWN_FILE).read_text()
    renew_report(tmp_path, Evidence({10: 200_000.0, 1000: 4_000.0}))
    after = read_document(tmp_path)
    assert after["evidence"]["decisions_per_second"] == {"10": 200_000.0, "1000": 4_000.0}
    assert [goal["name"] for goal in after["goals"][:-4]] == [goal["name"] for goal in before["goals"][:-4]]
    assert sum(goal["pass"] for goal in after["goals"]) == sum(goal["pass"] for goal in before["goals"]) + 2
    assert "200,000 on 10 nodes, 4,000 on 1000 nodes" in (tmp_path / MARKDOWN_FILE).read_text()
    renew_report(tmp_path, Evidence())
    assert read_document(tmp_path) == before
    assert (tmp_path / MARKDOWN_FILE).read_text() == text


def test_a_report_from_before_there_was_evidence_gets_it(tmp_path: Path) -> None:
    write_report(everything(), tmp_path)
    whole = read_document(tmp_path)
    older = {name: value for name, value in whole.items() if name != "evidence"} | {"goals": whole["goals"][:-4]}
    (tmp_path / JSON_FILE).write_text(to_text(older))
    renew_report(tmp_path, Evidence())
    assert read_document(tmp_path) == whole


def test_the_renewal_measures_and_reads_what_it_is_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_report(everything(), tmp_path)
    (tmp_path / "outcome.json").write_text('{"episodes": 20000, "seconds": 1200.0, "finished": true}')
    monkeypatch.setattr(evidence, "speeds", lambda seconds: {10: 1e5 * seconds, 1000: 1e3})
    assert "evaluation.json" in invoke("renew", tmp_path, "--scale", tmp_path / "outcome.json", "--seconds", "3")
    found = read_document(tmp_path)
    assert found["evidence"]["decisions_per_second"]["10"] == 300_000.0
    assert [goal["pass"] for goal in found["goals"][-4:]] == [True, True, True, False]


# ---- the headline in other documents


def test_a_document_gets_the_headline_between_its_markers(tmp_path: Path) -> None:
    write_report(everything(), tmp_path)
    readme = tmp_path / "README.md"
    readme.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n")
    assert "README.md" in invoke("headline", tmp_path, readme)
    block = render(read_document(tmp_path))
    assert readme.read_text() == f"before\n{BEGIN}\n{block}\n{END}\nafter\n"
    assert "| **policy** | 1.00 (0.62-1.38) |" in block
    assert "| load 0.4 |" in block
    assert "it wins 4, ties 0 and loses 0" in block


def test_a_document_without_markers_is_refused() -> None:
    with pytest.raises(InvalidInputError, match=r"README\.md"):
        insert(f"{END}{BEGIN}", "table", "README.md")


def test_a_bundle_without_a_report_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="maddpg-train report"):
        read_document(tmp_path)
