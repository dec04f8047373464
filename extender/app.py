"""Wiring: settings and a source in, an ASGI application out. The only module that knows all the parts.

`create_app` builds everything and starts nothing; the ASGI lifespan starts the source and the housekeeping, and stops
them. `Application.operations` serves health, metrics and decisions on a port of their own, where one is configured.
"""

from __future__ import annotations

import asyncio
import gc
import random
import time
from collections.abc import Callable
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from fastapi import FastAPI

from extender import logs
from extender.cluster.source import ClusterSource, NoteTaker
from extender.cluster.table import ClusterTable
from extender.engine import Engine, Limits
from extender.errors import SettingsError
from extender.history.ledger import Ledger
from extender.history.notes import Notes
from extender.operations.endpoints import operations_app
from extender.operations.metrics import VERBS, Metrics
from extender.operations.probes import Probes
from extender.operations.signals import Signals, judge
from extender.pods import UrgencyRules
from extender.protocol.verbs import PATHS, Receive, SchedulingVerbs, Scope, Send
from extender.protocol.wire import HostEncoder
from extender.scorer import freshness
from extender.scorer.load import LoadedScorer, load_candidate, load_heuristic, load_policy, warm
from extender.scorer.question import no_span
from extender.scorer.reload import BundleReloader
from extender.scorer.scoring import Hooks, ScoringLimits
from extender.settings import Settings
from extender.supervision import Supervisor
from extender.transport.connection import VerbConnection
from extender.trials import comparison
from extender.trials.experiment import Experiment
from extender.trials.shadow import Shadow
from policy import heuristics
from policy.bundle import shipped_bundle_path
from policy.errors import BundleError, SchedulerError

if TYPE_CHECKING:
    from extender.history.store import DecisionStore
    from extender.operations.tracing import Tracing

_log = logs.get(__name__)

GC_THRESHOLD: Final = 20_000
"""Objects that may come before the collector looks for cycles among them; Python's own is 700."""

EXPERIMENT_INTERVAL_S: Final = 60.0
"""How often an experiment's metrics are brought up to date; it takes some 10 ms a thousand decisions."""


SIGNALS_INTERVAL_S: Final = 5.0
"""How often the signals for autoscalers are worked out: no autoscaler asks more often."""


def load_scorer(settings: Settings) -> LoadedScorer:
    """The scorer that the settings name.

    Raises:
        BundleError: the policy bundle is refused; the message names the field.
    """
    if settings.scorer != "policy":
        return load_heuristic(settings.scorer)
    return load_policy(bundle_path(settings), settings.inference_threads)


def bundle_path(settings: Settings) -> Path:
    """Folder of the policy bundle that the settings name."""
    return settings.bundle_path or shipped_bundle_path()


