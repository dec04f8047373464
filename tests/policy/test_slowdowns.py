"""Wall time per CPU time of nodes: relative to their templates, forgotten within minutes, in bounded memory."""

from __future__ import annotations

import math

import pytest

from policy.slowdowns import LEAST_SEEN, Slowdowns


def test_a_node_whose_pods_wait_shows_and_the_others_do_not() -> None:
    slowdowns = Slowdowns()
    for _ in range(20):
        for node in ("a", "b", "c"):
            slowdowns.completed(node, "busy", 1.0, 1.0, 0.0)
            slowdowns.completed(node, "idle", 50.0, 1.0, 0.0)
    assert slowdowns.of("a", 0.0) == pytest.approx(1.0)
    for _ in range(20):
        slowdowns.completed("a", "busy", 3.0, 1.0, 600.0)
    found = slowdowns.of("a", 600.0)
    assert found is not None
    assert 1.7 < found < 3.0
    assert slowdowns.of("b", 600.0) == pytest.approx(1.0)


def test_it_is_forgotten_within_minutes_and_with_the_node() -> None:
    slowdowns = Slowdowns(memory_s=600.0)
    for _ in range(LEAST_SEEN + 3):
        slowdowns.completed("a", "t", 1.0, 1.0, 0.0)
    assert slowdowns.of("a", 60.0) is not None
    assert slowdowns.of("a", 3600.0) is None
    slowdowns.forget("a")
    assert slowdowns.of("a", 60.0) is None


@pytest.mark.parametrize(("run_s", "cpu_s"), [(0.0, 1.0), (1.0, 0.0), (math.nan, 1.0), (1.0, math.inf)])
def test_what_is_no_ratio_is_ignored(run_s: float, cpu_s: float) -> None:
    slowdowns = Slowdowns()
    for _ in range(20):
        slowdowns.completed("a", "t", run_s, cpu_s, 0.0)
    assert slowdowns.of("a", 0.0) is None


def test_memory_is_bounded() -> None:
    slowdowns = Slowdowns(most=10)
    for number in range(100):
        for _ in range(LEAST_SEEN + 1):
            slowdowns.completed(f"n{number}", f"t{number}", 1.0, 1.0, 0.0)
    assert len(slowdowns._nodes) == len(slowdowns._templates) == 10
    assert slowdowns.of("n99", 0.0) == pytest.approx(1.0)
