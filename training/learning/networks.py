"""Actors, one shared or one for each class of node speed, and their arithmetic. Refuses to know how they learn."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from policy.criteria import CONSTANT, CRITERIA_COUNT
from policy.features import FEATURE_COUNT, FEATURE_NAMES
from training.config import ActorConfig
from training.learning.monotone import MonotoneActor, see_only
from training.learning.precision import in_full

OUTPUT_WEIGHT_BOUND: Final = 3e-3
"""Uniform bound of the last layer's initial weights (Lillicrap et al., DDPG, arXiv:1509.02971, section 7)."""

SPEED: Final = FEATURE_NAMES.index("node_speed")
"""The feature that says which class a node belongs to."""


def hidden_stack(inputs: int, hidden: Sequence[int]) -> nn.Sequential:
    """Linear, layer norm, ReLU for each hidden width; ``[..., inputs]`` to ``[..., hidden[-1]]``."""
    layers: list[nn.Module] = []
    for width in hidden:
        layers += [nn.Linear(inputs, width), nn.LayerNorm(width), nn.ReLU()]
        inputs = width
    return nn.Sequential(*layers)


class Actor(nn.Module):
    """Observation ``[..., 8]`` to bids ``[..., 4]`` in [-1, 1], one row per node.

    Args:
        hidden: widths of the hidden layers.
        initial_bids: the four bids the untrained actor gives everywhere, inside (-1, 1); a known static rule to start
            at.
        plain: bid on the constant criterion alone; the other three bids are zero.
        features: names of the features that the bids follow from.
    """

    def __init__(
        self,
        hidden: Sequence[int],
        initial_bids: Sequence[float],
        *,
        plain: bool = False,
        features: Sequence[str] = FEATURE_NAMES,
    ) -> None:
        super().__init__()
        self.hidden = tuple(hidden)
        self.plain = plain
        start = [initial_bids[CONSTANT]] if plain else initial_bids
        self.body = hidden_stack(FEATURE_COUNT, hidden)
        see_only(self.body.get_parameter("0.weight"), features)
        self.head = nn.Linear(hidden[-1], len(start))
        nn.init.uniform_(self.head.weight, -OUTPUT_WEIGHT_BOUND, OUTPUT_WEIGHT_BOUND)
        with torch.no_grad():
            self.head.bias.copy_(torch.tensor([math.atanh(bid) for bid in start]))

    def unsquashed(self, observation: Tensor) -> Tensor:
        """The bids before tanh, ``[..., 4]``; training penalises their size so that tanh keeps a gradient."""
        output = in_full(self.head, self.body(observation))
        return nn.functional.pad(output, (CONSTANT, CRITERIA_COUNT - 1 - CONSTANT)) if self.plain else output

    def squashed(self, unsquashed: Tensor) -> Tensor:
        """Bids of what `unsquashed` gave."""
        return torch.tanh(unsquashed)

    def forward(self, observation: Tensor) -> Tensor:
        """Bids ``[..., 4]`` in [-1, 1]."""
        return self.squashed(self.unsquashed(observation))


class ClassActors(nn.Module):
    """One `Actor` for each class of node speed, chosen row by row from the observation.

    Args:
        boundaries: ascending node speeds; the class of a node is the number of them that its speed reaches.
        build: makes one actor with fresh weights.
    """

    def __init__(self, boundaries: Sequence[float], build: Callable[[], Actor]) -> None:
        super().__init__()
        self.members = nn.ModuleList([build() for _ in range(len(boundaries) + 1)])
        # Not saved: the configuration, which travels with every checkpoint, holds them.
        self.register_buffer("_boundaries", torch.tensor(boundaries, dtype=torch.float32), persistent=False)

    @property
    def boundaries(self) -> Tensor:
        """Float32 ``[classes - 1]``, as compared with the observation's float32."""
        return self.get_buffer("_boundaries")

    @property
    def actors(self) -> list[Actor]:
        """One for each class, slowest first."""
        return [member for member in self.members if isinstance(member, Actor)]

    def unsquashed(self, observation: Tensor) -> Tensor:
        """As `Actor.unsquashed`; every row runs through the network of its own class only."""
        chosen = torch.bucketize(observation[..., SPEED].contiguous(), self.boundaries, right=True)
        output = observation.new_zeros((*observation.shape[:-1], CRITERIA_COUNT))
        for number, member in enumerate(self.actors):
            rows = chosen == number
            output[rows] = member.unsquashed(observation[rows])
        return output

    def squashed(self, unsquashed: Tensor) -> Tensor:
        """Bids of what `unsquashed` gave."""
        return torch.tanh(unsquashed)

    def forward(self, observation: Tensor) -> Tensor:
        """Bids ``[..., 4]`` in [-1, 1]."""
        return self.squashed(self.unsquashed(observation))


AnyActor = Actor | ClassActors | MonotoneActor


def build_actor(settings: ActorConfig) -> AnyActor:
    """The configured actor with fresh weights, drawn from torch's global generator."""

    def build() -> Actor:
        plain = settings.criteria == "constant"
        return Actor(settings.hidden, settings.initial_bids, plain=plain, features=settings.features)

    if settings.kind == "monotone":
        return MonotoneActor(settings.hidden, settings.initial_bids, settings.features)
    return build() if settings.kind == "shared" else ClassActors(settings.speed_classes, build)


def bid_mask(settings: ActorConfig) -> NDArray[np.float32]:
    """1 for each of the four bids that the actor makes, 0 for those that stay zero; noise is added to the former."""
    mask = np.ones(CRITERIA_COUNT, dtype=np.float32)
    if settings.criteria == "constant":
        mask[np.arange(CRITERIA_COUNT) != CONSTANT] = 0.0
    return mask


def lowest_bid(settings: ActorConfig) -> float:
    """The least that the actor bids; noise leads no lower."""
    return 0.0 if settings.kind == "monotone" else -1.0


def parameter_count(module: nn.Module) -> int:
    """Number of trained parameters, counted."""
    return sum(parameter.numel() for parameter in module.parameters() if parameter.requires_grad)


@torch.no_grad()
def soft_update(target: nn.Module, source: nn.Module, share: float) -> None:
    """Move every parameter of `target` the given share (0..1) of the way to `source` (Polyak averaging)."""
    for kept, new in zip(target.parameters(), source.parameters(), strict=True):
        kept.lerp_(new, share)
