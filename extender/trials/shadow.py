"""A candidate that scores the same requests beside what decides, in a thread of its own, and is compared with it.

Nothing waits for it: a request hands over a copy of its rows after its answer is on its way, and where the candidate
has not kept up the request is dropped and counted. What goes wrong with the candidate is counted and kept for `status`.
Refuses to influence any decision.
"""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from extender.errors import kind_of
from extender.scorer.load import LoadedScorer
from extender.scorer.question import ask
from extender.scorer.trust import TrainingRange
from extender.supervision import Failures
from policy.cluster import ClusterState, PodDemand
from policy.errors import ScoringError
from policy.priorities import priorities
from policy.scorers import Preferences

WAITING: Final = 16
"""Requests that may wait for the candidate; each holds its rows, 72 bytes a node."""

FAR: Final = 1
"""Priorities that differ by more than this are counted: one level is the grain of the scale."""


@dataclass(slots=True)
class Counts:
    """Sums since the start."""

    compared: int = 0  # requests that both scored
    dropped: int = 0  # requests that came while the candidate had too many waiting
    failed: int = 0  # requests that the candidate failed on
    # requests with nothing to compare with: the fallback or an experiment's candidate answered, or fewer than two known
    # nodes were left
    skipped: int = 0
    same_best: int = 0  # of those compared, the ones where the node sent as best has the candidate's highest preference
    ranked: int = 0  # of those compared, the ones that have a rank correlation: neither finds all nodes alike
    rank_correlation_sum: float = 0.0  # sum of Spearman's coefficient over these
    priorities: int = 0
    priorities_far: int = 0  # of those, the ones that differ by more than `FAR`
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class _Answered:
    """One request: its rows ``[n]``, the demand, the preferences ``[n]`` that decided, and the best one's position."""

    part: ClusterState
    demand: PodDemand
    preferences: Preferences
    first: int
    temperature: float


class Shadow:
    """Compares a candidate with what decides. `offer` belongs to the event loop, the rest to any thread.

    Args:
        tolerance: how far it is trusted beyond its training; see `extender.scorer.trust.TrainingRange`.
    """

    def __init__(
        self,
        loaded: LoadedScorer,
        failures: Failures,
        tolerance: float | None = None,
        waiting: int = WAITING,
        timer: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.loaded = loaded
        self._failures = failures
        self._training = TrainingRange(loaded, tolerance)
        self._timer = timer
        self._counts = Counts()
        self._last_error: str | None = None
        self._lock = threading.Lock()
        self._queue: queue.Queue[_Answered | None] = queue.Queue(waiting)
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="shadow", daemon=True)  # a model that hangs ends with us

    def start(self) -> None:
        """Begin to score what is offered."""
        self._thread.start()

    def stop(self, timeout: float = 1.0) -> bool:
        """Leave what waits, and end the thread; returns whether it ended within `timeout` seconds."""
        self._stopping = True
        if self._thread.ident is None:
            return True
        with contextlib.suppress(queue.Full):  # then the thread need not be woken
            self._queue.put_nowait(None)
        self._thread.join(timeout)
        return not self._thread.is_alive()

    def offer(
        self,
        state: ClusterState,
        demand: PodDemand,
        rows: NDArray[np.intp],
        preferences: Preferences,
        first: int,
        temperature: float,
    ) -> None:
        """Compare this answer, if there is room; never waits.

        Args:
            state: the table's columns as the answer was made from them; copied.
            demand: what was asked for.
            rows: rows of the nodes, ``[n]``.
            preferences: those that decided, ``[n]``; copied.
            first: position of the node sent as best.
            temperature: with which they became priorities.
        """
        if len(rows) < 2:
            self.skip()
        elif self._queue.full():
            with self._lock:
                self._counts.dropped += 1
        else:
            self._queue.put_nowait(_Answered(state.take(rows), demand, preferences.copy(), first, temperature))

    def skip(self) -> None:
        """Count a request that has nothing to compare with."""
        with self._lock:
            self._counts.skipped += 1

    def counts(self) -> Counts:
        """A copy of the sums, all of one moment."""
        with self._lock:
            return Counts(*(getattr(self._counts, it.name) for it in fields(Counts)))

    def status(self) -> dict[str, Any]:
        """The candidate, the sums, and the agreement that follows from them, as JSON; None where nothing is known."""
        counts = self.counts()
        return {
            "candidate": self.loaded.identity(),
            "requests": {name: getattr(counts, name) for name in ("compared", "dropped", "failed", "skipped")},
            "waiting": self._queue.qsize(),
            "same_best_share": _ratio(counts.same_best, counts.compared),
            "rank_correlation": _ratio(counts.rank_correlation_sum, counts.ranked),
            "ranked": counts.ranked,
            "priorities_far_share": _ratio(counts.priorities_far, counts.priorities),
            "mean_ms": _ratio(1000.0 * counts.seconds, counts.compared),
            "last_error": self._last_error,
        }

    def _run(self) -> None:
        while not self._stopping and (answered := self._queue.get()) is not None:
            try:
                self._compare(answered)
            except BaseException as error:  # a candidate may do anything; it must not end its own trial
                if not isinstance(error, ScoringError):
                    self._failures.record("shadow", error)
                with self._lock:
                    self._counts.failed += 1
                    self._last_error = kind_of(error)

    def _compare(self, answered: _Answered) -> None:
        started = self._timer()
        scored = ask(self.loaded.scorer, answered.part, answered.demand, self._training)
        candidate = self._training.settled(scored.preferences, scored.odd, self.loaded.temperature).preferences
        seconds = self._timer() - started
        theirs = priorities(candidate, self.loaded.temperature)
        ours = priorities(answered.preferences, answered.temperature)
        correlation = rank_correlation(answered.preferences, candidate)
        with self._lock:
            counts = self._counts
            counts.compared += 1
            counts.seconds += seconds
            counts.same_best += bool(candidate[answered.first] == candidate.max())
            counts.priorities += len(ours)
            counts.priorities_far += int(np.count_nonzero(np.abs(ours - theirs) > FAR))
            if correlation is not None:
                counts.ranked += 1
                counts.rank_correlation_sum += correlation


def rank_correlation(one: NDArray[np.floating[Any]], other: NDArray[np.floating[Any]]) -> float | None:
    """Spearman's coefficient of two ``[n]``: Pearson's of their ranks, equals sharing the mean rank; -1..1.

    None where all values of one of them are equal: they have no order.
    """
    first, second = (_centred_ranks(values) for values in (one, other))
    length = float(np.sqrt((first @ first) * (second @ second)))
    return float(first @ second) / length if length > 0.0 else None


def _centred_ranks(values: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
    _, inverse, sizes = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(sizes)
    ranks: NDArray[np.float64] = (last - (sizes - 1) / 2.0)[inverse]
    return ranks - (len(values) + 1) / 2.0


def _ratio(part: float, whole: int) -> float | None:
    return part / whole if whole else None
