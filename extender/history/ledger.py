"""The allocator's memory: what was decided for which pod, and what became of it. Refuses to decide or to explain.

Bounded, in memory, and safe to use from any thread; `extender.history.store` keeps it on disk where that is wanted.

Each decision keeps the few nodes rated best, with the rows they had then. The latest decisions keep all nodes they were
about, in bounded memory: see `extender.history.contenders`.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, fields, replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from extender.cluster.account import SpeedBasis
from extender.cluster.listeners import PodListener
from extender.cluster.status import ReadReport
from extender.history import outcomes
from extender.history.contenders import Contenders, Recollection
from extender.history.outcomes import Outcome
from extender.history.pages import Pages
from policy.cluster import ClusterState, PodDemand
from policy.errors import InvalidInputError
from policy.urgency import SOURCES, is_counted

MIB: Final = 1 << 20
MEMORY: Final = 64 * MIB
"""Default of the bytes that all decisions' contenders may take."""

TOP: Final = 5
"""Nodes kept with each decision."""


@dataclass(frozen=True, slots=True)
class RatedNode:
    """One of the nodes rated best: its preference by whatever scorer answered, and the priority sent."""

    node: str
    preference: float
    priority: int


@dataclass(frozen=True, slots=True)
class OddNode:
    """A node beyond what the scorer is trusted with, and why; see `extender.scorer.trust`."""

    node: str
    why: str


@dataclass(slots=True)
class Decision:
    """One answered `/prioritize`, or a pod with one node left, for which kube-scheduler asks no priorities."""

    number: int  # counts decisions since the start
    # uid, namespace, name: of the pod
    uid: str
    namespace: str
    name: str
    at: float  # seconds since the epoch
    verb: str  # `prioritize`; of a pod with one node left `filter`, or `watch` if kube-scheduler asked nothing
    scorer: str  # name of what answered
    fallback_reason: str | None  # why it was not the configured scorer; None if it was
    warning: str | None  # what was wrong with the pod, yet not enough to refuse it
    demand: PodDemand  # what was asked for
    candidates: int  # nodes asked about, duplicates not counted
    unknown: int  # those of them that the table did not know
    best_count: int  # nodes that would have shared the highest priority, had not one of them been singled out
    assumed: str | None  # that one, assumed to be chosen; None if there was no node, or none was above all others
    # names, preferences, priorities: of the nodes rated best, best first, at most `TOP`; see `top`
    names: tuple[str, ...]
    preferences: NDArray[np.floating[Any]]
    priorities: NDArray[np.int64]
    rows: ClusterState | None  # the rows of these nodes, as they were
    latency_s: float = 0.0  # time from the request's arrival to the answer, seconds
    attempt: int = 1  # how often this pod was decided upon; 1 the first time
    first_at: float = 0.0  # when it was the first time, seconds since the epoch; 0 until it is remembered
    former_failure: str | None = None  # why the attempt before this one failed, as far as is known; None the first time
    outcome: Outcome | None = None  # what became of it; None until the watch says
    model_sha256: str = ""  # of the model that answered; empty where none did
    # arm, workload, experiment: the pod's arm and workload in the experiment of that key; empty without one
    arm: str = ""
    workload: str = ""
    experiment: str = ""
    odd: int = 0  # how many of the candidates were odd, and judged apart
    odd_nodes: tuple[OddNode, ...] = ()  # at most `TOP` of them
    # what the speed of each of the nodes rated best rested on; empty in records of versions before 0.2
    bases: tuple[SpeedBasis, ...] = ()
    # all nodes that it was about; None once they are forgotten. Never written to disk
    contenders: Contenders | None = None
    urgency_source: str = ""  # which sign said how urgent the pod is: one of `policy.urgency.SOURCES`
    urgency_reason: str = ""  # the same as a phrase
    # how long a pod of its template takes on the reference core by its latest runs, seconds; None: no run is known
    expected_s: float | None = None
    expected_runs: int = 0  # how many runs these are

    @property
    def top(self) -> tuple[RatedNode, ...]:
        """The nodes rated best, best first. Made when somebody asks: most decisions are never looked at."""
        rated = zip(self.names, self.preferences.tolist(), self.priorities.tolist(), strict=True)
        return tuple(RatedNode(*each) for each in rated)


