"""Wiring: settings and a source in, an ASGI application out. The only module that knows all the parts.

`create_app` builds everything and starts nothing; the ASGI lifespan starts the source and the upkeep, and stops them.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from functools import partial
from importlib import metadata
from typing import TYPE_CHECKING

from extender.cluster.source import ClusterSource
from extender.cluster.table import ClusterTable
from extender.dashboard import site
from extender.dashboard.content import Content
from extender.engine import Engine
from extender.errors import kind_of
from extender.history.ledger import MIB, Ledger
from extender.history.notes import Notes
from extender.history.unplaced import Unplaced
from extender.observer import Observer
from extender.operations.collectors import agreement, autoscaling, estimates, inputs, memory, polling, serving
from extender.operations.documents import Documents
from extender.operations.endpoints import operations_app
from extender.operations.federation import Replicas
from extender.operations.guard import Guard, ReviewsTokens
from extender.operations.inventory import Inventory, KnowsMachines
from extender.operations.metrics import Metrics
from extender.operations.peers import Peers
from extender.operations.probes import Probes
from extender.operations.signals import Signals
from extender.protocol.verbs import PATHS, Receive, SchedulingVerbs, Scope, Send, not_here
from extender.protocol.wire import HostEncoder
from extender.scorer.load import LoadedScorer, load_required, warm
from extender.scorer.question import no_span
from extender.scorer.reload import BundleReloader
from extender.scorer.scoring import Hooks
from extender.settings import Settings
from extender.supervision import STOP_TIMEOUT_S, Failures, Supervisor
from extender.transport.connection import VerbConnection
from extender.trials.avoidance import Avoidance
from extender.trials.candidates import Trials
from extender.unasked import Unasked
from extender.upkeep import Upkeep

if TYPE_CHECKING:
    from extender.history.store import DecisionStore
    from extender.operations.tracing import Tracing


class Application:
    """The service as ASGI.

    Args:
        loaded: what decides; None: the fallback does, until a bundle comes.

    Attributes:
        peers: the other replicas; None where the settings name none.
        guard: decides who may read the operations endpoints; None where everybody may.
        connection, operations: class of the verbs' connections, and ASGI application of the operations endpoints alone.
        start_error: why the lifespan could not start; None while it could.
    """

    def __init__(
        self,
        *,
        settings: Settings,
        source: ClusterSource,
        loaded: LoadedScorer | None,
        clock: Callable[[], float] = time.time,
        timer: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.settings, self.source = settings, source
        self.start_error: Exception | None = None
        self.supervisor = Supervisor(stop_timeout_s=max(STOP_TIMEOUT_S, settings.shutdown_grace_s + 1.0))
        failures = self.supervisor.failures
        self.metrics = Metrics()
        self.probes = Probes(source)
        self.table = ClusterTable(assumed_time_limit=settings.assumed_time_limit_s, clock=clock)
        self.store = _store(settings, failures, clock)
        keep = None if self.store is None else self.store.put
        self.ledger = Ledger(settings.ledger_size, self.table.row_of, keep, settings.ledger_memory_mib * MIB)
        signals = Signals(self.table, self.ledger.get)
        version = metadata.version("maddpg-scheduler")
        self.tracing = _tracing(settings, version, failures)
        span = no_span if self.tracing is None else self.tracing.span
        trials = self.trials = Trials.of(settings, self.ledger.latest, failures, span)
        self.avoidance = _avoidance(settings, self.ledger, trials, loaded, clock)
        self.engine = Engine(
            settings=settings,
            table=self.table,
            loaded=loaded,
            ledger=self.ledger,
            clock=clock,
            timer=timer,
            hooks=Hooks(self.metrics.traffic.scored, span),
            shadow=trials.shadow,
            experiment=trials.experiment,
        )
        silent = settings.explain_on_pod == "none"
        notes = None if silent else Notes(settings, source, self.ledger.get, self.engine.judge_of)
        self.observer = _observer(settings, source, self.engine, self.metrics, clock, timer)
        for listener in (
            self.observer or Unasked(self.engine, self.metrics.traffic.decided),
            self.ledger,
            signals,
            notes,
            (unplaced := Unplaced()),
        ):  # the ledger before those that look there
            if listener is not None:
                self.table.listeners.subscribe(listener)
        self.reloader = BundleReloader.of(settings, self.engine.serve, loaded, clock)
        self.upkeep = Upkeep(
            settings=settings,
            source=source,
            engine=self.engine,
            signals=signals,
            traffic=self.metrics.traffic,
            notes=notes,
            reloader=self.reloader,
            comparison=trials.comparison,
            avoidance=self.avoidance,
            clock=clock,
        )
        self.table.subscribe_rows((hosts := HostEncoder()).set_host)
        verbs_class, self.connection = _verbs(self.tracing)
        self.verbs = verbs_class(
            engine=self.engine,
            source=source,
            hosts=hosts,
            observer=self.metrics.traffic,
            settings=settings,
            timer=timer,
        )
        self.metrics.register(source, inputs.SOURCE)
        self.metrics.register(_asking(settings, source, signals), polling.KUBELETS)
        self.metrics.register(source if isinstance(source, KnowsMachines) else None, estimates.ESTIMATES)
        self.metrics.register(self.table, inputs.TABLE)
        self.metrics.register(self.ledger, memory.LEDGER)
        self.metrics.register(self.store, memory.STORE)
        self.metrics.register(notes, memory.NOTES)
        self.metrics.register(self.engine, serving.ENGINE)
        self.metrics.register(self.reloader, serving.RELOADER)
        self.metrics.register(self.supervisor, serving.SUPERVISOR)
        self.metrics.register(self.tracing, serving.TRACING)
        self.metrics.register(version, serving.BUILD)
        self.metrics.register(trials.shadow, agreement.SHADOW)
        self.metrics.register(trials.comparison, agreement.EXPERIMENT)
        self.metrics.register(self.avoidance, agreement.AVOIDANCE)
        self.metrics.register(signals, autoscaling.SIGNALS)
        self.metrics.register(self.observer, agreement.OBSERVER)
        documents = Documents(
            engine=self.engine,
            ledger=self.ledger,
            store=self.store,
            reloader=self.reloader,
            trials=trials,
            avoidance=self.avoidance,
            observer=self.observer,
            inventory=Inventory(self.table, source, clock),
            kubernetes=settings.kubernetes_version,
        )
        self.peers = Peers.of(settings)
        others = Replicas(self.peers)
        self.guard = guard = Guard.of(settings, source)
        if self.peers is not None and guard is not None and isinstance(source, ReviewsTokens):
            self.peers.authorization = source.authorization
        self.metrics.register(guard, serving.GUARD)
        self.operations = operations_app(
            probes=self.probes, metrics=self.metrics, documents=documents, others=others, version=version, guard=guard
        )
        content = Content(
            settings=settings,
            table=self.table,
            source=source,
            engine=self.engine,
            ledger=self.ledger,
            unplaced=unplaced,
            documents=documents,
            metrics=self.metrics,
            probes=self.probes,
            version=version,
            clock=clock,
        )
        site.add(self.operations, content, others, self.metrics.traffic.refused)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, or run the lifespan."""
        if scope["type"] == "http" and scope["path"] in PATHS and self.observer is None:
            await self.verbs(scope, receive, send)
        elif scope["type"] == "lifespan":
            await self._lifespan(receive, send)
        elif self.settings.operations_port is None:
            await self.operations(scope, receive, send)
        else:
            await not_here(scope, send)

    async def start(self) -> None:
        """Own the table, warm the scorer, start the source and the upkeep.

        Raises:
            SourceError: the source can never work.
        """
        self.supervisor.attend(asyncio.get_running_loop())
        self.table.claim()
        if self.engine.scoring is not None:
            warm(self.engine.scoring.loaded.scorer)
        if self.store is not None:
            self.ledger.restore(await asyncio.to_thread(self.store.latest, self.settings.ledger_size))
            self.store.start()
            if isinstance(self.source, KnowsMachines):
                self.source.keeper = self.store
        if self.trials.shadow is not None:
            self.trials.shadow.start()
        await self.source.start(self.table, self.supervisor)
        self.upkeep.start(self.supervisor)

    async def stop(self) -> None:
        """Undo `start`: every part is stopped, even if another cannot be."""
        self.probes.stopping = True
        await self.supervisor.stop()
        await self.supervisor.attempt("source", self.source.stop)
        threads = {"bundle": self.reloader, "scorer": self.engine, "shadow": self.trials.shadow, "ledger": self.store}
        for part, owner in {**threads, "tracing": self.tracing}.items():
            if owner is not None:
                await self.supervisor.attempt(part, partial(asyncio.to_thread, owner.stop))

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        await receive()
        try:
            await self.start()
        except Exception as error:
            self.start_error = error
            await self.stop()
            await send({"type": "lifespan.startup.failed", "message": kind_of(error)})
            return
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await self.stop()
        await send({"type": "lifespan.shutdown.complete"})


