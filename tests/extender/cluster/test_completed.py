"""Pods that succeeded: their CPU time, and when it cannot be told."""

from __future__ import annotations

import math
import random
import statistics
from typing import Any

import msgspec
import pytest

from extender.cluster.completed import REMEMBERED, CompletedPods, Completion, extended
from extender.cluster.cpu_times import CpuTimes
from extender.cluster.decoding import WatchedPod, decode_pod
from extender.cluster.stats import CpuTime
from tests.extender.cluster.fake_kubelet import time_of
from tests.extender.cluster.jobs import completed

START = 1_767_225_600.0


def content(uid: str = "u", life: float = 100.0, **more: Any) -> dict[str, Any]:
    """A pod on node-a that ran for `life` seconds from `START`."""
    return completed(uid, "node-a", START, life, **more)


def pod(**more: Any) -> WatchedPod:
    return decode_pod(msgspec.Raw(msgspec.json.encode(content(**more))))


class Taken:
    """Pods taken, with one reading of a pod `u` on node-a."""

    def __init__(self, cpu_s: float | None = None, at: float = START + 80.0) -> None:
        self.times = CpuTimes()
        if cpu_s is not None:
            self.times.record("node-a", {"u": CpuTime(cpu_s, at)})
        self.told: list[Completion] = []
        self.pods = CompletedPods(self.times, self.told.append)

    def counted(self) -> dict[str, int]:
        return {name: count for name, count in self.pods.counts.items() if count}


def test_the_part_of_a_life_that_no_reading_covers_is_added_at_the_mean_rate() -> None:
    taken = Taken(40.0, at=START + 80.0)
    taken.pods.take(pod())
    assert [(it.node, it.run_s, it.cpu_s) for it in taken.told] == [("node-a", 100.0, pytest.approx(50.0))]
    assert taken.counted() == {"measured": 1}


@pytest.mark.parametrize(
    ("at", "cpu_s"),
    [
        pytest.param(100.0, 40.0, id="at the end"),
        pytest.param(101.0, 40.0, id="after the end: its time is cut to whole seconds"),
        pytest.param(50.0, 80.0, id="half"),
        pytest.param(49.0, None, id="less than half"),
        pytest.param(0.0, None, id="at the start"),
        pytest.param(-3600.0, None, id="by a clock an hour behind"),
    ],
)
def test_a_reading_must_cover_half_of_a_life(at: float, cpu_s: float | None) -> None:
    assert extended(CpuTime(40.0, at), 0.0, 100.0) == cpu_s


def test_the_part_that_no_reading_covers_is_added_at_the_rate_of_the_last_two_readings() -> None:
    taken = Taken()
    for at, cpu_s in ((45.0, 5.0), (60.0, 20.0), (60.0, 20.0), (62.0, 20.0)):  # the last two say nothing new of a rate
        taken.times.record("node-a", {"u": CpuTime(cpu_s, START + at)})
    taken.pods.take(pod(life=72.0))
    assert taken.told[0].cpu_s == pytest.approx(20.0 + 10.0 * 1.0), "the mean rate would give 23.2"


def test_a_counter_that_was_set_back_gives_no_rate() -> None:
    taken = Taken()
    for at, cpu_s in ((45.0, 60.0), (80.0, 40.0)):
        taken.times.record("node-a", {"u": CpuTime(cpu_s, START + at)})
    taken.pods.take(pod())
    assert taken.told[0].cpu_s == pytest.approx(50.0)


