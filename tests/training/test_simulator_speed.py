"""The speed measurement counts what it says; how fast this machine is, the benchmark says."""

from __future__ import annotations

from itertools import count

import pytest

from training.simulator.speed import CLUSTERS, decisions_per_second


def test_decisions_are_counted_over_the_time_that_the_simulator_took() -> None:
    ticks = count()
    # every look at the clock is a second later: two spans of a second for each step of 8 clusters
    assert decisions_per_second(2, 8, seconds=10.0, clock=lambda: float(next(ticks))) == pytest.approx(4.0)


def test_all_sizes_that_reports_name_are_measured() -> None:
    assert set(CLUSTERS) == {10, 50, 200, 1000}
