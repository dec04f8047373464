"""What is known of workloads: periods of CronJobs from the names of their Jobs, and durations by template."""

from __future__ import annotations

import json
import tracemalloc

import msgspec
import pytest

from extender.pods import Pod
from extender.templates import template_of
from extender.workloads import KEPT_STARTS, MOST_CRON_JOBS, CronRun, Workloads, cron_run

NOW = 1_796_000_000.0
MINUTE = int(NOW // 60)


def pod_of(kind: str, name: str) -> Pod:
    owner = {"kind": kind, "name": name, "uid": "1", "controller": True}
    content = {"metadata": {"name": f"{name}-x", "namespace": "ns", "ownerReferences": [owner]}, "spec": {}}
    return msgspec.json.decode(json.dumps(content), type=Pod)


@pytest.mark.parametrize(
    ("kind", "name", "run"),
    [
        ("Job", f"backup-{MINUTE}", CronRun("ns", "backup", MINUTE)),
        ("Job", f"nightly-2-{MINUTE - 1440}", CronRun("ns", "nightly-2", MINUTE - 1440)),
        ("ReplicaSet", f"backup-{MINUTE}", None),
        ("Job", f"backup-{MINUTE + 3 * 1440}", None),
        ("Job", f"backup-{MINUTE - 100 * 1440}", None),
        ("Job", "backup-20261231", None),
        ("Job", f"-{MINUTE}", None),
        ("Job", str(MINUTE), None),
        ("Job", "", None),
        ("Job", f"{'n' * 300}-{MINUTE}", None),
    ],
)
def test_the_name_of_a_job_tells_its_cronjob_and_scheduled_time(kind: str, name: str, run: CronRun | None) -> None:
    assert cron_run("ns", pod_of(kind, name).metadata.controller, NOW) == run


def period(*minutes: int) -> float | None:
    workloads = Workloads()
    for minute in minutes:
        workloads.started(CronRun("ns", "backup", minute))
    return workloads.period_s(CronRun("ns", "backup", 0))


@pytest.mark.parametrize(
    ("minutes", "seconds"),
    [
        ((), None),
        ((100,), None),
        ((100, 100), None),
        ((100, 105), 300.0),
        ((105, 100), 300.0),
        ((100, 105, 115), 300.0),
        ((0, 1440, 5760), 86400.0),
        ((100, 101, *range(200, 200 + 60 * KEPT_STARTS, 60)), 3600.0),
    ],
    ids=str,
)
def test_the_shortest_of_the_latest_distances_is_the_period(minutes: tuple[int, ...], seconds: float | None) -> None:
    assert period(*minutes) == seconds


def test_thousands_of_cronjobs_are_bounded_and_the_one_that_started_longest_ago_gives_way() -> None:
    workloads = Workloads()
    tracemalloc.start()
    for number in range(MOST_CRON_JOBS + 1000):
        for minute in range(KEPT_STARTS):
            workloads.started(CronRun("ns", f"{'n' * 40}{number}", minute))
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert held < 8e6
    assert workloads.period_s(CronRun("ns", f"{'n' * 40}{999}", 0)) is None
    assert workloads.period_s(CronRun("ns", f"{'n' * 40}{1000}", 0)) == 60.0


def test_a_template_is_expected_to_run_as_long_as_it_did() -> None:
    workloads, pod = Workloads(), pod_of("Job", "once")
    assert workloads.expected_s(pod) is None
    workloads.ran(template_of(pod), 120.0, 0.5)
    expected = workloads.expected_s(pod)
    assert expected is not None
    assert (expected.seconds, expected.runs) == (pytest.approx(60.0), 1)
    assert workloads.expected_s(pod_of("Job", "other")) is None
