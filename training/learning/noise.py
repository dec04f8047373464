"""Exploration noise on bids. The generator is the caller's, and so is the schedule of sigma."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

NoiseKind = Literal["ou", "gaussian", "none"]


class Noise:
    """Noise of one fixed shape; each draw is added to the bids.

    Args:
        kind: ``ou``, x += -theta x + sigma N(0, 1): correlated over time (Uhlenbeck & Ornstein 1930, as used by DDPG;
            dt = 1), stationary deviation sigma / sqrt(theta (2 - theta)). ``gaussian``, independent N(0, sigma^2) at
            every step. ``none``, zero: exploration is left to the sampled placement.
        shape: of a draw, ``[clusters, n, 4]``.
        theta: pull towards zero per step, 0..1; read by ``ou`` alone.
        generator: source of the draws.
    """

    def __init__(self, kind: NoiseKind, shape: tuple[int, ...], theta: float, generator: np.random.Generator) -> None:
        self._kind = kind
        self._theta = theta
        self._generator = generator
        self._state = np.zeros(shape, dtype=np.float32)

    def reset(self) -> None:
        """Forget the past; called when episodes begin."""
        self._state[...] = 0.0

    def draw(self, sigma: float) -> NDArray[np.float32]:
        """Return the next noise at scale sigma, float32 of `shape`."""
        if self._kind == "none":
            return self._state
        step = np.float32(sigma) * self._generator.standard_normal(self._state.shape, dtype=np.float32)
        if self._kind == "gaussian":
            return step
        self._state += step - np.float32(self._theta) * self._state
        return self._state.copy()
