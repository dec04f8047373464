"""`maddpg-train`: what it makes, and what it says to bad input."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from policy.bundle import load_bundle, shipped_bundle_path
from policy.errors import BundleError, InvalidInputError
from tests.training.command_line import call, invoke
from tests.training.tiny_runs import document, one_thread, quick_parity, tiny_config, write_scenario  # noqa: F401 - fixtures
from training import card
from training.cli import ABLATIONS, DEFAULT_CONFIG, SEARCH_SPACE, main
from training.config import ArenaConfig, TrainingConfig, load_config, parse_config
from training.evaluation import plan as plans
from training.evaluation.plan import Plan
from training.export import export_bundle
from training.learning.checkpoint import CheckpointError
from training.learning.collector import Arena
from training.learning.networks import Actor
from training.simulator.conditions import Condition
from training.simulator.scenarios import load_scenario

pytestmark = pytest.mark.usefixtures("quick_parity")


@pytest.fixture
def settings(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.yml"
    path.write_text(yaml.safe_dump(document(tmp_path, updates=30)))
    return path


def test_run_then_export_gives_a_bundle_with_a_measured_model_card(
    settings: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(card, "CARD_SUITES", (Condition(str(tmp_path / "tiny.yaml"), 0.4, episodes=3),))
    output = invoke("run", "--config", settings, "--out", tmp_path / "run", "--threads", "1", "--seed", "3")
    assert "finished: 30 updates" in output
    assert list((tmp_path / "run" / "tensorboard").iterdir())
    invoke("export", tmp_path / "run" / "best.pt", "--out", tmp_path / "bundle", "--name", "mine")
    manifest = load_bundle(tmp_path / "bundle").manifest
    assert manifest.name == "mine"
    assert manifest.training["config"]["seed"] == 3
    assert "--seed 3" in manifest.training["command"]
    (held_out,) = manifest.training["held_out"].values()
    assert {"mine", "kube-default", "expected-speed", "random"} <= set(held_out)
    rate = held_out["kube-default"]["sla_violation_rate"]
    text = (tmp_path / "bundle" / "MODEL_CARD.md").read_text()
    assert f"| kube-default | {100 * rate['mean']:.2f} ({100 * rate['low']:.2f}-{100 * rate['high']:.2f}) |" in text


def test_unplayed_export_says_so_in_the_card(settings: Path, tmp_path: Path) -> None:
    invoke("run", "--config", settings, "--out", tmp_path / "run", "--threads", "1")
    invoke("export", tmp_path / "run" / "best.pt", "--out", tmp_path / "bundle", "--unplayed")
    assert load_bundle(tmp_path / "bundle").manifest.training["held_out"] == {}
    assert "None were played at export." in (tmp_path / "bundle" / "MODEL_CARD.md").read_text()


def test_evaluate_prints_and_writes_every_policy_and_rule(tmp_path: Path) -> None:
    scenario = str(write_scenario(tmp_path))
    actor = Actor((16, 16), (0.0, 0.0, 0.8, 0.0))
    for name in ("one", "two"):
        config = tiny_config(tmp_path, name=name)
        export_bundle(actor, config, tmp_path / name, training={"command": "none"}, card="# card\n")
    options = [
        "--scenario",
        scenario,
        "--seeds",
        "3",
        "--loads",
        "0.3,0.5",
        "--nodes",
        "5",
        "--out",
        tmp_path / "x.json",
    ]
    output = invoke("evaluate", tmp_path / "one", tmp_path / "two", *options)
    document_ = json.loads((tmp_path / "x.json").read_text())
    assert [name.rsplit("@")[-1] for name in document_] == ["0.3", "0.5"]
    for policies in document_.values():
        assert {"one", "two", "kube-default", "random"} <= set(policies)
        assert all(policies["two"][metric] == value for metric, value in policies["one"].items())
        assert policies["one"]["sla_violation_rate"].keys() == {"mean", "low", "high", "seeds"}
        assert policies["one"]["sla_violation_rate"]["seeds"] == 3
    assert "kube-default" in output


@pytest.mark.parametrize(
    ("options", "message"),
    [(["--loads", "much"], "--loads"), (["--scenario", "none-such"], "none-such")],
    ids=["loads", "scenario"],
)
def test_evaluate_names_what_is_wrong(options: list[str], message: str, tmp_path: Path) -> None:
    actor = Actor((16, 16), (0.0, 0.0, 0.8, 0.0))
    export_bundle(actor, tiny_config(tmp_path), tmp_path / "one", training={}, card="# card\n")
    with pytest.raises(InvalidInputError, match=message):
        invoke("evaluate", tmp_path / "one", *options)


def test_evaluate_refuses_a_folder_that_is_no_bundle(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="cannot read"):
        invoke("evaluate", tmp_path)


def test_evaluate_and_compare_play_what_is_told(tmp_path: Path) -> None:
    scenario = write_scenario(tmp_path)
    export_bundle(Actor((16, 16), (0.0, 0.0, 0.8, 0.0)), tiny_config(tmp_path), tmp_path / "one", training={}, card="#")
    options = ["--scenario", scenario, "--seeds", "2", "--loads", "0.4", "--told", "learned-1"]
    output = invoke("evaluate", tmp_path / "one", *options, "--out", tmp_path / "x.json")
    assert "learned-1" in output
    (label,) = json.loads((tmp_path / "x.json").read_text())
    assert label == f"learned-1 {scenario}@0.4"
    compared = json.loads(call("compare", "expected-speed", "kube-default", *options, "--json").stdout)
    assert [each["condition"] for each in compared] == [label]
    assert "2 test episodes, bare" in invoke("rules", scenario, "--episodes", "2", "--told", "bare")


@pytest.mark.parametrize("command", ["evaluate", "compare", "rules"])
def test_a_name_that_nothing_is_told_by_is_refused(command: str, tmp_path: Path) -> None:
    words = {"evaluate": [shipped_bundle_path()], "compare": ["random", "kube-default"], "rules": ["reference"]}
    with pytest.raises(InvalidInputError, match="told is 'guessed'; give one of labelled, learned"):
        invoke(command, *words[command], "--told", "guessed")


def test_run_refuses_a_folder_that_holds_a_run_and_resumes_it_when_told(settings: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    invoke("run", "--config", settings, "--out", out, "--threads", "1", "--minutes", "0.00001")
    with pytest.raises(InvalidInputError, match="--resume"):
        invoke("run", "--config", settings, "--out", out)
    with pytest.raises(InvalidInputError, match="drop --config"):
        invoke("run", "--config", settings, "--out", out, "--resume")
    assert "finished: 30 updates" in invoke("run", "--out", out, "--resume", "--threads", "1")


def test_resume_without_a_checkpoint_says_so(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="cannot read checkpoint"):
        invoke("run", "--out", tmp_path, "--resume")


def test_main_answers_our_errors_in_one_line_and_with_code_2(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["maddpg-train", "export", str(tmp_path / "none.pt"), "--out", str(tmp_path)])
    with pytest.raises(SystemExit) as caught:
        main()
    assert caught.value.code == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("error: cannot read checkpoint")


BAD: list[tuple[dict[str, Any], str]] = [
    ({"updats": 5}, "updats"),
    ({"updates": 0}, "updates"),
    ({"seed": -1}, "seed"),
    ({"arenas": []}, "arenas"),
    ({"arenas": [{"scenario": "reference", "clusters": 0}]}, "arenas.0.clusters"),
    ({"objective": {"discount": 1.0}}, "objective.discount"),
    ({"exploration": {"temperature": 0}}, "exploration.temperature"),
    ({"exploration": {"noise": "pink"}}, "exploration.noise"),
    ({"actor": {"initial_bids": [0, 0, 1.0, 0]}}, "actor.initial_bids.2"),
    ({"actor": {"kind": "per_class"}}, "speed_classes"),
    ({"actor": {"speed_classes": [0.1]}}, "kind per_class"),
    ({"actor": {"kind": "per_class", "speed_classes": [0.1, -0.1]}}, "ascend"),
    ({"actor": {"kind": "per_class", "speed_classes": [5.0]}}, "beyond"),
    ({"actor": {"criteria": "some"}}, "actor.criteria"),
    ({"replay": {"kind": "ranked"}}, "replay.kind"),
    ({"replay": {"alpha": 1.5}}, "replay.alpha"),
    ({"load": {"low": 0.6, "high": 0.3}}, "low 0.6 exceeds high 0.3"),
    ({"algorithm": "matd3", "critic": {"twin": False}}, "critic.twin"),
    (
        {
            "critic": {"kind": "joint"},
            "arenas": [{"scenario": "reference"}, {"scenario": "reference", "nodes": 3}],
        },
        "arenas.nodes",
    ),
    ({"name": "No Spaces"}, "name"),
]


@pytest.mark.parametrize(("change", "field"), BAD, ids=[field.split()[0] for _, field in BAD])
def test_a_bad_setting_is_named(change: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidInputError, match=field.replace(".", r"\.")):
        parse_config({"arenas": [{"scenario": "reference"}], **change})


@pytest.mark.parametrize(
    ("text", "message"),
    [("- a list", "not a mapping"), ("a: [", "not YAML"), (None, "cannot read")],
    ids=["list", "broken", "missing"],
)
def test_a_configuration_that_does_not_parse_is_refused(text: str | None, message: str, tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    if text is not None:
        path.write_text(text)
    with pytest.raises(InvalidInputError, match=message):
        load_config(path)


@pytest.mark.parametrize(
    "path", sorted(set(DEFAULT_CONFIG.parent.glob("*.yaml")) - {ABLATIONS, SEARCH_SPACE}), ids=lambda path: path.stem
)
def test_every_committed_configuration_is_valid_and_frozen(path: Path) -> None:
    config = load_config(path)
    with pytest.raises(ValueError, match="frozen"):
        config.seed = 5  # type: ignore[misc]


def test_the_long_configuration_plays_ten_thousand_episodes() -> None:
    config = load_config(DEFAULT_CONFIG.with_name("long.yaml"))
    arenas = [Arena(config.model_copy(update={"arenas": (small,)}), 0) for small in _small_replays(config)]
    updates = 0
    while updates < config.updates:  # as the training loop chooses whose turn it is
        arena = min(arenas, key=lambda each: each.collected / each.settings.share)
        arena.episodes += arena.clusters
        updates += arena.steps // arena.settings.steps_per_update
    assert sum(arena.episodes for arena in arenas if arena.steps >= 600) >= 10_000


def _small_replays(config: TrainingConfig) -> list[ArenaConfig]:
    """The arenas without the memory that their replays would take."""
    return [arena.model_copy(update={"replay": 1000}) for arena in config.arenas]


def test_report_writes_the_study_and_counts_its_goals(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tiny = Plan(
        episodes=2,
        scenarios=(),
        loads=(),
        further_episodes=2,
        variants=(),
        memory_loads=(),
        told=("bare",),
        told_loads=(0.4,),
        sizes={},
        large_loads=(),
        large_episodes=1,
        oracle_episodes=0,
    )
    monkeypatch.setattr(plans, "QUICK", tiny)
    small = replace(load_scenario("reference").resized(3), warmup_arrivals=20, episode_arrivals=80)
    monkeypatch.setattr(plans, "load_scenario", lambda _name: small)
    shutil.copytree(shipped_bundle_path(), tmp_path / "models" / "seed-7")
    output = invoke(
        "report",
        shipped_bundle_path(),
        "--out",
        tmp_path / "out",
        "--also",
        tmp_path / "models",
        "--quick",
        "--jobs",
        "1",
    )
    document = json.loads((tmp_path / "out" / "evaluation.json").read_text())
    goals = document["goals"]
    assert f"{sum(goal['pass'] for goal in goals)} of {len(goals)} goals reached" in output
    assert document["model_sha256"] == document["bundles"]["seed-7"]["model_sha256"]
    assert document["bundles"]["seed-7"]["role"] == "training seed"
    assert "--also" in document["command"]
    assert "maddpg-default" in document["scenarios"]["bare reference@0.4"]
    rates = document["seeds"]["reference@0.4"]["sla_violation_rate"]
    assert rates["seed-7"] == document["scenarios"]["reference@0.4"]["maddpg-default"]["sla_violation_rate"]["mean"]
    text = (tmp_path / "out" / "evaluation.md").read_text()
    assert "maddpg-default" in text
    assert "`greedy` is kube-default, the default scores of kube-scheduler 1.37." in text


def test_report_refuses_two_policies_of_one_name(tmp_path: Path) -> None:
    twin = tmp_path / "maddpg-default"
    shutil.copytree(shipped_bundle_path(), twin)
    with pytest.raises(InvalidInputError, match="maddpg-default"):
        invoke("report", shipped_bundle_path(), "--out", tmp_path / "out", "--also", twin)
