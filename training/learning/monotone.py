"""An actor that cannot prefer the worse of two nodes which differ in one thing: monotone by construction.

Bids are non-negative and never rise when a node is more used, more pressed or fuller, and never fall when it is faster.
The physical criteria (`policy.criteria.PHYSICAL`) keep to the same order and are not negative either, so neither does
the sum of bid x criterion. Weights on a node's features have the sign that this asks for and all later ones are
positive (Daniels and Velikova, "Monotone and partially monotone neural networks", IEEE TNN 21(6), 2010); what belongs
to the pod, its size and urgency, is free.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Final

import torch
from torch import Tensor, nn

from policy.criteria import CONSTANT, CRITERIA_COUNT
from policy.features import FEATURE_NAMES, HIGH, LOW

BETTER: Final = {
    "cpu_requested": -1.0,
    "memory_requested": -1.0,
    "cpu_used": -1.0,
    "memory_used": -1.0,
    "cpu_pressure": -1.0,
    "node_speed": 1.0,
}
"""Which way a feature of a node is better; the others are free."""

TYPICAL: Final = (0.5, 0.5, 0.4, 0.5, 0.1, 0.0, 0.1, 0.5)
"""An observation in the middle of what training sees: there the first layer begins to bend. Assumption."""

LARGEST_STEP: Final = 0.3
"""By how much a random node is worse at most, in units of the feature; as `training.evaluation.monotonicity` asks."""

HEAD_BOUND: Final = 3e-3
"""Uniform bound of the last layer's initial weights, as in `training.learning.networks`."""


def see_only(weight: nn.Parameter, features: Sequence[str]) -> None:
    """Take all other features out of a first layer, ``[outputs, 8]``: their weights are 0 and training leaves them so.

    The graph that is exported then reads them and multiplies by 0, so the schema of an observation stays one.
    """
    seen = torch.tensor([float(name in features) for name in FEATURE_NAMES])
    with torch.no_grad():
        weight.mul_(seen)
    if not seen.all():
        weight.register_hook(lambda gradient: gradient * seen)  # type: ignore[no-untyped-call]


def gain_where_worse(bids: Callable[[Tensor], Tensor], rows: int, draw: torch.Generator) -> Tensor:
    """Mean preference that random nodes gain by being worse in one thing, and bids below 0; 0 where there is neither.

    The physical criteria of the worse node are no higher, so bids that gain nothing on equal criteria, and are not
    negative on those that fall, prefer no such node. For actors that are not monotone by construction.

    Args:
        bids: observation ``[rows, 8]`` to bids ``[rows, 4]``.
        rows: how many nodes, uniform over the bounds of the features, as are their criteria over [0, 1].
        draw: source of the draws.
    """
    low, high = torch.tensor(LOW), torch.tensor(HIGH)
    nodes = low + torch.rand(rows, len(FEATURE_NAMES), generator=draw) * (high - low)
    measures = torch.rand(rows, CRITERIA_COUNT, generator=draw)
    columns = torch.tensor([FEATURE_NAMES.index(name) for name in BETTER])
    better = torch.tensor(list(BETTER.values()))
    chosen = torch.randint(len(BETTER), (rows,), generator=draw)
    worse = nodes.clone()
    worse[torch.arange(rows), columns[chosen]] -= better[chosen] * LARGEST_STEP * torch.rand(rows, generator=draw)
    worse = worse.clamp(low, high)
    before = bids(nodes)
    gained: Tensor = ((bids(worse) - before) * measures).sum(-1).clamp_min(0.0).mean()
    return gained + (-before[:, :CONSTANT]).clamp_min(0.0).sum(-1).mean()


class PositiveLinear(nn.Module):
    """A linear layer whose weights have given signs: those of `weight` without theirs, times `signs`.

    Args:
        inputs: how many.
        outputs: how many.
        signs: of each input's weights, ``[inputs]``: 1, -1, or 0 for weights of either sign; default: all 1.
    """

    def __init__(self, inputs: int, outputs: int, signs: Sequence[float] | None = None) -> None:
        super().__init__()
        # Weights of one sign add up: with this deviation the sum over inputs in [-1, 1] stays of the order of 1.
        deviation = 1.0 / math.sqrt(inputs) if signs is not None else 2.0 / inputs
        self.weight = nn.Parameter(torch.randn(outputs, inputs) * deviation)
        self.bias = nn.Parameter(torch.empty(outputs).uniform_(-1.0, 1.0))
        # Not saved: it follows from the configuration, which travels with every checkpoint.
        self.register_buffer("_signs", torch.tensor(signs or [1.0] * inputs), persistent=False)

    @property
    def signed(self) -> Tensor:
        """The weights as they multiply, ``[outputs, inputs]``."""
        signs = self.get_buffer("_signs")
        return torch.where(signs == 0.0, self.weight, self.weight.abs() * signs)

    def forward(self, inputs: Tensor) -> Tensor:
        """``[..., inputs]`` to ``[..., outputs]``."""
        return nn.functional.linear(inputs, self.signed, self.bias)


class MonotoneActor(nn.Module):
    """Observation ``[..., 8]`` to bids ``[..., 4]`` in [0, 1], one row per node.

    Args:
        hidden: widths of the hidden layers.
        initial_bids: the four bids the untrained actor gives everywhere, inside (0, 1).
        features: names of the features that the bids follow from.
    """

    def __init__(
        self, hidden: Sequence[int], initial_bids: Sequence[float], features: Sequence[str] = FEATURE_NAMES
    ) -> None:
        super().__init__()
        self.hidden = tuple(hidden)
        signs = [BETTER.get(name, 0.0) for name in FEATURE_NAMES]
        first = PositiveLinear(len(signs), hidden[0], signs)
        see_only(first.weight, features)
        layers: list[nn.Module] = [first, nn.Tanh()]
        for inputs, outputs in pairwise(hidden):
            layers += [PositiveLinear(inputs, outputs), nn.Tanh()]
        self.body = nn.Sequential(*layers)
        self.head = PositiveLinear(hidden[-1], CRITERIA_COUNT)
        nn.init.uniform_(self.head.weight, -HEAD_BOUND, HEAD_BOUND)
        with torch.no_grad():
            first.bias.sub_(first.signed @ torch.tensor(TYPICAL))
            self.head.bias.copy_(torch.tensor([math.log(bid / (1.0 - bid)) for bid in initial_bids]))

    def unsquashed(self, observation: Tensor) -> Tensor:
        """The bids before the logistic function, ``[..., 4]``."""
        flow = self.body(observation)
        with torch.autocast("cpu", enabled=False):  # as `training.learning.precision.in_full`
            output: Tensor = self.head(flow.float())
        return output

    def squashed(self, unsquashed: Tensor) -> Tensor:
        """Bids of what `unsquashed` gave."""
        return torch.sigmoid(unsquashed)

    def forward(self, observation: Tensor) -> Tensor:
        """Bids ``[..., 4]`` in [0, 1]."""
        return self.squashed(self.unsquashed(observation))
