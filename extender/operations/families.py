"""Metric families, and collectors that read them from a part of the service when Prometheus scrapes.

The kind of a family follows from its name: one that ends in ``_total`` is a counter, a sum since the start. A part
counts in attributes of its own and knows nothing of Prometheus; its families name these attributes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Generic, TypeVar

from prometheus_client import CollectorRegistry, Counter, Histogram, Metric
from prometheus_client.registry import Collector

P = TypeVar("P")

Labelled = Mapping[str, float] | Mapping[tuple[str, str], float] | Mapping[tuple[str, str, str], float]
"""Values by their labels: one label as text, several as a tuple in the family's order."""

SUM: Final = "_total"

RENAMED: Final = {
    f"maddpg_{name}_total"
    for name in (
        "source_events", "ledger_writes", "outcomes", "decision_failures", "pods_ended", "pods_late", "pod_restarts",
        "pods_oom_killed", "spans", "pod_notes", "breaker_opened", "shadow_requests", "shadow_same_best",
        "shadow_priorities", "shadow_seconds",
    )
}  # fmt: skip
"""Counters that were exposed without ``_total`` in release 0.1. They keep that name too, without a type, until 0.3."""


@dataclass(frozen=True, slots=True)
class Family(Generic[P]):
    """One metric with all its labels."""

    name: str
    documentation: str
    # its values in a part, called in any thread; None where it is moved as things happen
    read: Callable[[P], float | Labelled] | None = None
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()  # upper bounds of a histogram's buckets; empty for other kinds

    @property
    def kind(self) -> str:
        """`counter`, `gauge` or `histogram`."""
        return "histogram" if self.buckets else "counter" if self.name.endswith(SUM) else "gauge"

    def counter(self, registry: CollectorRegistry) -> Counter:
        """Return a counter that is moved as things happen."""
        return Counter(self.name.removesuffix(SUM), self.documentation, self.labels, registry=registry)

    def histogram(self, registry: CollectorRegistry) -> Histogram:
        """Return a histogram that is moved as things happen."""
        return Histogram(self.name, self.documentation, self.labels, buckets=self.buckets, registry=registry)

    def metric(self) -> Metric:
        """Return the family without values."""
        return Metric(self.name.removesuffix(SUM), self.documentation, self.kind)

    def of(self, part: P) -> Metric:
        """Return the family with the values of a part."""
        metric = self.metric()
        found = 0.0 if self.read is None else self.read(part)
        values: Mapping[Any, float] = found if isinstance(found, Mapping) else {(): found}
        for key, value in list(values.items()):  # a part may change it meanwhile
            labels = (key,) if isinstance(key, str) else key
            metric.add_sample(self.name, dict(zip(self.labels, labels, strict=True)), float(value))
        return metric


@dataclass(frozen=True, eq=False)
class PartCollector(Collector, Generic[P]):
    """Yields the families of one part with the values of that moment."""

    part: P
    families: Sequence[Family[P]]

    def describe(self) -> Iterator[Metric]:
        """Yield the families without values: the registry asks for their names."""
        return (family.metric() for family in self.families)

    def collect(self) -> Iterator[Metric]:
        """Yield the families with their values."""
        for family in self.families:
            metric = family.of(self.part)
            yield metric
            if family.name in RENAMED:
                former = Metric(metric.name, f"Deprecated: use {family.name}", "unknown")
                former.samples = [sample._replace(name=metric.name) for sample in metric.samples]
                yield former
