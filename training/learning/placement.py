"""From preferences to a placement while training: softmax over feasible nodes, exact in torch and sampled in numpy.

Serving takes the best preference; training samples, because with argmax the true Q is piecewise constant in the bids
and a policy gradient has nothing honest to follow.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from training.simulator.ties import PENDING

SMALLEST_PROBABILITY: Final = 1e-12
"""Probabilities below it add nothing to the entropy or its gradient."""


def preferences(bids: Tensor, measures: Tensor) -> Tensor:
    """`policy.scorers.combine` in torch: sum of bid x criterion, ``[..., n, 4]`` twice to ``[..., n]``."""
    return (bids * measures).sum(-1)


def placement_probabilities(preference: Tensor, feasible: Tensor, temperature: float) -> Tensor:
    """Softmax(preference / temperature) over the feasible nodes, ``[..., n]``; all zeros where no node is feasible."""
    masked = (preference / temperature).masked_fill(~feasible, float("-inf"))
    some = feasible.any(-1, keepdim=True)
    return torch.softmax(masked.masked_fill(~some, 0.0), -1) * some


def one_hot(placement: Tensor, nodes: int) -> Tensor:
    """What happened as float ``[..., n]``: 1 on the chosen node, all zeros for a pod left pending."""
    return (placement.unsqueeze(-1) == torch.arange(nodes)).float()


def entropy(probabilities: Tensor) -> Tensor:
    """Entropy in nats of each row, ``[..., n]`` to ``[...]``; rows of zeros count 0."""
    # The clamp keeps the gradient finite where a probability underflows to 0.
    return -(probabilities * probabilities.clamp_min(SMALLEST_PROBABILITY).log()).sum(-1)


def sample_placement(
    preference: NDArray[np.float32],
    feasible: NDArray[np.bool_],
    temperature: float,
    uniform_share: float,
    generator: np.random.Generator,
) -> NDArray[np.int64]:
    """Draw one node per cluster from the placement softmax, or uniformly for a share of the clusters.

    Args:
        preference: ``[clusters, n]``.
        feasible: ``[clusters, n]``.
        temperature: of the softmax, > 0.
        uniform_share: probability of a uniform draw over feasible nodes, 0..1; keeps every placement covered.
        generator: source of the draws.

    Returns:
        Node per cluster, int64 ``[clusters]``; `PENDING` where no node is feasible.
    """
    uniform = generator.random(len(preference)) < uniform_share
    logits = np.where(uniform[:, None], 0.0, preference.astype(np.float64) / temperature)
    # Gumbel-max: the argmax of logits plus Gumbel noise is a draw from their softmax.
    noisy = np.where(feasible, logits + generator.gumbel(size=logits.shape), -np.inf)
    return np.where(feasible.any(1), noisy.argmax(1), PENDING).astype(np.int64)
