"""A small actor learns a policy's bids, and the checkpoint says whose."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from policy.bundle import MODEL_CARD_FILE, load_bundle, shipped_bundle_path
from policy.errors import InvalidInputError
from policy.scorers import ActorScorer
from tests.training.command_line import call, invoke
from tests.training.test_export import spread_actor
from tests.training.tiny_runs import one_thread, quick_parity, tiny_config  # noqa: F401 - fixtures
from training import distil_command
from training.config import TrainingConfig
from training.export import export_bundle
from training.learning.distillation import distil
from training.simulator.draws import SELECTION_SEEDS, episode_seeds
from training.simulator.engine import Simulator
from training.simulator.scenarios import load_scenario

pytestmark = pytest.mark.usefixtures("quick_parity")


def teacher(folder: Path, **changed: Any) -> Path:
    """A bundle whose bids cover [-1, 1]."""
    config = tiny_config(folder, actor={"hidden": [24, 24]}, **changed)
    training = {"command": "maddpg-train run --seed 1"}
    export_bundle(spread_actor((24, 24)), config, folder / "teacher", training=training, card="card")
    return folder / "teacher"


def taught(
    bundle: Path, config: TrainingConfig, updates: int
) -> tuple[dict[str, torch.Tensor], list[dict[str, float]]]:
    """The student's weights, and what was told of every update."""
    told: list[dict[str, float]] = []
    student = distil(load_bundle(bundle).actors, config, updates, lambda _update, logs: told.append(logs))
    return student.state_dict(), told


def test_the_student_comes_to_bid_and_place_as_its_teacher(tmp_path: Path) -> None:
    bundle = teacher(tmp_path)
    _, told = taught(bundle, tiny_config(tmp_path, actor={"hidden": [16, 16]}), 400)
    assert len(told) == 400
    assert told[-1]["bid_error"] < 0.2 * told[0]["bid_error"]
    assert told[-1]["divergence"] < 0.1 * told[0]["divergence"]
    late = [logs["same_placement"] for logs in told[-50:]]
    assert sum(late) / len(late) > 0.9


def test_equal_seeds_give_equal_students(tmp_path: Path) -> None:
    bundle, config = teacher(tmp_path), tiny_config(tmp_path, actor={"hidden": [8]})
    first, second = taught(bundle, config, 5)[0], taught(bundle, config, 5)[0]
    other = taught(bundle, tiny_config(tmp_path, actor={"hidden": [8]}, seed=2), 5)[0]
    assert all(torch.equal(value, second[name]) for name, value in first.items())
    assert not torch.equal(first["head.weight"], other["head.weight"])


def test_a_distilled_bundle_says_where_it_came_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(distil_command, "UPDATES", 20)
    bundle = teacher(tmp_path)
    output = invoke("distil", bundle, "--out", tmp_path / "run", "--hidden", "12,8")
    assert "20 of 20 updates, bid_error" in output
    assert "score" in output
    invoke("export", tmp_path / "run" / "best.pt", "--out", tmp_path / "student", "--unplayed")
    found = load_bundle(tmp_path / "student").manifest
    assert found.parameters < load_bundle(bundle).manifest.parameters
    assert found.training["config"]["actor"]["hidden"] == [12, 8]
    assert found.training["teacher"]["model_sha256"] == load_bundle(bundle).manifest.model_sha256
    assert found.training["teacher"]["command"] == "maddpg-train run --seed 1"
    card = (tmp_path / "student" / MODEL_CARD_FILE).read_text()
    assert f"| distilled from | tiny, model sha256 `{load_bundle(bundle).manifest.model_sha256}`" in card
    assert "--hidden 12,8" in card
    assert "the last of 20 supervised updates" in card


def test_a_bundle_of_unknown_training_is_refused(tmp_path: Path) -> None:
    bundle = teacher(tmp_path)
    manifest = json.loads((bundle / "manifest.json").read_text())
    del manifest["training"]["config"]
    (bundle / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(InvalidInputError, match="how it was trained"):
        call("distil", bundle, "--out", tmp_path / "run")


@pytest.mark.parametrize("hidden", ["a", "", "0", "64,-1"])
def test_widths_that_are_none_are_refused(tmp_path: Path, hidden: str) -> None:
    with pytest.raises(InvalidInputError, match="hidden"):
        call("distil", teacher(tmp_path), "--out", tmp_path / "run", "--hidden", hidden)
    assert not (tmp_path / "run").exists()


def test_the_policy_that_ships_was_taught_by_one_of_the_committed_seeds_and_places_alike() -> None:
    small = load_bundle(shipped_bundle_path())
    taught_by = small.manifest.training["teacher"]["model_sha256"]
    seeds_of_training = map(load_bundle, (Path(__file__).parents[2] / "training" / "models").glob("seed-*"))
    large = next(each for each in seeds_of_training if each.manifest.model_sha256 == taught_by)
    assert small.manifest.parameters < 0.1 * large.manifest.parameters
    clusters, scenario = 16, load_scenario("reference")
    seeds = episode_seeds(SELECTION_SEEDS[5_000 : 5_000 + clusters])
    simulator = Simulator(scenario, clusters, seeds)
    simulator.reset(seeds, 0.4)
    same = []
    for _ in range(200):
        theirs = ActorScorer(large.actors).preferences(simulator.state, simulator.demand)
        ours = ActorScorer(small.actors).preferences(simulator.state, simulator.demand)
        hidden = ~simulator.feasible
        chosen = np.where(hidden, -np.inf, theirs).argmax(axis=1)
        same.append(chosen == np.where(hidden, -np.inf, ours).argmax(axis=1))
        simulator.step(np.where(simulator.feasible.any(axis=1), chosen, -1))
    assert np.mean(same) > 0.9
