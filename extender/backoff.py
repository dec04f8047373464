"""How long to wait before asking again. Refuses to sleep: whoever asks does, and may be told to stop meanwhile."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from policy.errors import InvalidInputError


@dataclass(eq=False)
class Backoff:
    """Delays that double from `first` to `longest`, each cut at random by up to half so that clients spread out."""

    rng: random.Random
    first: float = 0.5  # seconds before the first repetition, before jitter, > 0
    longest: float = 10.0  # most seconds, before jitter, >= `first`
    forgotten_after: float = math.inf  # seconds without a delay after which they begin small again
    timer: Callable[[], float] = time.monotonic
    _next: float = field(init=False)
    _asked_at: float = field(default=-math.inf, init=False)

    def __post_init__(self) -> None:
        if not 0.0 < self.first <= self.longest:
            raise InvalidInputError(f"back-off goes from {self.first} s to {self.longest} s; give 0 < first <= longest")
        self.reset()

    def delay(self) -> float:
        """Seconds to wait now; the following call gives up to twice as many."""
        now = self.timer()
        if now - self._asked_at > self.forgotten_after:
            self.reset()
        self._asked_at = now
        chosen = self._next * self.rng.uniform(0.5, 1.0)
        self._next = min(2.0 * self._next, self.longest)
        return chosen

    def reset(self) -> None:
        """It worked: begin small the next time."""
        self._next = self.first
