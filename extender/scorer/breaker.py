"""A circuit breaker around one scorer: after several failures in a row it is left alone for a while.

Closed, every call goes through. After `failures` failures without a success between them it opens: no call goes through
until `cooling_s` have passed. Then it is half open: one call goes through as a trial, and what becomes of it closes the
breaker or opens it for another `cooling_s`. Refuses to know what is called.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from dataclasses import dataclass, field

from policy.errors import InvalidInputError


class BreakerState(enum.Enum):
    """Whether calls go through; the value is its name on metrics."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


@dataclass(eq=False)
class Breaker:
    """Counts failures in a row. Owned by one thread."""

    failures: int  # failures in a row that open it, >= 1
    cooling_s: float  # how long it stays open, seconds, > 0
    timer: Callable[[], float]
    on_change: Callable[[BreakerState], None] | None = None
    state: BreakerState = field(default=BreakerState.CLOSED, init=False)
    opened: int = field(default=0, init=False)  # how often it opened
    _in_a_row: int = field(default=0, init=False)
    _opened_at: float = field(default=0.0, init=False)

    def __post_init__(self) -> None:
        if self.failures < 1 or not self.cooling_s > 0.0:
            raise InvalidInputError(
                f"a breaker takes failures >= 1 and cooling_s > 0, not {self.failures} and {self.cooling_s}; "
                "set both so"
            )

    def admits(self) -> bool:
        """Whether a call may go through now; of a half-open breaker's callers, only the first."""
        if self.state is BreakerState.CLOSED:
            return True
        if self.timer() - self._opened_at < self.cooling_s:
            return False
        # the trial gets as long as the cooling: one whose end nobody reports must not keep it half open for ever
        self._opened_at = self.timer()
        self._become(BreakerState.HALF_OPEN)
        return True

    def succeeded(self) -> None:
        """A call that went through did well."""
        self._in_a_row = 0
        if self.state is not BreakerState.CLOSED:
            self._become(BreakerState.CLOSED)

    def failed(self) -> None:
        """A call that went through failed, or was late."""
        self._in_a_row += 1
        if self.state is BreakerState.HALF_OPEN or (
            self.state is BreakerState.CLOSED and self._in_a_row >= self.failures
        ):
            self.opened += 1
            self._opened_at = self.timer()
            self._become(BreakerState.OPEN)

    def _become(self, state: BreakerState) -> None:
        if state is self.state:
            return
        self.state = state
        if self.on_change is not None:
            self.on_change(state)
