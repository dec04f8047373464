"""Measured use of nodes, asked for again and again, into the table. Knows no system that measures: see `UsageReader`.

Measurements that stay away are normal (no metrics-server, one that restarts): they are counted, they age, and once they
are too old whoever owns the table drops them (`ClusterTable.forget_usage_before`): use is then expected from the
requests of all pods. The next answer repairs everything by itself.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

import structlog

from extender.cluster.table import ClusterTable
from extender.errors import SourceError

READINGS_AT_ONCE: Final = 100
"""Readings applied between two turns of the event loop: each one visits the node's pods; about 2 ms of work."""

log = structlog.stdlib.get_logger(__name__)


class UsageError(SourceError):
    """Use could not be read now."""


@dataclass(frozen=True, slots=True)
class NodeUse:
    """One measurement of one node.

    Attributes:
        node: its name.
        cpu: mean CPU use over the interval, cores.
        memory: memory use (working set), GiB.
        pressure: share of time that tasks waited for a CPU, 0..1; None where it is not measured.
        begin: start of the interval that was measured, seconds since the epoch.
        end: its end, seconds since the epoch.
    """

    node: str
    cpu: float
    memory: float
    pressure: float | None
    begin: float
    end: float


class UsageReader(Protocol):
    """Something that measures nodes."""

    def read(self) -> Sequence[NodeUse]:
        """The latest measurement of every node that has one; blocks, called in a thread.

        Raises:
            UsageError: it cannot say now.
        """
        ...

    def close(self) -> None:
        """Close idle connections."""
        ...


class UsagePoller:
    """Asks a reader every `interval` seconds and tells the table.

    Args:
        reader: whom to ask.
        table: whom to tell, on the event loop that runs `run`.
        interval: seconds between two questions.
        clock: seconds since the epoch.

    Attributes:
        failures: questions without an answer, so far.
        ignored: readings the table did not take (unknown nodes, values out of range, older than known), so far.
        trouble: why the last question had no answer; None if it had.
    """

    def __init__(
        self, reader: UsageReader, table: ClusterTable, interval: float, clock: Callable[[], float] = time.time
    ) -> None:
        self._reader = reader
        self._table = table
        self._interval = interval
        self._clock = clock
        self._newest: float | None = None
        self.failures = 0
        self.ignored = 0
        self.trouble: str | None = None

    def staleness(self) -> float | None:
        """Seconds since the end of the newest measurement; None if there never was one."""
        return None if self._newest is None else max(0.0, self._clock() - self._newest)

    async def run(self) -> None:
        """Ask until cancelled."""
        try:
            while True:
                await self.poll()
                await asyncio.sleep(self._interval)
        finally:
            self._reader.close()

    async def poll(self) -> None:
        """Ask once."""
        try:
            readings = await asyncio.to_thread(self._reader.read)
        except UsageError as error:
            self.failures += 1
            report = log.warning if self.trouble is None else log.debug
            self.trouble = str(error)
            report("no measured use; expecting it from requests once it is too old", error=self.trouble)
            return
        if self.trouble is not None:
            log.info("measured use is back", nodes=len(readings))
            self.trouble = None
        for number, reading in enumerate(readings, start=1):
            self._take(reading)
            if number % READINGS_AT_ONCE == 0:
                await asyncio.sleep(0)

    def _take(self, reading: NodeUse) -> None:
        if self._table.set_usage(reading.node, reading.cpu, reading.memory, reading.pressure, reading.begin):
            self._newest = reading.end if self._newest is None else max(self._newest, reading.end)
        else:
            self.ignored += 1
