"""When operators' requests begin: one after the other, with a pause after each, so that the verbs go on in between.

An operations endpoint takes the event loop for some tenths of a millisecond, on which kube-scheduler waits as well. A
caller that asks as fast as it can, over many connections, would have the loop to itself. So these requests take turns:
probes first, then one caller's address after the other. Requests for verbs never take a turn.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from collections.abc import Callable
from typing import Final

PAUSE_S: Final = 0.01
"""From the beginning of one request to that of the next; docs/performance.md has what shorter pauses cost the verbs."""

_Queue = OrderedDict[str, deque[Callable[[], bool]]]


class Turns:
    """Begins what is asked for, at most once in `PAUSE_S`; at once where nothing else was begun so lately."""

    def __init__(self) -> None:
        self._probes: _Queue = OrderedDict()
        self._others: _Queue = OrderedDict()
        self._pause: asyncio.TimerHandle | None = None

    def take(self, begin: Callable[[], bool], caller: str, *, probe: bool = False) -> None:
        """Call `begin` when it is this caller's turn, which may be now.

        Args:
            begin: begins the work; returns whether there was any.
            caller: whose turn it is: addresses take turns, however many connections each has.
            probe: whether it goes before all that is none.
        """
        queue = self._probes if probe else self._others
        queue.setdefault(caller, deque()).append(begin)
        if self._pause is None:
            self._next()

    def _next(self) -> None:
        self._pause = None
        while queue := self._probes or self._others:
            caller, waiting = queue.popitem(last=False)
            begin = waiting.popleft()
            if waiting:
                queue[caller] = waiting
            if begin():
                self._pause = asyncio.get_running_loop().call_later(PAUSE_S, self._next)
                return
