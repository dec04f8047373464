"""One variant with one seed, in a process of its own: train, play, keep the result. Goes on where a killed one stopped.

python -m training.ablation.run FOLDER      with FOLDER/task.json; writes FOLDER/result.json
"""

from __future__ import annotations

import fcntl
import json
import sys
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch

from policy.errors import NonFinitePreferenceError, SchedulerError
from training.ablation.variants import PlaySettings
from training.config import TrainingConfig, parse_config
from training.evaluation.protocol import evaluate
from training.learning.loop import BEST_FILE, LATEST_FILE, Trainer, load_actor
from training.learning.networks import parameter_count
from training.learning.selection import ActorModuleScorer
from training.learning.updates import DivergedError
from training.simulator.scenarios import load_scenario

TASK_FILE: Final = "task.json"
RESULT_FILE: Final = "result.json"
SLA: Final = "sla_violation_rate"
ALL_MISSED: Final = 1.0
"""SLA violation rate that a policy without finite bids is given: it cannot be asked where to place a pod."""


def run(folder: Path) -> dict[str, Any]:
    """Train and play what ``task.json`` says, once; the result, which ``result.json`` then holds.

    ``selected`` and ``last`` are SLA violation rates by episode (None where no pod's SLA was decided): of the
    checkpoint that did best on selection seeds, and of the last one.
    """
    with (folder / "lock").open("w") as lock:
        # Whoever started this may be gone and have started another: the second waits, and finds the result.
        fcntl.flock(lock, fcntl.LOCK_EX)
        finished = folder / RESULT_FILE
        if not finished.exists():
            task = json.loads((folder / TASK_FILE).read_text(encoding="utf-8"))
            config = parse_config(task["config"], str(folder / TASK_FILE))
            result = _train_and_play(config, PlaySettings.model_validate(task["play"]), folder)
            write_json(finished, result)
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
        played = evaluate(
            [ActorModuleScorer(actor, config.name)],
            load_scenario(play.scenario),
            play.seeds,
            load=play.load,
            nodes=play.nodes,
        )
    except NonFinitePreferenceError:
        return None
    return [float(rate) if np.isfinite(rate) else None for rate in played.values[config.name][SLA]]


def write_json(path: Path, content: Any) -> None:
    """Write whole or not at all."""
    temporary = path.with_name(f".{path.name}.new")
    temporary.write_text(json.dumps(content, indent=1, sort_keys=True, allow_nan=False) + "\n", encoding="utf-8")
    temporary.replace(path)


def main() -> None:
    """Entry point; one thread, since runs are side by side."""
    torch.set_num_threads(1)
    try:
        run(Path(sys.argv[1]))
    except SchedulerError as error:
        sys.exit(f"error: {' '.join(str(error).split())}")  # one line, which the runner repeats


if __name__ == "__main__":
    main()
