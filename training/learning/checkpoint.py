"""Checkpoints on disk: written whole or not at all, read without running code from them."""

from __future__ import annotations

import pickle  # nosec B403 # for the name of an error; checkpoints are read with weights_only
from pathlib import Path
from typing import Any, Final

import torch

from policy.errors import SchedulerError
from training.files import replacing

FORMAT_VERSION: Final = 1


class CheckpointError(SchedulerError):
    """A checkpoint is missing, damaged, or of another version or configuration."""


def save_checkpoint(path: Path, content: dict[str, Any]) -> None:
    """Write `content` (tensors, numbers, strings, lists, dicts) to `path`, whole or not at all.

    Raises:
        CheckpointError: it cannot be written.
    """
    try:
        with replacing(path) as file:
            torch.save({"format_version": FORMAT_VERSION, **content}, file)
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
