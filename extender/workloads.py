"""What is known of workloads: how long pods of a template run, and how often CronJobs start. Knows no API.

A CronJob's controller names each Job ``<CronJob>-<minutes since the epoch>`` of its scheduled time, and the pods that
wait, run or have ended show the names of their Jobs. So two runs tell the period, without a watch of CronJobs, and the
pods of former Jobs, which a CronJob keeps, tell it right after the start.

The thread of the cluster's table changes it; others may read.
"""

from __future__ import annotations

import re
import time
from collections import OrderedDict
from itertools import pairwise
from typing import Final, NamedTuple

from extender.pods import Owner, Pod
from extender.templates import template_of
from policy.durations import ExpectedDuration, TemplateDurations

_CRON_JOB: Final = re.compile(r"(.{1,252})-([0-9]{8,9})", re.DOTALL)

OLDEST_RUN: Final = 60 * 24 * 60
NEWEST_RUN: Final = 24 * 60
"""Minutes before and after now in which the scheduled time in a Job's name must lie: other numbers are not times."""

KEPT_STARTS: Final = 4
"""Latest starts kept per CronJob. The shortest time between two of them counts: a run may have been missed."""

MOST_CRON_JOBS: Final = 8192


class CronRun(NamedTuple):
    """One run of a CronJob: its namespace and name, and for when it was scheduled, minutes since the epoch."""

    namespace: str
    name: str
    minute: int


def cron_run(namespace: str, owner: Owner, now: float) -> CronRun | None:
    """Return the run of a CronJob that a pod belongs to; None if it belongs to none.

    Args:
        namespace: of the pod.
        owner: the controller that owns it.
        now: seconds since the epoch.
    """
    if owner.kind != "Job":
        return None
    found = _CRON_JOB.fullmatch(owner.name)
    if found is None:
        return None
    minute = int(found[2])
    if not -OLDEST_RUN <= minute - now / 60.0 <= NEWEST_RUN:
        return None
    return CronRun(namespace, found[1], minute)


class Workloads:
    """What is known of workloads, in bounded memory.

    Attributes:
        durations: expected durations by template.
    """

    def __init__(self) -> None:
        self.durations = TemplateDurations()
        self._starts: OrderedDict[tuple[str, str], tuple[int, ...]] = OrderedDict()

    def ran(self, template: str, run_s: float, speed: float) -> None:
        """A pod of a template ended well after `run_s` seconds, on a node of this speed."""
        self.durations.completed(template, run_s, speed, time.monotonic())

    def expected_s(self, pod: Pod) -> ExpectedDuration | None:
        """Return how long a pod is expected to run on the reference core, from runs of its template."""
        if not len(self.durations):
            return None
        return self.durations.expected_s(template_of(pod))

    def started(self, run: CronRun) -> None:
        """A run of a CronJob was seen, perhaps not for the first time."""
        key = run.namespace, run.name
        before = self._starts.get(key, ())
        if run.minute in before:
            return
        if not before and len(self._starts) >= MOST_CRON_JOBS:
            self._starts.popitem(last=False)
        self._starts[key] = tuple(sorted((*before, run.minute))[-KEPT_STARTS:])
        self._starts.move_to_end(key)

    def period_s(self, run: CronRun) -> float | None:
        """Return the seconds between two starts of a CronJob; None while fewer than two are known."""
        minutes = self._starts.get((run.namespace, run.name), ())
        if len(minutes) < 2:
            return None
        return 60.0 * min(later - earlier for earlier, later in pairwise(minutes))
