"""Upkeep: the background tasks of a running service, off the path of any request."""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import Callable
from dataclasses import dataclass, field
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
from extender.trials.avoidance import Avoidance
from extender.trials.comparison import Comparison

GC_THRESHOLD: Final = 20_000
"""New objects after which the garbage collector looks for cycles; Python's own threshold is 700."""

EXPERIMENT_INTERVAL_S: Final = 60.0
"""How often an experiment's metrics are brought up to date; it takes some 10 ms per thousand decisions."""

AVOIDANCE_INTERVAL_S: Final = 60.0
"""How often the late placements avoided are estimated; it takes some 0.1 s per thousand pods that ended."""

SIGNALS_INTERVAL_S: Final = 5.0
"""How often the signals for autoscalers are worked out: no autoscaler asks more often."""

_log = logs.get(__name__)


@dataclass(kw_only=True, eq=False)
class Upkeep:
    """Keeps a service's knowledge fresh. Owned by the event loop's thread."""

    settings: Settings
    source: ClusterSource
    engine: Engine
    signals: Signals
    traffic: Traffic
    notes: Notes | None = None
    reloader: BundleReloader | None = None
    comparison: Comparison | None = None
    avoidance: Avoidance | None = None
    clock: Callable[[], float] = time.time
    _stale: type[object] = field(default=type(None), init=False)
    _tuned: bool = field(default=False, init=False)

    def start(self, supervisor: Supervisor) -> None:
        """Start every task that the settings ask for."""
        supervisor.start("housekeeping", self.keep_house, self.settings.housekeeping_interval_s)
        supervisor.start("signals", self.update_signals, SIGNALS_INTERVAL_S)
        if self.notes is not None:
            supervisor.start("notes", self.notes.write_next)
        if self.reloader is not None:
            supervisor.start("bundle", partial(self.reloader.follow, self.settings.bundle_reload_s))
        if self.comparison is not None:
            supervisor.start("experiment", partial(asyncio.to_thread, self.comparison.update), EXPERIMENT_INTERVAL_S)
        if self.avoidance is not None:
            supervisor.start("avoidance", partial(asyncio.to_thread, self.avoidance.update), AVOIDANCE_INTERVAL_S)

    def reload(self) -> None:
        """Look for another policy bundle now; `/v1/policy` shows what it finds."""
        if self.reloader is None:
            _log.warning("nothing to reload: a heuristic decides", scorer=self.settings.scorer)
        else:
            self.reloader.request()

    async def keep_house(self) -> None:
        """Drop what is too old, and let the fallback decide while what is known is."""
        self.engine.table.expire_assumed()
        self._judge_freshness()
        forgotten = self.engine.table.forget_usage_before(self.clock() - self.settings.usage_time_limit_s)
        if forgotten:
            _log.warning("measured use is too old; expecting it from requests", nodes=forgotten)
        self.traffic.settle()
        if self.source.synced and not self._tuned:
            self._tuned = True
            tune_collector()

    async def update_signals(self) -> None:
        """Work out what an autoscaler should know."""
        if self.source.synced:
            await self.signals.update(self.settings.node_metrics)

    def _judge_freshness(self) -> None:
        """Let the fallback decide while what is known of the cluster is too old, and the policy once it is not."""
        limits = self.settings.cluster_time_limit_s, self.settings.usage_time_limit_s
        stale = staleness(self.source.staleness(), *limits)
        if type(stale) is not self._stale:
            self._stale = type(stale)
            if stale is None:
                _log.info("what is known of the cluster is current again; the policy decides")
            else:
                _log.warning("the fallback decides", reason=str(stale))
        self.engine.distrust(stale)


def tune_collector() -> None:
    """Make the garbage collector leave what the first list brought alone, and look for cycles less often.

    What a first list brought lives long: without this, every full collection walks it (30 ms for 50,000 pods). Hardly
    anything here refers to itself: to look for that once in hundreds of requests is enough.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(GC_THRESHOLD, *gc.get_threshold()[1:])
