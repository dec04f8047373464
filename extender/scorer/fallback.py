"""Why the configured scorer does not answer: one word for each kind of failure. Refuses to decide what happens then."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from extender.errors import (
    BreakerOpenError,
    DecisionLateError,
    NoScorerError,
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
)

FALLBACK_REASONS: Final = (*(word for _, word in _WORDS), FAILED, TOO_MANY_NODES)
"""Every word that a decision may carry as `fallback_reason`."""


def reason_of(error: ScoringError) -> str:
    """The word for what a scorer raised, or what was raised in its place."""
    return next((word for kind, word in _WORDS if isinstance(error, kind)), FAILED)


def staleness(ages: Mapping[str, float | None], cluster_limit_s: float, usage_limit_s: float) -> ScoringError | None:
    """Why the policy should not decide from inputs of these ages; None if it may.

    An input that was never current is no reason: before the first list nothing is known of any node, and a cluster
    without measurements is rated by what its pods request.

    Args:
        ages: seconds since each of `extender.cluster.source.INPUTS` was last known to be current.
        cluster_limit_s: oldest acceptable age of nodes and pods, seconds.
        usage_limit_s: oldest acceptable age of the newest measurement of use, seconds.
    """
    for name in ("nodes", "pods"):
        age = ages.get(name)
        if age is not None and age > cluster_limit_s:
            return StaleClusterError(f"what is known of {name} is {age:.0f} s old, over {cluster_limit_s:g} s")
    age = ages.get("usage")
    if age is not None and age > usage_limit_s:
        return StaleUsageError(f"measured use is {age:.0f} s old, over {usage_limit_s:g} s")
    return None
