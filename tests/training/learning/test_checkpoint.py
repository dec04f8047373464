"""Runs that stop, are killed and go on: equal to runs that were left alone."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from tests.training.tiny_runs import NODES, document, one_thread, tiny_config  # noqa: F401 - a fixture
from training.learning.algorithms import build_algorithm
from training.learning.checkpoint import CheckpointError, load_checkpoint, save_checkpoint
from training.learning.loop import BEST_FILE, LATEST_FILE, Trainer, load_actor
from training.learning.selection import Selection
from training.runs.order import Order, train_seed


def tensors(value: Any, path: str = "") -> dict[str, Any]:
    """Every leaf of a checkpoint by its path, but for the time it took."""
    if isinstance(value, dict):
        items = [(str(key), item) for key, item in value.items() if key != "seconds"]
    elif isinstance(value, list | tuple):
        items = [(str(index), item) for index, item in enumerate(value)]
    else:
        return {path: value}
    return {name: leaf for key, item in items for name, leaf in tensors(item, f"{path}/{key}").items()}


def assert_equal_runs(first: Path, second: Path) -> None:
    """Both folders' latest checkpoints are equal bit for bit: networks, optimisers, replay, generators, best actor."""
    left, right = (tensors(load_checkpoint(folder / LATEST_FILE)) for folder in (first, second))
    assert left.keys() == right.keys()
    for name, value in left.items():
        same = torch.equal(value, right[name]) if isinstance(value, torch.Tensor) else value == right[name]
        assert same, name


RUNS: list[dict[str, Any]] = [
    {"algorithm": "maddpg"},
    {"algorithm": "matd3", "exploration": {"noise": "gaussian"}},
    {"critic": {"kind": "joint", "hidden": [16, 16]}, "objective": {"n_step": 1}},
    {
        "selection": {"every_updates": 20, "blend": [0.25, 0.75]},
        "actor": {"features": ["node_speed"], "hidden": [16, 16]},
        "objective": {"worse_penalty": 5.0},
    },
    {"replay": {"kind": "prioritised"}, "actor": {"kind": "per_class", "speed_classes": [0.0], "hidden": [16, 16]}},
]


@pytest.mark.parametrize(
    "overrides",
    RUNS,
    ids=["maddpg", "matd3-gaussian", "joint-one-step", "blend-of-one-penalised-feature", "prioritised-per-class"],
)
def test_k_updates_resumed_for_k_more_equal_2k_updates(overrides: dict[str, Any], tmp_path: Path) -> None:
    config = tiny_config(tmp_path, **overrides)
    Trainer(config, tmp_path / "whole").run()
    halves = tmp_path / "halves"
    first = Trainer(config, halves).run(max_updates=25)
    assert 0 < first.updates < config.updates
    assert not first.finished
    second = Trainer.resume(halves).run()
    assert second.finished
    assert_equal_runs(tmp_path / "whole", halves)


def test_a_run_in_several_arenas_with_priorities_repeats_after_resuming(tmp_path: Path) -> None:
    config = tiny_config(tmp_path, replay={"kind": "prioritised"})
    # Small enough that both replays have wrapped by the time the run stops.
    small, large = ({"clusters": 4, "replay": 4 * rows, "batch": 16, "warmup": 40} for rows in (40, 50))
    scenario = config.arenas[0].scenario
    arenas = [{"scenario": scenario, **small}, {"scenario": scenario, "nodes": 5, **large}]
    config = tiny_config(tmp_path, replay={"kind": "prioritised"}, arenas=arenas, updates=150)
    Trainer(config, tmp_path / "whole").run()
    Trainer(config, tmp_path / "halves").run(max_updates=100)
    Trainer.resume(tmp_path / "halves").run()
    assert_equal_runs(tmp_path / "whole", tmp_path / "halves")


def test_resumed_runs_record_every_step_once(tmp_path: Path) -> None:
    config = tiny_config(tmp_path)
    Trainer(config, tmp_path / "whole").run()
    Trainer(config, tmp_path / "halves").run(max_updates=25)
    metrics = tmp_path / "halves" / "metrics.jsonl"
    with metrics.open("a") as file:
        file.write('{"kind": "train", "step": 9999}\n{"kind": "tra')
    Trainer.resume(tmp_path / "halves").run()
    assert metrics.read_text() == (tmp_path / "whole" / "metrics.jsonl").read_text()


