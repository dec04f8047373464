"""Several seeds at once: the same runs as one by one, each of which can be killed and gone on with."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from policy.errors import InvalidInputError
from tests.training.command_line import invoke
from tests.training.learning.test_checkpoint import assert_equal_runs
from tests.training.tiny_runs import document, one_thread, tiny_config  # noqa: F401 - a fixture
from training.files import lock
from training.learning.loop import LATEST_FILE, Outcome
from training.processes import Failure
from training.runs import command as run_command
from training.runs import order as order_module
from training.runs import seeds
from training.runs.order import OUTCOME_FILE, Order, read_outcome, train_seed
from training.runs.seeds import PLAN_FILE, Plan, last_record, load_plan, parse_seeds, seed_folder


@pytest.fixture
def settings(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.yml"
    path.write_text(yaml.safe_dump(document(tmp_path)))
    return path


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Seeds are trained in this process, which takes no time to start; the seeds asked for, as they come."""
    asked: list[int] = []

    def run(orders: dict[int, Order], _jobs: int, watch: Any) -> seeds.Results:
        results: seeds.Results = {}
        for seed, order in orders.items():
            asked.append(seed)
            results[seed] = train_seed(order)
            watch(seed)
        return results

    monkeypatch.setattr(run_command, "run_here", run)
    return asked


@pytest.mark.parametrize(
    ("text", "expected"),
    [("3", (3,)), ("1-5", (1, 2, 3, 4, 5)), ("7,1,3-4", (1, 3, 4, 7)), ("1-3,2-4", (1, 2, 3, 4)), (" 0 , 2 ", (0, 2))],
)
def test_seeds_are_numbers_and_ranges(text: str, expected: tuple[int, ...]) -> None:
    assert parse_seeds(text) == expected


@pytest.mark.parametrize(
    "text",
    ["", "a", "5-1", "3,5-1", "1-", "-1", "1,,2", "1.5", "0-1000", "0-600,1000-1600", "1-2000000", "1-9999999999"],
)
def test_other_seeds_are_refused_by_name(text: str) -> None:
    with pytest.raises(InvalidInputError, match="--seeds"):
        parse_seeds(text)


