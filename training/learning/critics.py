"""Two centralised critics behind one call: the placement-aware set critic (any N), the joint critic (fixed N).

Each gives Q per node ``[batch, n]`` (set) or Q of the team ``[batch, 1]`` (joint); the team's Q is the sum over the
last axis either way.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from policy.criteria import CRITERIA_COUNT
from policy.features import FEATURE_COUNT
from training.learning.networks import hidden_stack
from training.learning.precision import in_full


class SetCritic(nn.Module):
    """q_i = base(o_i, c) + y_i * advantage(o_i, c), with c the mean of the encoded observations.

    Permutation equivariant, for any number of nodes. The bids reach it through y alone: y is the one-hot of the
    placement that happened in the temporal-difference target, and the placement softmax in the actor's objective, so
    that the expected Q is exact and differentiable in the bids.

    Args:
        hidden: widths of the encoder (first) and of the trunk (the rest).
    """

    per_node = True

    def __init__(self, hidden: Sequence[int]) -> None:
        super().__init__()
        width = hidden[0]
        self.encoder = hidden_stack(FEATURE_COUNT, [width])
        self.own = nn.Linear(width, hidden[1])
        self.context = nn.Linear(width, hidden[1], bias=False)
        self.trunk = nn.Sequential(nn.LayerNorm(hidden[1]), nn.ReLU(), hidden_stack(hidden[1], hidden[2:]))
        self.head = nn.Linear(hidden[-1], 2)

    def base_and_advantage(self, observation: Tensor) -> tuple[Tensor, Tensor]:
        """What a node is worth, and what landing the pod on it adds; each ``[batch, n]`` for ``[batch, n, 8]``."""
        encoded = self.encoder(observation)
        mixed = self.own(encoded) + self.context(encoded.mean(-2, keepdim=True))
        base, advantage = in_full(self.head, self.trunk(mixed)).unbind(-1)
        return base, advantage

    def forward(self, observation: Tensor, bids: Tensor, placement: Tensor) -> Tensor:
        """Q per node ``[batch, n]`` for placement weights y ``[batch, n]``; `bids` is what the joint critic reads."""
        base, advantage = self.base_and_advantage(observation)
        return base + placement * advantage


class JointCritic(nn.Module):
    """The classic centralised critic (Lowe et al., arXiv:1706.02275): all observations and actions concatenated.

    Args:
        hidden: widths of the hidden layers.
        nodes: number of nodes N; the input has 8 N + 4 N columns.
    """

    per_node = False

    def __init__(self, hidden: Sequence[int], nodes: int) -> None:
        super().__init__()
        self.body = hidden_stack((FEATURE_COUNT + CRITERIA_COUNT) * nodes, hidden)
        self.head = nn.Linear(hidden[-1], 1)

    def forward(self, observation: Tensor, bids: Tensor, placement: Tensor) -> Tensor:
        """Q of the team ``[batch, 1]``; `placement` is what the set critic reads."""
        joined = torch.cat([observation.flatten(1), bids.flatten(1)], dim=1)
        return in_full(self.head, self.body(joined))


Critic = SetCritic | JointCritic


class Critics(nn.Module):
    """One critic, or twins of which the target takes the smaller team value (clipped double Q, Fujimoto et al. 2018).

    Args:
        build: makes one critic with fresh weights.
        twin: two critics rather than one.
    """

    def __init__(self, build: Callable[[], Critic], *, twin: bool) -> None:
        super().__init__()
        self.members = nn.ModuleList([build() for _ in range(2 if twin else 1)])

    @property
    def first(self) -> Critic:
        """The critic whose gradient the actor follows."""
        member = self.members[0]
        if not isinstance(member, SetCritic | JointCritic):
            raise TypeError(type(member).__name__)
        return member

    def forward(self, observation: Tensor, bids: Tensor, placement: Tensor) -> list[Tensor]:
        """Q of every member, each ``[batch, n]`` or ``[batch, 1]``."""
        return [member(observation, bids, placement) for member in self.members]

    def smaller(self, observation: Tensor, bids: Tensor, placement: Tensor) -> Tensor:
        """For each transition the member whose team value is smaller, ``[batch, n]`` or ``[batch, 1]``.

        The comparison is of team values: a minimum per node would compound the pessimism with the number of nodes.
        """
        first, *others = self(observation, bids, placement)
        for other in others:
            first = torch.where(other.sum(-1, keepdim=True) < first.sum(-1, keepdim=True), other, first)
        return torch.as_tensor(first)
