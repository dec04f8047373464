"""Variants trained and compared: what a file may say, what is run again, and what the report makes of results."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from typer.testing import CliRunner

from policy.errors import InvalidInputError
from tests.training.command_line import call
from tests.training.tiny_runs import document, one_thread  # noqa: F401 - a fixture
from training.ablation import runner
from training.ablation.findings import markdown, play_rules, summarise, write_report
from training.ablation.runner import RESULT_FILE, TASK_FILE, AblationError, run, train_and_play
from training.ablation.variants import Variants, load_plan, merged
from training.cli import ABLATIONS, app
from training.evaluation.statistics import crossed_estimate, crossed_improvement, interquartile_mean, mean
from training.files import write_json
from training.learning.loop import LATEST_FILE, Trainer
from training.learning.updates import DivergedError
from training.simulator.draws import TEST_SEEDS

VARIANTS: dict[str, Any] = {"plain": {"about": "plain bids", "settings": {"actor": {"criteria": "constant"}}}}


def write_plan(folder: Path, variants: dict[str, Any] | None = None, **base: Any) -> Path:
    """An ablation of `tiny_runs`: 30 updates, three episodes."""
    settings = document(folder, **{"updates": 30, **base})
    play = {"scenario": settings["arenas"][0]["scenario"], "load": 0.4, "episodes": 3}
    path = folder / "ablation.yml"
    content = {"base": settings, "variants": VARIANTS if variants is None else variants, "play": play}
    path.write_text(yaml.safe_dump(content))
    return path


def prepared(folder: Path, plan: Variants, number: int = 0) -> Path:
    """A run's folder with its task in it, as the runner leaves it."""
    folder.mkdir()
    task = {"config": plan.variants[number].config.model_dump(mode="json"), "play": plan.play.model_dump(mode="json")}
    write_json(folder / TASK_FILE, task)
    return folder


def test_sections_are_merged_and_lists_replaced() -> None:
    base = {"a": {"x": 1, "y": {"z": 2}}, "list": [1, 2], "kept": 3}
    change = {"a": {"y": {"z": 5}}, "list": [9], "new": {"k": 1}}
    assert merged(base, change) == {"a": {"x": 1, "y": {"z": 5}}, "list": [9], "kept": 3, "new": {"k": 1}}
    assert base["a"] == {"x": 1, "y": {"z": 2}}


def test_the_committed_ablation_varies_everything_that_is_claimed_to_be_selectable() -> None:
    plan = load_plan(ABLATIONS)
    base, *others = (variant.config for variant in plan.variants)
    assert plan.variants[0].name == "base"
    assert {config.name for config in (base, *others)} == {variant.name for variant in plan.variants}
    values = {
        "critic": {config.critic.kind for config in others},
        "twin": {config.critic.twin for config in others},
        "algorithm": {config.algorithm for config in others},
        "noise": {config.exploration.noise for config in others},
        "replay": {config.replay.kind for config in others},
        "actor": {config.actor.kind for config in others},
        "criteria": {config.actor.criteria for config in others},
        "reward": {config.objective.per_node for config in others},
    }
    assert {name for name, found in values.items() if len(found) < 2} == set()
    assert values["noise"] == {"ou", "gaussian", "none"}
    for variant in plan.variants[1:]:
        changed = {name for name in type(base).model_fields if getattr(variant.config, name) != getattr(base, name)}
        assert changed == {"name", *variant.settings}, variant.name


def test_ablation_episodes_are_test_episodes() -> None:
    assert load_plan(ABLATIONS).play.seeds[0] == TEST_SEEDS[20_000]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"variants": {"bad": {"about": "x", "settings": {"critic": {"kind": "none"}}}}}, "variant bad: critic.kind"),
        ({"variants": {"base": {"about": "x", "settings": {}}}}, r"variants\.base"),
        ({"variants": {"No": {"about": "x", "settings": {}}}}, "No"),
        ({"base": {"updates": 0}}, "variant base: .*updates"),
        ({"play": {"episodes": 1}}, r"play\.episodes"),
        ({"more": 1}, "more"),
        ("a list", "ablation"),
    ],
    ids=["variant", "reserved", "name", "base", "play", "unknown", "no-mapping"],
)
def test_a_bad_ablation_names_what_is_wrong(change: Any, message: str, tmp_path: Path) -> None:
    content = yaml.safe_load(write_plan(tmp_path).read_text())
    path = tmp_path / "bad.yml"
    path.write_text(yaml.safe_dump({**content, **change} if isinstance(change, dict) else [change]))
    with pytest.raises(InvalidInputError, match=message):
        load_plan(path)


