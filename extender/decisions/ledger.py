"""What was decided for which pod, and what became of it: bounded, in memory. Refuses to decide or to explain.

Each decision keeps the few nodes rated best, with the rows they had then. The priorities of all nodes asked about are
kept for the latest `RECENT` decisions only (five bytes a node): long enough for the watch to show where kube-scheduler
put the pod, which is when the ledger needs the priority of that one node.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from policy.cluster import ClusterState, PodDemand
from policy.errors import InvalidInputError

RECENT: Final = 1024
TOP: Final = 5
"""Nodes kept with each decision."""


@dataclass(frozen=True, slots=True)
class RatedNode:
    """One of the nodes rated best: its preference by whatever scorer answered, and the priority sent."""

    node: str
    preference: float
    priority: int


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of the pod.

    Attributes:
        node: where it was bound.
        bound_at: when the watch showed it, seconds since the epoch.
        priority: the priority we gave that node; None if it was not asked about or is forgotten.
        among_best: whether no node had a higher priority; None with `priority`.
        removed_at: when it was deleted or ended; None while it lives.
        removed_reason: one word; None while it lives.
    """

    node: str | None = None
    bound_at: float | None = None
    priority: int | None = None
    among_best: bool | None = None
    removed_at: float | None = None
    removed_reason: str | None = None


@dataclass(slots=True)
class Decision:
    """One answered `/prioritize` (or a `/filter` that left one node, after which kube-scheduler asks no more).

    Attributes:
        number: counts decisions since the start.
        uid, namespace, name: of the pod.
        at: seconds since the epoch.
        verb: `prioritize` or `filter`.
        scorer: name of what answered.
        fallback_reason: why it was not the configured scorer; None if it was.
        warning: what was wrong with the pod, yet not enough to refuse it.
        demand: what was asked for.
        candidates: nodes asked about, duplicates not counted.
        unknown: those of them that the table did not know.
        best_count: nodes that would have shared the highest priority, had not one of them been singled out.
        assumed: that one, assumed to be chosen; None if there was no node.
        names, preferences, priorities: of the nodes rated best, best first, at most `TOP`; see `top`.
        rows: the rows of these nodes, as they were.
        latency_s: time from the request's arrival to the answer, seconds.
        attempt: how often this pod was decided upon; 1 the first time.
        outcome: what became of it; None until the watch says.
    """

    number: int
    uid: str
    namespace: str
    name: str
    at: float
    verb: str
    scorer: str
    fallback_reason: str | None
    warning: str | None
    demand: PodDemand
    candidates: int
    unknown: int
    best_count: int
    assumed: str | None
    names: tuple[str, ...]
    preferences: NDArray[np.floating[Any]]
    priorities: NDArray[np.int64]
    rows: ClusterState | None
    latency_s: float = 0.0
    attempt: int = 1
    outcome: Outcome | None = None

    @property
    def top(self) -> tuple[RatedNode, ...]:
        """The nodes rated best, best first. Made when somebody asks: most decisions are never looked at."""
        rated = zip(self.names, self.preferences.tolist(), self.priorities.tolist(), strict=True)
        return tuple(RatedNode(*each) for each in rated)


@dataclass(slots=True)
class Counts:
    """Sums since the start.

    Attributes:
        decisions: decisions recorded.
        fallbacks: of them, those that the fallback answered.
        bound: decisions whose pod was seen bound.
        bound_rated: of those, the ones where the node's priority is known.
        bound_among_best: of those, the ones bound to a node that no other was rated above.
        not_asked: pods seen bound without a decision here: another scheduler's, older ones, or forgotten.
    """

    decisions: int = 0
    fallbacks: int = 0
    bound: int = 0
    bound_rated: int = 0
    bound_among_best: int = 0
    not_asked: int = 0


@dataclass(frozen=True, slots=True)
class _Ratings:
    rows: NDArray[np.int32]
    priorities: NDArray[np.int8]


@dataclass
class Ledger:
    """The latest decision for each of the last `size` pods. Owned by the event loop's thread.

    Args:
        size: pods remembered; the one decided longest ago is dropped.
        row_of: row of a node name now, or a negative number.
    """

    size: int
    row_of: Callable[[str], int]
    counts: Counts = field(default_factory=Counts)
    _decisions: OrderedDict[str, Decision] = field(default_factory=OrderedDict)
    _ratings: OrderedDict[str, _Ratings] = field(default_factory=OrderedDict)

    def __post_init__(self) -> None:
        if self.size < 1:
            raise InvalidInputError(f"ledger size is {self.size}; give a positive number of decisions")

    def __len__(self) -> int:
        """How many decisions are remembered."""
        return len(self._decisions)

    def record(self, decision: Decision, rows: NDArray[np.intp], priorities: NDArray[np.int64]) -> None:
        """Remember a decision, with the rows ``[n]`` it rated and their priorities ``[n]``."""
        earlier = self._decisions.pop(decision.uid, None)
        decision.attempt = 1 if earlier is None else earlier.attempt + 1
        self._decisions[decision.uid] = decision
        self._ratings.pop(decision.uid, None)
        self._ratings[decision.uid] = _Ratings(rows.astype(np.int32), priorities.astype(np.int8))
        self.counts.decisions += 1
        self.counts.fallbacks += decision.fallback_reason is not None
        while len(self._decisions) > self.size:
            self._decisions.popitem(last=False)
        while len(self._ratings) > RECENT:
            self._ratings.popitem(last=False)

    def pod_bound(self, uid: str, node: str, at: float) -> None:
        """The watch shows the pod on this node."""
        decision = self._decisions.get(uid)
        if decision is None:
            self.counts.not_asked += 1
            return
        if decision.outcome is not None and decision.outcome.bound_at is not None:
            return
        priority, among_best = self._rating(uid, node)
        decision.outcome = Outcome(node=node, bound_at=at, priority=priority, among_best=among_best)
        self.counts.bound += 1
        self.counts.bound_rated += priority is not None
        self.counts.bound_among_best += bool(among_best)

    def pod_removed(self, uid: str, reason: str, at: float) -> None:
        """The pod is deleted or has ended, bound before or not."""
        self._ratings.pop(uid, None)
        decision = self._decisions.get(uid)
        if decision is None:
            return
        before = decision.outcome or Outcome()
        decision.outcome = Outcome(before.node, before.bound_at, before.priority, before.among_best, at, reason)

    def get(self, uid: str) -> Decision | None:
        """The latest decision for this pod, or None."""
        return self._decisions.get(uid)

    def find(self, namespace: str, name: str) -> Decision | None:
        """The latest decision for the pod of this name, or None."""
        return next((d for d in self.latest() if (d.namespace, d.name) == (namespace, name)), None)

    def latest(self) -> Iterator[Decision]:
        """All decisions remembered, newest first."""
        return reversed(self._decisions.values())

    def _rating(self, uid: str, node: str) -> tuple[int | None, bool | None]:
        ratings = self._ratings.pop(uid, None)
        if ratings is None:
            return None, None
        position = np.flatnonzero(ratings.rows == self.row_of(node))
        if len(position) == 0:
            return None, None
        priority = int(ratings.priorities[position[0]])
        return priority, priority == int(ratings.priorities.max())
