"""The actor every node's agent shares, and the arithmetic of its initial weights. Refuses to know how it is trained."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

import torch
from torch import Tensor, nn

from policy.criteria import CRITERIA_COUNT
from policy.features import FEATURE_COUNT

OUTPUT_WEIGHT_BOUND: Final = 3e-3
"""Uniform bound of the last layer's initial weights (Lillicrap et al., DDPG, arXiv:1509.02971, section 7)."""


def hidden_stack(inputs: int, hidden: Sequence[int]) -> nn.Sequential:
    """Linear, layer norm, ReLU for each hidden width; ``[..., inputs]`` to ``[..., hidden[-1]]``."""
    layers: list[nn.Module] = []
    for width in hidden:
        layers += [nn.Linear(inputs, width), nn.LayerNorm(width), nn.ReLU()]
        inputs = width
    return nn.Sequential(*layers)


def reduced_precision(matmul: str) -> torch.autocast:
    """Context in which hidden layers multiply in bfloat16 where `matmul` says so; weights and sums stay float32."""
    return torch.autocast("cpu", torch.bfloat16, enabled=matmul == "bfloat16")


def in_full(head: nn.Module, inputs: Tensor) -> Tensor:
    """A last layer in float32 under any autocast: bfloat16 keeps three digits, and differences of Q need more."""
    with torch.autocast("cpu", enabled=False):
        output: Tensor = head(inputs.float())
    return output


class Actor(nn.Module):
    """Observation ``[..., 8]`` to bids ``[..., 4]`` in [-1, 1], one row per node.

    Args:
        hidden: widths of the hidden layers.
        initial_bids: the four bids the untrained actor gives everywhere, inside (-1, 1); a known static rule to start
            at.
    """

    def __init__(self, hidden: Sequence[int], initial_bids: Sequence[float]) -> None:
        super().__init__()
        self.hidden = tuple(hidden)
        self.body = hidden_stack(FEATURE_COUNT, hidden)
        self.head = nn.Linear(hidden[-1], CRITERIA_COUNT)
        nn.init.uniform_(self.head.weight, -OUTPUT_WEIGHT_BOUND, OUTPUT_WEIGHT_BOUND)
        with torch.no_grad():
            self.head.bias.copy_(torch.tensor([math.atanh(bid) for bid in initial_bids]))

    def unsquashed(self, observation: Tensor) -> Tensor:
        """The bids before tanh, ``[..., 4]``; training penalises their size so that tanh keeps a gradient."""
        return in_full(self.head, self.body(observation))

    def forward(self, observation: Tensor) -> Tensor:
        """Bids ``[..., 4]`` in [-1, 1]."""
        return torch.tanh(self.unsquashed(observation))


def parameter_count(module: nn.Module) -> int:
    """Number of trained parameters, counted."""
    return sum(parameter.numel() for parameter in module.parameters() if parameter.requires_grad)


@torch.no_grad()
def soft_update(target: nn.Module, source: nn.Module, share: float) -> None:
    """Move every parameter of `target` the given share (0..1) of the way to `source` (Polyak averaging)."""
    for kept, new in zip(target.parameters(), source.parameters(), strict=True):
        kept.lerp_(new, share)
