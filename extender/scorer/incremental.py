"""Scores kept for each class of pods and row version, so that only rows that changed are scored again. Exact."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from extender.scorer.trust import Codes
from policy.cluster import ClusterState, PodDemand
from policy.errors import InvalidInputError
from policy.scorers import Scorer

NEVER: Final = -1
"""Row version of a preference that was never computed; versions of a `ClusterState` are >= 0."""


@dataclass(slots=True)
class _Kept:
    """Preferences ``[n]`` of one class of pods, the row versions ``[n]`` they are of, and how often they were read.

    `odd` tells what becomes of each row ``[n]``; it is empty until one is odd, which most never are.
    """

    preferences: NDArray[np.float32] = field(default_factory=lambda: np.empty(0, dtype=np.float32))
    versions: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, dtype=np.int64))
    odd: Codes = field(default_factory=lambda: np.empty(0, dtype=np.uint8))
    reads: int = 0

    def resize(self, rows: int) -> None:
        """Grow to hold `rows` rows; new ones count as never computed."""
        known = len(self.versions)
        if rows > known:
            self.preferences = np.concatenate([self.preferences, np.zeros(rows - known, dtype=np.float32)])
            self.versions = np.concatenate([self.versions, np.full(rows - known, NEVER, dtype=np.int64)])
            if len(self.odd):
                self.odd = np.concatenate([self.odd, np.zeros(rows - known, dtype=np.uint8)])

    def mark(self, rows: NDArray[np.intp], codes: Codes | None) -> None:
        """Remember what becomes of these rows; None: none is odd."""
        if codes is not None and not len(self.odd):
            self.odd = np.zeros(len(self.versions), dtype=np.uint8)
        if len(self.odd):
            self.odd[rows] = 0 if codes is None else codes


class IncrementalPreferences:
    """Remembers a local scorer's answers and asks it again only about rows whose version moved.

    Not thread safe: one owner calls it. The answer equals the scorer's own for the same state, row by row.

    Args:
        scorer: a scorer with `local` true.
        classes: how many demands to remember; the least recently used is dropped.
    """

    def __init__(self, scorer: Scorer, classes: int = 256) -> None:
        if not scorer.local:
            raise InvalidInputError(f"scorer {scorer.name!r} is not local: its answers cannot be kept by row")
        if classes < 1:
            raise InvalidInputError(f"classes is {classes}; give a positive number")
        self.scorer = scorer
        self._classes = classes
        self._kept: OrderedDict[PodDemand, _Kept] = OrderedDict()

    def __len__(self) -> int:
        """How many classes of pods are remembered."""
        return len(self._kept)

    def stale(self, state: ClusterState, demand: PodDemand, rows: NDArray[np.intp] | None = None) -> NDArray[np.intp]:
        """Rows of `rows` (default: all) whose preference for this demand must be computed."""
        kept = self._kept.get(demand)
        wanted = np.arange(len(state), dtype=np.intp) if rows is None else rows
        if kept is None:
            return wanted
        kept.resize(len(state))
        moved: NDArray[np.bool_] = kept.versions.take(wanted) != state.version.take(wanted)
        return np.asarray(wanted[moved], dtype=np.intp)

    def current(self, state: ClusterState, demand: PodDemand, rows: NDArray[np.intp]) -> NDArray[np.float32] | None:
        """Preferences of `rows` in that order if not one of them must be computed; None otherwise."""
        kept = self._kept.get(demand)
        if kept is None or len(kept.versions) < len(state):
            return None
        if np.count_nonzero(kept.versions.take(rows) != state.version.take(rows)):
            return None
        self._kept.move_to_end(demand)
        kept.reads += 1
        return kept.preferences.take(rows)

    def preferences(
        self, state: ClusterState, demand: PodDemand, rows: NDArray[np.intp] | None = None
    ) -> NDArray[np.float32]:
        """Preferences of `rows` (default: all) in that order; the scorer is called at most once, for stale rows.

        Raises:
            ScoringError: the scorer failed; nothing wrong is remembered.
        """
        stale = self.stale(state, demand, rows)
        fresh = None
        if len(stale):
            fresh = self.scorer.preferences(state.take(stale), demand)
        return self.store(state, demand, stale, fresh, rows)

    def store(
        self,
        state: ClusterState,
        demand: PodDemand,
        stale: NDArray[np.intp],
        fresh: NDArray[np.floating[Any]] | None,
        rows: NDArray[np.intp] | None = None,
        versions: NDArray[np.int64] | None = None,
        odd: Codes | None = None,
    ) -> NDArray[np.float32]:
        """Remember `fresh` and read `rows`.

        Args:
            state: the columns.
            demand: of the pods.
            stale: the rows that `fresh` and `odd` are of.
            fresh: their preferences; None: there is nothing new.
            rows: what to read; default: all.
            versions: at which `fresh` was computed; default: the state's.
            odd: what becomes of the rows; see `odd`.
        """
        kept = self._kept.get(demand)
        if kept is None:
            if len(self._kept) < self._classes:
                kept = _Kept()
            else:
                # a dropped class leaves its memory to the new one: to get some costs more than to clear it
                _, kept = self._kept.popitem(last=False)
                kept.versions.fill(NEVER)
                kept.reads = 0
            self._kept[demand] = kept
        else:
            self._kept.move_to_end(demand)
        kept.resize(len(state))
        if fresh is not None:
            kept.preferences[stale] = fresh
            kept.versions[stale] = state.version[stale] if versions is None else versions
            kept.mark(stale, odd)
        if rows is None:
            kept.reads += 1
            return kept.preferences.copy()
        kept.reads += len(rows) > 0
        return kept.preferences.take(rows)

    def odd(self, demand: PodDemand, rows: NDArray[np.intp]) -> Codes | None:
        """What becomes of each of `rows` by the preferences that are kept of it; None where none was ever odd."""
        kept = self._kept.get(demand)
        return None if kept is None or not len(kept.odd) else kept.odd.take(rows)

    def reads(self, demand: PodDemand) -> int:
        """How often preferences that were kept for this demand were read since it came up."""
        kept = self._kept.get(demand)
        return 0 if kept is None else kept.reads

    def clear(self) -> None:
        """Forget everything: the scorer changed, or rows were given to other nodes."""
        self._kept.clear()
