"""Speeds of nodes as they are learned from completions, and which speed each node gets. Knows no Kubernetes objects.

The event loop owns it. What happens to nodes and pods is noted, on the loop or by a thread that watches, as changes of
the evidence (`policy.completions`). A thread takes them up, fits (`policy.speeds`) and rests in proportion to its work.
What it finds changes few rows of the table: a node's speed moves only if its estimate does.

An estimate never overrides what an operator says of a node. Where nothing was learned of it, the node has the speed
that a probe measured, else the published one of its instance type, else 1.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import Counter, deque
from collections.abc import Callable, Collection, Iterator
from dataclasses import replace
from functools import partial
from typing import Final

import structlog

from extender.cluster.account import SpeedBasis
from extender.cluster.completed import Completion
from extender.cluster.machines import FASTEST, SLOWEST, SOURCES, TOLD, Machine
from extender.cluster.recollection import Keeper, RecollectionError, recalled, saved
from extender.cluster.source import BATCH
from extender.cluster.table import ClusterTable
from extender.errors import kind_of
from extender.pace import unhurried
from extender.supervision import detached
from policy.completions import KeptCompletion, SpeedEvidence
from policy.slowdowns import Slowdowns
from policy.speeds import LABELLED_SPREAD, TABLE_SPREAD, UNKNOWN_SPREAD, SpeedEstimate, SpeedFit, SpeedPrior, fit

PAUSE_S: Final = 15.0
"""Least seconds between two fits."""

LONGEST_PAUSE_S: Final = 900.0

FIT_SHARE: Final = 0.02
"""Most of a core that fitting may take: the pause after a fit is so much longer than the fit."""

MOST_WAITING: Final = 50_000
"""Completions that wait for the next fit; further ones are counted and dropped."""

LEAST_COMPLETIONS: Final = 3
"""Completions below which a node keeps the speed that it had without them."""

LEAST_CHANGE: Final = 0.02
"""Change of the logarithm of a speed below which the table keeps the former one: preferences kept for it stay valid."""

SAVE_S: Final = 300.0
"""Seconds between two times that the completions are handed to whoever keeps them."""

PROBE_SPREAD: Final = 0.1
"""Standard deviation of log speed where a probe measured the node."""

RECORD: Final = "speeds"
"""What the keeper calls the completions."""

MOST_PROBES: Final = 20_000
"""Results of probes that are kept; beyond, those of nodes that are not listed yet are dropped."""

_SPREADS: Final = {**dict.fromkeys(TOLD, LABELLED_SPREAD), "probe": PROBE_SPREAD, "published": TABLE_SPREAD}
_REACH: Final = 1.96
_FREE: Final = (1.0, 1.0)

log = structlog.stdlib.get_logger(__name__)

Change = Callable[[], object]


class NodeSpeeds:
    """Which speed each node has, and why.

    Args:
        table: told of speeds that change.
        refused: why nothing is learned; None: completions are.
        pause_s: least seconds between two fits.
        timer: monotonic seconds.
        clock: seconds since the epoch.

    Attributes:
        refused: see there.
        fitted: what was found last.
        fit_s: CPU seconds that it took.
        fitted_at: when, by `timer`; None before the first fit.
        dropped: completions that found no room.
    """

    def __init__(
        self,
        table: ClusterTable,
        refused: str | None = None,
        pause_s: float = PAUSE_S,
        timer: Callable[[], float] = time.monotonic,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._table = table
        self._least_pause_s = self._pause_s = pause_s
        self._timer, self._clock = timer, clock
        self._machines: dict[str, Machine] = {}
        self._probes: dict[str, float] = {}
        self._learned: dict[str, tuple[float, SpeedBasis]] = {}
        self._throttled: dict[str, tuple[float, float]] = {}
        """Share of its speed that a throttled node's pods get lately, and share of its CPU at which it is full; without
        the nodes that are not throttled."""
        self._sources: dict[str, str] = {}
        self._changes: deque[Change] = deque()
        self._replaced: set[str] = set()
        """Nodes that became other machines since the fit in progress began: what it finds is not theirs."""
        self._evidence = SpeedEvidence()
        self._slowdowns = Slowdowns()
        self._recalled: dict[str, tuple[str, list[KeptCompletion]]] = {}
        """Completions of nodes that were not seen yet since the start."""
        self._keeper: Keeper | None = None
        self._kept_at = timer()
        self.refused = refused
        self.fitted = SpeedFit()
        self.fit_s = 0.0
        self.fitted_at: float | None = None
        self.dropped = 0

    def remember(self, keeper: Keeper) -> None:
        """Take back what an earlier process learned, and have it kept from now on; in a thread, before nodes are seen.

        A record that is of no use is logged, and nothing of it is taken.
        """
        self._keeper = keeper
        record = keeper.kept(RECORD)
        if record is None:
            return
        try:
            self._recalled = recalled(record, self._clock())
        except RecollectionError as error:
            log.warning("completions of an earlier process are not taken back", reason=kind_of(error))

    # ---- what happens --------------------------------------------------------------------------------------------

    def present(self, name: str, machine: Machine) -> tuple[float, SpeedBasis]:
        """The node exists: return its speed and what that rests on."""
        before = self._machines.get(name)
        if before is not None and before.identity != machine.identity:
            self.absent(name)
            before = None
        self._machines[name] = machine
        if before != machine:
            self._expect(name, machine)
        identity, completions = self._recalled.pop(name, ("", []))
        if identity == machine.identity and self.refused is None:
            self._changes.append(partial(self._restore, name, completions, self._timer()))
        return self._standing(name, machine)

    def absent(self, name: str) -> None:
        """The node is gone, or another machine bears its name: forget what was learned of it."""
        if self._machines.pop(name, None) is None:
            return
        self._probes.pop(name, None)
        self._learned.pop(name, None)
        self._throttled.pop(name, None)
        self._sources.pop(name, None)
        self._replaced.add(name)
        if self.refused is None:
            self._changes.append(partial(self._forget, name))

    def keep_only(self, names: Collection[str]) -> None:
        """Forget every node that is not in `names` (pass a set)."""
        for name in [name for name in self._machines if name not in names]:
            self.absent(name)
        self._probes = {name: speed for name, speed in self._probes.items() if name in names}
        self._recalled.clear()  # a list has shown every node

    def probed(self, name: str, speed: float) -> None:
        """A probe measured this speed on a node, perhaps before the node was listed; on the event loop.

        An absurd speed is ignored.
        """
        machine = self._machines.get(name)
        if not SLOWEST <= speed <= FASTEST or (machine is None and len(self._probes) >= MOST_PROBES):
            return
        self._probes[name] = speed
        if machine is not None:
            self._expect(name, machine)
            self._table.set_speed(name, *self._standing(name, machine))

    def completed(self, completion: Completion) -> None:
        """A pod succeeded; from any thread."""
        if self.refused is not None or completion.cpu_s is None:
            return
        if len(self._changes) >= MOST_WAITING:
            self.dropped += 1
            return
        used = self._table.share_in_use(completion.node)
        self._changes.append(partial(self._take, completion, completion.cpu_s, self._timer(), used))

    # ---- what is known -------------------------------------------------------------------------------------------

    def counts(self) -> dict[str, int]:
        """Nodes by the source of their speed; from any thread."""
        return {**dict.fromkeys(SOURCES, 0), **Counter(list(self._sources.values()))}

    def evidence(self) -> dict[str, int]:
        """Completions by what became of them as evidence, and changes that were found; from any thread."""
        found = ("kept", "short", "invalid", "no_room", "template_changed", "node_changed")
        return {**{name: self._evidence.counts[name] for name in found}, "dropped": self.dropped}

    def estimate(self, name: str) -> SpeedEstimate | None:
        """What a node's completions show, used or not; None where they show nothing. From any thread."""
        return None if name in self._replaced else self.fitted.estimates.get(name)

    def slowdown(self, name: str) -> float | None:
        """How many times as long pods on a node run per CPU time as elsewhere, lately; None where it is not known."""
        return self._slowdowns.of(name, self._timer())

    def machine(self, name: str) -> Machine | None:
        """What a node says of its machine; None where it is not known. From any thread."""
        return self._machines.get(name)

    @property
    def fit_age(self) -> float | None:
        """Seconds since the last fit; None before the first."""
        return None if self.fitted_at is None else self._timer() - self.fitted_at

    # ---- fitting -------------------------------------------------------------------------------------------------

    async def step(self) -> None:
        """Wait, take up what happened, fit, and tell the table; to be called again and again."""
        await asyncio.sleep(self._pause_s)
        if not self._changes:
            for name in list(self._throttled):  # which is forgotten within minutes
                self._learn(name, self.fitted.estimates.get(name))
            return
        self._replaced.clear()
        fitted, self.fit_s = await detached(self._fitted, "speeds")
        self.fitted, self.fitted_at = fitted, self._timer()
        self._pause_s = min(max(self._least_pause_s, self.fit_s / FIT_SHARE), LONGEST_PAUSE_S)
        names = list(self._machines)
        for begin in range(0, len(names), BATCH):
            for name in names[begin : begin + BATCH]:
                self._learn(name, fitted.estimates.get(name))
            await asyncio.sleep(0.0)  # requests wait no longer than for one batch

    def _fitted(self) -> tuple[SpeedFit, float]:
        """Take up what happened and fit; in a thread. Returns what was found, and the CPU seconds it took."""
        used = time.thread_time()
        for change in unhurried(self._taken()):
            change()
        fitted = fit(self._evidence.completions(self._timer()))
        self._evidence.adopt(fitted)
        if self._keeper is not None and self._timer() - self._kept_at >= SAVE_S:
            self._kept_at = self._timer()
            identities = {name: machine.identity for name, machine in self._machines.copy().items()}
            kept = unhurried(self._evidence.kept(self._timer()))
            self._keeper.keep(RECORD, saved(kept, identities, self._clock()))
        return fitted, time.thread_time() - used

    def _take(self, completion: Completion, cpu_s: float, at: float, used: float | None) -> None:
        if self._evidence.completed(completion.node, completion.template, cpu_s, at):
            self._slowdowns.completed(completion.node, completion.template, completion.run_s, cpu_s, at, used)

    def _restore(self, name: str, completions: list[KeptCompletion], now: float) -> None:
        for it in completions:
            self._evidence.completed(name, it.template, math.exp(it.log_cpu), now - it.age_s)

    def _forget(self, name: str) -> None:
        self._evidence.forget(name)
        self._slowdowns.forget(name)

    def _taken(self) -> Iterator[Change]:
        for _ in range(len(self._changes)):
            yield self._changes.popleft()

    def _learn(self, name: str, estimate: SpeedEstimate | None) -> None:
        """Use an estimate of a node, where it says enough, and what its pods waited lately."""
        machine = self._machines.get(name)
        if machine is None or name in self._replaced:
            return
        before = self._learned.pop(name, None)
        if estimate is not None and estimate.completions >= LEAST_COMPLETIONS:
            speed = min(max(estimate.speed, SLOWEST), FASTEST)
            if before is not None and abs(math.log(speed / before[0])) < LEAST_CHANGE:
                speed = before[0]
            self._learned[name] = (
                speed,
                SpeedBasis(
                    "completions",
                    estimate.low,
                    estimate.high,
                    estimate.completions,
                    estimate.templates,
                    estimate.anchored,
                ),
            )
        now, former = self._timer(), self._throttled.pop(name, _FREE)
        found = self._slowdowns.share_left(name, now), self._slowdowns.full_at(name, now)
        if found != _FREE:
            moved = max(abs(math.log(share / before)) for share, before in zip(found, former, strict=True))
            self._throttled[name] = former if moved < LEAST_CHANGE else found
        self._table.set_speed(name, *self._standing(name, machine))

    def _expect(self, name: str, machine: Machine) -> None:
        """Let the evidence know what is known of a node besides."""
        if self.refused is not None:
            return
        speed, source = self._without_completions(name, machine)
        spread = _SPREADS.get(source)
        prior = SpeedPrior(machine.node_class) if spread is None else SpeedPrior(machine.node_class, speed, spread)
        self._changes.append(partial(self._evidence.expect, name, prior))

    def _without_completions(self, name: str, machine: Machine) -> tuple[float, str]:
        """Speed of a node and its source, completions left out."""
        if machine.source not in TOLD and (probed := self._probes.get(name)) is not None:
            return probed, "probe"
        return machine.speed, machine.source

    def _standing(self, name: str, machine: Machine) -> tuple[float, SpeedBasis]:
        """The speed that a node has now, and what it rests on."""
        learned = None if machine.source in TOLD else self._learned.get(name)
        if learned is None:
            speed, source = self._without_completions(name, machine)
            reach = None if source in TOLD else math.exp(_REACH * _SPREADS.get(source, UNKNOWN_SPREAD))
            basis = SpeedBasis(source) if reach is None else SpeedBasis(source, speed / reach, speed * reach)
            learned = speed, basis
        self._sources[name] = learned[1].source
        return _less(*learned, *self._throttled.get(name, _FREE))


def _less(speed: float, basis: SpeedBasis, share: float, full_at: float) -> tuple[float, SpeedBasis]:
    """A speed and what it rests on, less what throttling takes of it."""
    if (share, full_at) == _FREE:
        return speed, basis
    low, high = (None if bound is None else share * bound for bound in (basis.low, basis.high))
    return share * speed, replace(basis, low=low, high=high, share_left=share, full_at=full_at)
