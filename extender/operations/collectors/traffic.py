"""Requests and decisions, counted as they happen.

A counter costs about a microsecond, so what every request moves is counted a few dozen at a time, which costs a tenth
of that when caches are cold; `Traffic.settle` counts the rest before a scrape.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from prometheus_client import CollectorRegistry, Counter

from extender.history.ledger import Decision
from extender.operations.families import Family
from extender.protocol.verbs import VERBS
from extender.scorer.fallback import FALLBACK_REASONS
from extender.transport.port import REFUSALS
from policy.features import FEATURE_NAMES

LATENCY_BUCKETS: Final = (
    0.0002, 0.0005, 0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.015, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0
)  # fmt: skip
"""Seconds: fine where kube-scheduler's throughput is decided, coarse up to its default httpTimeout."""

UNCOUNTED: Final = 64
"""Requests that wait to be counted at most; to count them takes about 0.2 ms."""

LATENCY: Final[Family[Any]] = Family(
    "maddpg_request_duration_seconds",
    "Time from a request's arrival to its answer, by verb",
    labels=("verb",),
    buckets=LATENCY_BUCKETS,
)
REQUESTS: Final[Family[Any]] = Family(
    "maddpg_requests_total", "Requests answered, by verb and HTTP status", labels=("verb", "code")
)
DECISIONS: Final[Family[Any]] = Family(
    "maddpg_decisions_total", "Decisions, by the scorer that answered", labels=("scorer",)
)
FALLBACKS: Final[Family[Any]] = Family(
    "maddpg_fallbacks_total", "Decisions not answered by the configured scorer, by reason", labels=("reason",)
)
WARNINGS: Final[Family[Any]] = Family("maddpg_pod_warnings_total", "Pods whose urgency annotation had to be ignored")
UNKNOWN_NODES: Final[Family[Any]] = Family(
    "maddpg_unknown_nodes_total", "Node names asked about that the watch had not shown"
)
CLIPPED: Final[Family[Any]] = Family(
    "maddpg_observation_clipped_total",
    "Scored rows whose feature lay outside the range of training, by feature",
    labels=("feature",),
)
SCORED_ROWS: Final[Family[Any]] = Family(
    "maddpg_scored_rows_total", "Rows given to the scorer because they had changed or were new"
)
BIND_FAILURES: Final[Family[Any]] = Family("maddpg_bind_failures_total", "Binds the API server refused")
REFUSED: Final[Family[Any]] = Family(
    "maddpg_refusals_total", "Requests and connections refused before they were looked at, by limit", labels=("reason",)
)
FAMILIES: Final = (
    LATENCY, REQUESTS, DECISIONS, FALLBACKS, WARNINGS, UNKNOWN_NODES, CLIPPED, SCORED_ROWS, BIND_FAILURES, REFUSED
)  # fmt: skip


class Traffic:
    """Counts requests and decisions. Owned by the event loop's thread."""

    def __init__(self, registry: CollectorRegistry) -> None:
        latency = LATENCY.histogram(registry)
        self._requests, self._decisions = REQUESTS.counter(registry), DECISIONS.counter(registry)
        fallbacks, refused, clipped = (each.counter(registry) for each in (FALLBACKS, REFUSED, CLIPPED))
        self._warnings, self._unknown_nodes = WARNINGS.counter(registry), UNKNOWN_NODES.counter(registry)
        self._scored_rows, self._bind_failures = SCORED_ROWS.counter(registry), BIND_FAILURES.counter(registry)
        # labels are made once: they cost as much as counting, and Prometheus misses a counter's first step without them
        self._latency = {verb: latency.labels(verb) for verb in VERBS}
        self._answered = {verb: self._requests.labels(verb, "200") for verb in VERBS}
        self._reasons = {reason: fallbacks.labels(reason) for reason in FALLBACK_REASONS}
        self._refusals = {reason: refused.labels(reason) for reason in REFUSALS}
        self._features = [clipped.labels(feature) for feature in FEATURE_NAMES]
        self._scorers: dict[str, Counter] = {}
        self._uncounted_rows = 0
        self._uncounted: list[tuple[str, int, float]] = []
        """Requests that were answered: verb, status, seconds."""

    def answered(self, verb: str, code: int, seconds: float) -> None:
        """One request was answered."""
        self._uncounted.append((verb, code, seconds))
        if len(self._uncounted) >= UNCOUNTED:
            self.settle()

    def decided(self, decision: Decision) -> None:
        """One decision was made."""
        counter = self._scorers.get(decision.scorer)
        if counter is None:
            counter = self._scorers[decision.scorer] = self._decisions.labels(decision.scorer)
        counter.inc()
        if decision.fallback_reason is not None:
            self._reasons[decision.fallback_reason].inc()
        if decision.warning is not None:
            self._warnings.inc()
        if decision.unknown:
            self._unknown_nodes.inc(decision.unknown)

    def bind_failed(self) -> None:
        """The API server refused to bind a pod."""
        self._bind_failures.inc()

    def refused(self, reason: str) -> None:
        """A request or a connection was refused for one of `REFUSALS`."""
        self._refusals[reason].inc()

    def scored(self, rows: int, outside: Sequence[int] | None) -> None:
        """So many rows were given to the scorer, and so many of them were outside the range of training, by feature."""
        self._uncounted_rows += rows
        if outside is not None:
            for counter, count in zip(self._features, outside, strict=True):
                if count:
                    counter.inc(count)

    def settle(self) -> None:
        """Count what was left for later."""
        for verb, code, seconds in self._uncounted:
            self._latency[verb].observe(seconds)
            counter = self._answered[verb] if code == 200 else self._requests.labels(verb, str(code))
            counter.inc()
        self._uncounted.clear()
        self._scored_rows.inc(self._uncounted_rows)
        self._uncounted_rows = 0
