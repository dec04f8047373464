"""Upkeep: the background tasks of a running service, off the path of any request."""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import Callable
from functools import partial
from typing import Final

from extender import logs
from extender.cluster.source import ClusterSource
from extender.engine import Engine
from extender.history.notes import Notes
from extender.operations.collectors.traffic import Traffic
from extender.operations.signals import Signals
from extender.scorer.fallback import staleness
from extender.scorer.reload import BundleReloader
from extender.settings import Settings
from extender.supervision import Supervisor
from extender.trials.comparison import Comparison

GC_THRESHOLD: Final = 20_000
"""New objects after which the garbage collector looks for cycles; Python's own threshold is 700."""

EXPERIMENT_INTERVAL_S: Final = 60.0
"""How often an experiment's metrics are brought up to date; it takes some 10 ms per thousand decisions."""

SIGNALS_INTERVAL_S: Final = 5.0
"""How often the signals for autoscalers are worked out: no autoscaler asks more often."""

_log = logs.get(__name__)


class Upkeep:
    """Keeps a service's knowledge fresh. Owned by the event loop's thread.

    Args:
        settings: intervals and limits.
        source: fills the table.
        engine: decides from its table; told when what is known is too old.
        signals: for autoscalers.
        traffic: requests to be counted.
        notes: written on pods; None where they are off.
        reloader: follows the bundle; None where a heuristic decides.
        comparison: of the experiment's arms; None without an experiment.
        clock: seconds since the epoch.
    """

    def __init__(
        self,
        *,
        settings: Settings,
        source: ClusterSource,
        engine: Engine,
        signals: Signals,
        traffic: Traffic,
        notes: Notes | None = None,
        reloader: BundleReloader | None = None,
        comparison: Comparison | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._settings = settings
        self._table = engine.table
        self._source = source
        self._engine = engine
        self._signals = signals
        self._traffic = traffic
        self._notes = notes
        self._reloader = reloader
        self._comparison = comparison
        self._clock = clock
        self._stale: type[object] = type(None)
        self._tuned = False

    def start(self, supervisor: Supervisor) -> None:
        """Start every task that the settings ask for."""
        supervisor.start("housekeeping", self.keep_house, self._settings.housekeeping_interval_s)
        supervisor.start("signals", self.update_signals, SIGNALS_INTERVAL_S)
        if self._notes is not None:
            supervisor.start("notes", self._notes.write_next)
        if self._reloader is not None:
            supervisor.start("bundle", partial(self._reloader.follow, self._settings.bundle_reload_s))
        if self._comparison is not None:
            supervisor.start("experiment", partial(asyncio.to_thread, self._comparison.update), EXPERIMENT_INTERVAL_S)

    def reload(self) -> None:
        """Look for another policy bundle now; `/v1/policy` shows what it finds."""
        if self._reloader is None:
            _log.warning("nothing to reload: a heuristic decides", scorer=self._settings.scorer)
        else:
            self._reloader.request()

    async def keep_house(self) -> None:
        """Drop what is too old, and let the fallback decide while what is known is."""
        self._table.expire_assumed()
        self._judge_freshness()
        forgotten = self._table.forget_usage_before(self._clock() - self._settings.usage_time_limit_s)
        if forgotten:
            _log.warning("measured use is too old; expecting it from requests", nodes=forgotten)
        self._traffic.settle()
        if self._source.synced and not self._tuned:
            self._tuned = True
            tune_collector()

    async def update_signals(self) -> None:
        """Work out what an autoscaler should know."""
        if self._source.synced:
            await self._signals.update(self._settings.node_metrics)

    def _judge_freshness(self) -> None:
        """Let the fallback decide while what is known of the cluster is too old, and the policy once it is not."""
        limits = self._settings.cluster_time_limit_s, self._settings.usage_time_limit_s
        stale = staleness(self._source.staleness(), *limits)
        if type(stale) is not self._stale:
            self._stale = type(stale)
            if stale is None:
                _log.info("what is known of the cluster is current again; the policy decides")
            else:
                _log.warning("the fallback decides", reason=str(stale))
        self._engine.distrust(stale)


def tune_collector() -> None:
    """Make the garbage collector leave what the first list brought alone, and look for cycles less often.

    What a first list brought lives long: without this, every full collection walks it (30 ms for 50,000 pods). Hardly
    anything here refers to itself: to look for that once in hundreds of requests is enough.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(GC_THRESHOLD, *gc.get_threshold()[1:])
