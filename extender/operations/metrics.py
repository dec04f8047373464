"""The registry of the service's metrics. Parts count by themselves; their collectors read them when Prometheus asks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final, TypeVar

from prometheus_client import CollectorRegistry, GCCollector, Metric, ProcessCollector, generate_latest
from prometheus_client.registry import Collector
from prometheus_client.samples import Sample

from extender.operations.collectors import (
    agreement,
    autoscaling,
    connections,
    estimates,
    inputs,
    memory,
    polling,
    serving,
    traffic,
)
from extender.operations.collectors.traffic import Traffic
from extender.operations.families import Family, PartCollector
from extender.pace import unhurried

P = TypeVar("P")

FAMILIES: Final[tuple[Family[Any], ...]] = (
    *traffic.FAMILIES,
    *inputs.SOURCE,
    *polling.KUBELETS,
    *estimates.ESTIMATES,
    *inputs.TABLE,
    *memory.LEDGER,
    *memory.STORE,
    *memory.NOTES,
    *serving.ENGINE,
    *serving.RELOADER,
    *serving.SUPERVISOR,
    *serving.TRACING,
    *serving.GUARD,
    *serving.BUILD,
    *connections.CONNECTIONS,
    *connections.CERTIFICATES,
    *agreement.SHADOW,
    *agreement.EXPERIMENT,
    *agreement.AVOIDANCE,
    *agreement.OBSERVER,
    *autoscaling.SIGNALS,
)
"""Every family of the service, in the order of the documentation; those of parts that are off are not exposed."""


class Metrics:
    """The metrics of one service, in a registry of its own, so that two services in one process do not collide."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.traffic = Traffic(self.registry)
        ProcessCollector(registry=self.registry)
        GCCollector(registry=self.registry)

    def register(self, part: P | None, families: Sequence[Family[P]]) -> None:
        """Show a part's families from now on; nothing where the part is off (None)."""
        if part is not None:
            self.registry.register(PartCollector(part, families))

    def settle(self) -> None:
        """Count what was left for later; on the event loop, before `exposition`."""
        self.traffic.settle()

    def exposition(self) -> bytes:
        """Return all metrics in the text format of Prometheus. In a thread."""
        parts = []
        for family in unhurried(self.registry.collect()):
            # one gauge may have thousands of samples; other kinds are written whole, with what else belongs to them
            size = SAMPLES if family.type == "gauge" else max(len(family.samples), 1)
            for begin in unhurried(range(0, max(len(family.samples), 1), size)):
                text = generate_latest(_Part(family, family.samples[begin : begin + size]))
                parts.append(text.split(b"\n", HEADER_LINES)[HEADER_LINES] if begin else text)
        return b"".join(parts)


SAMPLES: Final = 32
"""Samples that are written at a time."""

HEADER_LINES: Final = 2
"""Lines of a family before its samples: HELP and TYPE."""


class _Part(Collector):
    """Some samples of one family, for `generate_latest`."""

    def __init__(self, family: Metric, samples: list[Sample]) -> None:
        self._part = Metric(family.name, family.documentation, family.type, family.unit)
        self._part.samples = samples

    def collect(self) -> Iterator[Metric]:
        """Yield the part."""
        yield self._part
