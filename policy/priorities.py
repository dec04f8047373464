"""Preferences to the integers kube-scheduler takes."""

from __future__ import annotations

from math import inf
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from policy.errors import InvalidInputError, NonFinitePreferenceError

MAX_PRIORITY: Final = 10
"""Highest score an extender may give: MaxExtenderPriority in k8s.io/kube-scheduler/extender/v1/types.go."""

TEMPERATURE: Final = 0.1
"""Preference lost before the unrounded priority falls by a factor e; as in the placement softmax of training."""


def priorities(preferences: NDArray[np.floating[Any]], temperature: float = TEMPERATURE) -> NDArray[np.int64]:
    """10 x exp((preference - best) / temperature), rounded: integers 0..10, monotone, fine near the top.

    kube-scheduler breaks ties at random, so the eleven levels are spent where the choice is made.

    Args:
        preferences: ``[n]``, finite.
        temperature: > 0; the temperature of the placement softmax in training.

    Returns:
        int64 ``[n]``; the best nodes get 10; empty in, empty out.

    Raises:
        NonFinitePreferenceError: a preference is NaN or infinite.
        InvalidInputError: the temperature is not a positive number.
    """
    if not 0.0 < temperature < inf:
        raise InvalidInputError(f"temperature is {temperature}; give a positive number, such as {TEMPERATURE}")
    if preferences.size == 0:
        return np.empty(preferences.shape, dtype=np.int64)
    if not np.isfinite(preferences).all():
        bad = int(np.flatnonzero(~np.isfinite(preferences))[0])
        raise NonFinitePreferenceError(f"the preference of node row {bad} is {preferences[bad]}")
    scaled = preferences.astype(np.float64)
    scaled -= scaled.max()
    scaled /= temperature
    np.exp(scaled, out=scaled)
    scaled *= MAX_PRIORITY
    return np.rint(scaled, out=scaled).astype(np.int64)