@dataclass(slots=True)
class Counts:
    """Sums since the start."""

    decisions: int = 0  # decisions recorded
    fallbacks: int = 0  # of them, those that the fallback answered
    # decisions by what said how urgent the pod is: one of `policy.urgency.SOURCES`
    urgency_sources: Counter[str] = field(default_factory=lambda: Counter(dict.fromkeys(SOURCES, 0)))
    bound: int = 0  # decisions whose pod was seen bound
    bound_rated: int = 0  # of those, the ones where the node's priority is known
    bound_among_best: int = 0  # of those, the ones bound to a node that no other was rated above
    not_asked: int = 0  # pods seen bound without a decision here: another scheduler's, older ones, or forgotten
    # decisions that did not lead to a bound pod, by reason: `unschedulable`, `scheduler_error` (as kube-scheduler says
    # in the pod's conditions), `bind` (our own /bind was refused), `expired` (the watch never showed the pod anywhere),
    # `deleted` (before it was bound), `asked_again` (kube-scheduler tried once more and said nothing of why)
    failures: Counter[str] = field(default_factory=Counter)
    # pods decided upon and bound that ended, by reason; see `extender.cluster.status.ENDINGS`
    ended: Counter[str] = field(default_factory=Counter)
    restarts: int = 0  # of their containers
    oom_killed: int = 0  # pods with a container killed for its memory
    # late, on_time, lateness_unknown: those that ended, by whether that was later than allowed
    late: int = 0
    on_time: int = 0
    lateness_unknown: int = 0
    late_inferred: int = 0
    on_time_inferred: int = 0

    def document(self) -> dict[str, int | dict[str, int]]:
        """The sums as JSON."""
        values = {it.name: getattr(self, it.name) for it in fields(self)}
        return {name: dict(value) if isinstance(value, Counter) else value for name, value in values.items()}


