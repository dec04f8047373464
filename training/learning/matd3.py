"""MATD3 with one actor shared by all agents (Ackermann et al., arXiv:1910.01465): what it changes in MADDPG.

TD3's three measures (Fujimoto et al., arXiv:1802.09477): twin critics with the smaller target, which
`training.learning.maddpg` takes wherever there are two; noise on the target actor's bids; and an actor and targets that
move less often than the critics. Deviations from the paper stand in docs/algorithms/matd3.md.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from training.config import TrainingConfig
from training.learning.maddpg import Maddpg
from training.learning.networks import bid_mask, lowest_bid


class Matd3(Maddpg):
    """MADDPG with target policy smoothing and delayed updates of the actor and the targets.

    Args:
        config: of the run; ``critic.twin`` holds.
        nodes: nodes per cluster, read by the joint critic alone.
    """

    def __init__(self, config: TrainingConfig, nodes: int) -> None:
        super().__init__(config, nodes)
        self.actor_every = config.matd3.actor_every
        self._lowest = lowest_bid(config.actor)
        self._bid_mask = torch.from_numpy(bid_mask(config.actor))
        self._generator = torch.Generator().manual_seed(config.seed)

    def _next_bids(self, observation: Tensor) -> Tensor:
        """Bids near those of the target actor, so that a peak of the critic alone is worth nothing."""
        settings = self._config.matd3
        bids = super()._next_bids(observation)
        noise = torch.randn(bids.shape, generator=self._generator) * settings.smoothing_sigma
        noise = noise.clamp(-settings.smoothing_clip, settings.smoothing_clip)
        return (bids + noise * self._bid_mask).clamp(self._lowest, 1.0)

    def state_dict(self) -> dict[str, Any]:
        """Everything needed to go on exactly, the smoothing noise's generator included."""
        return {**super().state_dict(), "generator": self._generator.get_state()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up a saved state."""
        super().load_state_dict(state)
        self._generator.set_state(state["generator"])
