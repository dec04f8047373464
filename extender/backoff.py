"""How long to wait before asking again. Refuses to sleep: whoever asks does, and may be told to stop meanwhile."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable

from policy.errors import InvalidInputError


class Backoff:
    """Delays that double from `first` to `longest`, each cut at random by up to half so that clients spread out.

    Args:
        rng: source of the jitter.
        first: seconds before the first repetition, before jitter, > 0.
        longest: most seconds, before jitter, >= `first`.
        forgotten_after: seconds without a delay after which they begin small again.
        timer: monotonic seconds.

    Raises:
        InvalidInputError: the two do not fit.
    """

    def __init__(
        self,
        rng: random.Random,
        first: float = 0.5,
        longest: float = 10.0,
        forgotten_after: float = math.inf,
        timer: Callable[[], float] = time.monotonic,
    ) -> None:
        if not 0.0 < first <= longest:
            raise InvalidInputError(f"back-off goes from {first} s to {longest} s; give 0 < first <= longest")
        self._rng = rng
        self._first = first
        self._longest = longest
        self._forgotten_after = forgotten_after
        self._timer = timer
        self._next = first
        self._asked_at = -math.inf

    def delay(self) -> float:
        """Seconds to wait now; the following call gives up to twice as many."""
        now = self._timer()
        if now - self._asked_at > self._forgotten_after:
            self.reset()
        self._asked_at = now
        chosen = self._next * self._rng.uniform(0.5, 1.0)
        self._next = min(2.0 * self._next, self._longest)
        return chosen

    def reset(self) -> None:
        """It worked: begin small the next time."""
        self._next = self._first
