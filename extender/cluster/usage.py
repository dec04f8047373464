"""Measured use of nodes, asked for again and again, into the table. Knows no system that measures: see `UsageReader`.

Measurements that stay away are normal (no metrics-server, one that restarts): they are counted, they age, and once they
are too old whoever owns the table drops them (`ClusterTable.forget_usage_before`): use is then expected from the
requests of all pods. The next answer repairs everything by itself.

What makes no sense is no measurement, whichever system it comes from: `implausible` says what. It costs its own node
alone, and is counted by reason. An answer of which nothing can be used is a failure that says why.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final, Protocol

import structlog

from extender.cluster.table import ClusterTable
from extender.errors import SourceError
from extender.supervision import detached

READINGS_AT_ONCE: Final = 100
"""Readings applied between two turns of the event loop: each one visits the node's pods; about 2 ms of work."""

ANSWER_TIMEOUT_S: Final = 60.0
"""Seconds after which a question without an answer counts as failed; the next one is asked once it has ended."""

ABSURD: Final = 10.0
"""So many times what a node can allocate is no use of it. What the system itself uses comes on top of allocatable, so a
node with small allocatable may well be at a few times of it."""

READY_INTERVAL_S: Final = 0.5
"""How often the poller looks whether the cluster was listed, at most."""

LONGEST_NAME: Final = 80
"""Characters of a name that a message shows."""

REASONS: Final = ("undecodable", "incomplete", "value", "time", "zero", "absurd", "unknown_node", "older")
"""Why a measurement was ignored: its entry does not decode; it lacks a resource, a name or a time; a number is negative
or none; its time is none; it says that a node with running pods uses nothing; it is absurdly large; the node is not
known; a later one is."""

log = structlog.stdlib.get_logger(__name__)


class UsageError(SourceError):
    """Use could not be read now."""


@dataclass(frozen=True, slots=True)
class NodeUse:
    """One measurement of one node."""

    node: str
    cpu: float  # mean CPU use over the interval, cores
    memory: float  # memory use (working set), GiB
    pressure: float | None  # share of time that tasks waited for a CPU, 0..1; None where it is not measured
    begin: float  # start of the interval that was measured, seconds since the epoch
    end: float  # its end, seconds since the epoch


@dataclass(frozen=True, slots=True)
class Answer:
    """What a reader was told."""

    uses: Sequence[NodeUse] = ()
    ignored: Mapping[str, int] = field(default_factory=dict)  # entries that were none, by reason; see `REASONS`
    partial: bool = False  # whether the system says that its answer may lack something


class UsageReader(Protocol):
    """Something that measures nodes."""

    @property
    def name(self) -> str:
        """Name of the system, as `usage_source` has it."""
        ...

    @property
    def names_nodes_by(self) -> str:
        """What gives a node's name there, for messages: a field, or a label and its setting."""
        ...

    def read(self) -> Answer:
        """The latest measurement of every node that has one; blocks, called in a thread.

        Raises:
            UsageError: it cannot say now.
        """
        ...

    def close(self) -> None:
        """Close idle connections."""
        ...


class UsageFeed(Protocol):
    """Brings measurements into a table, for as long as it runs."""

    async def run(self) -> None:
        """Measure until cancelled."""
        ...

    def staleness(self) -> float | None:
        """Seconds since the end of the newest measurement; None if there never was one."""
        ...

    def events(self) -> Mapping[str, int]:
        """What happened so far: failures, measurements that were ignored in all and by reason."""
        ...


def ignored_events(refused: Counter[str]) -> dict[str, int]:
    """Measurements that were ignored as events, in all and by reason."""
    return {"ignored": refused.total(), **{f"ignored_{reason}": count for reason, count in refused.items()}}


def implausible(use: NodeUse, cpu_allocatable: float, memory_allocatable: float, busy: bool) -> str | None:
    """Return why a measurement makes no sense, one of `REASONS`; None if it does.

    Args:
        use: the measurement.
        cpu_allocatable: of the node, cores.
        memory_allocatable: of the node, GiB.
        busy: whether pods are seen on the node.
    """
    if not all(math.isfinite(value) and value >= 0.0 for value in (use.cpu, use.memory, use.pressure or 0.0)):
        return "value"
    if not (math.isfinite(use.begin) and 0.0 < use.begin <= use.end):
        return "time"
    if use.memory == 0.0 or (use.cpu == 0.0 and busy):
        return "zero"  # no node that runs uses no memory, and none with pods no CPU
    if use.cpu > ABSURD * cpu_allocatable or use.memory > ABSURD * memory_allocatable:
        return "absurd"
    return None


