"""What stands on each page. Everything that grows with nodes or decisions is put together in threads.

What only the table's thread may read, it copies (`Content.moment`, `Content.rows`); the rest is computed from that.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from itertools import islice
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from extender.cluster.account import NodeAccount, SpeedBasis
from extender.cluster.source import INPUTS, ClusterSource
from extender.cluster.table import ClusterTable
from extender.dashboard.listings import (
    FAILING,
    SIZES,
    URGENCIES,
    advised,
    best,
    card_of,
    charted,
    listed,
    metrics_told,
    ranges,
    settings_told,
)
from extender.engine import Engine
from extender.history.aggregate import summarised
from extender.history.explain import summary
from extender.history.ledger import Decision, Ledger
from extender.history.ranking import page_of
from extender.history.unplaced import MOST, Unplaced, UnplacedPod
from extender.operations.documents import Documents
from extender.operations.metrics import Metrics
from extender.operations.peers import Heard
from extender.operations.probes import Probes
from extender.operations.search import Part, Search
from extender.pace import unhurried
from extender.scorer.load import bundle_path
from extender.settings import Settings
from policy.cluster import COLUMNS, ClusterState, PodDemand
from policy.errors import SchedulerError

LATEST: Final = 2000
"""Decisions that the page "Now" looks at."""

PENDING: Final = 10
"""Pods that the page "Now" names among those that could not be placed."""

COPIED: Final = 256
"""Nodes copied at a time."""

SORTS: Final = ("name", "cpu", "memory", "requested", "used", "pressure", "speed", "preference")


@dataclass(frozen=True, slots=True)
class Rows:
    """A copy of the table's nodes: names, which are ready, what their speeds rest on, and their columns, ``[n]``."""

    names: list[str]
    ready: list[bool]
    bases: list[SpeedBasis]
    state: ClusterState


@dataclass(frozen=True, slots=True)
class Moment:
    """What the page "Now" needs of the table's thread."""

    unready: tuple[str, ...]
    waiting: list[tuple[PodDemand, int]]
    nodes: int
    ready: int
    pods: int
    assumed: int
    pending: list[tuple[UnplacedPod, PodDemand]]  # pods that kube-scheduler could not place, the first ones
    more: int  # how many others there are
    full: bool  # whether there may be even more


