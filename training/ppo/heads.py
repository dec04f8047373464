"""The project's networks as BenchMARL's models, and its MAPPO and IPPO with two additions. Collects nothing.

The additions: advantages are normalised in each minibatch, as in the papers' code, and the actor pays the same penalty
on preferring worse nodes as under MADDPG (`training.learning.monotone.gain_where_worse`).
"""

from __future__ import annotations

import math
from dataclasses import MISSING, dataclass
from typing import Any, Final

import torch
from benchmarl.algorithms import Ippo, IppoConfig, Mappo, MappoConfig
from benchmarl.models.common import Model, ModelConfig
from tensordict import TensorDictBase
from torch import Tensor, nn

from policy.criteria import CRITERIA_COUNT
from policy.features import FEATURE_COUNT
from training.config import ActorConfig, TrainingConfig
from training.learning.critics import SetCritic
from training.learning.maddpg import WORSE_ROWS
from training.learning.monotone import gain_where_worse
from training.learning.networks import AnyActor, build_actor, hidden_stack


class BidHead(Model):  # type: ignore[misc] # not installed where mypy runs
    """A Gaussian around the unsquashed bids: mean of the actor that is exported, one learned deviation per criterion.

    Args:
        settings: of the actor.
        sigma: deviation at the start, before tanh.
        model: what BenchMARL says of every model.
    """

    def __init__(self, settings: ActorConfig, sigma: float, **model: Any) -> None:
        super().__init__(**model)
        self.actor = build_actor(settings)
        self.log_sigma = nn.Parameter(torch.full((CRITERIA_COUNT,), math.log(sigma)))

    def _forward(self, tensordict: TensorDictBase) -> TensorDictBase:
        mean = self.actor.unsquashed(tensordict.get(self.in_key))
        return tensordict.set(self.out_key, torch.cat([mean, self.log_sigma.expand_as(mean)], -1))


@dataclass
class BidHeadConfig(ModelConfig):  # type: ignore[misc] # not installed where mypy runs
    """Settings of `BidHead`."""

    settings: ActorConfig = MISSING  # type: ignore[assignment] # as BenchMARL's own
    sigma: float = MISSING  # type: ignore[assignment] # as BenchMARL's own

    @staticmethod
    def associated_class() -> type[BidHead]:
        """Return what it configures."""
        return BidHead


class ValueHead(Model):  # type: ignore[misc] # not installed where mypy runs
    """The team's value: of all observations (MAPPO: `SetCritic`'s base, summed) or of a node's own alone (IPPO).

    Args:
        hidden: widths of the hidden layers.
        model: what BenchMARL says of every model; ``centralised`` decides.
    """

    def __init__(self, hidden: tuple[int, ...], **model: Any) -> None:
        super().__init__(**model)
        self.critic: nn.Module = (
            SetCritic(hidden)
            if self.centralised
            else nn.Sequential(hidden_stack(FEATURE_COUNT, hidden), nn.Linear(hidden[-1], 1))
        )

    def _forward(self, tensordict: TensorDictBase) -> TensorDictBase:
        seen = tensordict.get(self.in_key)
        if isinstance(self.critic, SetCritic):
            value: Tensor = self.critic.base_and_advantage(seen)[0].sum(-1, keepdim=True)
        else:
            value = self.critic(seen)
        return tensordict.set(self.out_key, value)


@dataclass
class ValueHeadConfig(ModelConfig):  # type: ignore[misc] # not installed where mypy runs
    """Settings of `ValueHead`."""

    hidden: tuple[int, ...] = MISSING  # type: ignore[assignment] # as BenchMARL's own

    @staticmethod
    def associated_class() -> type[ValueHead]:
        """Return what it configures."""
        return ValueHead


def actor_of(policy: nn.Module) -> AnyActor:
    """Return the actor in a policy of BenchMARL's."""
    return next(module.actor for module in policy.modules() if isinstance(module, BidHead))


class _Penalised:
    """What both algorithms get besides."""

    def __init__(self, worse_penalty: float, **settings: Any) -> None:
        super().__init__(**settings)
        self.worse_penalty = worse_penalty
        self._draw = torch.Generator().manual_seed(self.experiment.seed)  # type: ignore[attr-defined]

    def _get_loss(self, *given: Any, **named: Any) -> tuple[nn.Module, bool]:
        loss, targets = super()._get_loss(*given, **named)  # type: ignore[misc]
        loss.normalize_advantage = True
        return loss, targets

    def process_loss_vals(self, group: str, loss_vals: TensorDictBase) -> TensorDictBase:
        """Add the penalty to the actor's loss."""
        losses = super().process_loss_vals(group, loss_vals)  # type: ignore[misc]
        if self.worse_penalty > 0.0:
            actor = actor_of(self.get_policy_for_loss(group))  # type: ignore[attr-defined]
            gained = gain_where_worse(actor, WORSE_ROWS, self._draw)
            losses.set("loss_objective", losses["loss_objective"] + self.worse_penalty * gained)
        return losses


class PenalisedMappo(_Penalised, Mappo):  # type: ignore[misc] # not installed where mypy runs
    """MAPPO (Yu et al., arXiv:2103.01955)."""


class PenalisedIppo(_Penalised, Ippo):  # type: ignore[misc] # not installed where mypy runs
    """IPPO (de Witt et al., arXiv:2011.09533)."""


@dataclass
class PenalisedMappoConfig(MappoConfig):  # type: ignore[misc] # not installed where mypy runs
    """Settings of `PenalisedMappo`."""

    worse_penalty: float = MISSING  # type: ignore[assignment] # as BenchMARL's own

    @staticmethod
    def associated_class() -> type[PenalisedMappo]:
        """Return what it configures."""
        return PenalisedMappo


@dataclass
class PenalisedIppoConfig(IppoConfig):  # type: ignore[misc] # not installed where mypy runs
    """Settings of `PenalisedIppo`."""

    worse_penalty: float = MISSING  # type: ignore[assignment] # as BenchMARL's own

    @staticmethod
    def associated_class() -> type[PenalisedIppo]:
        """Return what it configures."""
        return PenalisedIppo


CONFIGS: Final = {"mappo": PenalisedMappoConfig, "ippo": PenalisedIppoConfig}


def algorithm_config(config: TrainingConfig) -> Any:
    """Return BenchMARL's configuration of the run's algorithm."""
    return CONFIGS[config.algorithm](
        share_param_critic=True,
        clip_epsilon=config.ppo.clip,
        entropy_coef=config.objective.entropy_bonus,
        critic_coef=1.0,
        loss_critic_type="l2",
        lmbda=config.ppo.gae,
        scale_mapping="exp",
        use_tanh_normal=True,
        minibatch_advantage=False,
        worse_penalty=config.objective.worse_penalty,
    )
