"""In which precision the hidden layers multiply during an update."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

import torch
from torch import Tensor, nn

from training.config import Matmul, TrainingConfig

ROWS: Final = 4096
"""Rows of the product that is timed: a small part of an update's, so that emulated bfloat16 takes no second."""
REPEATS: Final = 5
WORTHWHILE: Final = 0.9
"""bfloat16 is chosen below this share of float32's time: for less it is not worth its three digits."""


def reduced_precision(matmul: Matmul) -> torch.autocast:
    """Context in which hidden layers multiply in bfloat16 where `matmul` says so; weights and sums stay float32."""
    return torch.autocast("cpu", torch.bfloat16, enabled=matmul == "bfloat16")


def in_full(head: nn.Module, inputs: Tensor) -> Tensor:
    """A last layer in float32 under any autocast: bfloat16 keeps three digits, and differences of Q need more."""
    with torch.autocast("cpu", enabled=False):
        output: Tensor = head(inputs.float())
    return output


def settled(config: TrainingConfig, seconds: Callable[[Matmul, int], float] | None = None) -> TrainingConfig:
    """The configuration with ``optimiser.matmul: auto`` replaced by what is faster on this CPU; else as it is.

    Args:
        config: of a run that begins. Its checkpoints hold the answer, so a run that goes on elsewhere keeps it.
        seconds: (matmul, width) -> time of a forward and backward pass; by default measured, the least of `REPEATS`.
    """
    if config.optimiser.matmul != "auto":
        return config
    measured = seconds or _seconds
    width = max(config.critic.hidden)
    faster = measured("bfloat16", width) < WORTHWHILE * measured("float32", width)
    matmul: Matmul = "bfloat16" if faster else "float32"
    return config.model_copy(update={"optimiser": config.optimiser.model_copy(update={"matmul": matmul})})


def _seconds(matmul: Matmul, width: int) -> float:
    layer, inputs = nn.Linear(width, width), torch.ones(ROWS, width)
    found = []
    for _ in range(1 + REPEATS):
        began = time.perf_counter()
        with reduced_precision(matmul):
            layer(inputs).sum().backward()
        found.append(time.perf_counter() - began)
    return min(found[1:])  # the first one also sets things up
