"""Why the configured scorer did not answer: one word for each kind of failure. Refuses to decide what happens then."""

from __future__ import annotations

from typing import Final

from extender.errors import (
    BreakerOpenError,
    DecisionLateError,
    NoScorerError,
    OutOfRangeError,
    ScorerBusyError,
    StaleClusterError,
    StaleUsageError,
)
from policy.errors import NonFinitePreferenceError, ScoringError

FAILED: Final = "failed"
TOO_MANY_NODES: Final = "too_many_nodes"

_WORDS: Final[tuple[tuple[type[ScoringError], str], ...]] = (
    (DecisionLateError, "late"),
    (ScorerBusyError, "busy"),
    (NoScorerError, "missing"),
    (BreakerOpenError, "breaker_open"),
    (NonFinitePreferenceError, "non_finite"),
    (StaleClusterError, "stale_cluster"),
    (StaleUsageError, "stale_usage"),
    (OutOfRangeError, "out_of_range"),
)

FALLBACK_REASONS: Final = (*(word for _, word in _WORDS), FAILED, TOO_MANY_NODES)
"""Every word that a decision may carry as `fallback_reason`."""


def reason_of(error: ScoringError) -> str:
    """The word for what a scorer raised, or what was raised in its place."""
    return next((word for kind, word in _WORDS if isinstance(error, kind)), FAILED)
