"""`maddpg-train distil`: a bundle in, the checkpoint of a smaller actor out, with where it came from."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import torch

from policy.bundle import load_bundle
from policy.errors import InvalidInputError
from training.config import TrainingConfig, parse_config
from training.learning.checkpoint import save_checkpoint
from training.learning.distillation import UPDATES, distil
from training.learning.loop import BEST_FILE
from training.learning.selection import ActorModuleScorer, Selection

SAID: Final = 10
"""How many times progress is told."""


def student_config(bundle: Path, hidden: tuple[int, ...]) -> tuple[TrainingConfig, dict[str, str]]:
    """The teacher's configuration with other widths, and the teacher's name, hash and command.

    Raises:
        InvalidInputError: the bundle does not say how it was trained, or the widths will not do.
        BundleError: it does not load.
    """
    manifest = load_bundle(bundle).manifest
    document = manifest.training.get("config")
    if not isinstance(document, dict):
        raise InvalidInputError(f"{bundle} does not say how it was trained; give one that maddpg-train exported")
    config = parse_config(
        {**document, "actor": {**document["actor"], "hidden": list(hidden)}}, f"the configuration of {bundle}"
    )
    teacher = {
        "name": manifest.name,
        "model_sha256": manifest.model_sha256,
        "command": str(manifest.training.get("command", "")),
    }
    return config, teacher


def distil_bundle(
    bundle: Path,
    out: Path,
    hidden: tuple[int, ...],
    command: str,
    say: Callable[[str], None],
    *,
    updates: int | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> dict[str, float]:
    """Teach, measure on the selection episodes of the teacher's configuration, and write ``best.pt``; the rates.

    `UPDATES` steps unless told otherwise.

    Raises:
        InvalidInputError: as `student_config`.
        CheckpointError: ``best.pt`` cannot be written.
    """
    config, teacher = student_config(bundle, hidden)
    began, updates = clock(), updates or UPDATES

    def watch(update: int, logs: dict[str, float]) -> None:
        if update % max(1, updates // SAID) == 0:
            said = ", ".join(f"{name} {value:.4f}" for name, value in logs.items())
            say(f"{update} of {updates} updates, {said}")

    student = distil(load_bundle(bundle).actors, config, updates, watch)
    suites = config.selection.suites
    rates = Selection(config.selection).rates(ActorModuleScorer(student, "student")) if suites else {}
    best: dict[str, float] = {"updates": updates, **rates} if rates else {}
    save_checkpoint(
        out / BEST_FILE,
        {
            "config": config.model_dump(mode="json"),
            "command": command,
            "seconds": clock() - began,
            "threads": torch.get_num_threads(),
            "best": best,
            "updates": updates,
            "actor": student.state_dict(),
            "teacher": teacher,
        },
    )
    return rates