@pytest.mark.parametrize(("text", "message"), [("a: [", "not YAML"), (None, "cannot read")], ids=["broken", "missing"])
def test_an_ablation_that_does_not_parse_is_refused(text: str | None, message: str, tmp_path: Path) -> None:
    path = tmp_path / "x.yml"
    if text is not None:
        path.write_text(text)
    with pytest.raises(InvalidInputError, match=message):
        load_plan(path)


@pytest.mark.parametrize("text", ["", "3,5-1", "1-2000000"])
def test_ablate_refuses_the_seeds_that_run_refuses(text: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match=f"--seeds is '{text}'; give seeds and ascending ranges"):
        call("ablate", "--seeds", text, "--config", write_plan(tmp_path), "--out", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_ablate_trains_plays_and_reports_every_variant_and_runs_nothing_twice(tmp_path: Path) -> None:
    out = tmp_path / "out"
    arguments = ["ablate", "--config", str(write_plan(tmp_path)), "--out", str(out), "--seeds", "4", "--jobs", "2"]
    first = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert "[2/2]" in first.stderr
    report = json.loads((out / "ablations.json").read_text())
    assert list(report["variants"]) == ["base", "plain"]
    assert all(each["seeds"] == [4] for each in report["variants"].values())
    assert report["variants"]["plain"]["actor_parameters"] == report["variants"]["base"]["actor_parameters"] - 3 * 17
    assert (out / "ablations.png").read_bytes().startswith(b"\x89PNG")
    assert "| **plain**: plain bids |" in (out / "ablations.md").read_text()
    results = {path: path.stat().st_mtime_ns for path in out.glob("runs/*/4/result.json")}
    assert len(results) == 2
    assert not list(out.glob("runs/*/4/latest.pt"))
    again = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert "2 of them finished before" in again.stderr
    assert {path: path.stat().st_mtime_ns for path in results} == results
    assert json.loads((out / "ablations.json").read_text()) == report


def test_a_run_that_was_cut_off_gives_the_result_of_one_that_was_not(tmp_path: Path) -> None:
    plan = load_plan(write_plan(tmp_path, updates=60, checkpoint_episodes=4))
    whole, cut = prepared(tmp_path / "whole", plan), prepared(tmp_path / "cut", plan)
    expected = run(whole)
    Trainer(plan.variants[0].config, cut).run(max_updates=25)
    result = run(cut)
    assert result.pop("seconds") > 0.0
    assert result == {name: value for name, value in expected.items() if name != "seconds"}
    assert len(result["selected"]) == 3
    assert result["updates"] == 60


def test_a_finished_run_is_not_trained_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = prepared(tmp_path / "run", load_plan(write_plan(tmp_path)))
    expected = run(folder)
    monkeypatch.setattr(runner, "_train_and_play", lambda *_: pytest.fail("trained again"))
    assert run(folder) == expected


def test_a_run_that_diverges_counts_as_missing_every_sla(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def diverge(_: Trainer) -> None:
        raise DivergedError("update 3 gave nan")

    monkeypatch.setattr(Trainer, "run", diverge)
    result = run(prepared(tmp_path / "run", load_plan(write_plan(tmp_path))))
    assert result["not_finite"] == "update 3 gave nan"
    assert result["last"] == [1.0] * 3
    assert len(result["selected"]) == 3


def test_an_actor_without_finite_bids_counts_as_missing_every_sla(tmp_path: Path) -> None:
    plan = load_plan(write_plan(tmp_path))
    folder = prepared(tmp_path / "run", plan)
    trainer = Trainer(plan.variants[0].config.model_copy(update={"updates": 1}), folder)
    trainer.algorithm.updates = 1
    for parameter in trainer._average.parameters():
        parameter.fill_(float("nan"))
    trainer.save()
    result = run(folder)
    assert "not finite" in result["not_finite"]
    assert result["selected"] == result["last"] == [1.0] * 3


def test_a_failed_run_is_named_with_its_last_word_and_the_others_are_kept(tmp_path: Path) -> None:
    plan = load_plan(write_plan(tmp_path))
    broken = tmp_path / "out" / "runs" / "plain" / "1"
    broken.mkdir(parents=True)
    (broken / LATEST_FILE).write_bytes(b"no checkpoint")
    with pytest.raises(AblationError, match=r"plain seed 1: checkpoint .* is damaged"):
        train_and_play(plan, [1], tmp_path / "out", 2, lambda _: None)
    assert (tmp_path / "out" / "runs" / "base" / "1" / RESULT_FILE).exists()


def test_a_folder_of_another_configuration_is_refused(tmp_path: Path) -> None:
    prepared_plan = load_plan(write_plan(tmp_path))
    folder = tmp_path / "out" / "runs" / "base" / "1"
    folder.mkdir(parents=True)
    write_json(folder / TASK_FILE, {"config": {"updates": 7}, "play": {}})
    with pytest.raises(InvalidInputError, match="another configuration"):
        train_and_play(prepared_plan, [1], tmp_path / "out", 1, lambda _: None)


def results_of(base: list[list[float]], plain: list[list[float | None]], trouble: str | None = None) -> dict[str, Any]:
    def one(rates: list[Any], not_finite: str | None) -> dict[str, Any]:
        common = {"updates": 30, "seconds": 1.0, "selected_at": 20, "parameters": 9, "not_finite": not_finite}
        return {"selected": rates, "last": rates, **common}

    return {
        "base": {seed: one(rates, None) for seed, rates in enumerate(base, 1)},
        "plain": {seed: one(rates, trouble if seed == 2 else None) for seed, rates in enumerate(plain, 1)},
    }


RULES = {name: np.array([0.3, 0.3, 0.3]) for name in ("sufficient-speed", "expected-speed", "kube-default", "random")}


def test_the_report_counts_diverged_runs_and_leaves_out_episodes_that_decided_nothing(tmp_path: Path) -> None:
    plan = load_plan(write_plan(tmp_path))
    base = [[0.1, 0.2, 0.5], [0.1, 0.2, 0.5]]
    report = summarise(plan, results_of(base, [[0.0, 0.1, None], [0.4, 0.4, 0.1]]), RULES)
    assert report["play"]["counted"] == 2
    plain = report["variants"]["plain"]
    assert plain["diverged"] == [2]
    assert plain["by_seed"]["last"] == [0.05, 0.4]
    assert plain["improvement_on_base"]["selected"]["value"] == pytest.approx(0.5)
    assert report["variants"]["base"]["diverged"] == []
    assert "1 of 2" in markdown(report)
    assert {path.name for path in write_report(report, tmp_path)} == {f"ablations.{x}" for x in ("json", "md", "png")}


def test_a_run_with_a_loss_that_is_not_finite_has_diverged_however_well_it_did(tmp_path: Path) -> None:
    plan = load_plan(write_plan(tmp_path))
    rates: list[Any] = [[0.0, 0.0, 0.0]] * 2
    report = summarise(plan, results_of(rates, rates, trouble="update 3"), RULES)
    assert report["variants"]["plain"]["diverged"] == [2]


def test_episodes_that_decide_nothing_at_all_are_refused(tmp_path: Path) -> None:
    nothing: list[Any] = [[None] * 3]
    with pytest.raises(InvalidInputError, match="episode_arrivals"):
        summarise(load_plan(write_plan(tmp_path)), results_of(nothing, nothing), RULES)


def test_rules_play_the_episodes_of_the_plan(tmp_path: Path) -> None:
    played = play_rules(load_plan(write_plan(tmp_path)))
    assert list(played) == ["sufficient-speed", "expected-speed", "kube-default", "random"]
    assert all(rates.shape == (3,) for rates in played.values())


def test_crossed_intervals_cover_the_spread_between_runs() -> None:
    generator = np.random.default_rng(1)
    runs = generator.normal(size=(6, 1)) + 0.01 * generator.normal(size=(6, 200))
    found = crossed_estimate(runs, mean)
    assert found.value == pytest.approx(runs.mean())
    assert found.high - found.low == pytest.approx(2 * 1.96 * runs.mean(axis=1).std() / np.sqrt(6), rel=0.15)


def test_crossed_intervals_of_one_rule_are_over_its_episodes() -> None:
    values = np.random.default_rng(1).normal(size=400)
    found = crossed_estimate(values, mean)
    assert found.high - found.low == pytest.approx(2 * 1.96 / 20, rel=0.15)
    assert crossed_estimate([[1.0, 2.0, 3.0, 4.0]], interquartile_mean).value == 2.5


def test_crossed_improvement_is_over_all_pairs_of_runs_in_the_same_episode() -> None:
    found = crossed_improvement([[0.1, 0.2], [0.3, 0.2]], [[0.2, 0.2], [0.4, 0.1], [0.3, 0.3]])
    # by hand, first run: better, tie; better, worse; better, better. Second: worse, tie; better, worse; tie, better.
    assert found.value == pytest.approx((1 + 0.5 + 1 + 0 + 1 + 1 + 0 + 0.5 + 1 + 0 + 0.5 + 1) / 12)
    assert 0.0 <= found.low <= found.value <= found.high <= 1.0
    assert crossed_improvement([[0.0, 0.0]], [[1.0, 1.0]]).low == 1.0


def test_crossed_improvement_needs_the_same_episodes() -> None:
    with pytest.raises(InvalidInputError, match="same seeds"):
        crossed_improvement([[0.1, 0.2]], [[0.1]])
