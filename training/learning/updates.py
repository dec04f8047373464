"""What an update tells of itself, and the critics' loss on a weighted batch. Refuses to move any weight."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from policy.errors import SchedulerError


class DivergedError(SchedulerError):
    """An update gave a loss or a gradient that is not finite; the run cannot go on to anything."""


@dataclass(frozen=True, slots=True)
class Update:
    """One gradient step."""

    logs: dict[str, float]  # what to record, by name
    # absolute temporal-difference error of each transition of the batch, float64 ``[b]``, before the step
    errors: NDArray[np.float64]


def weighted_loss(estimate: Tensor, target: Tensor, weight: Tensor | None) -> Tensor:
    """Mean squared error of ``[b, n]`` or ``[b, 1]``, each transition times its importance weight ``[b, 1]`` if any."""
    if weight is None:
        return nn.functional.mse_loss(estimate, target)
    return (weight * (estimate - target).square()).mean()


@torch.no_grad()
def absolute_errors(estimates: Sequence[Tensor], target: Tensor) -> NDArray[np.float64]:
    """Mean over nodes and critics of how far estimates are off, float64 ``[b]``: the size of what the loss sums.

    Errors of different nodes do not cancel, as they would in the team's error; with a team value ``[b, 1]`` this is
    the classic absolute error.
    """
    errors = torch.stack([(estimate - target).abs().mean(-1) for estimate in estimates]).mean(0)
    result: NDArray[np.float64] = errors.double().numpy()
    return result
