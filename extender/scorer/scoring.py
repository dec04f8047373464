"""One scorer in use: preferences of rows by the time they are due, from what is kept of it or from asking it again.

What it said of unchanged rows is kept (`extender.scorer.incremental`), so most requests are answered at once. Rows that
changed are copied and scored in a worker thread, and the event loop waits no longer than the deadline; a few rows are
scored on the spot, where its last run shows that this is quicker than waking a thread. A late answer is kept for the
next request, so a slow scorer recovers by itself; one that keeps failing is left alone for a while (`Breaker`). Odd
rows (`extender.scorer.trust`) are kept as what they are, and find their place among the rows of each request.

Whatever belongs to one scorer lives here: the kept preferences, the thread, the breaker. Another scorer (a new bundle)
is another `Scoring`, and a decision begun with the old one ends with it. Refuses to answer in a scorer's place.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from extender import logs
from extender.cluster.lookup import Rows
from extender.cluster.table import ClusterTable
from extender.errors import BreakerOpenError, DecisionLateError, ScorerBusyError, kind_of
from extender.scorer.breaker import Breaker, BreakerState
from extender.scorer.incremental import NEVER, IncrementalPreferences
from extender.scorer.load import LoadedScorer
from extender.scorer.question import Scored, Span, ask, no_span
from extender.scorer.trust import UNRATED, Rating, TrainingRange
from extender.scorer.worker import Worker
from policy.cluster import ClusterState, PodDemand
from policy.errors import ScoringError
from policy.scorers import Preferences

INLINE_BUDGET_S: Final = 0.002
"""Rows are scored on the event loop if that is expected to take less, seconds. 500 rows take less than 1 ms; handing
them to a thread and back takes 0.1 ms, and several where cores are short."""

GATHERED: Final = 64
"""Rows of placements that may wait to be scored together."""

_log = logs.get(__name__)

NO_ROWS: Final[Rows] = np.empty(0, dtype=np.intp)


@dataclass(frozen=True, slots=True)
class ScoringLimits:
    """What bounds the use of a scorer."""

    demand_classes: int  # demands whose preferences are kept
    breaker_failures: int  # failures in a row after which it is left alone
    breaker_cooling_s: float  # for how long, seconds
    # how far a feature may lie beyond the range of training before a row is odd, as a share of it; None: any distance
    range_tolerance: float | None = None


@dataclass(frozen=True, slots=True)
class Hooks:
    """Who is told what a scorer does; called on the event loop."""

    # after rows were scored, with how many and how many of them were outside the range of training, by feature; for
    # metrics
    scored: Callable[[int, Sequence[int] | None], None] = lambda _rows, _outside: None
    span: Span = no_span  # encloses the parts of a scorer's work, in whatever thread scores; for tracing
    role: str = "scorer"  # what the scorer is; for the log
    # before the event loop waits for a thread, so that the table may change until there is an answer
    waits: Callable[[], None] = lambda: None


def sample_size(nodes: int) -> int:
    """How many feasible nodes kube-scheduler looks for at a time, of so many, unless its configuration says otherwise.

    It begins where the last search ended. An answer about fewer nodes is about all that are feasible, every time.
    Source: `numFeasibleNodesToFind` of kubernetes/pkg/scheduler/schedule_one.go.
    """
    share = max(50 - nodes // 125, 5)
    return min(nodes, max(nodes * share // 100, 100))


class Pace:
    """How long a scorer takes for so many rows, by its last two runs with about as many: one row is no 500th of 500.

    Of the two the shorter counts: on a busy machine a run may be interrupted in the middle.
    """

    def __init__(self) -> None:
        self._last: dict[int, float] = {}
        """Seconds of the last run, by the number of bits of its rows."""
        self._seconds: dict[int, float] = {}
        """Seconds expected; never less for more rows."""

    def expected(self, rows: int) -> float:
        """Seconds that so many rows should take at most; infinite where nothing is known.

        No longer than more rows take, and twice as many take no longer than twice as long.
        """
        size = rows.bit_length()
        if size == 1 and size in self._seconds:  # nothing is fewer, and more take no less: so it is after most answers
            return self._seconds[size]
        fewer = [self._seconds[each] * 2 ** (size - each) for each in self._seconds if each <= size]
        more = [seconds for each, seconds in self._seconds.items() if each > size]
        return min((*fewer, *more), default=math.inf)

    def took(self, rows: int, seconds: float) -> None:
        """So many rows took so long; more cannot be expected to take less, nor fewer to take more."""
        size = rows.bit_length()
        shorter = min(seconds, self._last.get(size, seconds))
        self._last[size] = seconds
        for other, known in self._seconds.items():
            self._seconds[other] = max(known, shorter) if other > size else min(known, shorter)
        self._seconds[size] = shorter

    def forget(self) -> None:
        """It failed: nothing can be expected."""
        self._last.clear()
        self._seconds.clear()


class Scoring:
    """Asks one scorer. Owned by the event loop's thread.

    Args:
        timer: monotonic seconds; the clock of `due`.

    Attributes:
        breaker: opens when the scorer keeps failing.
        training: how far the scorer is trusted.
        retired: whether `retire` was called.
    """

    def __init__(
        self,
        loaded: LoadedScorer,
        table: ClusterTable,
        limits: ScoringLimits,
        timer: Callable[[], float],
        hooks: Hooks | None = None,
    ) -> None:
        self.loaded = loaded
        self.retired = False
        self._table = table
        self._kept = IncrementalPreferences(loaded.scorer, limits.demand_classes)
        self._timer = timer
        self._hooks = hooks or Hooks()
        self.breaker = Breaker(limits.breaker_failures, limits.breaker_cooling_s, timer, self._breaker_changed)
        self._worker = Worker()
        self._overdue: set[asyncio.Future[Any]] = set()
        self._pace = Pace()
        self.training = TrainingRange(loaded, limits.range_tolerance)
        self._odd = False
        """Whether a row was ever odd."""
        self._unrated = False
        """Whether a row ever had no finite preference."""
        self._ready: tuple[Rows, PodDemand, int] | None = None
        """Rows whose preferences for this demand are kept and current at this version of the table."""
        self._later: list[int] = []
        self._later_of: tuple[PodDemand, int] | None = None
        """Rows that wait to be scored, for which demand, and the assignments of the table that they are of."""

    def retire(self) -> None:
        """Give no new work to the scorer; its thread ends once what it was given is done."""
        self.retired = True
        self._worker.stop(timeout=0.0)

    def stop(self) -> bool:
        """End the worker thread; returns whether it ended."""
        self.retired = True
        return self._worker.stop()

    def rated(self, rows: ClusterState, demand: PodDemand) -> Rating:
        """Rate copied rows ``[n]`` in the caller's thread, for somebody other than kube-scheduler; keeps nothing.

        Raises:
            ScoringError: there are no preferences.
        """
        scored = ask(self.loaded.scorer, rows, demand, self.training)
        return self.training.settled(scored.preferences, scored.odd, self.loaded.temperature)

    async def preferences(self, state: ClusterState, demand: PodDemand, rows: Rows, due: float) -> Rating:
        """Preferences ``[n]`` of the table's rows ``[n]``, in that order, and which of them are odd.

        Args:
            state: the table's columns, as they are now.
            demand: what is asked for.
            rows: distinct rows of nodes.
            due: by when, seconds of the timer.

        Raises:
            ScoringError: there are none in time; `extender.scorer.fallback` names the kinds.
        """
        preferences = await self._preferences(state, demand, rows, due)
        if not self._odd:
            return Rating(preferences, None)
        try:
            return self.training.settled(preferences, self._kept.odd(demand, rows), self.loaded.temperature)
        except ScoringError:
            self.breaker.failed()
            raise

    async def _preferences(self, state: ClusterState, demand: PodDemand, rows: Rows, due: float) -> Preferences:
        """What the scorer says of each row by itself."""
        kept, ready = self._kept, self._ready
        self._ready = None
        if ready is not None and ready[0] is rows and ready[1:] == (demand, self._table.version):
            return kept.store(state, demand, NO_ROWS, None, rows)
        current = kept.current(state, demand, rows)
        if current is not None:
            return current
        stale = kept.stale(state, demand, rows)
        if len(stale) == 0:
            return kept.store(state, demand, stale, None, rows)
        if len(stale) == len(rows):
            return await self._fresh(self._table.copy(rows), demand, rows, due)
        values = np.zeros(len(state), dtype=np.float32)
        values[rows] = kept.store(state, demand, stale, None, rows)
        values[stale] = await self._fresh(self._table.copy(stale), demand, stale, due)
        return values[rows]

    def comes_again(self, demand: PodDemand) -> bool:
        """Whether pods of this demand came before, and more may be expected."""
        return self._kept.reads(demand) > 1  # the first may have been scored ahead, and read once

    def prepare(self, rows: Rows, demand: PodDemand) -> None:
        """Score distinct rows of nodes ahead of a request, if that is quick and the scorer does well."""
        self._ready = None
        stale = self._kept.stale(self._table.state, demand, rows)
        if len(stale) == 0 or self._score(self._with_later(stale, demand), demand):
            self._ready = rows, demand, self._table.version

    def placed(self, row: int, demand: PodDemand, asked: int) -> None:
        """A pod of this demand was just placed in this row: score it again, if that is quick, now or with others.

        Where kube-scheduler samples its nodes (it `asked` about few), other pods come before one that may go to this
        node, and their rows are scored with it: a run of a few rows takes hardly longer than one of one.
        """
        nodes, of = self._table.node_count, (demand, self._table.assignments)
        if self._later_of != of:
            self._score_later()
            self._later_of = of
        self._later.append(row)
        samples = nodes // asked if asked >= sample_size(nodes) else 1
        if len(self._later) >= min(GATHERED, samples):
            self._score_later()

    def _score_later(self) -> None:
        """Score the rows that wait for it."""
        if self._later_of is not None:
            demand, _ = self._later_of
            if len(stale := self._with_later(NO_ROWS, demand)):
                self._score(stale, demand)

    def _with_later(self, stale: Rows, demand: PodDemand) -> Rows:
        """These rows, and those that wait to be scored for the same demand; none waits any more."""
        later, of = self._later, self._later_of
        self._later, self._later_of = [], None
        if of != (demand, self._table.assignments):
            return stale
        others = self._kept.stale(self._table.state, demand, np.array(later, dtype=np.intp))
        return others if len(stale) == 0 and len(later) == 1 else np.union1d(stale, others)

    def _score(self, stale: Rows, demand: PodDemand) -> bool:
        """Score distinct rows that no request waits for, if that is quick and the scorer does well; returns whether."""
        if self._overdue or self.retired or self.breaker.state is not BreakerState.CLOSED:
            return False
        if self._pace.expected(len(stale)) >= INLINE_BUDGET_S:
            return False
        try:
            self._inline(self._table.copy(stale), demand, stale)
        except ScoringError:  # logged and counted by `_failed`; the next request falls back
            return False
        return True

    async def _fresh(self, part: ClusterState, demand: PodDemand, stale: Rows, due: float) -> Preferences:
        """Score the copied rows in the worker; whenever the answer comes, it is kept for later requests."""
        if self._overdue:
            raise ScorerBusyError("the scorer still works on a request that is overdue")
        if not self.breaker.admits():
            raise BreakerOpenError("the scorer kept failing; it is left alone for a while")

        def work() -> tuple[Scored, float]:
            started = self._timer()
            result = ask(self.loaded.scorer, part, demand, self.training, self._hooks.span)
            return result, self._timer() - started

        def keep(done: asyncio.Future[tuple[Scored, float]]) -> None:
            in_time = done not in self._overdue
            self._overdue.discard(done)
            error = done.exception()
            if error is None:
                result, seconds = done.result()
                self._pace.took(len(part), seconds)
                self._keep(part, demand, stale, result, in_time)
            else:
                self._failed(error, in_time)

        if self._pace.expected(len(stale)) < INLINE_BUDGET_S:
            return self._inline(part, demand, stale)
        self._hooks.waits()
        future = self._worker.submit(work)
        future.add_done_callback(keep)
        left = due - self._timer()
        if left > 0.0:  # else it is late already: whether a thread happens to be quicker decides nothing
            await asyncio.wait((future,), timeout=left)
        if not future.done():  # the event loop settles it, and has not run where there was no time left
            self._overdue.add(future)
            self.breaker.failed()
            raise DecisionLateError("the scorer did not answer within the deadline")
        return future.result()[0].preferences

    def _inline(self, part: ClusterState, demand: PodDemand, stale: Rows) -> Preferences:
        """Score a few copied rows on the event loop, and keep the answer."""
        started = self._timer()
        try:
            scored = ask(self.loaded.scorer, part, demand, self.training, self._hooks.span)
        except ScoringError as error:
            self._failed(error, in_time=True)
            raise
        self._pace.took(len(part), self._timer() - started)
        self._keep(part, demand, stale, scored, in_time=True)
        return scored.preferences

    def _keep(self, part: ClusterState, demand: PodDemand, stale: Rows, scored: Scored, in_time: bool) -> None:
        self._ready = None
        versions, odd = part.version, scored.odd
        unrated = None if odd is None else odd == UNRATED
        if in_time and (unrated is None or not unrated.all()):
            self.breaker.succeeded()
        if unrated is not None:
            self._odd = True
            versions = np.where(unrated, NEVER, versions)  # asked about again with the next request
            if unrated.any() and not self._unrated:
                self._unrated = True  # said once: it may happen with every request
                _log.error("the scorer gives no finite preference for some nodes", role=self._hooks.role)
        self._kept.store(self._table.state, demand, stale, scored.preferences, NO_ROWS, versions=versions, odd=odd)
        self._hooks.scored(len(part), scored.outside)

    def _failed(self, error: BaseException, in_time: bool) -> None:
        """The next attempt goes to the worker again: what failed may also hang."""
        self._pace.forget()
        if in_time:  # else it was counted when it became late
            self.breaker.failed()
        _log.error("scorer failed", role=self._hooks.role, error=kind_of(error))

    def _breaker_changed(self, state: BreakerState) -> None:
        _log.warning("circuit breaker of the scorer changed", role=self._hooks.role, state=state.value)