class Application:
    """The service as ASGI.

    Attributes:
        settings, source, table, engine, ledger, store, signals, shadow, experiment, metrics, probes, verbs: its parts.
        tracing, notes: others; None where they are off.
        connection: what kube-scheduler's connections are made of.
        operations: ASGI application of the operations endpoints alone.
        start_error: why the lifespan could not start; None while it could.
    """

    def __init__(
        self,
        settings: Settings,
        source: ClusterSource,
        loaded: LoadedScorer | None,
        clock: Callable[[], float] = time.time,
        timer: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.settings = settings
        self.source = source
        self._clock = clock
        self.supervisor = Supervisor()
        self.metrics = Metrics()
        self.table = ClusterTable(assumed_time_limit=settings.assumed_time_limit_s, clock=clock)
        self.store = _store(settings, clock)
        self.ledger = Ledger(
            settings.ledger_size,
            row_of=lambda name: int(self.table.rows_of([name])[0]),
            keep=None if self.store is None else self.store.put,
        )
        self.table.listeners.subscribe(self.ledger)
        self.signals = Signals(self.table, self.ledger.get)
        self.table.listeners.subscribe(self.signals)
        version = metadata.version("maddpg-scheduler")
        self.tracing = _tracing(settings, version)
        self._span = no_span if self.tracing is None else self.tracing.span
        self._refused: dict[str, str] = {}
        shadowing = self._candidate("shadow", settings.shadow)
        self.shadow = None if shadowing is None else Shadow(shadowing)
        trying = self._candidate("experiment", settings.experiment)
        self.experiment = None if trying is None else self._experiment(trying)
        self.engine = Engine(
            table=self.table,
            loaded=loaded,
            fallback=heuristics.by_name(settings.fallback),
            limits=Limits(
                deadline_s=settings.deadline_ms / 1000.0,
                max_nodes=settings.max_nodes,
                neutral_priority=settings.unknown_node_priority,
            ),
            scoring=ScoringLimits(
                demand_classes=settings.demand_classes,
                breaker_failures=settings.breaker_failures,
                breaker_cooling_s=settings.breaker_cooling_s,
                range_tolerance=settings.range_tolerance,
            ),
            urgency=UrgencyRules(settings.urgency_by_priority_class, settings.urgency_by_qos),
            ledger=self.ledger,
            generator=random.Random(settings.random_seed),  # noqa: S311 # nosec B311 # a draw, no secret
            clock=clock,
            timer=timer,
            hooks=Hooks(
                scored=self.metrics.scored,
                failed=lambda error: _log.error("scorer failed", error=repr(error)),
                breaker=lambda state: _log.warning("circuit breaker of the scorer changed", state=state.value),
                span=self._span,
            ),
            shadow=self.shadow,
            experiment=self.experiment,
        )
        self.notes = self._notes()
        self.probes = Probes(source)
        self.reloader = self._reloader(loaded) if settings.scorer == "policy" else None
        hosts = HostEncoder()
        self.table.subscribe_rows(hosts.set_host)
        enabled = frozenset(verb for verb in VERBS if getattr(settings, f"enable_{verb}"))
        self.verbs, self.connection = _verbs(
            self.tracing,
            self.engine,
            source,
            hosts,
            self.metrics,
            enabled,
            settings.max_body_bytes,
            settings.body_timeout_s,
            settings.answer_every_node,
            timer,
        )
        self._show(loaded)
        self.operations: FastAPI = operations_app(
            self.probes,
            self.metrics,
            self.refresh_gauges,
            self.ledger,
            self.store,
            self.engine.scorer_of,
            self.policy_status,
            self.shadow_status,
            self.experiment_status,
            version,
        )
        self.start_error: Exception | None = None
        self._frozen = False
        self._stale: type[object] = type(None)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, or run the lifespan."""
        if scope["type"] == "http" and scope["path"] in PATHS:
            await self.verbs(scope, receive, send)
        elif scope["type"] == "lifespan":
            await self._lifespan(receive, send)
        elif self.settings.operations_port is None:
            await self.operations(scope, receive, send)
        else:
            await _not_here(scope, send)

    async def start(self) -> None:
        """Own the table, warm the scorer, start the source and the housekeeping.

        Raises:
            SourceError: the source can never work.
        """
        self.table.claim()
        if self.engine.scoring is not None:
            warm(self.engine.scoring.loaded.scorer)
        if self.store is not None:
            self.ledger.restore(await asyncio.to_thread(self.store.latest, self.settings.ledger_size))
            self.store.start()
        if self.shadow is not None:
            self.shadow.start()
        await self.source.start(self.table, self.supervisor)
        start = self.supervisor.start
        start("housekeeping", self._keep_house, self.settings.housekeeping_interval_s)
        start("signals", self._follow_signals, SIGNALS_INTERVAL_S)
        if self.notes is not None:
            start("notes", self.notes.run)
        if self.reloader is not None:
            start("bundle", partial(self.reloader.run, self.settings.bundle_reload_s))
        if self.experiment is not None:
            start("experiment", self._follow_experiment, EXPERIMENT_INTERVAL_S)

    async def stop(self) -> None:
        """Undo `start`: each part is stopped, even if another cannot be."""
        self.probes.stopping = True
        await self.supervisor.stop()
        for part, stop in {
            "source": self.source.stop,
            "scorer": self._stop_scorer,
            "shadow": self._stop_shadow,
            "ledger": self._stop_store,
            "tracing": self._stop_tracing,
        }.items():
            await self.supervisor.attempt(part, stop)

    async def _stop_scorer(self) -> None:
        if not await asyncio.to_thread(self.engine.stop):
            _log.warning("the scorer is still working; the process ends without it")

    async def _stop_shadow(self) -> None:
        if self.shadow is not None and not await asyncio.to_thread(self.shadow.stop):
            _log.warning("the shadow's candidate is still working; the process ends without it")

    async def _stop_store(self) -> None:
        if self.store is not None and not await asyncio.to_thread(self.store.stop):
            _log.warning("decisions were not all written to the ledger's file", waiting=self.store.waiting)

    async def _stop_tracing(self) -> None:
        if self.tracing is not None and not await asyncio.to_thread(self.tracing.stop, self.settings.shutdown_grace_s):
            _log.warning("the collector of traces did not take the last spans in time")

    def refresh_gauges(self) -> None:
        """Bring the metrics that nobody moves as things happen up to date."""
        scoring = self.engine.scoring
        self.metrics.refresh(self.table, self.source, self.ledger, self.store)
        self.metrics.guarded(None if scoring is None else scoring.breaker)
        if self.shadow is not None:
            self.metrics.shadowed(self.shadow)
        if self.notes is not None:
            self.metrics.noted(self.notes.counts)
        if self.tracing is not None:
            self.metrics.traced(self.tracing.exported, self.tracing.failed)

    def reload(self) -> None:
        """Look for another policy bundle now, off the path of any request; what it finds shows in `policy_status`."""
        if self.reloader is None:
            _log.warning("nothing to reload: a heuristic decides", scorer=self.settings.scorer)
        else:
            self.reloader.request()

    def policy_status(self) -> dict[str, Any]:
        """What decides, and what became of the bundles seen since, as JSON."""
        scoring = self.engine.scoring
        status: dict[str, Any] = {
            "fallback": self.engine.fallback.name,
            "serving": None,
            "breaker": None,
            "bundle": None if self.reloader is None else self.reloader.status(),
        }
        if scoring is not None:
            loaded, breaker = scoring.loaded, scoring.breaker
            status["serving"] = {
                "scorer": loaded.scorer.name,
                "temperature": loaded.temperature,
                "model_sha256": loaded.model_sha256,
                "manifest_sha256": loaded.manifest_sha256,
            }
            status["breaker"] = {"state": breaker.state.value, "opened": breaker.opened}
        return status

    def shadow_status(self) -> dict[str, Any]:
        """How far the shadow's candidate agrees, as JSON; why there is none, where one was wanted."""
        if self.shadow is None:
            return {"candidate": None, "refused": self._refused.get("shadow")}
        return {**self.shadow.status(), "refused": None}

    def experiment_status(self) -> dict[str, Any]:
        """What the experiment came to, as JSON, shown by the metrics from now on; in any thread, for it takes a while.

        Why there is none, where one was wanted.
        """
        experiment = self.experiment
        if experiment is None:
            return {"candidate": None, "refused": self._refused.get("experiment")}
        result = comparison.compared(self.ledger.latest(), experiment.key, experiment.share)
        self.metrics.experimented(result)
        loaded = experiment.candidate
        return {
            "experiment": experiment.key,
            "candidate": {
                "scorer": loaded.scorer.name,
                "model_sha256": loaded.model_sha256,
                "manifest_sha256": loaded.manifest_sha256,
            },
            "share": experiment.share,
            "salt": experiment.salt,
            "refused": None,
            **result,
        }

    def _notes(self) -> Notes | None:
        """Whoever says on pods why they went where they did, where that is wanted."""
        settings = self.settings
        if settings.explain_on_pod == "none":
            return None
        if not isinstance(self.source, NoteTaker):
            raise SettingsError(f"explain_on_pod is {settings.explain_on_pod}, and this cluster's pods take no notes")
        notes = Notes(
            self.source,
            settings.explain_on_pod,
            settings.explain_on_pod_rate,
            self.ledger.get,
            self.engine.scorer_of,
        )
        self.table.listeners.subscribe(notes)
        return notes

    def _experiment(self, candidate: LoadedScorer) -> Experiment:
        hooks = Hooks(
            failed=lambda error: _log.error("candidate of the experiment failed", error=repr(error)),
            breaker=lambda state: _log.warning("circuit breaker of the candidate changed", state=state.value),
            span=self._span,
        )
        return Experiment(candidate, self.settings.experiment_share, self.settings.experiment_salt, hooks)

    async def update_signals(self) -> None:
        """Work out in a thread what an autoscaler should know, and show it in the metrics."""
        judgement = await asyncio.to_thread(judge, self.signals.sample(), self.settings.node_metrics)
        self.metrics.judged(judgement)

    async def _follow_signals(self) -> None:
        """Keep the signals for autoscalers current."""
        if self.source.synced:
            await self.update_signals()

    async def _follow_experiment(self) -> None:
        """Keep the experiment's metrics current."""
        await asyncio.to_thread(self.experiment_status)

    def _candidate(self, setting: str, name: str | None) -> LoadedScorer | None:
        """The candidate that a setting names; a bad one is refused and logged, and serving goes on without it."""
        if name is None:
            return None
        try:
            return load_candidate(name, self.settings.inference_threads)
        except SchedulerError as error:
            self._refused[setting] = str(error)
            _log.error("candidate refused; serving goes on without it", setting=setting, error=str(error))
            return None

    def _reloader(self, loaded: LoadedScorer | None) -> BundleReloader:
        def install(fresh: LoadedScorer) -> None:
            self.engine.serve(fresh)
            self._show(fresh)
            self.metrics.policy_swaps.inc()

        return BundleReloader(
            bundle_path(self.settings),
            lambda path: load_policy(path, self.settings.inference_threads),
            install,
            loaded,
            on_refusal=lambda refusal: self.metrics.policy_refusals.labels(refusal.reason).inc(),
            clock=self._clock,
        )

    def _show(self, loaded: LoadedScorer | None) -> None:
        if loaded is not None:
            self.metrics.loaded(loaded)

    def keep_house(self) -> None:
        """Drop what is too old and refresh the gauges: once a second, off the path of any request."""
        expired = self.table.expire_assumed()
        if expired:
            self.metrics.assumed_expired.inc(expired)
        self._judge_freshness()
        forgotten = self.table.forget_usage_before(self._clock() - self.settings.usage_time_limit_s)
        if forgotten:
            _log.warning("measured use is too old; expecting it from requests", nodes=forgotten)
        self.refresh_gauges()
        if self.source.synced and not self._frozen:
            # what a first list brought lives long: without this, every full collection walks it (30 ms for 50,000 pods)
            self._frozen = True
            gc.collect()
            gc.freeze()
            # and hardly anything here refers to itself: look for that once in hundreds of requests, not in a dozen
            gc.set_threshold(GC_THRESHOLD, *gc.get_threshold()[1:])

    def _judge_freshness(self) -> None:
        """Let the fallback decide while what is known of the cluster is too old, and the policy once it is not."""
        limits = self.settings.cluster_time_limit_s, self.settings.usage_time_limit_s
        stale = freshness.staleness(self.source.staleness(), *limits)
        if type(stale) is not self._stale:
            self._stale = type(stale)
            if stale is None:
                _log.info("what is known of the cluster is current again; the policy decides")
            else:
                _log.warning("the fallback decides", reason=str(stale))
        self.engine.distrust(stale)

    async def _keep_house(self) -> None:
        self.keep_house()

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        await receive()
        try:
            await self.start()
        except Exception as error:
            self.start_error = error
            await send({"type": "lifespan.startup.failed", "message": str(error)})
            return
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await self.stop()
        await send({"type": "lifespan.shutdown.complete"})


def create_app(
    settings: Settings,
    source: ClusterSource,
    loaded: LoadedScorer | None = None,
    clock: Callable[[], float] = time.time,
    timer: Callable[[], float] = time.perf_counter,
) -> Application:
    """The service, wired and not started.

    Args:
        settings: validated settings.
        source: fills the table with a cluster.
        loaded: what decides; default: what the settings name.
        clock: seconds since the epoch.
        timer: monotonic seconds, for deadlines and latencies.

    Raises:
        BundleError: the policy bundle is refused, and one is required.
    """
    if loaded is None:
        try:
            loaded = load_scorer(settings)
        except BundleError as error:
            if settings.policy_required:
                raise
            _log.error("no policy is loaded; the fallback answers until one is", error=str(error))
    return Application(settings, source, loaded, clock, timer)


def _tracing(settings: Settings, version: str) -> Tracing | None:
    """Tracing, where it is on; not even imported otherwise."""
    if settings.tracing_endpoint is None:
        return None
    from extender.operations.tracing import Tracing

    return Tracing(settings.tracing_endpoint, settings.tracing_sample_share, version)


def _verbs(tracing: Tracing | None, *parts: Any) -> tuple[SchedulingVerbs, type[VerbConnection]]:
    """The verbs and their connections, or the traced twins of both."""
    if tracing is None:
        return SchedulingVerbs(*parts), VerbConnection
    from extender.operations.tracing import TracedConnection, TracedVerbs

    return TracedVerbs(tracing.tracer, *parts), TracedConnection


def _store(settings: Settings, clock: Callable[[], float]) -> DecisionStore | None:
    """The ledger's file, where there is to be one; its library is not even imported otherwise."""
    if settings.ledger_path is None:
        return None
    from extender.history.store import DecisionStore

    return DecisionStore(settings.ledger_path, settings.ledger_rows, settings.ledger_days * 86400.0, clock)


async def _not_here(scope: Scope, send: Send) -> None:
    """404 for anything but a verb, where operations have their own port."""
    if scope["type"] != "http":
        return
    body = b'{"Error":"not found; operations endpoints are on their own port"}'
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": 404, "headers": headers})
    await send({"type": "http.response.body", "body": body})
