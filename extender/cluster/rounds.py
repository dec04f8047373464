"""Whom to ask next, and when: nodes in turn, spread over the interval, those that fail less and less often.

For one event loop; `states`, `result_of`, `trouble` and `in_vain` may be read by any. Refuses to know what is asked.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import math
import random
import time
from collections import Counter
from dataclasses import dataclass
from typing import Final

from extender.backoff import Backoff
from extender.cluster.kubelet import Endpoint
from extender.cluster.kubelet_connection import Connection

LONGEST_WAIT: Final = 300.0
"""Most seconds between two questions to a kubelet that does not answer, if the interval is not longer."""
JITTER: Final = 0.1
"""Share of the interval by which it is cut or stretched at random."""
FIRST_RATE: Final = 200.0
"""Nodes a second whose first question is asked, where the interval allows it."""
RETRY_RATE: Final = 2.0
"""Questions a second to kubelets that do not answer, all together. A cluster that lets nobody through to its kubelets
costs no more than that, however many nodes it has, and one that drops packets holds no more than 20 connections."""


@dataclass(slots=True, eq=False)
class Kubelet:
    """One node's kubelet."""

    endpoint: Endpoint
    backoff: Backoff | None = None  # how long to wait after the next failure; None while it answers
    result: str | None = None  # how the last question ended, one of `RESULTS`; None before the first
    due: float | None = None  # when it is asked next; None while it is being asked


class Rounds:
    """The kubelets that are asked, and connections to them that are kept for the next question.

    Args:
        interval: seconds between two questions to the same one.
        rng: source of the jitter.
        most_kept: connections that are kept at most.

    Attributes:
        kubelets: by name of the node.
        answering, failing: nodes whose kubelet answered the last question, or did not.
        no_address: nodes whose status gives none that a kubelet may have.
        lag: how late the last question was asked, seconds.
    """

    def __init__(self, interval: float, rng: random.Random, most_kept: int = 0) -> None:
        self._interval = interval
        self._rng = rng
        self._most_kept = most_kept
        self._kept: dict[Kubelet, Connection] = {}
        self._due: list[tuple[float, int, Kubelet]] = []
        self._order = itertools.count()
        self._changed = asyncio.Event()
        self._hurried_at = -math.inf
        self.kubelets: dict[str, Kubelet] = {}
        self.answering: set[str] = set()
        self.failing: set[str] = set()
        self.no_address: set[str] = set()
        self.lag = 0.0

    def follow(self, name: str, endpoint: Endpoint | None) -> None:
        """A node came or moved; without an endpoint it cannot be asked."""
        self.forget(name)
        if endpoint is None:
            self.no_address.add(name)
        else:
            kubelet = self.kubelets[name] = Kubelet(endpoint)
            self._schedule(kubelet, self._soon(len(self.kubelets)))

    def forget(self, name: str) -> None:
        """A node went."""
        known = self.kubelets.pop(name, None)
        if known is not None and (connection := self.taken(known)) is not None:
            connection.close()
        for group in (self.answering, self.failing, self.no_address):
            group.discard(name)

    def follows(self, kubelet: Kubelet) -> bool:
        """Whether it is still asked: it went or moved otherwise."""
        return self.kubelets.get(kubelet.endpoint.node) is kubelet

    def answered(self, kubelet: Kubelet) -> None:
        """It answered: ask it again after an interval."""
        if kubelet.backoff is not None and not self.answering:
            self._hurry()
        kubelet.backoff = None
        self.failing.discard(kubelet.endpoint.node)
        self.answering.add(kubelet.endpoint.node)
        self._schedule(kubelet, self._interval * self._jitter())

    def failed(self, kubelet: Kubelet) -> None:
        """It did not answer: ask it again later, each time later."""
        if kubelet.backoff is None:
            first = 2.0 * self._interval  # cut by up to half
            kubelet.backoff = Backoff(self._rng, first, max(first, LONGEST_WAIT))
        self.answering.discard(kubelet.endpoint.node)
        self.failing.add(kubelet.endpoint.node)
        self._schedule(kubelet, max(kubelet.backoff.delay(), len(self.failing) / RETRY_RATE * self._jitter()))

    async def next(self) -> Kubelet:
        """The next one to ask, when it is due. Call it from one task alone."""
        while True:
            self._changed.clear()
            wait: float | None = None
            while self._due:
                due, _, kubelet = self._due[0]
                if kubelet.due != due or not self.follows(kubelet):
                    heapq.heappop(self._due)
                    continue
                wait = due - time.monotonic()
                if wait <= 0.0:
                    heapq.heappop(self._due)
                    self.lag, kubelet.due = -wait, None
                    return kubelet
                break
            try:
                async with asyncio.timeout(wait):
                    await self._changed.wait()
            except TimeoutError:
                continue

    @property
    def in_vain(self) -> bool:
        """Whether some node's kubelet did not answer last, or cannot be asked."""
        return bool(self.failing or self.no_address)

    @property
    def trouble(self) -> str | None:
        """Why no kubelet answers; None while one does, and before one was asked."""
        if self.answering or not self.in_vain:
            return None
        results = Counter(kubelet.result for kubelet in list(self.kubelets.values()) if kubelet.result)
        results["no_address"] = len(self.no_address)
        return f"no kubelet answers: {', '.join(f'{count} {why}' for why, count in results.most_common() if count)}"

    def states(self) -> dict[str, int]:
        """Nodes by how the last question ended: measured, failing, waiting (for the first), no_address."""
        measured, failing = len(self.answering), len(self.failing)
        waiting = max(0, len(self.kubelets) - measured - failing)
        return {"measured": measured, "failing": failing, "waiting": waiting, "no_address": len(self.no_address)}

    def result_of(self, name: str) -> str | None:
        """How the last question to a node's kubelet ended, or "no_address"; None before the first one."""
        if name in self.no_address:
            return "no_address"
        kubelet = self.kubelets.get(name)
        return None if kubelet is None else kubelet.result

    def keep(self, kubelet: Kubelet, connection: Connection) -> None:
        """Keep a connection for the next question, or close it where there is no room, or nothing to ask any more."""
        if connection.reusable and len(self._kept) < self._most_kept and self.follows(kubelet):
            self._kept[kubelet] = connection
        else:
            connection.close()

    def taken(self, kubelet: Kubelet) -> Connection | None:
        """The connection that was kept for this one; it is not kept any more."""
        return self._kept.pop(kubelet, None)

    def close(self) -> None:
        """Close every connection that is kept."""
        while self._kept:
            self._kept.popitem()[1].close()

    def _hurry(self) -> None:
        """Ask those that fail soon: one answers again, so what held all of them back is probably gone."""
        if time.monotonic() - self._hurried_at < LONGEST_WAIT:
            return
        self._hurried_at = time.monotonic()
        for name in self.failing:
            if self.kubelets[name].due is not None:
                self._schedule(self.kubelets[name], self._soon(len(self.failing)))

    def _soon(self, count: int) -> float:
        """Seconds until one of so many is asked that are all to be asked now."""
        return self._rng.uniform(0.0, min(self._interval, count / FIRST_RATE))

    def _jitter(self) -> float:
        return self._rng.uniform(1.0 - JITTER, 1.0 + JITTER)

    def _schedule(self, kubelet: Kubelet, delay: float) -> None:
        kubelet.due = time.monotonic() + delay
        heapq.heappush(self._due, (kubelet.due, next(self._order), kubelet))
        self._changed.set()
