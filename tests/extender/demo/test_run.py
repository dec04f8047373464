"""The demo, whole: the real service over HTTP, kube-scheduler's part, and the comparison, in a process of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest

from extender.demo.scheduling import strongest_reason


def started(*arguments: str, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "extender", "demo", "--rate", "200", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "COLUMNS": "160", **environment},
    )


def test_it_places_pods_over_http_compares_and_ends_by_itself() -> None:
    with started(DEMO_SECONDS="4") as process:
        printed, complaints = process.communicate(timeout=60)
    assert process.returncode == 0, complaints
    assert complaints == ""
    placed = int(printed.split(" pods placed over HTTP")[0].split()[-1])
    assert placed > 50
    for figure in ("SLA violations", "lateness per pod", "CPU used now", "/prioritize over HTTP", "kube-default"):
        assert figure in printed


def test_it_ends_cleanly_on_an_interrupt() -> None:
    with started() as process:
        assert process.stdout is not None
        assert process.stdout.readline().startswith("dashboard: http://127.0.0.1:")
        assert "->" in process.stdout.readline()
        time.sleep(0.5)
        process.send_signal(signal.SIGINT)
        printed, complaints = process.communicate(timeout=30)
    assert process.returncode == 0, complaints
    assert "pods placed over HTTP" in printed


@pytest.mark.parametrize(
    ("arguments", "field"),
    [(["--scenario", "nowhere"], "nowhere"), (["--bundle", "missing-folder"], "manifest")],
    ids=["unknown scenario", "no bundle"],
)
def test_a_bad_option_is_refused_with_the_field_named(arguments: list[str], field: str) -> None:
    with started(*arguments) as process:
        _, complaints = process.communicate(timeout=30)
    assert process.returncode == 2
    assert field in complaints
    assert "Traceback" not in complaints


def node(name: str, headroom: float, speed: float, short: float = 0.0) -> dict[str, object]:
    contributions = {"headroom": headroom, "expected_speed": speed, "memory_shortage": short}
    return {"node": name, "contributions": contributions}


@pytest.mark.parametrize(
    ("nodes", "reason"),
    [
        ([node("a", 0.2, 0.5), node("b", 0.3, 0.1), node("c", 0.1, 0.3)], "expected_speed +0.30"),
        ([node("a", 0.9, 0.1), node("b", 0.3, 0.1)], "headroom +0.60"),
        ([node("a", 0.9, 0.1, 0.0), node("b", 0.3, 0.3, 0.0), node("c", 0.9, 0.1, -8.0)], "headroom +0.60"),
        ([node("a", 0.9, 0.1, 0.0), node("b", 0.3, 0.1, -8.5)], "memory_shortage +8.50"),
        ([node("a", 0.9, 0.1)], ""),
        ([node("b", 0.9, 0.1)], ""),
        ([{"node": "a", "contributions": None}, {"node": "b", "contributions": None}], ""),
    ],
    ids=[
        "speed",
        "headroom",
        "one is short of memory",
        "all others are",
        "nothing to compare with",
        "not rated",
        "a heuristic decided",
    ],
)
def test_the_reason_is_what_sets_the_node_apart(nodes: list[dict[str, object]], reason: str) -> None:
    assert strongest_reason({"nodes": nodes}, "a") == reason
