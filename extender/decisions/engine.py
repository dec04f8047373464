"""One decision: a pod and node names in, a priority for each name out, always, and within the deadline.

What the scorer said of unchanged rows is kept (`policy.incremental`), so most requests are answered at once. Rows that
changed are copied and scored in a worker thread, and the event loop waits no longer than the deadline; a few rows are
scored on the spot, where the scorer's last run shows that this is quicker than waking a thread. When the scorer is
late, missing or failing, the fallback heuristic answers from the same rows; the reason is recorded with the decision
and counted. A late answer is kept for the next request, so a slow scorer recovers by itself.

Refuses to know HTTP, Kubernetes or Prometheus.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from extender.cluster.table import UNKNOWN, ClusterTable
from extender.decisions.ledger import TOP, Decision, Ledger
from extender.decisions.worker import Worker
from extender.errors import DecisionLateError, ScorerBusyError
from extender.pods import Pod, UrgencyRules, pod_demand
from policy.cluster import ClusterState, PodDemand
from policy.errors import NonFinitePreferenceError, ScoringError
from policy.incremental import IncrementalPreferences
from policy.priorities import MAX_PRIORITY, priorities
from policy.scorers import Preferences, Scorer

ONLY_FEASIBLE: Final = "only-feasible"
"""Scorer named on decisions where one node was left, so that nobody had to choose."""

FALLBACK_REASONS: Final = ("late", "busy", "missing", "failed", "non_finite", "too_many_nodes")
"""Why the configured scorer did not answer."""

NEUTRAL: Final = "neutral"
"""Scorer named on decisions where every node got the neutral priority."""

INLINE_BUDGET_S: Final = 0.0005
"""Rows are scored on the event loop if that is expected to take less, seconds. Waking a thread costs a fifth of it."""

Rows = NDArray[np.intp]

NO_ROWS: Final[Rows] = np.empty(0, dtype=np.intp)


@dataclass(frozen=True, slots=True)
class Limits:
    """What bounds a decision.

    Attributes:
        deadline_s: seconds from the request's arrival after which the fallback answers.
        max_nodes: more names than this are not scored.
        neutral_priority: priority of nodes that are not scored, 0..10.
        demand_classes: demands whose preferences are kept.
    """

    deadline_s: float
    max_nodes: int
    neutral_priority: int
    demand_classes: int


@dataclass(frozen=True, slots=True)
class Verdict:
    """The answer: distinct known nodes by row with their priorities, the names of all others, and the record of it."""

    rows: Rows
    priorities: NDArray[np.int64]
    unknown: Sequence[str]
    decision: Decision


@dataclass(frozen=True, slots=True)
class _Scores:
    """Preferences ``[n]`` and who gave them."""

    preferences: Preferences
    scorer: str
    fallback_reason: str | None


class Engine:
    """Decides. Owned by the event loop's thread.

    Args:
        table: what is known of the cluster; placements are assumed in it.
        scorer: the configured scorer; None while there is none.
        fallback: answers when the scorer does not.
        temperature: of the priorities, as in the scorer's training.
        limits: see `Limits`.
        urgency: how urgent pods are.
        ledger: remembers decisions.
        generator: draws among nodes of equal preference.
        clock: seconds since the epoch.
        timer: monotonic seconds; the clock of `received`.
        on_scored: called on the event loop after rows were scored, with those rows and the demand; for metrics.
        on_error: called with every exception of the scorer, for the log.
    """

    def __init__(
        self,
        table: ClusterTable,
        scorer: Scorer | None,
        fallback: Scorer,
        temperature: float,
        limits: Limits,
        urgency: UrgencyRules,
        ledger: Ledger,
        generator: random.Random,
        clock: Callable[[], float] = time.time,
        timer: Callable[[], float] = time.perf_counter,
        on_scored: Callable[[ClusterState, PodDemand], None] | None = None,
        on_error: Callable[[BaseException], None] | None = None,
    ) -> None:
        self.table = table
        self.scorer = scorer
        self.fallback = fallback
        self.temperature = temperature
        self.limits = limits
        self.ledger = ledger
        self._urgency = urgency
        self._kept = None if scorer is None else IncrementalPreferences(scorer, limits.demand_classes)
        self._generator = generator
        self._clock = clock
        self._timer = timer
        self._on_scored = on_scored
        self._on_error = on_error
        self._worker = Worker()
        self._overdue: set[asyncio.Future[Any]] = set()
        self._numbers = 0
        self._seconds_per_row = math.inf

    def stop(self) -> bool:
        """End the worker thread; returns whether it ended."""
        return self._worker.stop()

    async def decide(self, pod: Pod, names: Sequence[str], received: float | None = None) -> Verdict:
        """Rate every name for this pod, one of them above all others, and assume that it is chosen.

        Call `finish` with the verdict when the answer is on its way.

        Args:
            pod: the pod to be placed.
            names: names of the feasible nodes; duplicates are rated once.
            received: when the request arrived, by the engine's timer; default: now.

        Raises:
            InvalidQuantityError: a request of the pod does not parse.
        """
        received = self._timer() if received is None else received
        demand, warning = pod_demand(pod, self._urgency)
        if len(names) > self.limits.max_nodes:
            neutral = _Scores(np.empty(0), NEUTRAL, "too_many_nodes")
            return self._conclude(pod, demand, warning, NO_ROWS, list(dict.fromkeys(names)), neutral, received)
        table = self.table
        table.withdraw(pod.metadata.uid)  # asked again: the former attempt failed, and a pod must not see itself
        state, assignments = table.state, table.assignments
        asked = table.rows_of(names)
        rows, unknown = self._distinct(names, asked)
        scores: _Scores | None = None
        failure: ScoringError | None = None
        try:
            scores = await self._scored(state, demand, rows, received + self.limits.deadline_s)
        except ScoringError as error:
            failure = error
        if table.assignments != assignments:
            # while we waited nodes came or went, and a row may mean another one now: those count as unknown
            same = (asked != UNKNOWN) & (table.rows_of(names) == asked)
            stayed = np.isin(rows, asked[same])
            rows, unknown = rows[stayed], list(dict.fromkeys(names[i] for i in np.flatnonzero(~same).tolist()))
            if scores is not None:
                scores = _Scores(scores.preferences[stayed], scores.scorer, None)
        if scores is None:
            scores = self._fallen_back(demand, rows, self._reason(failure))
        return self._conclude(pod, demand, warning, rows, unknown, scores, received)

    def note_only_feasible(self, pod: Pod, name: str, received: float) -> Decision:
        """One node is left after filtering: kube-scheduler will not ask for priorities, so remember and assume now.

        Raises:
            InvalidQuantityError: a request of the pod does not parse.
        """
        demand, warning = pod_demand(pod, self._urgency)
        rows, unknown = self._distinct([name], self.table.rows_of([name]))
        scores = _Scores(np.zeros(len(rows)), ONLY_FEASIBLE, None)
        verdict = self._conclude(pod, demand, warning, rows, unknown, scores, received, verb="filter")
        self._record(verdict)
        return verdict.decision

    # ---- scoring -------------------------------------------------------------------------------------------------

    async def _scored(self, state: ClusterState, demand: PodDemand, rows: Rows, due: float) -> _Scores:
        """Preferences of `rows` by the configured scorer; raises `ScoringError` where there are none in time."""
        kept = self._kept
        if kept is None:
            raise ScoringError("no scorer is loaded")
        stale = kept.stale(state, demand, rows)
        if len(stale) == 0:
            return _Scores(kept.store(state, demand, stale, None, rows), kept.scorer.name, None)
        values = np.zeros(len(state), dtype=np.float32)
        if len(stale) < len(rows):
            values[rows] = kept.store(state, demand, stale, None, rows)
        values[stale] = await self._fresh(kept, state.take(stale), demand, stale, due)
        return _Scores(values[rows], kept.scorer.name, None)

    async def _fresh(
        self, kept: IncrementalPreferences, part: ClusterState, demand: PodDemand, stale: Rows, due: float
    ) -> Preferences:
        """Score the copied rows in the worker; whenever the answer comes, it is kept for later requests."""
        if self._overdue:
            raise ScorerBusyError("the scorer still works on a request that is overdue")

        def work() -> tuple[Preferences, float]:
            started = self._timer()
            return checked(kept.scorer, part, demand), (self._timer() - started) / len(part)

        def keep(done: asyncio.Future[tuple[Preferences, float]]) -> None:
            self._overdue.discard(done)
            error = done.exception()
            if error is None:
                result, self._seconds_per_row = done.result()
                self._keep(kept, part, demand, stale, result)
            else:
                self._failed(error)

        if self._seconds_per_row * len(stale) < INLINE_BUDGET_S:
            return self._inline(kept, part, demand, stale)
        future = self._worker.submit(work)
        future.add_done_callback(keep)
        done, _ = await asyncio.wait((future,), timeout=max(due - self._timer(), 0.0))
        if not done:
            self._overdue.add(future)
            raise DecisionLateError(f"the scorer did not answer within {self.limits.deadline_s * 1000:g} ms")
        return future.result()[0]

    def _inline(self, kept: IncrementalPreferences, part: ClusterState, demand: PodDemand, stale: Rows) -> Preferences:
        """Score a few copied rows on the event loop, and keep the answer."""
        started = self._timer()
        try:
            result = checked(kept.scorer, part, demand)
        except ScoringError as error:
            self._failed(error)
            raise
        self._seconds_per_row = (self._timer() - started) / len(part)
        self._keep(kept, part, demand, stale, result)
        return result

    def _keep(
        self, kept: IncrementalPreferences, part: ClusterState, demand: PodDemand, stale: Rows, result: Preferences
    ) -> None:
        kept.store(self.table.state, demand, stale, result, NO_ROWS, versions=part.version)
        if self._on_scored is not None:
            asyncio.get_running_loop().call_soon(self._on_scored, part, demand)  # once the answer is on its way

    def _failed(self, error: BaseException) -> None:
        """The next attempt goes to the worker again: what failed may also hang."""
        self._seconds_per_row = math.inf
        if self._on_error is not None:
            self._on_error(error)

    def finish(self, verdict: Verdict) -> None:
        """After an answer: remember it, and score the row whose placement it assumed, if that is quick.

        The next pod alike then finds that done.
        """
        self._record(verdict)
        kept, decision = self._kept, verdict.decision
        if kept is None or decision.assumed is None or self._seconds_per_row >= INLINE_BUDGET_S or self._overdue:
            return
        row = np.array((self.table.row_of(decision.assumed),), dtype=np.intp)
        state = self.table.state
        if row[0] == UNKNOWN or len(kept.stale(state, decision.demand, row)) == 0:
            return
        with contextlib.suppress(ScoringError):  # logged and remembered by `_failed`; the next request falls back
            self._inline(kept, state.take(row), decision.demand, row)

    def _fallen_back(self, demand: PodDemand, rows: Rows, reason: str) -> _Scores:
        """Preferences by the fallback, from the rows as they are now."""
        preferences = self.fallback.preferences(self.table.state.take(rows), demand)
        return _Scores(preferences, self.fallback.name, reason)

    def _reason(self, error: ScoringError | None) -> str:
        if isinstance(error, DecisionLateError):
            return "late"
        if isinstance(error, ScorerBusyError):
            return "busy"
        if isinstance(error, NonFinitePreferenceError):
            return "non_finite"
        return "missing" if self._kept is None else "failed"

    # ---- names and rows ------------------------------------------------------------------------------------------

    def _distinct(self, names: Sequence[str], asked: Rows) -> tuple[Rows, list[str]]:
        """Rows of the known names and the names of the others, each once: kube-scheduler adds up duplicates."""
        seen = np.zeros(len(self.table.state) + 1, dtype=np.bool_)  # the last one stands for UNKNOWN
        seen[asked] = True
        if np.count_nonzero(seen) == len(asked) and not seen[UNKNOWN]:
            return asked, []
        unknown = list(dict.fromkeys(names[i] for i in np.flatnonzero(asked == UNKNOWN).tolist()))
        rows = asked[asked != UNKNOWN]
        rows = rows[np.sort(np.unique(rows, return_index=True)[1])]
        return rows, unknown

    # ---- concluding ----------------------------------------------------------------------------------------------

    def _conclude(
        self,
        pod: Pod,
        demand: PodDemand,
        warning: str | None,
        rows: Rows,
        unknown: list[str],
        scores: _Scores,
        received: float,
        verb: str = "prioritize",
    ) -> Verdict:
        """Turn preferences to priorities, single one node out, assume the pod there.

        Where several nodes share the highest priority, the one of the highest preference keeps it and the others get
        one less; why so, says `extender.cluster.assumed`.
        """
        table, preferences = self.table, scores.preferences
        rated = priorities(preferences, self.temperature)
        neutral = self.limits.neutral_priority
        if len(rows):
            alike = rated == MAX_PRIORITY
            best_count = int(np.count_nonzero(alike)) + (len(unknown) if neutral == MAX_PRIORITY else 0)
            first = self._first(preferences)
            rated -= alike
            rated[first] = MAX_PRIORITY
            top = _leading(preferences, TOP, first)
            top_rows = rows.take(top)
            kept_rows: ClusterState | None = table.state.take(top_rows)
            names = tuple(table.name_of(row) or "" for row in top_rows.tolist())
            assumed: str | None = names[0]
        else:
            best_count, top, kept_rows, names = len(unknown), NO_ROWS, None, ()
            assumed = unknown[self._generator.randrange(len(unknown))] if unknown else None
        if assumed is not None and pod.metadata.uid:
            table.assume(pod.metadata.uid, assumed, demand.cpu, demand.memory)
        self._numbers += 1
        decision = Decision(
            number=self._numbers,
            uid=pod.metadata.uid,
            namespace=pod.metadata.namespace,
            name=pod.metadata.name,
            at=self._clock(),
            verb=verb,
            scorer=scores.scorer,
            fallback_reason=scores.fallback_reason,
            warning=warning,
            demand=demand,
            candidates=len(rows) + len(unknown),
            unknown=len(unknown),
            best_count=best_count,
            assumed=assumed,
            names=names,
            preferences=preferences.take(top),
            priorities=rated.take(top),
            rows=kept_rows,
            latency_s=self._timer() - received,
        )
        return Verdict(rows, rated, unknown, decision)

    def _record(self, verdict: Verdict) -> None:
        self.ledger.record(verdict.decision, verdict.rows, verdict.priorities)

    def _first(self, preferences: Preferences) -> int:
        """Position of the highest preference; of equals, any, each as likely."""
        (equals,) = (preferences == preferences.max()).nonzero()
        return int(equals[self._generator.randrange(len(equals)) if len(equals) > 1 else 0])


def checked(scorer: Scorer, rows: ClusterState, demand: PodDemand) -> Preferences:
    """Preferences of `rows` by the scorer: one finite number for each, whatever the scorer does.

    Raises:
        ScoringError: it failed, or gave another shape.
        NonFinitePreferenceError: it gave NaN or infinity.
    """
    try:
        result = scorer.preferences(rows, demand)
    except ScoringError:
        raise
    except Exception as error:
        raise ScoringError(f"scorer {scorer.name} failed: {error!r}") from error
    if result.shape != rows.shape:
        raise ScoringError(f"scorer {scorer.name} gave shape {result.shape} for rows of shape {rows.shape}")
    if not np.isfinite(result).all():
        raise NonFinitePreferenceError(f"scorer {scorer.name} gave a preference that is not finite")
    return result


def _leading(preferences: Preferences, count: int, first: int) -> Rows:
    """Positions of the `count` highest preferences, best first; `first`, one of the best, leads them."""
    lost = -preferences
    lost[first] = -np.inf
    if len(lost) <= 4 * count:
        return lost.argsort(kind="stable")[:count]
    candidates = lost.argpartition(count)[:count]
    return candidates[lost[candidates].argsort()]
