"""Exploration noise on bids: Ornstein-Uhlenbeck and Gaussian. Generator injected; sigma is the caller's schedule."""

from __future__ import annotations

from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

NoiseKind = Literal["ou", "gaussian", "none"]


class Noise(Protocol):
    """Noise of one fixed shape; each draw is added to the bids."""

    def reset(self) -> None:
        """Forget the past; called when episodes begin."""
        ...

    def draw(self, sigma: float) -> NDArray[np.float32]:
        """The next noise at scale sigma."""
        ...


class OrnsteinUhlenbeck:
    """x += -theta x + sigma N(0, 1): noise correlated over time (Uhlenbeck & Ornstein 1930, as used by DDPG; dt = 1).

    Args:
        shape: shape of a draw, ``[clusters, n, 4]``.
        theta: pull towards zero per step, 0..1.
        generator: source of the draws.
    """

    def __init__(self, shape: tuple[int, ...], theta: float, generator: np.random.Generator) -> None:
        self._theta = theta
        self._generator = generator
        self._state = np.zeros(shape, dtype=np.float32)

    def reset(self) -> None:
        """Start again at zero."""
        self._state[...] = 0.0

    def draw(self, sigma: float) -> NDArray[np.float32]:
        """Next state of the process, float32 of `shape`; stationary deviation sigma / sqrt(theta (2 - theta))."""
        step = self._generator.standard_normal(self._state.shape, dtype=np.float32)
        self._state += np.float32(sigma) * step - np.float32(self._theta) * self._state
        return self._state.copy()


class Gaussian:
    """Independent N(0, sigma^2) at every step.

    Args:
        shape: shape of a draw.
        generator: source of the draws.
    """

    def __init__(self, shape: tuple[int, ...], generator: np.random.Generator) -> None:
        self._shape = shape
        self._generator = generator

    def reset(self) -> None:
        """Nothing is remembered."""

    def draw(self, sigma: float) -> NDArray[np.float32]:
        """Fresh noise, float32 of `shape`."""
        return np.float32(sigma) * self._generator.standard_normal(self._shape, dtype=np.float32)


class NoNoise:
    """Zero: exploration is left to the sampled placement."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        self._zero = np.zeros(shape, dtype=np.float32)

    def reset(self) -> None:
        """Nothing is remembered."""

    def draw(self, sigma: float) -> NDArray[np.float32]:
        """Zeros of `shape`, whatever sigma."""
        return self._zero


def build_noise(kind: NoiseKind, shape: tuple[int, ...], theta: float, generator: np.random.Generator) -> Noise:
    """The noise of that kind; theta is read by ``ou`` alone."""
    if kind == "ou":
        return OrnsteinUhlenbeck(shape, theta, generator)
    return Gaussian(shape, generator) if kind == "gaussian" else NoNoise(shape)
