"""One run as an order: plain data that this process, a child of it or a worker of Ray carries out alike.

A folder has one trainer at a time. An order never begins a folder anew that holds a checkpoint: it goes on from it, so
carrying one out again after a crash loses no more than what came after the last checkpoint.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

import torch

from training.config import TrainingConfig
from training.files import lock, remove_leftovers, write_json
from training.learning.checkpoint import CheckpointError
from training.learning.loop import BEST_FILE, LATEST_FILE, Outcome, Progress, Trainer

OUTCOME_FILE: Final = "outcome.json"
PATIENCE_S: Final = 10.0
"""A process that was killed, or whose parent was, may hold its lock for a moment longer."""

DEFAULT_THREADS: Final = 2


@dataclass(frozen=True, slots=True)
class Order:
    """What to train, where."""

    folder: Path  # of the run
    config: TrainingConfig | None  # of a run that begins; None asks for a checkpoint to go on from
    command: str  # what repeats the run, for the model card
    # Torch threads; None takes as many as wrote the checkpoint, since results depend on them
    threads: int | None = None
    max_seconds: float | None = None  # stop after so long, between rounds; None goes on to the end
    patience: float = PATIENCE_S  # seconds to wait for another process to leave the folder


def train_seed(order: Order, watch: Callable[[Progress], None] | None = None) -> Outcome:
    """Carry out an order, and leave how it ended in ``outcome.json``.

    Args:
        order: what to train, where.
        watch: told of every update.

    Raises:
        CheckpointError: there is nothing to go on from, or it does not read.
        InvalidInputError: another process trains in this folder.
    """
    latest = order.folder / LATEST_FILE
    if order.config is None and not latest.exists():
        raise CheckpointError(f"cannot read checkpoint {latest} (there is none yet); begin without --resume")
    with lock(order.folder, order.patience):
        for name in (LATEST_FILE, BEST_FILE):
            remove_leftovers(order.folder / name)
        threads = order.threads
        if latest.exists():
            trainer = Trainer.resume(order.folder)
            threads = threads or trainer.threads
        elif order.config is not None:
            trainer = Trainer(order.config, order.folder, command=order.command)
        else:
            raise CheckpointError(f"checkpoint {latest} has gone; begin without --resume")
        torch.set_num_threads(threads or DEFAULT_THREADS)
        outcome = trainer.run(max_seconds=order.max_seconds, watch=watch)
        write_json(order.folder / OUTCOME_FILE, asdict(outcome))
    return outcome


def read_outcome(folder: Path) -> Outcome | None:
    """How the run in `folder` ended; None where it has not, or where that cannot be read: it is then gone on with."""
    try:
        return Outcome(**json.loads((folder / OUTCOME_FILE).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None
