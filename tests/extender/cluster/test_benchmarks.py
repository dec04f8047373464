"""Results of benchmarks count from the pods of one DaemonSet alone, each once, and only where they make sense."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from extender.benchmark import VERSION, Measured
from extender.cluster.benchmarks import Benchmarks
from extender.cluster.decoding import WatchedPod, decode_pod

NAME = "maddpg-benchmark"


def line(speed: float = 1.25, spread: float = 0.02) -> str:
    return Measured(speed, spread, {"integer": speed}, 9).line()


def ended(text: str | None, at: str = "00:01:00", code: int = 0) -> dict[str, Any]:
    return {"terminated": {"exitCode": code, "finishedAt": f"2026-01-01T{at}Z", "message": text}}


def pod(
    first: Any = None,
    again: Any = None,
    last: Any = None,
    node: str | None = "node-1",
    owner: tuple[str, str] | None = ("DaemonSet", NAME),
    namespace: str = "maddpg",
    account: str = NAME,
    labels: dict[str, str] | None = None,
) -> WatchedPod:
    """A pod of the benchmark: `first` is the state of its init container, `again` and `last` those of the other."""
    owners = [{"kind": owner[0], "name": owner[1], "uid": "o", "controller": True}] if owner else []
    content = {
        "metadata": {
            "name": "b", "namespace": namespace, "uid": "u", "ownerReferences": owners, "labels": labels or {},
        },
        "spec": {"nodeName": node, "serviceAccountName": account, "containers": [{}]},
        "status": {
            "initContainerStatuses": [{"name": "first", "state": first or {"running": {}}}],
            "containerStatuses": [{"name": "again", "state": again or {"waiting": {}}, "lastState": last or {}}],
        },
    }  # fmt: skip
    return decode_pod(msgspec.Raw(msgspec.json.encode(content)))


class Told:
    """Benchmarks, and what they told."""

    def __init__(self, now: float = 1_798_761_600.0) -> None:
        self.speeds: list[tuple[str, float]] = []
        told = self.speeds.append
        self.benchmarks = Benchmarks(f"maddpg/{NAME}", lambda node, speed: told((node, speed)), lambda: now)

    def by(self, *pods: WatchedPod) -> list[tuple[str, float]]:
        for each in pods:
            self.benchmarks.take(each)
        return self.speeds


def test_a_node_that_joins_is_measured_by_the_init_container() -> None:
    told = Told()
    assert told.by(pod(), pod(ended(line(1.5)))) == [("node-1", 1.5)]
    assert told.benchmarks.counts["accepted"] == 1


def test_the_latest_result_counts_once() -> None:
    told = Told()
    first, later = ended(line(1.5)), ended(line(1.1), "12:00:00")
    told.by(pod(first), pod(first), pod(first, later), pod(first, {"running": {}}, later), pod(first))
    assert told.speeds == [("node-1", 1.5), ("node-1", 1.1)]


def test_a_clock_that_was_ahead_does_not_block_later_results() -> None:
    """An init container ended an hour ahead; the clock was set right, and the next measurement is stamped before it."""
    ahead, true = ended(line(1.5), "13:00:00"), ended(line(1.1), "12:10:00")
    told = Told(now=1_767_269_400.0)  # 2026-01-01, 12:10:00
    told.by(pod(ahead), pod(ahead, true), pod(ahead, true), pod(ahead, {"running": {}}, true))
    assert told.speeds == [("node-1", 1.5), ("node-1", 1.1)]
    replaced = Told(now=1_767_269_400.0)
    replaced.by(pod(ahead), pod(true), pod(true))  # by another pod
    assert replaced.speeds == [("node-1", 1.5), ("node-1", 1.1)]


def test_nodes_are_told_apart() -> None:
    assert Told().by(pod(ended(line(1.5))), pod(ended(line(0.5)), node="node-2")) == [("node-1", 1.5), ("node-2", 0.5)]


@pytest.mark.parametrize(
    ("forged", "counted"),
    [
        (pod(ended(line(9.0)), namespace="evil"), 0),
        (pod(ended(line(9.0)), namespace="maddpg-evil"), 0),
        (pod(ended(line(9.0)), owner=None), 0),
        (pod(ended(line(9.0)), owner=("ReplicaSet", NAME)), 0),
        (pod(ended(line(9.0)), owner=("DaemonSet", "other")), 0),
        (pod(ended(line(9.0)), owner=None, labels={"app.kubernetes.io/component": "benchmark"}), 0),
        (pod(ended(line(9.0)), account="default"), 1),
        (pod(ended(line(9.0)), account=""), 1),
        (pod(ended(line(9.0)), node=None), 0),
    ],
)
def test_the_pods_of_others_cannot_forge_a_speed(forged: WatchedPod, counted: int) -> None:
    told = Told()
    assert told.by(forged) == []
    assert told.benchmarks.counts["foreign"] == counted
    assert told.benchmarks.counts["accepted"] == 0


def test_an_owner_that_is_no_controller_is_none() -> None:
    shown = pod(ended(line(9.0)))
    raw = msgspec.json.encode([{"kind": "DaemonSet", "name": NAME, "uid": "o", "controller": False}])
    metadata = msgspec.structs.replace(shown.metadata, owner_references=msgspec.Raw(raw))
    assert Told().by(msgspec.structs.replace(shown, metadata=metadata)) == []


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (line(0.01), "value"),
        (line(11.0), "value"),
        (line(-1.0), "value"),
        (line(1.0, 0.4), "noisy"),
        (line(1.0, -0.1), "noisy"),
        ('{"benchmark": 99, "speed": 1.0, "spread": 0.0}', "version"),
        ('{"benchmark": 1, "speed": "fast", "spread": 0.0}', "undecodable"),
        ('{"benchmark": 1, "speed": NaN, "spread": 0.0}', "undecodable"),
        ('{"benchmark": 1, "speed": 1e999, "spread": 0.0}', "undecodable"),
        ('{"speed": 1.0}', "undecodable"),
        ("[" * 4000, "undecodable"),
        ("Traceback (most recent call last)", "undecodable"),
    ],
)
def test_a_result_that_makes_no_sense_is_counted_and_not_used(text: str, reason: str) -> None:
    told = Told()
    assert told.by(pod(ended(text))) == []
    assert {name: count for name, count in told.benchmarks.counts.items() if count} == {reason: 1}


@pytest.mark.parametrize(
    "state", [ended(None), ended(""), ended(line(), code=1), ended(line(), "never"), {"running": {}}, {}]
)
def test_a_container_that_failed_or_says_nothing_is_no_result(state: Any) -> None:
    told = Told()
    assert told.by(pod(state)) == []
    assert sum(told.benchmarks.counts.values()) == 0


def test_a_result_that_is_used_again_after_one_that_was_not() -> None:
    told = Told()
    assert told.by(pod(ended("garbage")), pod(ended(line(2.0), "00:02:00"))) == [("node-1", 2.0)]


def test_the_version_of_the_kernels_is_in_the_result() -> None:
    assert msgspec.json.decode(line())["benchmark"] == VERSION