class Ledger(PodListener):
    """The latest decision for each of the last `size` pods. Thread safe: one lock, held for microseconds.

    Decisions are changed by the ledger alone, and an outcome is replaced as a whole, so whoever got a decision may read
    it from any thread.

    Args:
        size: pods remembered; the one decided longest ago is dropped.
        row_of: row of a node name now, or a negative number.
        keep: told of every decision that is new or whose outcome changed, with the lock held; must not wait.
        memory: most bytes that all decisions' contenders may take.

    Attributes:
        counts: sums since the start.
        recollection: the contenders that are remembered.
    """

    def __init__(
        self,
        size: int,
        row_of: Callable[[str], int],
        keep: Callable[[Decision], None] | None = None,
        memory: int = MEMORY,
    ) -> None:
        if size < 1:
            raise InvalidInputError(f"ledger size is {size}; give a positive number of decisions")
        self.size = size
        self.counts = Counts()
        self._row_of = row_of
        self._keep = keep
        self._lock = threading.Lock()
        self._decisions: dict[str, Decision] = {}
        self._places: dict[str, int] = {}
        self._order: Pages[Decision] = Pages()
        self.recollection = Recollection(memory)

    def __len__(self) -> int:
        """How many decisions are remembered."""
        return len(self._decisions)

    def snapshot(self) -> Counts:
        """A copy of the sums, all of one moment."""
        with self._lock:
            return replace(
                self.counts,
                urgency_sources=self.counts.urgency_sources.copy(),
                failures=self.counts.failures.copy(),
                ended=self.counts.ended.copy(),
            )

    def record(self, decision: Decision) -> None:
        """Remember a decision."""
        with self._lock:
            earlier = self._decisions.get(decision.uid)
            decision.first_at = decision.at
            if earlier is not None:
                decision.attempt = earlier.attempt + 1
                decision.first_at = earlier.first_at
                decision.former_failure = self._tried_again(earlier)
                self._order.remove(self._places[decision.uid])
                self.recollection.forget(earlier)
            self._add(decision)
            self.recollection.add(decision)
            self.counts.decisions += 1
            self.counts.fallbacks += decision.fallback_reason is not None
            self.counts.urgency_sources[decision.urgency_source] += 1
            self._changed(decision)

    def restore(self, decisions: Iterable[Decision]) -> None:
        """Remember again what an earlier process decided, oldest first; no sum counts it."""
        with self._lock:
            for decision in decisions:
                if decision.uid not in self._decisions:
                    self._add(decision)

    def pod_bound(self, uid: str, node: str, at: float) -> None:
        """The watch shows the pod on this node."""
        with self._lock:
            decision = self._decisions.get(uid)
            if decision is None:
                self.counts.not_asked += 1
                return
            before = decision.outcome or Outcome()
            if before.bound_at is not None:
                return
            rating = None if decision.contenders is None else decision.contenders.priority(self._row_of(node))
            priority, among_best = rating or (None, None)
            waited = max(at - decision.first_at, 0.0)
            decision.outcome = outcomes.bound(before, node, at, waited, priority, among_best)
            self.counts.bound += 1
            self.counts.bound_rated += priority is not None
            self.counts.bound_among_best += bool(among_best)
            self._changed(decision)

    def pod_reported(self, uid: str, read: ReadReport) -> None:
        """The watch shows the pod, and this is what its status says."""
        if uid not in self._decisions:
            return
        report = read()
        with self._lock:
            decision = self._decisions.get(uid)
            if decision is None:
                return
            before = decision.outcome or Outcome()
            after = outcomes.reported(before, report)
            if after != before:
                decision.outcome = after
                self.counts.restarts += after.restarts - before.restarts
                self.counts.oom_killed += after.oom_killed and not before.oom_killed
                self._changed(decision)

    def pod_removed(self, uid: str, reason: str, at: float) -> None:
        """The pod is deleted or has ended, bound before or not."""
        with self._lock:
            decision = self._decisions.get(uid)
            if decision is None:
                return
            before = decision.outcome or Outcome()
            if before.removed_at is not None:
                return
            decision.outcome = after = outcomes.removed(before, reason, at, decision.demand.urgency, usual_s(decision))
            if after.bound_at is None:
                self.counts.failures["deleted"] += not _counted(before)
            else:
                self.counts.ended[reason] += 1
                self.counts.late += after.late is True
                self.counts.on_time += after.late is False
                self.counts.lateness_unknown += after.late is None
                self.counts.late_inferred += after.late is True and after.inferred
                self.counts.on_time_inferred += after.late is False and after.inferred
            self._changed(decision)

    def assumption_expired(self, uid: str, node: str, at: float) -> None:
        """The pod was believed to go to this node, and the watch never showed it anywhere."""
        self._attempt_failed(uid, "expired", f"the watch did not show it on {node} or anywhere else")

    def bind_failed(self, uid: str, message: str) -> None:
        """The API server refused to bind the pod."""
        self._attempt_failed(uid, "bind", message)

    def get(self, uid: str) -> Decision | None:
        """The latest decision for this pod, or None."""
        return self._decisions.get(uid)

    def find(self, namespace: str, name: str) -> Decision | None:
        """The latest decision for the pod of this name, or None."""
        return next((d for d in self.latest() if (d.namespace, d.name) == (namespace, name)), None)

    def latest(self) -> Iterator[Decision]:
        """All decisions remembered now, newest first."""
        return (decision for _, decision in self.newest_first())

    def newest_first(self, before: int | None = None) -> Iterator[tuple[int, Decision]]:
        """Yield the decisions remembered, newest first, each with its place, which grows from one to the next.

        Args:
            before: leave out those at this place and above it.
        """
        return self._order.newest_first(before)

    def _attempt_failed(self, uid: str, reason: str, message: str) -> None:
        with self._lock:
            decision = self._decisions.get(uid)
            if decision is None:
                return
            before = decision.outcome or Outcome()
            if before.bound_at is None and before.removed_at is None and not _counted(before):
                self.counts.failures[reason] += 1
                decision.outcome = outcomes.failed(before, reason, message)
                self._changed(decision)

    def _tried_again(self, earlier: Decision) -> str | None:
        """Why the attempt before failed; counted, unless it was when it happened."""
        before = earlier.outcome or Outcome()
        if before.bound_at is not None or before.removed_at is not None:
            return None
        reason = before.failure or "asked_again"
        self.counts.failures[reason] += not _counted(before)
        return reason if before.message is None else f"{reason}: {before.message}"

    def _add(self, decision: Decision) -> None:
        if decision.uid not in self._decisions and len(self._decisions) >= self.size:
            oldest = self._order.oldest()  # made room for first: who reads without the lock never sees too many
            self._order.remove(self._places.pop(oldest.uid))
            del self._decisions[oldest.uid]
            self.recollection.forget(oldest)
        self._decisions[decision.uid] = decision
        self._places[decision.uid] = self._order.add(decision)

    def _changed(self, decision: Decision) -> None:
        if self._keep is not None:
            self._keep(decision)


def usual_s(decision: Decision) -> float | None:
    """Seconds that the pod was expected to take, where enough runs of its template say it; else None."""
    return decision.expected_s if is_counted(decision.expected_s, decision.expected_runs) else None


def _counted(outcome: Outcome) -> bool:
    """Whether the failure was counted when it happened; what a condition says is counted once it is final."""
    return outcome.failure in ("expired", "bind")