def test_a_run_killed_at_any_moment_goes_on_to_the_same_weights(tmp_path: Path) -> None:
    settings, killed, whole = tmp_path / "tiny.yml", tmp_path / "killed", tmp_path / "whole"
    settings.write_text(yaml.safe_dump(document(tmp_path, updates=600, checkpoint_episodes=40)))
    command = [sys.executable, "-m", "training.cli", "run", "--out", str(killed)]
    begin, go_on = ["--threads", "1", "--config", str(settings)], ["--resume"]
    moments = [0, random.randrange(1, 500)]  # in updates: before the first checkpoint, and anywhere
    for moment in moments:
        with subprocess.Popen(
            [*command, *(go_on if (killed / LATEST_FILE).exists() else begin)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        ) as process:
            try:
                while not any(line["step"] >= moment for line in recorded(killed)):
                    assert process.poll() is None, f"the run ended before it could be killed; moments {moments}"
                    time.sleep(0.01)
            finally:
                process.kill()
        assert moment > 0 or not (killed / LATEST_FILE).exists()
    order = Order(killed, tiny_config(tmp_path, updates=600, checkpoint_episodes=40), "", 1)
    train_seed(order)
    train_seed(replace(order, folder=whole))
    for name in (LATEST_FILE, BEST_FILE):
        left, right = (tensors(load_checkpoint(folder / name)["actor"]) for folder in (killed, whole))
        assert left.keys() == right.keys()
        assert all(torch.equal(left[key], right[key]) for key in left), f"{name} differs; moments {moments}"
    assert (killed / "metrics.jsonl").read_text() == (whole / "metrics.jsonl").read_text(), f"moments {moments}"


def recorded(folder: Path) -> list[dict[str, Any]]:
    """Whole lines of a run's records so far."""
    path = folder / "metrics.jsonl"
    lines = path.read_text().split("\n")[:-1] if path.exists() else []
    return [json.loads(line) for line in lines]


def test_checkpoints_come_every_so_many_episodes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    saved = []
    trainer = Trainer(tiny_config(tmp_path, checkpoint_episodes=8, updates=90), tmp_path / "run")
    save = trainer.save
    monkeypatch.setattr(trainer, "save", lambda: (saved.append(trainer.episodes), save()))
    trainer.run()
    assert saved[:2] == [8, 16]


def test_the_best_actor_is_that_of_the_lowest_selection_score(tmp_path: Path) -> None:
    outcome = Trainer(tiny_config(tmp_path), tmp_path / "run").run()
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    scores = {line["step"]: line["score"] for line in lines if line["kind"] == "selection"}
    assert len(scores) > 1
    assert outcome.best["score"] == min(scores.values()) == scores[int(outcome.best["updates"])]
    _, _, known = load_actor(tmp_path / "run" / BEST_FILE)
    assert known["best"] == outcome.best


def test_weights_between_the_initial_and_the_trained_ones_are_measured_and_kept_if_they_are_best(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    selection = document(tmp_path)["selection"]
    config = tiny_config(tmp_path, selection={**selection, "blend": [0.25, 0.75]})
    initial = build_algorithm(config, NODES).actor.state_dict()
    measured = iter((0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.8))
    monkeypatch.setattr(Selection, "rates", lambda self, scorer: {"score": next(measured)})
    trainer = Trainer(config, tmp_path / "run")
    outcome = trainer.run()
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    blends = [(line["step"], line["share"]) for line in lines if line["kind"] == "blend"]
    assert blends == [(60, 0.25), (60, 0.75)]
    best = min((line for line in lines if line["kind"] in ("selection", "blend")), key=lambda line: line["score"])
    assert outcome.best == {"updates": 60, "blend": best["share"], "score": best["score"]}
    kept, trained = (load_actor(tmp_path / "run" / name)[0].state_dict() for name in (BEST_FILE, LATEST_FILE))
    for name, value in kept.items():
        torch.testing.assert_close(value, initial[name] + best["share"] * (trained[name] - initial[name]))


def test_a_time_limit_stops_between_rounds_and_keeps_a_checkpoint(tmp_path: Path) -> None:
    ticks = iter(range(10_000))
    trainer = Trainer(tiny_config(tmp_path), tmp_path / "run", clock=lambda: float(next(ticks)))
    outcome = trainer.run(max_seconds=3.0)
    assert not outcome.finished
    assert load_checkpoint(tmp_path / "run" / LATEST_FILE)["episodes"] == outcome.episodes > 0


def test_a_failed_write_leaves_the_old_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "one.pt"
    save_checkpoint(path, {"value": 1})

    def fail(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(CheckpointError, match="No space left"):
        save_checkpoint(path, {"value": 2})
    assert load_checkpoint(path)["value"] == 1
    assert [entry.name for entry in tmp_path.iterdir()] == ["one.pt"]


@pytest.mark.parametrize(
    ("content", "message"),
    [(None, "cannot read"), (b"", "damaged"), (b"PK\x03\x04 truncated", "damaged"), ("other", "format")],
    ids=["missing", "empty", "truncated", "other-version"],
)
def test_a_checkpoint_that_does_not_read_is_refused(content: Any, message: str, tmp_path: Path) -> None:
    path = tmp_path / "x.pt"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        torch.save({"format_version": 99}, path)
    with pytest.raises(CheckpointError, match=message):
        load_checkpoint(path)


def test_a_checkpoint_cannot_run_code(tmp_path: Path) -> None:
    class Hostile:
        def __reduce__(self) -> Any:
            return os.mkdir, (str(tmp_path / "owned"),)

    torch.save({"format_version": 1, "x": Hostile()}, tmp_path / "x.pt")
    with pytest.raises(CheckpointError, match="damaged"):
        load_checkpoint(tmp_path / "x.pt")
    assert not (tmp_path / "owned").exists()
