"""A circuit breaker around one scorer: after several failures in a row it is left alone for a while.

Closed, every call goes through. After `failures` failures without a success between them it opens: no call goes through
until `cooling_s` have passed. Then it is half open: one call goes through as a trial, and what becomes of it closes the
breaker or opens it for another `cooling_s`. Refuses to know what is called.
"""

from __future__ import annotations

import enum
from collections.abc import Callable

from policy.errors import InvalidInputError


class BreakerState(enum.Enum):
    """Whether calls go through; the value is its name on metrics."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


class Breaker:
    """Counts failures in a row. Owned by one thread.

    Args:
        failures: failures in a row that open it, >= 1.
        cooling_s: how long it stays open, seconds, > 0.
        timer: monotonic seconds.
        on_change: called with the new state whenever it changes.

    Attributes:
        state: what it is now.
        opened: how often it opened.

    Raises:
        InvalidInputError: a number is out of range.
    """

    def __init__(
        self,
        failures: int,
        cooling_s: float,
        timer: Callable[[], float],
        on_change: Callable[[BreakerState], None] | None = None,
    ) -> None:
        if failures < 1 or not cooling_s > 0.0:
            raise InvalidInputError(
                f"a breaker takes failures >= 1 and cooling_s > 0, not {failures} and {cooling_s}; set both so"
            )
        self._failures = failures
        self._cooling_s = cooling_s
        self._timer = timer
        self._on_change = on_change
        self.state = BreakerState.CLOSED
        self.opened = 0
        self._in_a_row = 0
        self._opened_at = 0.0

    def admits(self) -> bool:
        """Whether a call may go through now; of a half-open breaker's callers, only the first."""
        if self.state is BreakerState.CLOSED:
            return True
        if self._timer() - self._opened_at < self._cooling_s:
            return False
        # the trial gets as long as the cooling: one whose end nobody reports must not keep it half open for ever
        self._opened_at = self._timer()
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
            self.state is BreakerState.CLOSED and self._in_a_row >= self._failures
        ):
            self.opened += 1
            self._opened_at = self._timer()
            self._become(BreakerState.OPEN)

    def _become(self, state: BreakerState) -> None:
        if state is self.state:
            return
        self.state = state
        if self._on_change is not None:
            self._on_change(state)
