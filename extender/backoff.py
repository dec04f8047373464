"""How long to wait before asking again. Refuses to sleep: whoever asks does, and may be told to stop meanwhile."""

from __future__ import annotations

import random

from policy.errors import InvalidInputError


class Backoff:
    """Delays that double from `first` to `longest`, each cut at random by up to half so that clients spread out.

    Args:
        rng: source of the jitter.
        first: seconds before the first repetition, before jitter, > 0.
        longest: most seconds, before jitter, >= `first`.

    Raises:
        InvalidInputError: the two do not fit.
    """

    def __init__(self, rng: random.Random, first: float = 0.5, longest: float = 10.0) -> None:
        if not 0.0 < first <= longest:
            raise InvalidInputError(f"back-off goes from {first} s to {longest} s; give 0 < first <= longest")
        self._rng = rng
        self._first = first
        self._longest = longest
        self._next = first

    def delay(self) -> float:
        """Seconds to wait now; the following call gives up to twice as many."""
        chosen = self._next * self._rng.uniform(0.5, 1.0)
        self._next = min(2.0 * self._next, self._longest)
        return chosen

    def reset(self) -> None:
        """It worked: begin small the next time."""
        self._next = self._first
