"""The most preferred feasible node, ties at random: once for training, selection, evaluation and the environments."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from policy.errors import NonFinitePreferenceError
from policy.scorers import Preferences

PENDING: Final = -1
"""Placement of a pod that fits nowhere: it stays pending."""


def best_nodes(preferences: Preferences, feasible: NDArray[np.bool_], name: str = "scorer") -> NDArray[np.bool_]:
    """Return which feasible nodes have the highest preference of their cluster, ``[..., n]``.

    Args:
        preferences: ``[..., n]``.
        feasible: ``[..., n]``.
        name: of the scorer, for errors.

    Raises:
        NonFinitePreferenceError: a feasible node's preference is not a number, or the highest is infinite.
    """
    masked = np.where(feasible, preferences, -np.inf)
    best = masked.max(axis=-1, keepdims=True)
    if not np.isfinite(best[feasible.any(axis=-1)]).all() or np.isnan(masked).any():
        raise NonFinitePreferenceError(f"scorer {name}: a preference for a feasible node is not finite")
    top: NDArray[np.bool_] = (masked == best) & feasible
    return top


def drawn_node(candidates: NDArray[np.bool_], luck: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return the candidate with the most luck (0 or more) per cluster, int64 ``[clusters]``; `PENDING` without any."""
    drawn = np.where(candidates, luck, -1.0).argmax(axis=1)
    return np.where(candidates.any(axis=1), drawn, PENDING).astype(np.int64)
