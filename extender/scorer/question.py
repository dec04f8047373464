"""One question to a scorer: the rows are observed once, held against the range of training, and rated. Pure.

That one observation, unclipped, tells which features lie outside the range of training (counted) and which rows beyond
what the scorer is trusted with (refused); clipped in its place it is what actors see. Runs in whatever thread scores.
Refuses to keep anything.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from operator import le
from typing import Final

import numpy as np
from numpy.typing import NDArray

from extender.logs import kind_of
from extender.scorer.load import LoadedScorer
from policy.cluster import ClusterState, PodDemand
from policy.errors import NonFinitePreferenceError, ScoringError
from policy.features import HIGH, LOW
from policy.observation import clip, observe_unclipped
from policy.scorers import ActorScorer, Preferences, Scorer

Span = Callable[[str, str, int], AbstractContextManager[object]]
"""Encloses a part of the work, given its name, the scorer's and the number of rows; for tracing."""

_NO_SPAN: Final = nullcontext()


def no_span(_name: str, _scorer: str, _rows: int) -> AbstractContextManager[object]:
    """Encloses nothing."""
    return _NO_SPAN


@dataclass(slots=True)
class Scored:
    """What a scorer said of some rows.

    Attributes:
        preferences: ``[n]``; NaN where the row lies beyond what the scorer is trusted with.
        outside: for each feature, how many rows lie outside the range of training; None where none does.
    """

    preferences: Preferences
    outside: Sequence[int] | None


class TrainingRange:
    """The range of training of each feature, and how far beyond it a scorer is trusted.

    Args:
        loaded: the scorer; one without a range has that of the schema, and is trusted with anything.
        tolerance: how far a feature may lie beyond, as a share of its range; None: any distance.
    """

    def __init__(self, loaded: LoadedScorer, tolerance: float | None) -> None:
        low, high = self._range = (LOW, HIGH) if loaded.training_range is None else loaded.training_range
        self._trusted: tuple[NDArray[np.float32], NDArray[np.float32]] | None = None
        if loaded.training_range is not None and tolerance is not None:
            margin = np.float32(tolerance) * (high - low)
            self._trusted = low - margin, high + margin
        self._low, self._high = low.tolist(), high.tolist()

    def holds(self, observation: NDArray[np.float32]) -> bool:
        """Whether every feature of every row ``[n, 8]`` lies within the range of training."""
        if len(observation) == 1:
            values = observation[0].tolist()
            return all(map(le, self._low, values)) and all(map(le, values, self._high))
        least, most = observation.min(axis=0).tolist(), observation.max(axis=0).tolist()
        return all(map(le, self._low, least)) and all(map(le, most, self._high))

    def outside(self, observation: NDArray[np.float32]) -> list[int]:
        """For each feature, how many rows lie outside the range of training."""
        low, high = self._range
        counts: list[int] = np.count_nonzero(~((observation >= low) & (observation <= high)), axis=0).tolist()
        return counts

    def beyond(self, observation: NDArray[np.float32]) -> NDArray[np.bool_] | None:
        """The rows ``[n]`` that the scorer is not trusted with; None where it is trusted with all."""
        if self._trusted is None:
            return None
        low, high = self._trusted
        rows = np.any((observation < low) | (observation > high), axis=-1)
        return rows if rows.any() else None


def ask(scorer: Scorer, rows: ClusterState, demand: PodDemand, training: TrainingRange, span: Span = no_span) -> Scored:
    """What the scorer says of these rows.

    Raises:
        ScoringError: it failed; see `checked`.
    """
    count, outside, beyond = len(rows), None, None
    with span("observe", scorer.name, count):
        observation = observe_unclipped(rows, demand)
        if not training.holds(observation):
            outside, beyond = training.outside(observation), training.beyond(observation)
    with span("infer", scorer.name, count):
        preferences = checked(scorer, rows, demand, clip(observation))
    return Scored(preferences if beyond is None else np.where(beyond, np.nan, preferences), outside)


def checked(
    scorer: Scorer, rows: ClusterState, demand: PodDemand, observation: NDArray[np.float32] | None = None
) -> Preferences:
    """Preferences of `rows` by the scorer: one finite number for each, whatever the scorer does.

    Args:
        scorer: who is asked.
        rows: copied rows ``[n]``.
        demand: of the pod.
        observation: of the two, ``[n, 8]``, if it is made already.

    Raises:
        ScoringError: it failed, or gave another shape.
        NonFinitePreferenceError: it gave NaN or infinity.
    """
    try:
        if observation is not None and isinstance(scorer, ActorScorer):
            return scorer.from_observation(observation, rows, demand)  # finite, and one for each row
        result = scorer.preferences(rows, demand)
    except ScoringError:
        raise
    except (Exception, SystemExit) as error:
        raise ScoringError(f"scorer {scorer.name} failed: {kind_of(error)}") from error
    if result.shape != rows.shape:
        raise ScoringError(f"scorer {scorer.name} gave shape {result.shape} for rows of shape {rows.shape}")
    if not np.isfinite(result).all():
        raise NonFinitePreferenceError(f"scorer {scorer.name} gave a preference that is not finite")
    return result
