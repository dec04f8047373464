"""The speed measurement counts what it says; how fast this machine is, the benchmark says."""

from __future__ import annotations

from itertools import count

import pytest

from training.simulator import speed
from training.simulator.speed import CLUSTERS, GOAL_NODES, decisions_per_second, growth, speeds


def test_decisions_are_counted_over_the_time_that_the_simulator_took() -> None:
    ticks = count()
    # every look at the clock is a second later: two spans of a second for each step of 8 clusters
    assert decisions_per_second(2, 8, seconds=10.0, clock=lambda: float(next(ticks))) == pytest.approx(4.0)


def test_all_sizes_that_reports_name_are_measured() -> None:
    assert set(CLUSTERS) == {10, 50, 200, 1000}


def test_growth_is_the_cost_over_that_on_the_fewest_nodes() -> None:
    assert growth({10: 100.0, 1000: 4.0}) == {10: 1.0, 1000: 25.0}


def test_the_goal_is_judged_by_the_fastest_of_several_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = {10: iter([1.0, 3.0, 2.0]), 50: iter([5.0]), 200: iter([6.0]), 1000: iter([7.0])}
    monkeypatch.setattr(speed, "decisions_per_second", lambda nodes, *_: next(answers[nodes]))
    assert speeds(1.0) == {GOAL_NODES: 3.0, 50: 5.0, 200: 6.0, 1000: 7.0}
