"""Preferences to the integers kube-scheduler takes."""

from __future__ import annotations

from functools import lru_cache
from math import inf, isfinite
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from policy.errors import InvalidInputError, NonFinitePreferenceError

MAX_PRIORITY: Final = 10
"""Highest score an extender may give: MaxExtenderPriority in k8s.io/kube-scheduler/extender/v1/types.go."""

TEMPERATURE: Final = 0.1
"""Preference lost before the unrounded priority falls by a factor e; as in the placement softmax of training."""


TAIL: Final = 3
"""Priorities up to this one are for nodes that are clearly worse than the best, so that these are told apart too."""

TAIL_TEMPERATURE: Final = 0.25
"""Preference lost before the unrounded priority of the tail falls by a factor e; a policy's preferences span 1 or 2."""


def priorities(preferences: NDArray[np.floating[Any]], temperature: float = TEMPERATURE) -> NDArray[np.int64]:
    """10 x exp((preference - best) / temperature), rounded: integers 0..10, monotone, fine near the top.

    kube-scheduler breaks ties at random, so the eleven levels are spent where the choice is made. A node gets
    `TAIL` x exp((preference - best) / `TAIL_TEMPERATURE`) where that is more: whether the choice is between nodes
    far from the best is up to kube-scheduler's own scores, and to which nodes it asks about next.

    Args:
        preferences: ``[n]``, finite.
        temperature: > 0; the temperature of the placement softmax in training.

    Returns:
        int64 ``[n]``; the best nodes get 10; empty in, empty out.

    Raises:
        NonFinitePreferenceError: a preference is NaN or infinite.
        InvalidInputError: the temperature is not a positive number.
    """
    levels = _levels(temperature)
    if preferences.size == 0:
        return np.empty(preferences.shape, dtype=np.int64)
    # the ufuncs themselves: the methods of the array take a detour through Python. NaN wins both
    best, worst = float(np.maximum.reduce(preferences, axis=None)), float(np.minimum.reduce(preferences, axis=None))
    if not (isfinite(best) and isfinite(worst)):
        bad = int(np.flatnonzero(~np.isfinite(preferences))[0])
        raise NonFinitePreferenceError(f"the preference of node row {bad} is {preferences[bad]}")
    return levels.searchsorted(preferences.astype(np.float64) - best, side="right")


@lru_cache(maxsize=16)
def _levels(temperature: float) -> NDArray[np.float64]:
    """Preference lost, <= 0, down to which a node still has the priorities 1..10, ``[10]``: where 0.5 .. 9.5 round.

    Looking a preference up here is rounding the greater of the two exponentials, in one step instead of many.
    """
    if not 0.0 < temperature < inf:
        raise InvalidInputError(f"temperature is {temperature}; give a positive number, such as {TEMPERATURE}")
    rounding = np.arange(1, MAX_PRIORITY + 1) - 0.5
    levels: NDArray[np.float64] = temperature * np.log(rounding / MAX_PRIORITY)
    levels[:TAIL] = np.minimum(levels[:TAIL], TAIL_TEMPERATURE * np.log(rounding[:TAIL] / TAIL))
    return levels