@pytest.mark.parametrize("idle_s", [0.0, 3.0, 10.0])
@pytest.mark.parametrize("cpu_s", [30.0, 50.0])
def test_pods_that_begin_slowly_are_not_taken_for_less_work_than_they_were(idle_s: float, cpu_s: float) -> None:
    """Pods of one core after an idle beginning, read every 15 s from samples that are 10 to 15 s apart."""
    rng, errors = random.Random(7), []
    for number in range(2000):
        start, life = rng.uniform(0.0, 60.0), idle_s + cpu_s
        times, sampled, asked = CpuTimes(), [-rng.uniform(0.0, 15.0)], rng.uniform(0.0, 15.0)
        while sampled[-1] < life:
            sampled.append(sampled[-1] + rng.uniform(10.0, 15.0))
        while asked < life:
            known = [at for at in sampled if 0.0 < at <= asked]
            used = {str(number): CpuTime(max(0.0, at - idle_s), float(int(start + at))) for at in known[-1:]}
            times.record("node-a", used)
            asked += 15.0
        reading = times.of("node-a", str(number))
        told = None if reading is None else extended(reading, float(int(start)), float(int(start + life)))
        if told:
            errors.append(math.log(told / cpu_s))
    assert len(errors) > 1000
    assert abs(statistics.fmean(errors)) < 0.04, "at the mean rate it is up to 0.19"


def test_init_containers_belong_to_the_life_and_waiting_for_images_does_not() -> None:
    taken = Taken(40.0)
    taken.pods.take(pod(init=30.0))
    assert taken.told[0].run_s == 100.0
    assert taken.told[0].cpu_s == pytest.approx(50.0)


def test_a_pod_that_is_shown_again_counts_once() -> None:
    taken = Taken(40.0)
    for _ in range(3):
        taken.pods.take(pod())
    assert len(taken.told) == 1


def test_what_was_seen_is_forgotten_in_bounded_memory() -> None:
    taken = Taken()
    for number in range(REMEMBERED + 5):
        taken.pods.take(pod(uid=f"u{number}"))
    assert len(taken.pods._seen) == REMEMBERED


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        pytest.param({}, "unread", id="never read"),
        pytest.param({"containerStatuses": []}, "untimed", id="no containers"),
        pytest.param({"containerStatuses": [{"name": "c", "restartCount": 1}]}, "restarted", id="restarted"),
        pytest.param({"containerStatuses": [{"name": "c", "state": {"running": {}}}]}, "untimed", id="still running"),
        pytest.param({"initContainerStatuses": [{"name": "i", "restartCount": 2}]}, "restarted", id="init restarted"),
        pytest.param(
            {
                "containerStatuses": [
                    {"name": "c", "state": {"terminated": {"startedAt": time_of(5), "finishedAt": time_of(5)}}}
                ]
            },
            "untimed",
            id="no time at all",
        ),
        pytest.param(
            {"containerStatuses": [{"name": "c", "state": {"terminated": {"startedAt": "x", "finishedAt": "y"}}}]},
            "untimed",
            id="times that are none",
        ),
    ],
)
def test_what_says_nothing_of_the_work_is_left_out_and_counted(change: dict[str, Any], reason: str) -> None:
    taken = Taken()
    taken.pods.take(pod(**change))
    assert taken.counted() == {reason: 1}
    assert all(it.cpu_s is None for it in taken.told)


@pytest.mark.parametrize(
    "change",
    [
        pytest.param({"metadata": {"name": "a", "uid": "u", "deletionTimestamp": time_of(START)}}, id="deleted"),
        pytest.param({"status": {"phase": "Failed"}}, id="failed"),
        pytest.param({"status": {"phase": "Failed", "reason": "Evicted"}}, id="evicted"),
        pytest.param({"spec": {}}, id="on no node"),
    ],
)
def test_only_pods_that_ended_well_are_completions(change: dict[str, Any]) -> None:
    taken = Taken(40.0)
    taken.pods.take(decode_pod(msgspec.Raw(msgspec.json.encode({**content(), **change}))))
    assert not taken.told


@pytest.mark.parametrize("field", ["image", "command", "args"])
def test_a_pod_whose_work_is_of_no_known_form_is_a_completion_all_the_same(field: str) -> None:
    odd = content()
    odd["spec"]["containers"][0][field] = {"not": ["what", {"is": "promised"}]}
    taken = Taken(40.0)
    taken.pods.take(decode_pod(msgspec.Raw(msgspec.json.encode(odd))))
    assert len(taken.told) == 1
