"""Every variant with every seed: train, play, keep the result; what is finished is kept and never run again."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch

from policy.errors import InvalidInputError, NonFinitePreferenceError, SchedulerError
from training.ablation.variants import PlaySettings, Variants
from training.config import TrainingConfig, parse_config
from training.evaluation.protocol import SLA, evaluate
from training.files import lock, write_json
from training.learning.loop import BEST_FILE, LATEST_FILE, Trainer, load_actor
from training.learning.networks import parameter_count
from training.learning.selection import ActorModuleScorer
from training.learning.updates import DivergedError
from training.processes import Failure, one_thread_each, run_in_processes

TASK_FILE: Final = "task.json"
RESULT_FILE: Final = "result.json"
ALL_MISSED: Final = 1.0
"""SLA violation rate that a policy without finite bids is given: it cannot be asked where to place a pod."""

Results = dict[str, dict[int, dict[str, Any]]]
"""Variant -> training seed -> the result of its run."""


class AblationError(SchedulerError):
    """A run failed; the others' results are kept."""


def train_and_play(plan: Variants, seeds: Sequence[int], out: Path, jobs: int, say: Callable[[str], None]) -> Results:
    """Run what is not finished yet, `jobs` processes at a time; a run that was killed goes on from its checkpoint.

    Args:
        plan: variants and episodes.
        seeds: of the training runs.
        out: folder; each run lives in ``runs/<variant>/<seed>``.
        jobs: processes at once, one thread each.
        say: told of every run that ends.

    Raises:
        InvalidInputError: `out` holds a run of another configuration.
        AblationError: runs failed; the message says why.
    """
    folders = {
        (name, seed): _prepared(config.model_copy(update={"seed": seed}), plan.play, out / "runs" / name / str(seed))
        for seed in seeds
        for name, config in ((variant.name, variant.config) for variant in plan.variants)
    }
    waiting = {key: folder for key, folder in folders.items() if not (folder / RESULT_FILE).exists()}
    say(f"{len(folders)} runs, {len(folders) - len(waiting)} of them finished before")
    failures: list[str] = []
    done = len(folders) - len(waiting)

    def ended(key: tuple[str, int], result: dict[str, Any] | Failure) -> None:
        nonlocal done
        done += 1
        title = f"{key[0]} seed {key[1]}"
        if isinstance(result, Failure):
            failures.append(f"{title}: {result.reason}")
        say(f"[{done}/{len(folders)}] {title}: {result.reason if isinstance(result, Failure) else 'finished'}")

    with one_thread_each():  # runs are side by side
        run_in_processes(run, waiting, jobs, ended=ended)
    if failures:
        raise AblationError("; ".join(failures))
    results: Results = {variant.name: {} for variant in plan.variants}
    for (name, seed), folder in folders.items():
        results[name][seed] = json.loads((folder / RESULT_FILE).read_text(encoding="utf-8"))
    return results


def _prepared(config: TrainingConfig, play: PlaySettings, folder: Path) -> Path:
    """The run's folder, with its task in it."""
    task = {"config": config.model_dump(mode="json"), "play": play.model_dump(mode="json")}
    path = folder / TASK_FILE
    if not path.exists():
        write_json(path, task)
    elif json.loads(path.read_text(encoding="utf-8")) != task:
        raise InvalidInputError(f"{folder} holds a run of another configuration; give another --out")
    return folder


def run(folder: Path) -> dict[str, Any]:
    """Train and play what ``task.json`` says, once; the result, which ``result.json`` then holds.

    ``selected`` and ``last`` are SLA violation rates by episode (None where no pod's SLA was decided): of the
    checkpoint that did best on selection seeds, and of the last one.
    """
    torch.set_num_threads(1)
    # Whoever started this may be gone and have started another: the second waits, and finds the result.
    with lock(folder):
        finished = folder / RESULT_FILE
        if not finished.exists():
            task = json.loads((folder / TASK_FILE).read_text(encoding="utf-8"))
            config = parse_config(task["config"], str(folder / TASK_FILE))
            write_json(finished, _train_and_play(config, PlaySettings.model_validate(task["play"]), folder))
            (folder / LATEST_FILE).unlink()  # it holds the replay, which nothing needs any more
        loaded: dict[str, Any] = json.loads(finished.read_text(encoding="utf-8"))
        return loaded


def _train_and_play(config: TrainingConfig, play: PlaySettings, folder: Path) -> dict[str, Any]:
    latest, best = folder / LATEST_FILE, folder / BEST_FILE
    if latest.exists():
        trainer = Trainer.resume(folder)
    else:
        trainer = Trainer(config, folder)
        trainer.save()
    trouble: str | None = None
    try:
        trainer.run()
    except DivergedError as error:
        trouble = str(error)
    last = _rates(latest, play)
    if trouble is None and last is None:
        trouble = "the last actor's bids are not finite"
    missed: list[float | None] = [ALL_MISSED] * play.episodes
    chosen = _rates(best, play) if best.exists() else last
    actor, _, known = load_actor(latest)
    return {
        "selected": missed if chosen is None else chosen,
        "last": missed if trouble is not None or last is None else last,
        "not_finite": trouble,
        "updates": known["updates"],
        "seconds": known["seconds"],
        "selected_at": known["best"].get("updates"),
        "parameters": parameter_count(actor),
    }


def _rates(checkpoint: Path, play: PlaySettings) -> list[float | None] | None:
    """SLA violation rate of each episode; None if the checkpoint's actor bids nothing finite."""
    actor, config, _ = load_actor(checkpoint)
    try:
        played = evaluate([ActorModuleScorer(actor, config.name, config.actor)], play.condition, play.seeds)
    except NonFinitePreferenceError:
        return None
    return [float(rate) if np.isfinite(rate) else None for rate in played.values[config.name][SLA]]
