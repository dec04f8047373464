"""What the loop needs of an algorithm, and which ones there are."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from training.config import TrainingConfig
from training.learning.maddpg import Maddpg
from training.learning.matd3 import Matd3
from training.learning.networks import AnyActor
from training.learning.replay import Batch
from training.learning.updates import Update


class Algorithm(Protocol):
    """An actor that learns from batches of transitions."""

    actor: AnyActor
    updates: int

    def update(self, batch: Batch) -> Update:
        """One gradient step; returns the batch's errors and what to log."""
        ...

    def bids(self, observation: NDArray[np.float32]) -> NDArray[np.float32]:
        """Bids without noise, ``[..., 8]`` to ``[..., 4]``."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """Everything needed to go on exactly."""
        ...

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up a saved state."""
        ...


def build_algorithm(config: TrainingConfig, nodes: int) -> Algorithm:
    """The configured algorithm with fresh weights; `nodes` per cluster is read by the joint critic alone."""
    return Matd3(config, nodes) if config.algorithm == "matd3" else Maddpg(config, nodes)
