"""How many bytes all callers together may make the service hold: bodies that arrive, and answers that nobody reads.

Limits of one connection do not add up to a limit: a thousand bodies just below `max_body_bytes` are a thousand times
that. So whoever holds bytes for a caller counts them here, over all connections of both ports.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final, Protocol

STALLED_S: Final = 1.0
"""After this long, bytes that still wait for their caller give way to others. An honest body arrives in milliseconds,
and kube-scheduler has given up by then (`httpTimeout` in the chart)."""


class Holder(Protocol):
    """Holds bytes for one caller."""

    @property
    def waits(self) -> bool:
        """Whether it is the caller's turn: to go on sending, or to read."""

    def give_up_bytes(self) -> None:
        """Let go of them: others need the room."""


class ByteBudget:
    """Counts bytes held, and makes room where there is too little.

    Args:
        limit: bytes that may be held at once.

    Attributes:
        held: bytes held now.
    """

    def __init__(self, limit: int, timer: Callable[[], float] = time.monotonic) -> None:
        self.limit = limit
        self.held = 0
        self._timer = timer
        self._shares: dict[Holder, tuple[float, int]] = {}
        """Since when and how much, longest first."""

    def hold(self, holder: Holder, size: int) -> bool:
        """Count that `holder` holds `size` bytes from now on, instead of what it held before.

        Where that is too much, the holder whose caller has been stalled longest gives up its bytes.

        Returns:
            Whether there is room; if not, nothing is counted for `holder`, which must let go of its bytes.
        """
        since, before = self._shares.get(holder, (0.0, 0))
        if size == before:
            return True
        self.held += size - before
        if not size:
            del self._shares[holder]
            return True
        self._shares[holder] = (since if before else self._timer(), size)
        while self.held > self.limit:
            stalled = self._stalled(holder)
            if stalled is None:
                self.hold(holder, 0)
                return False
            self.hold(stalled, 0)
            stalled.give_up_bytes()
        return True

    def _stalled(self, asking: Holder) -> Holder | None:
        """The holder, other than the one that asks, whose caller has kept it waiting longest, and too long."""
        latest = self._timer() - STALLED_S
        for holder, (since, _) in self._shares.items():
            if since > latest:
                return None
            if holder is not asking and holder.waits:
                return holder
        return None
