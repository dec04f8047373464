"""Wall time per CPU time of nodes: relative to their templates, forgotten within minutes, in bounded memory."""

from __future__ import annotations

import math

import pytest

from policy.slowdowns import LEAST_LASTING, LEAST_SEEN, LEAST_SHARE, LEAST_SLOWDOWN, Slowdowns


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


def after(run_s: float, cpu_s: float, others: int = 60) -> float:
    """Share left on a node whose pods take so long, among others whose pods take 20 s with 10 s of CPU time."""
    slowdowns = Slowdowns()
    for _ in range(others):
        slowdowns.completed("other", "t", 20.0, 10.0, 0.0)
    for _ in range(20):
        slowdowns.completed("node", "t", run_s, cpu_s, 0.0)
    assert slowdowns.share_left("other", 0.0) == 1.0
    return slowdowns.share_left("node", 0.0)


def test_a_node_counts_as_slower_where_its_pods_wait_and_end_later() -> None:
    assert after(20.0, 10.0) == 1.0
    assert after(23.0, 10.0) == 1.0, "little"
    assert 0.5 < after(40.0, 10.0) < 0.65
    assert after(4e6, 10.0) == LEAST_SHARE
    assert Slowdowns().share_left("unknown", 0.0) == 1.0


def test_a_fast_or_a_slow_node_is_not_throttled() -> None:
    assert after(15.0, 5.0) == 1.0, "fast: the same waiting is more per CPU time, and the pods end sooner"
    assert after(20.0, 5.0) == 1.0, "they end as soon"
    assert after(40.0, 30.0) == 1.0, "slow: they end later, and wait no longer"


def test_a_throttled_node_counts_as_one_until_its_pods_run_as_elsewhere() -> None:
    slowdowns = Slowdowns()
    for _ in range(60):
        slowdowns.completed("other", "t", 20.0, 10.0, 0.0)
    for _ in range(20):
        slowdowns.completed("node", "t", 40.0, 10.0, 0.0)
    shares = [slowdowns.share_left("node", 0.0)]
    for _ in range(120):  # avoided, it holds nobody up
        slowdowns.completed("node", "t", 20.0, 10.0, 0.0)
        slowdowns.completed("other", "t", 20.0, 10.0, 0.0)
        shares.append(slowdowns.share_left("node", 0.0))
    assert shares == sorted(shares)
    assert any(1.0 / LEAST_SLOWDOWN < share < 1.0 for share in shares)
    assert max(share for share in shares if share < 1.0) <= 1.0 / LEAST_LASTING
    assert shares[-1] == 1.0
    slowdowns.completed("node", "t", 24.0, 10.0, 0.0)
    assert slowdowns.share_left("node", 0.0) == 1.0, "a little more does not make it throttled again"


def test_a_throttled_node_is_forgiven_with_time_too() -> None:
    slowdowns = Slowdowns(memory_s=600.0)
    for _ in range(60):
        slowdowns.completed("other", "t", 20.0, 10.0, 0.0)
    for _ in range(20):
        slowdowns.completed("node", "t", 40.0, 10.0, 0.0)
    assert slowdowns.share_left("node", 0.0) < slowdowns.share_left("node", 900.0) < 1.0
    assert slowdowns.share_left("node", 3600.0) == 1.0


def test_a_node_is_full_at_the_use_at_which_its_pods_wait() -> None:
    slowdowns = Slowdowns()
    for _ in range(60):
        slowdowns.completed("other", "t", 20.0, 10.0, 0.0, 0.8)
    for used, run_s in ((0.4, 40.0), (0.1, 20.0), (None, 60.0)) * 20:
        slowdowns.completed("node", "t", run_s, 10.0, 0.0, used)
    assert slowdowns.full_at("node", 0.0) == pytest.approx(0.4), "not where they did not wait"
    assert slowdowns.full_at("other", 0.0) == slowdowns.full_at("unknown", 0.0) == 1.0
    assert slowdowns.full_at("node", 7200.0) == 1.0


@pytest.mark.parametrize(("used", "expected"), [(0.8, 0.8), (0.01, LEAST_SHARE), (0.0, 1.0), (None, 1.0)])
def test_a_node_is_full_within_bounds(used: float | None, expected: float) -> None:
    slowdowns = Slowdowns()
    for _ in range(60):
        slowdowns.completed("other", "t", 20.0, 10.0, 0.0)
    for _ in range(20):
        slowdowns.completed("node", "t", 60.0, 10.0, 0.0, used)
    assert slowdowns.full_at("node", 0.0) == expected


def test_it_is_forgotten_within_minutes_and_with_the_node() -> None:
    slowdowns = Slowdowns(memory_s=600.0)
    for _ in range(LEAST_SEEN + 3):
        slowdowns.completed("a", "t", 1.0, 1.0, 0.0)
    assert slowdowns.of("a", 60.0) is not None
    assert slowdowns.of("a", 3600.0) is None
    slowdowns.forget("a")
    assert slowdowns.of("a", 60.0) is None


def test_waiting_on_a_full_node_is_no_throttling() -> None:
    slowdowns = Slowdowns()
    for used in (0.4, 0.9):
        for _ in range(60):
            slowdowns.completed(f"other-{used}", "t", 20.0, 10.0, 0.0, used)
        for _ in range(20):
            slowdowns.completed(f"node-{used}", "t", 60.0, 10.0, 0.0, used)
    assert slowdowns.share_left("node-0.4", 0.0) < 1.0
    assert slowdowns.share_left("node-0.9", 0.0) == slowdowns.full_at("node-0.9", 0.0) == 1.0


def test_pods_that_did_not_wait_at_the_same_use_speak_against_a_full_node() -> None:
    slowdowns = Slowdowns()
    for _ in range(60):
        slowdowns.completed("other", "t", 20.0, 10.0, 0.0, 0.5)
    found = []
    for run_s in (40.0, 20.0, 40.0, 20.0, 20.0):
        slowdowns.completed("node", "t", run_s, 10.0, 0.0, 0.5)
        found.append(slowdowns.full_at("node", 0.0))
    assert found == pytest.approx([1.0, 1.0, 0.5, 0.5, 1.0])


def test_slow_nodes_do_not_hide_a_throttled_one() -> None:
    """Pods use 0.05 cores by their limit; slow cores take 2.5 times the CPU time, and a quota doubles the run time."""
    slowdowns = Slowdowns()
    for _ in range(20):
        for node, cpu_s, run_s in (("fast", 1.0, 20.0), ("slow", 2.5, 50.0), ("throttled", 1.0, 40.0)):
            slowdowns.completed(node, "t", run_s, cpu_s, 0.0, 0.4)
    assert slowdowns.share_left("throttled", 0.0) < 0.75
    assert slowdowns.share_left("slow", 0.0) == slowdowns.share_left("fast", 0.0) == 1.0
    assert slowdowns.full_at("throttled", 0.0) == pytest.approx(0.4)


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