class Content:
    """Puts together what stands on each page.

    Args:
        settings: in effect.
        table, source, engine, ledger, unplaced, documents, metrics, probes: the service's parts.
        version: of the service.
        clock: seconds since the epoch; that of decisions.
    """

    def __init__(
        self,
        *,
        settings: Settings,
        table: ClusterTable,
        source: ClusterSource,
        engine: Engine,
        ledger: Ledger,
        unplaced: Unplaced,
        documents: Documents,
        metrics: Metrics,
        probes: Probes,
        version: str,
        clock: Callable[[], float],
    ) -> None:
        self.version = version
        self._clock = clock
        self._settings = settings
        self._table = table
        self._source = source
        self._engine = engine
        self._ledger = ledger
        self._unplaced = unplaced
        self._documents = documents
        self.explained = documents.explained
        self._metrics = metrics
        self._probes = probes

    # ---- on the table's thread -----------------------------------------------------------------------------------

    def moment(self) -> Moment:
        """Copy what the page "Now" needs; on the table's thread."""
        table = self._table
        waiting = table.waiting_classes().most_common(5)
        unplaced = self._unplaced.pods
        pending = [(it, demand) for uid, it in unplaced.items() if (demand := table.waiting_demand(uid)) is not None]
        return Moment(
            unready=self._probes.unready(),
            waiting=waiting,
            nodes=table.node_count,
            ready=table.ready_count,
            pods=table.pod_count,
            assumed=table.assumed_count,
            pending=pending[:PENDING],
            more=max(len(pending) - PENDING, 0),
            full=len(unplaced) >= MOST,
        )

    async def rows(self) -> Rows:
        """Copy all nodes, some at a time, so that requests for verbs go on in between; on the table's thread."""
        found: list[tuple[int, str, NodeAccount]] = []
        states: list[ClusterState] = []
        while True:
            part = self._table.nodes_from(found[-1][0] + 1 if found else 0, COPIED)
            states.append(self._table.state.take(np.array([row for row, _, _ in part], dtype=np.intp)))
            found += part
            if len(part) < COPIED:
                break
            await asyncio.sleep(0)
        accounts = [account for _, _, account in found]
        return Rows(
            names=[name for _, name, _ in found],
            ready=[account.ready for account in accounts],
            bases=[account.basis for account in accounts],
            state=ClusterState(*(np.concatenate([getattr(it, column) for it in states]) for column in COLUMNS)),
        )

    def changes(self) -> tuple[int, ...]:
        """Return numbers that change whenever a decision is made or its pod moves on."""
        counts = self._ledger.counts
        return counts.decisions, counts.bound, sum(counts.ended.values()), sum(counts.failures.values())

    @property
    def stopping(self) -> bool:
        """Whether the service was told to stop."""
        return self._probes.stopping

    # ---- in threads ----------------------------------------------------------------------------------------------

    def now(self, moment: Moment, rows: Rows | None = None) -> dict[str, Any]:
        """Is it healthy, what decides, what waits, how fast, how old the inputs are.

        Args:
            moment: what the table's thread knows.
            rows: of the table; needed where pods could not be placed.
        """
        pending = {pod.uid for pod, _ in moment.pending}
        latest, failing = list[Decision](), list[Decision]()
        for _, it in unhurried(islice(self._ledger.newest_first(), LATEST)):
            latest.append(it)
            if it.outcome is not None and it.outcome.state in FAILING and it.uid not in pending:
                failing.append(it)
        return {
            "moment": moment,
            "policy": self._documents.policy(),
            "latest": summarised(latest),
            "counts": self._ledger.snapshot().document(),
            "inputs": [(name, self._source.staleness().get(name)) for name in INPUTS],
            "limits": {
                "usage": self._settings.usage_time_limit_s,
                "nodes": self._settings.cluster_time_limit_s,
                "pods": self._settings.cluster_time_limit_s,
            },
            "avoided": self._documents.late_avoided(),
            "pending": [] if rows is None else self._advised(moment, rows),
            "failing": [listed(summary(it)) for it in failing[:10]],
            "deadline_ms": self._settings.deadline_ms,
        }

    def series(self) -> bytes:
        """Write what the charts show as JSON."""
        return json.dumps(charted(self._ledger.latest(), int(self._clock()))).encode()

    def decisions(self, search: Search, heard: Heard[Part] | None) -> dict[str, Any]:
        """One page of decisions, newest first.

        Args:
            search: which.
            heard: what other replicas say of the same search; None where there are none.
        """
        told = self._documents.listing(search, heard)
        return {
            "rows": [listed(row) for row in told["decisions"]],
            "following": told["next"],
            "search": search.search,
            "remembered": len(self._ledger),
            "replicas": told.get("replicas"),
            "silent": told.get("silent"),
        }

    def nodes(self, rows: Rows, size: str, urgency: str, sort: str, search: str, page: int) -> dict[str, Any]:
        """All nodes, and what the policy thinks of them for one kind of pod.

        Args:
            rows: of the table.
            size: of the pod, a name in `SIZES`.
            urgency: of the pod, a name in `URGENCIES`.
            sort: one of `SORTS`, with a minus before it for the other direction.
            search: part of the node's name.
            page: from 1.
        """
        demand = PodDemand(*SIZES[size], URGENCIES[urgency])
        preferences, decider = self._preferences(rows.state, demand)
        state = rows.state
        columns: dict[str, Any] = {
            "cpu": state.cpu_allocatable,
            "memory": state.memory_allocatable,
            "requested": state.cpu_requested / state.cpu_allocatable,
            "memory_requested": state.memory_requested / state.memory_allocatable,
            "used": state.cpu_used / state.cpu_allocatable,
            "memory_used": state.memory_used / state.memory_allocatable,
            "pressure": state.cpu_pressure,
            "speed": state.node_speed,
            "preference": preferences,
        }
        key = sort.removeprefix("-")
        chosen = np.array([i for i, name in enumerate(rows.names) if search.lower() in name.lower()], dtype=np.intp)
        by = np.array(rows.names) if key == "name" else columns[key]
        order = chosen[np.argsort(by[chosen], kind="stable")] if len(chosen) else chosen
        order = order[::-1] if sort.startswith("-") else order
        shown, pages, page = page_of(len(order), page)
        listed = [
            {
                "name": rows.names[i],
                "ready": rows.ready[i],
                "basis": rows.bases[i],
                **{name: float(column[i]) for name, column in columns.items()},
            }
            for i in order[shown].tolist()
        ]
        return {
            "rows": listed,
            "page": page,
            "pages": pages,
            "count": len(order),
            "all": len(rows.names),
            "size": size,
            "urgency": urgency,
            "sort": sort,
            "search": search,
            "decider": decider,
            "sizes": SIZES,
            "urgencies": URGENCIES,
            "demand": asdict(demand),
            "best": best(rows.names, preferences),
        }

    def policy(self, rows: Rows) -> dict[str, Any]:
        """What decides, its card, and what it saw in training against what it sees now."""
        scoring = self._engine.scoring
        loaded = None if scoring is None else scoring.loaded
        return {
            "policy": self._documents.policy(),
            "card": card_of(bundle_path(self._settings)) if loaded is not None and loaded.model_sha256 else "",
            "ranges": [] if loaded is None else ranges(loaded, rows.state),
            "tolerance": self._settings.range_tolerance,
        }

    def trials(self) -> dict[str, Any]:
        """What is tried: the shadow and the experiment."""
        from extender.trials.comparison import as_text

        experiment = self._documents.experiment()
        return {
            "shadow": self._documents.shadow(),
            "experiment": experiment,
            "compared": as_text(experiment) if experiment["candidate"] is not None else "",
        }

    def settings(self) -> dict[str, Any]:
        """Every setting in effect, and where it comes from."""
        return {"rows": settings_told(self._settings)}

    def measured(self) -> dict[str, Any]:
        """Every metric, what it means, and its value now."""
        return {"rows": metrics_told(self._metrics.registry)}

    # ---- inside --------------------------------------------------------------------------------------------------

    def _advised(self, moment: Moment, rows: Rows) -> list[dict[str, Any]]:
        rated = {demand: self._preferences(rows.state, demand)[0] for _, demand in moment.pending}
        return advised(moment.pending, rows.names, rows.ready, rows.state, rated)

    def _preferences(self, state: ClusterState, demand: PodDemand) -> tuple[NDArray[np.float64], str]:
        """What the scorer in use, else the fallback, prefers; NaN where it cannot say."""
        scoring = self._engine.scoring
        try:
            if scoring is None or not len(state):
                return np.asarray(self._engine.fallback.preferences(state, demand)), self._engine.fallback.name
            return scoring.rated(state, demand).preferences.astype(np.float64), scoring.loaded.scorer.name
        except SchedulerError as error:
            return np.full(len(state), np.nan), f"nothing: {error}"