class Intake:
    """Tells a table of measurements that make sense, and counts the others. On the event loop of the table.

    Args:
        table: whom to tell.
        by: what measured; see `ClusterTable.set_usage`.
        clock: seconds since the epoch.

    Attributes:
        refused: measurements that were ignored, by reason, so far.
    """

    def __init__(self, table: ClusterTable, by: str, clock: Callable[[], float] = time.time) -> None:
        self._table = table
        self._by = by
        self._clock = clock
        self._newest: float | None = None
        self._ahead: dict[str, float] = {}
        """The end of the latest measurement of each node whose clock is ahead, as that clock has it."""
        self.refused: Counter[str] = Counter(dict.fromkeys(REASONS, 0))

    def staleness(self) -> float | None:
        """Seconds since the end of the newest measurement; None if there never was one."""
        return None if self._newest is None else max(0.0, self._clock() - self._newest)

    def take(self, use: NodeUse) -> str | None:
        """Tell the table of one measurement; returns why it was ignored, one of `REASONS`, or None."""
        reason = self._reason(use)
        if reason is not None:
            self.refused[reason] += 1
        return reason

    def _reason(self, use: NodeUse) -> str | None:
        now, room = self._clock(), self._table.room_of(use.node)
        if room is None:
            return "unknown_node"
        reason = implausible(use, *room)
        if reason is not None:
            return reason
        ahead = max(0.0, use.end - now)
        if not ahead:
            self._ahead.pop(use.node, None)
        elif self._ahead.get(use.node) == use.end:
            return None  # the same again: it ages from when it came first
        else:
            # The clock that stamped it is ahead of ours: it was measured just now at the latest.
            self._ahead[use.node] = use.end
            if len(self._ahead) > self._table.node_count:  # of nodes that are gone, nobody sends a later one
                self._ahead = {node: end for node, end in self._ahead.items() if self._table.room_of(node) is not None}
            use = replace(use, begin=use.begin - ahead, end=now)
        values = (use.cpu, use.memory, use.pressure, use.begin)
        if not self._table.set_usage(use.node, *values, until=use.end, ahead=ahead > 0.0, by=self._by):
            return "older"
        newest = use.end if self._newest is None else min(self._newest, now)
        self._newest = max(newest, use.end)
        return None


@dataclass(eq=False)
class UsagePoller:
    """Asks a reader every `interval` seconds and tells the table."""

    reader: UsageReader
    table: ClusterTable  # of the event loop that runs `run`
    interval: float  # seconds between two questions
    clock: Callable[[], float] = time.time
    ready: Callable[[], bool] = lambda: True  # whether to ask: a node's use cannot be judged before pods are known
    spared: Callable[[str], bool] = lambda _: False  # whether another source measures this node, and better
    failures: int = field(default=0, init=False)  # questions without an answer, or with nothing to use in it, so far
    partial: int = field(default=0, init=False)  # answers that the system called incomplete, so far
    trouble: str | None = field(default=None, init=False)  # why the last question had no answer to use; None if it had
    _asking: asyncio.Future[Answer] | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        self._intake = Intake(self.table, self.reader.name, self.clock)
        self.refused = self._intake.refused

    def staleness(self) -> float | None:
        """Seconds since the end of the newest measurement; None if there never was one."""
        return self._intake.staleness()

    def events(self) -> Mapping[str, int]:
        """See `UsageFeed`."""
        return {"failures": self.failures, "partial": self.partial, **ignored_events(self.refused)}

    async def run(self) -> None:
        """Ask until cancelled."""
        try:
            while True:
                if self.ready():
                    await self.poll()
                    await asyncio.sleep(self.interval)
                else:
                    await asyncio.sleep(min(self.interval, READY_INTERVAL_S))
        finally:
            if self._asking is not None:
                self._asking.cancel()  # nobody waits for the answer any more
                self._asking = None
            self.reader.close()

    async def poll(self) -> None:
        """Ask once."""
        try:
            answer = await self._answer()
            taken = await self._take_all(answer)
        except UsageError as error:
            self.failures += 1
            report = log.warning if self.trouble is None else log.debug
            self.trouble = str(error)
            report("no measured use; expecting it from requests once it is too old", error=self.trouble)
            return
        except Exception:
            self.failures += 1
            raise  # the supervisor tells of it, and asks again
        if self.trouble is not None:
            log.info("measured use is back", nodes=taken)
            self.trouble = None

    async def _answer(self) -> Answer:
        """The reader's answer; a question that is still open is waited for before another is asked."""
        if self._asking is None:
            self._asking = detached(self.reader.read, "usage")
        done, _ = await asyncio.wait((self._asking,), timeout=ANSWER_TIMEOUT_S)
        if not done:
            raise UsageError(f"no answer within {ANSWER_TIMEOUT_S:g} s")
        asked, self._asking = self._asking, None
        return asked.result()

    async def _take_all(self, answer: Answer) -> int:
        """Tell the table; returns how many nodes have a new measurement.

        Raises:
            UsageError: nothing could be used.
        """
        refused = Counter(answer.ignored)
        taken, stranger = 0, ""
        uses = [use for use in answer.uses if not self.spared(use.node)]
        for number, use in enumerate(uses, start=1):
            reason = self._intake.take(use)
            if reason is None:
                taken += 1
            else:
                refused[reason] += 1
                stranger = use.node if reason == "unknown_node" else stranger
            if number % READINGS_AT_ONCE == 0:
                await asyncio.sleep(0)
        self.refused.update(answer.ignored)
        if answer.partial:
            self.partial += 1
        if not taken and not refused["older"] and len(uses) == len(answer.uses) and self.table.node_count:
            raise UsageError(
                self._nothing_to_use(refused, stranger if refused["unknown_node"] == len(answer.uses) else "")
            )
        return taken

    def _nothing_to_use(self, refused: Mapping[str, int], stranger: str) -> str:
        """Why an answer is of no use, with what to do about it."""
        ready, _ = self.table.ready_nodes()
        known = f"a node is called {ready[0][:LONGEST_NAME]!r}" if ready else "no node is ready"
        if stranger:
            return (
                f"no measurement names a known node: {self.reader.names_nodes_by} is, for one, "
                f"{stranger[:LONGEST_NAME]!r}, and {known}"
            )
        counted = ", ".join(f"{count} {reason}" for reason, count in sorted(refused.items()) if count)
        return f"no measurement can be used ({counted or 'there is none'}); {known}"
