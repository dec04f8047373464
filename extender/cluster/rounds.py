"""Whom to ask next, and when: nodes in turn, spread over the interval, those that fail less and less often.

For one event loop. Refuses to know what is asked.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import random
import time
from dataclasses import dataclass
from typing import Final

from extender.backoff import Backoff
from extender.cluster.kubelet import Connection, Endpoint

LONGEST_WAIT: Final = 300.0
"""Most seconds between two questions to a kubelet that does not answer, if the interval is not longer."""
JITTER: Final = 0.1
"""Share of the interval by which it is cut or stretched at random."""
FIRST_RATE: Final = 200.0
"""Nodes a second whose first question is asked, where the interval allows it."""


@dataclass(slots=True, eq=False)
class Kubelet:
    """One node's kubelet."""

    endpoint: Endpoint
    backoff: Backoff | None = None  # how long to wait after the next failure; None while it answers
    result: str | None = None  # how the last question ended, one of `RESULTS`; None before the first
    connection: Connection | None = None  # kept for the next question

    def close(self) -> None:
        """Close its connection, if one is kept."""
        if self.connection is not None:
            self.connection.close()
            self.connection = None


class Rounds:
    """The kubelets that are asked.

    Attributes:
        kubelets: by name of the node.
        lag: how late the last question was asked, seconds.
    """

    def __init__(self, interval: float, rng: random.Random) -> None:
        self._interval = interval
        self._rng = rng
        self._due: list[tuple[float, int, Kubelet]] = []
        self._order = itertools.count()
        self._changed = asyncio.Event()
        self.kubelets: dict[str, Kubelet] = {}
        self.lag = 0.0

    def follow(self, name: str, endpoint: Endpoint | None) -> None:
        """A node came or moved; or, without an endpoint, went."""
        known = self.kubelets.pop(name, None)
        if known is not None:
            known.close()
        if endpoint is not None:
            kubelet = self.kubelets[name] = Kubelet(endpoint)
            spread = min(self._interval, len(self.kubelets) / FIRST_RATE)
            self._schedule(kubelet, self._rng.uniform(0.0, spread))

    def follows(self, kubelet: Kubelet) -> bool:
        """Whether it is still asked: it went or moved otherwise."""
        return self.kubelets.get(kubelet.endpoint.node) is kubelet

    def answered(self, kubelet: Kubelet) -> None:
        """It answered: ask it again after an interval."""
        kubelet.backoff = None
        self._schedule(kubelet, self._interval * self._rng.uniform(1.0 - JITTER, 1.0 + JITTER))

    def failed(self, kubelet: Kubelet) -> None:
        """It did not answer: ask it again later, each time later."""
        if kubelet.backoff is None:
            first = 2.0 * self._interval  # cut by up to half
            kubelet.backoff = Backoff(self._rng, first, max(first, LONGEST_WAIT))
        self._schedule(kubelet, kubelet.backoff.delay())

    async def next(self) -> Kubelet:
        """The next one to ask, when it is due. Call it from one task alone."""
        while True:
            self._changed.clear()
            wait: float | None = None
            while self._due:
                due, _, kubelet = self._due[0]
                if not self.follows(kubelet):
                    heapq.heappop(self._due)
                    continue
                wait = due - time.monotonic()
                if wait <= 0.0:
                    heapq.heappop(self._due)
                    self.lag = -wait
                    return kubelet
                break
            try:
                async with asyncio.timeout(wait):
                    await self._changed.wait()
            except TimeoutError:
                continue

    def close(self) -> None:
        """Close every connection that is kept."""
        for kubelet in self.kubelets.values():
            kubelet.close()

    def _schedule(self, kubelet: Kubelet, delay: float) -> None:
        heapq.heappush(self._due, (time.monotonic() + delay, next(self._order), kubelet))
        self._changed.set()
