"""One question to a scorer: the rows are observed once, held against the range of training, and rated. Pure.

That one observation, unclipped, tells which features lie outside the range of training (counted) and which rows are
odd (`extender.scorer.trust`); clipped it is what actors see. Runs in whatever thread scores. Refuses to keep anything.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from extender.errors import kind_of
from extender.scorer.trust import UNRATED, Codes, TrainingRange
from policy.cluster import ClusterState, PodDemand
from policy.errors import ScoringError
from policy.observation import observe_unclipped
from policy.scorers import ActorScorer, Preferences, Scorer

Span = Callable[[str, str, int], AbstractContextManager[object]]
"""Encloses a part of the work, given its name, the scorer's and the number of rows; for tracing."""

_NO_SPAN: Final = nullcontext()


def no_span(_name: str, _scorer: str, _rows: int) -> AbstractContextManager[object]:
    """Encloses nothing."""
    return _NO_SPAN


@dataclass(slots=True)
class Scored:
    """What a scorer said of some rows."""

    preferences: Preferences  # ``[n]``; not finite where the scorer gave none
    # for each feature, how many rows lie outside the range of training; None where none does
    outside: Sequence[int] | None
    odd: Codes | None  # what becomes of each row, ``[n]``, see `extender.scorer.trust`; None where none is odd


def ask(scorer: Scorer, rows: ClusterState, demand: PodDemand, training: TrainingRange, span: Span = no_span) -> Scored:
    """What the scorer says of these rows. Raises `ScoringError` if it failed; see `checked`."""
    count, outside, odd = len(rows), None, None
    with span("observe", scorer.name, count):
        observation = observe_unclipped(rows, demand)
        if not training.holds(observation):
            outside, odd = training.outside(observation), training.codes(observation)
    with span("infer", scorer.name, count):
        preferences = checked(scorer, rows, demand, training.seen(observation, odd))
    if not np.isfinite(preferences).all():
        odd = np.where(np.isfinite(preferences), 0 if odd is None else odd, np.uint8(UNRATED))
    return Scored(preferences, outside, odd)


def checked(
    scorer: Scorer, rows: ClusterState, demand: PodDemand, observation: NDArray[np.float32] | None = None
) -> Preferences:
    """Preferences of `rows` by the scorer: one number for each, whatever the scorer does; finite where it gave one.

    Args:
        scorer: who is asked.
        rows: copied rows ``[n]``.
        demand: of the pod.
        observation: of the two, ``[n, 8]``, if it is made already.

    Raises:
        ScoringError: it failed, or gave another shape.
    """
    try:
        if observation is not None and isinstance(scorer, ActorScorer):
            return scorer.from_observation(observation, rows, demand)  # one for each row
        result = scorer.preferences(rows, demand)
    except ScoringError:
        raise
    except (Exception, SystemExit) as error:
        raise ScoringError(f"scorer {scorer.name} failed: {kind_of(error)}") from error
    if result.shape != rows.shape:
        raise ScoringError(f"scorer {scorer.name} gave shape {result.shape} for rows of shape {rows.shape}")
    return result
