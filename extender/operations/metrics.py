"""The registry of the service's metrics. Parts count by themselves; their collectors read them when Prometheus asks."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, Final, TypeVar

from prometheus_client import CollectorRegistry, GCCollector, ProcessCollector, generate_latest

from extender.operations.collectors import agreement, autoscaling, certificates, inputs, memory, serving, traffic
from extender.operations.collectors.traffic import Traffic
from extender.operations.families import Family, PartCollector

P = TypeVar("P")

FAMILIES: Final[tuple[Family[Any], ...]] = (
    *traffic.FAMILIES,
    *inputs.SOURCE,
    *inputs.TABLE,
    *memory.LEDGER,
    *memory.STORE,
    *memory.NOTES,
    *serving.ENGINE,
    *serving.RELOADER,
    *serving.SUPERVISOR,
    *serving.TRACING,
    *serving.BUILD,
    *certificates.CERTIFICATES,
    *agreement.SHADOW,
    *agreement.EXPERIMENT,
    *autoscaling.SIGNALS,
)
"""Every family of the service, in the order of the documentation; those of parts that are off are not exposed."""


class Metrics:
    """The metrics of one service, in a registry of its own, so that two services in one process do not collide.

    Attributes:
        registry: has them all.
        traffic: counts requests and decisions.
    """

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.traffic = Traffic(self.registry)
        ProcessCollector(registry=self.registry)
        GCCollector(registry=self.registry)

    def register(self, part: P | None, families: Sequence[Family[P]]) -> None:
        """Show a part's families from now on; nothing where the part is off (None)."""
        if part is not None:
            self.registry.register(PartCollector(part, families))

    async def exposition(self) -> bytes:
        """Return all metrics in the text format of Prometheus, written in a thread so that no decision waits."""
        self.traffic.settle()
        return await asyncio.to_thread(generate_latest, self.registry)