def create_app(
    settings: Settings,
    source: ClusterSource,
    loaded: LoadedScorer | None = None,
    *,
    clock: Callable[[], float] = time.time,
    timer: Callable[[], float] = time.perf_counter,
) -> Application:
    """Return the service, wired and not started: see `Application`. What decides is by default what the settings name.

    Raises:
        BundleError: the policy bundle is refused, and one is required.
    """
    if loaded is None:
        loaded = load_required(settings)
    return Application(settings=settings, source=source, loaded=loaded, clock=clock, timer=timer)


def _store(settings: Settings, failures: Failures, clock: Callable[[], float]) -> DecisionStore | None:
    """Return the ledger's file, where there is to be one; its library is not even imported otherwise."""
    if settings.ledger_path is None:
        return None
    from extender.history.store import DecisionStore

    return DecisionStore(settings.ledger_path, settings.ledger_rows, settings.ledger_days * 86400.0, failures, clock)


def _tracing(settings: Settings, version: str, failures: Failures) -> Tracing | None:
    """Return what makes spans, where it is on; its library is not even imported otherwise."""
    if settings.tracing_endpoint is None:
        return None
    from extender.operations.tracing import Tracing

    return Tracing(
        settings.tracing_endpoint, settings.tracing_sample_share, settings.shutdown_grace_s, version, failures
    )


