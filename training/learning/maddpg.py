"""MADDPG with one actor shared by all agents (Lowe et al., arXiv:1706.02275), top to bottom.

Deviations from the paper, with reasons, stand in docs/algorithms/maddpg.md. The short list: parameters are shared
between agents; the placement is sampled from a softmax over preferences; the default critic sees the placement rather
than the bids; critics are twins; rewards are per node.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from training.config import TrainingConfig
from training.learning.critics import Critic, Critics, JointCritic, SetCritic
from training.learning.monotone import gain_where_worse
from training.learning.networks import AnyActor, build_actor, soft_update
from training.learning.placement import entropy, one_hot, placement_probabilities, preferences
from training.learning.precision import reduced_precision
from training.learning.replay import Batch
from training.learning.updates import Update, absolute_errors, weighted_loss

WORSE_ROWS: Final = 2048
"""Random nodes per update of the actor that the penalty on preferring worse ones looks at."""

_SAVED: Final = ("actor", "critics", "target_actor", "target_critics", "actor_optimiser", "critic_optimiser")


class Maddpg:
    """Actor, critics, their targets and optimisers; one call of `update` is one gradient step of each.

    Args:
        config: of the run.
        nodes: nodes per cluster, read by the joint critic alone.

    Attributes:
        actor: what is trained.
        updates: calls of `update` so far.
        actor_every: updates of the critics per update of the actor and the targets.
    """

    actor_every = 1

    def __init__(self, config: TrainingConfig, nodes: int) -> None:
        self._config = config
        self.updates = 0
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed)

            def build_critic() -> Critic:
                hidden = config.critic.hidden
                return SetCritic(hidden) if config.critic.kind == "set" else JointCritic(hidden, nodes)

            self.actor: AnyActor = build_actor(config.actor)
            self.critics = Critics(build_critic, twin=config.critic.twin)
            self.target_actor = build_actor(config.actor).requires_grad_(False)
            self.target_critics = Critics(build_critic, twin=config.critic.twin).requires_grad_(False)
        self.target_actor.load_state_dict(self.actor.state_dict())
        self.target_critics.load_state_dict(self.critics.state_dict())
        self.actor_optimiser = torch.optim.Adam(self.actor.parameters(), lr=config.optimiser.actor_rate)
        self.critic_optimiser = torch.optim.Adam(self.critics.parameters(), lr=config.optimiser.critic_rate)

    def update(self, batch: Batch) -> Update:
        """One step of the critics, and of the actor and the targets if it is their turn.

        Returns the errors and what to log.
        """
        self._schedule()
        self.updates += 1
        turn = self.updates % self.actor_every == 0
        with reduced_precision(self._config.optimiser.matmul):
            result = self._update_critics(batch)
            if turn and self.updates > self._config.optimiser.actor_after:
                result.logs.update(self._update_actor(batch))
        if turn:
            soft_update(self.target_actor, self.actor, self._config.objective.soft_update)
            soft_update(self.target_critics, self.critics, self._config.objective.soft_update)
        return result

    def _next_bids(self, observation: Tensor) -> Tensor:
        """Bids of the target actor, ``[b, n, 8]`` to ``[b, n, 4]``, whose value the critics' target holds."""
        bids: Tensor = self.target_actor(observation)
        return bids

    def _update_critics(self, batch: Batch) -> Update:
        """Move every critic towards r + gamma x the smaller target Q of what the target actor would do next."""
        with torch.no_grad():
            next_bids = self._next_bids(batch.next_observation)
            next_placement = placement_probabilities(
                preferences(next_bids, batch.next_measures),
                batch.next_feasible,
                self._config.exploration.temperature,
            )
            following = self.target_critics.smaller(batch.next_observation, next_bids, next_placement)
            per_node = self.critics.first.per_node and self._config.objective.per_node
            reward = batch.reward if per_node else batch.reward.sum(-1, keepdim=True)
            following = following if per_node else following.sum(-1, keepdim=True)
            target = reward + batch.discount * following
        placed = one_hot(batch.placement, batch.observation.shape[1])
        estimates = self.critics(batch.observation, batch.bids, placed)
        if not per_node:
            estimates = [estimate.sum(-1, keepdim=True) for estimate in estimates]
        losses = [weighted_loss(estimate, target, batch.weight) for estimate in estimates]
        loss = torch.stack(losses).sum()
        self.critic_optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        norm = nn.utils.clip_grad_norm_(self.critics.parameters(), self._config.optimiser.critic_clip)
        self.critic_optimiser.step()
        logs = {
            "critic_loss": loss.item() / len(losses),
            "critic_gradient": norm.item(),
            "team_value": estimates[0].detach().sum(-1).mean().item(),
        }
        return Update(logs, absolute_errors(estimates, target))

    def _update_actor(self, batch: Batch) -> dict[str, float]:
        """Raise the expected team Q under the placement softmax of the actor's own bids."""
        settings = self._config.objective
        unsquashed = self.actor.unsquashed(batch.observation)
        bids = self.actor.squashed(unsquashed)
        placement = placement_probabilities(
            preferences(bids, batch.measures), batch.feasible, self._config.exploration.temperature
        )
        self.critics.requires_grad_(False)
        value = self.critics.first(batch.observation, bids, placement).sum(-1).mean()
        self.critics.requires_grad_(True)
        spread = entropy(placement).mean()
        size = unsquashed.square().mean()
        loss: Tensor = -value - settings.entropy_bonus * spread + settings.squash_penalty * size
        logs = {"placement_entropy": spread.item(), "unsquashed_size": size.item()}
        if settings.worse_penalty > 0.0:
            # of the seed and the update alone, so that a run that goes on from a checkpoint repeats
            draw = torch.Generator().manual_seed(self._config.seed * 1_000_003 + self.updates)
            gained = gain_where_worse(self.actor, WORSE_ROWS, draw)
            loss = loss + settings.worse_penalty * gained
            logs["worse_gained"] = gained.item()
        self.actor_optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        norm = nn.utils.clip_grad_norm_(self.actor.parameters(), self._config.optimiser.actor_clip)
        self.actor_optimiser.step()
        return {"actor_loss": loss.item(), "actor_gradient": norm.item(), **logs}

    @torch.no_grad()
    def bids(self, observation: NDArray[np.float32]) -> NDArray[np.float32]:
        """Bids of the trained actor, ``[..., 8]`` to ``[..., 4]``; no noise."""
        result: NDArray[np.float32] = self.actor(torch.from_numpy(observation)).numpy()
        return result

    def state_dict(self) -> dict[str, Any]:
        """Everything needed to go on exactly."""
        return {"updates": self.updates, **{name: getattr(self, name).state_dict() for name in _SAVED}}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up a saved state."""
        self.updates = state["updates"]
        for name in _SAVED:
            getattr(self, name).load_state_dict(state[name])

    def _schedule(self) -> None:
        """Linear decay of both rates to their final share over the run's updates; a function of `updates` alone."""
        settings = self._config.optimiser
        left = 1.0 - min(self.updates / self._config.updates, 1.0)
        factor = settings.final_share + (1.0 - settings.final_share) * left
        self.actor_optimiser.param_groups[0]["lr"] = settings.actor_rate * factor
        self.critic_optimiser.param_groups[0]["lr"] = settings.critic_rate * factor
