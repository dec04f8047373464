"""One run as an order: plain data that this process, a child of it or a worker of Ray carries out alike.

A folder has one trainer at a time. An order never begins a folder anew that holds a checkpoint: it goes on from it, so
carrying one out again after a crash loses no more than what came after the last checkpoint.
"""

from __future__ import annotations

import fcntl
import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import torch

from policy.errors import InvalidInputError
from training.config import TrainingConfig
from training.learning.checkpoint import CheckpointError, remove_leftovers
from training.learning.loop import BEST_FILE, LATEST_FILE, Outcome, Progress, Trainer

OUTCOME_FILE: Final = "outcome.json"
LOCK_FILE: Final = ".lock"
PATIENCE_S: Final = 10.0
"""A process that was killed, or whose parent was, may hold its lock for a moment longer."""

DEFAULT_THREADS: Final = 2


@dataclass(frozen=True, slots=True)
class Order:
    """What to train, where.

    Attributes:
        folder: of the run.
        config: of a run that begins; None asks for a checkpoint to go on from.
        command: what repeats the run, for the model card.
        threads: Torch threads; None takes as many as wrote the checkpoint, since results depend on them.
        max_seconds: stop after so long, between rounds; None goes on to the end.
        patience: seconds to wait for another process to leave the folder.
    """

    folder: Path
    config: TrainingConfig | None
    command: str
    threads: int | None = None
    max_seconds: float | None = None
    patience: float = PATIENCE_S


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
    with exclusive(order.folder, order.patience):
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


@contextmanager
def exclusive(folder: Path, patience: float = PATIENCE_S) -> Iterator[None]:
    """Keep every other trainer out of `folder`, which is made; the kernel lets go when this process ends, however.

    Args:
        folder: of the run, or of several.
        patience: seconds to wait for another process to leave it.

    Raises:
        InvalidInputError: another process is in it, or it cannot be locked.
    """
    deadline = time.monotonic() + patience
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = (folder / LOCK_FILE).open("w", encoding="utf-8")
    except OSError as error:
        raise InvalidInputError(f"--out {folder} cannot be written ({error.strerror}); give another folder") from error
    with file:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    raise InvalidInputError(
                        f"--out {folder}: another process is training there; wait for its end, or give another folder"
                    ) from None
                time.sleep(0.1)
            except OSError as error:
                raise InvalidInputError(
                    f"--out {folder} cannot be locked ({error.strerror}); give a folder on a file system with locks"
                ) from error
        yield


def write_json(path: Path, document: dict[str, Any]) -> None:
    """Write `document` whole or not at all.

    Raises:
        InvalidInputError: it cannot be written.
    """
    try:
        temporary = path.with_name(f".{path.name}.new")
        temporary.write_text(json.dumps(document, indent=1, sort_keys=True) + "\n", encoding="utf-8")
        temporary.replace(path)
    except OSError as error:
        raise InvalidInputError(
            f"{path} cannot be written ({error.strerror}); check the folder and free space"
        ) from error
