"""The algorithms there are, by the names that configurations give them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from policy.errors import InvalidInputError
from training.config import TrainingConfig
from training.learning.maddpg import Maddpg
from training.learning.matd3 import Matd3

ALGORITHMS: Final[Mapping[str, type[Maddpg]]] = {"maddpg": Maddpg, "matd3": Matd3}


def build_algorithm(config: TrainingConfig, nodes: int) -> Maddpg:
    """Return the configured algorithm with fresh weights; `nodes` per cluster is read by the joint critic alone.

    Raises:
        InvalidInputError: it is one that `maddpg-train ppo` trains.
    """
    if config.algorithm not in ALGORITHMS:
        raise InvalidInputError(f"algorithm is {config.algorithm!r}; train it by maddpg-train ppo")
    return ALGORITHMS[config.algorithm](config, nodes)