def test_killed_with_their_parent_seeds_go_on_to_what_single_runs_give(tmp_path: Path) -> None:
    config, out = tiny_config(tmp_path, updates=600), tmp_path / "out"
    settings = tmp_path / "tiny.yml"
    settings.write_text(yaml.safe_dump(document(tmp_path, updates=600)))
    command = [sys.executable, "-m", "training.cli", "run", "--config", str(settings), "--out", str(out)]
    with subprocess.Popen(
        [*command, "--seeds", "4-5", "--jobs", "2", "--threads", "1"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as parent:
        try:
            while not any((seed_folder(out, seed) / LATEST_FILE).exists() for seed in (4, 5)):
                assert parent.poll() is None, "the runs ended before they could be killed"
                time.sleep(0.01)
        finally:
            parent.kill()
    for seed in (4, 5):
        with lock(seed_folder(out, seed), patience=60):  # raises if its process outlives the parent
            outcome = read_outcome(seed_folder(out, seed))
            assert outcome is None or not outcome.finished
    output = invoke("run", "--out", out, "--resume", "--jobs", "2")
    outcomes = {seed: read_outcome(seed_folder(out, seed)) for seed in (4, 5)}
    best = run_command.best_seed({seed: outcome for seed, outcome in outcomes.items() if outcome is not None})
    assert f"best: seed {best}" in output
    plan = load_plan(out)
    for seed in (4, 5):
        single = plan.order(tmp_path / "single", seed, None)
        assert single.config == config.model_copy(update={"seed": seed})
        assert f"--threads 1 --seed {seed} " in single.command
        train_seed(single)
        assert_equal_runs(single.folder, seed_folder(out, seed))


def test_finished_seeds_are_left_alone_and_stopped_ones_go_on(settings: Path, tmp_path: Path, here: list[int]) -> None:
    out, options = tmp_path / "out", ["--threads", "1"]
    output = invoke("run", "--config", settings, "--seeds", "1-2", "--out", out, "--minutes", "0.00001", *options)
    assert "seeds 1, 2 stopped, --resume goes on" in output
    train_seed(load_plan(out).order(out, 1, None))
    here.clear()
    output = invoke("run", "--out", out, "--resume")
    assert here == [2]
    assert "seed 1: has finished" in output
    assert "stopped" not in output
    assert invoke("run", "--config", settings, "--seeds", "1-2", "--out", out, "--resume", *options)
    assert here == [2]


def test_the_summary_names_the_seed_with_the_lowest_score(tmp_path: Path) -> None:
    outcomes = {
        seed: Outcome(60, 12, 5.0, seed != 3, {} if score is None else {"updates": 40.0, "score": score, "a@0.4": 0.1})
        for seed, score in {1: 0.5, 2: 0.25, 3: 0.75, 4: None}.items()
    }
    assert run_command.best_seed(outcomes) == 2
    assert run_command.verdict(tmp_path, outcomes).startswith("best: seed 2, selection score 0.25: ")
    assert run_command.verdict(tmp_path, outcomes).endswith("seeds 3 stopped, --resume goes on")
    table = run_command.rich_table(outcomes)
    assert [row.style for row in table.rows] == ["", "bold", "", ""]
    assert "no seed is the best" in run_command.verdict(tmp_path, {4: outcomes[4]})


REFUSED: list[tuple[list[str], str]] = [
    (["--seeds", "1-2", "--seed", "1"], "--seed names"),
    (["--seeds", "1-2", "--ray-address", "auto"], "--ray-address needs --ray"),
    (["--seeds", "1-2", "--ray", "--ray-address", "auto", "--jobs", "2"], "--jobs is for this machine"),
    (["--jobs", "2"], "--jobs spread --seeds"),
    (["--ray"], "--ray spread --seeds"),
    (["--seeds", "two"], "--seeds is 'two'"),
]


@pytest.mark.parametrize(("options", "message"), REFUSED, ids=[" ".join(options) for options, _ in REFUSED])
def test_options_that_contradict_each_other_are_refused_before_anything_is_written(
    options: list[str], message: str, settings: Path, tmp_path: Path
) -> None:
    with pytest.raises(InvalidInputError, match=message):
        invoke("run", "--config", settings, "--out", tmp_path / "out", *options)
    assert not list(tmp_path.glob("out/seed*"))
    assert not (tmp_path / "out" / LATEST_FILE).exists()


def test_a_folder_of_other_runs_is_refused(settings: Path, tmp_path: Path, here: list[int]) -> None:
    out, options = tmp_path / "out", ["--threads", "1", "--minutes", "0.00001"]
    invoke("run", "--config", settings, "--seeds", "1", "--out", out, *options)
    with pytest.raises(InvalidInputError, match="already holds runs; give --resume"):
        invoke("run", "--config", settings, "--seeds", "1", "--out", out, *options)
    with pytest.raises(InvalidInputError, match="already holds a run; give --resume"):
        invoke("run", "--config", settings, "--out", out, *options)
    with pytest.raises(InvalidInputError, match=r"other settings \(config, seeds, command\)"):
        invoke("run", "--config", settings, "--seeds", "1-2", "--updates", "9", "--resume", "--out", out, *options)
    with pytest.raises(InvalidInputError, match="drop --config and --updates"):
        invoke("run", "--out", out, "--resume", "--updates", "9")
    single = tmp_path / "single"
    invoke("run", "--config", settings, "--out", single, *options)
    with pytest.raises(InvalidInputError, match="holds a single run"):
        invoke("run", "--config", settings, "--seeds", "1", "--out", single, *options)
    (out / PLAN_FILE).write_text('{"config": {}}')
    with pytest.raises(InvalidInputError, match="arenas"):
        invoke("run", "--out", out, "--resume")
    (out / PLAN_FILE).write_text("{")
    with pytest.raises(InvalidInputError, match=r"seeds\.json does not read .*begin with --seeds in another folder"):
        invoke("run", "--out", out, "--resume")
    assert here == [1]


def test_a_seed_that_fails_does_not_stop_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    plan = Plan(config=tiny_config(tmp_path, updates=20), seeds=(1, 2, 3), threads=1, command="maddpg-train run")
    orders = {seed: plan.order(tmp_path / "out", seed, None) for seed in plan.seeds}
    orders[1].folder.mkdir(parents=True)
    (orders[1].folder / LATEST_FILE).write_bytes(b"no checkpoint")
    orders[3] = replace(orders[3], max_seconds="soon")  # type: ignore[arg-type] # what nobody expects
    watched: list[int] = []
    results = seeds.run_here(orders, 1, watched.append)
    assert isinstance(results[1], Failure)
    assert "is damaged or not one of ours" in results[1].reason
    assert isinstance(results[2], Outcome)
    assert results[2].finished
    assert isinstance(results[3], Failure)
    assert results[3].reason.startswith("TypeError: ")
    assert "Traceback" in capfd.readouterr().err
    assert set(watched) == {1, 2, 3}


def test_failed_seeds_are_reported_together(settings: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    failed = Failure("no space")
    monkeypatch.setattr(run_command, "run_here", lambda orders, *_: dict.fromkeys(orders, failed))
    with pytest.raises(run_command.SeedsError, match=r"2 of 2 runs failed; --resume .*seed 1: no space; seed 2: no"):
        invoke("run", "--config", settings, "--seeds", "1-2", "--out", tmp_path / "out")


def test_a_second_trainer_is_kept_out_of_a_folder(
    settings: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(order_module, "PATIENCE_S", 0.0)
    order = Order(tmp_path / "run", tiny_config(tmp_path), "", 1, patience=0.0)
    with lock(order.folder), pytest.raises(InvalidInputError, match="another process is training there"):
        train_seed(order)
    assert not (order.folder / LATEST_FILE).exists()
    assert train_seed(order).finished


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InvalidInputError, match="cannot be written"):
        train_seed(Order(tmp_path / "file" / "run", tiny_config(tmp_path), "", 1))


def test_an_order_leaves_its_outcome_and_clears_what_a_killed_write_left(tmp_path: Path) -> None:
    order = Order(tmp_path / "run", tiny_config(tmp_path, updates=20), "", 1)
    order.folder.mkdir()
    leftover = order.folder / f".{LATEST_FILE}.k1lled"
    leftover.write_bytes(b"half")
    assert read_outcome(order.folder) is None
    outcome = train_seed(order)
    assert read_outcome(order.folder) == outcome
    assert not leftover.exists()
    (order.folder / OUTCOME_FILE).write_text("{")
    assert read_outcome(order.folder) is None


def test_going_on_takes_the_threads_of_the_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    order = Order(tmp_path / "run", tiny_config(tmp_path), "", 1, max_seconds=0.0)
    train_seed(order)
    used: list[int] = []
    monkeypatch.setattr(order_module.torch, "set_num_threads", used.append)
    train_seed(replace(order, config=None, threads=None))
    train_seed(replace(order, config=None, threads=3))
    assert used == [1, 3]


def test_progress_is_the_last_whole_training_record(tmp_path: Path) -> None:
    assert last_record(tmp_path) is None
    lines = [json.dumps({"kind": "train", "step": step, "episodes": step}) for step in range(2000)]
    text = "\n".join([*lines, json.dumps({"kind": "selection", "step": 1999}), '{"kind": "trai'])
    (tmp_path / "metrics.jsonl").write_text(text)
    assert len(text) > seeds.TAIL_BYTES
    assert last_record(tmp_path) == {"kind": "train", "step": 1999, "episodes": 1999}
    (tmp_path / "metrics.jsonl").write_text(json.dumps({"kind": "rival", "step": 0}) + "\n")
    assert last_record(tmp_path) is None


def test_children_of_this_test_have_ended() -> None:
    """Last in the file: none of the above leaves a process behind."""
    children = Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children")
    if not children.exists():
        pytest.skip("this kernel does not list a process's children")
    commands = [Path(f"/proc/{pid}/cmdline").read_bytes() for pid in children.read_text().split()]
    assert not [command for command in commands if b"spawn_main" in command]
