"""Checkpoints on disk: written whole or not at all, read without running code from them."""

from __future__ import annotations

import contextlib
import os
import pickle  # nosec B403 # for the name of an error; checkpoints are read with weights_only
import tempfile
from pathlib import Path
from typing import Any, Final

import torch

from policy.errors import SchedulerError

FORMAT_VERSION: Final = 1


class CheckpointError(SchedulerError):
    """A checkpoint is missing, damaged, or of another version or configuration."""


def save_checkpoint(path: Path, content: dict[str, Any]) -> None:
    """Write `content` (tensors, numbers, strings, lists, dicts) to `path` atomically.

    It is written beside `path`, flushed to disk and renamed over it, so a crash at any moment leaves the old or the
    new one.

    Raises:
        CheckpointError: it cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        temporary = Path(name)
        try:
            with os.fdopen(handle, "wb") as file:
                torch.save({"format_version": FORMAT_VERSION, **content}, file)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        except BaseException:
            with contextlib.suppress(FileNotFoundError):
                temporary.unlink()
            raise
        _sync_folder(path.parent)
    except OSError as error:
        raise CheckpointError(
            f"cannot write checkpoint {path} ({error.strerror}); check the folder and free space"
        ) from error


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint, tensors and plain values only.

    Raises:
        CheckpointError: it is missing, damaged or of another version.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise CheckpointError(f"cannot read checkpoint {path} ({error.strerror}); give an existing .pt file") from error
    except (RuntimeError, ValueError, KeyError, EOFError, pickle.UnpicklingError) as error:
        raise CheckpointError(f"checkpoint {path} is damaged or not one of ours ({error}); use another") from error
    version = content.get("format_version") if isinstance(content, dict) else None
    if version != FORMAT_VERSION:
        raise CheckpointError(
            f"checkpoint {path} has format {version}, this version reads {FORMAT_VERSION}; train again"
        )
    result: dict[str, Any] = content
    return result


def remove_leftovers(path: Path) -> None:
    """Remove what writes of `path` left beside it when they were killed; only while nobody writes it."""
    for leftover in path.parent.glob(f".{path.name}.*"):
        leftover.unlink(missing_ok=True)


def _sync_folder(folder: Path) -> None:
    """Make the rename itself durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