def _observer(
    settings: Settings,
    source: ClusterSource,
    engine: Engine,
    metrics: Metrics,
    clock: Callable[[], float],
    timer: Callable[[], float],
) -> Observer | None:
    """Return who rates nodes for the pods that others place, where that is wanted."""
    if not settings.observe:
        return None
    return Observer(
        engine=engine,
        source=source,
        decided=metrics.traffic.decided,
        clock=clock,
        timer=timer,
    )


def _avoidance(
    settings: Settings, ledger: Ledger, trials: Trials, loaded: LoadedScorer | None, clock: Callable[[], float]
) -> Avoidance | None:
    """Return who estimates the late placements avoided; None where others place the pods."""
    if settings.observe:
        return None
    scorer = "" if loaded is None else loaded.scorer.name
    return Avoidance(ledger, settings.kubernetes_version, trials.experiment, scorer, clock)


def _asking(settings: Settings, source: ClusterSource, signals: Signals) -> polling.Asking | None:
    """Return what asks kubelets, for metrics, where measured use comes from them."""
    if not settings.asks_kubelets or not isinstance(source, polling.AsksKubelets):
        return None
    return polling.Asking(source, signals)


def _verbs(tracing: Tracing | None) -> tuple[type[SchedulingVerbs], type[VerbConnection]]:
    """Return the classes of the verbs and of their connections; the traced twins of both with tracing."""
    if tracing is None:
        return SchedulingVerbs, VerbConnection
    from extender.operations.tracing import TracedConnection, TracedVerbs

    return TracedVerbs.by(tracing.tracer), TracedConnection
