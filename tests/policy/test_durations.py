"""Expected durations of templates: accuracy, outliers, changed work, forgetting, and bounds of memory."""

from __future__ import annotations

import math
import time
import tracemalloc

import numpy as np
import pytest

from policy.durations import CHANGE_RUNS, KEPT_RUNS, TemplateDurations
from policy.errors import InvalidInputError


def learned(*runs: float, speed: float = 1.0) -> TemplateDurations:
    durations = TemplateDurations()
    for number, run_s in enumerate(runs):
        assert durations.completed("t", run_s, speed, float(number))
    return durations


def seconds(durations: TemplateDurations, template: str = "t") -> float:
    expected = durations.expected_s(template)
    assert expected is not None
    return expected.seconds


def test_nothing_is_expected_of_a_template_that_never_ran() -> None:
    assert TemplateDurations().expected_s("t") is None


def test_one_run_is_expected_again_and_counted() -> None:
    assert learned(90.0).expected_s("t") == (pytest.approx(90.0, rel=1e-6), pytest.approx(0.268, abs=1e-3), 1)


def test_runs_count_in_seconds_of_the_reference_core() -> None:
    durations = learned(100.0, speed=0.5)
    durations.completed("t", 25.0, 2.0, 1.0)
    assert seconds(durations) == pytest.approx(50.0)


def test_a_run_that_hung_and_one_that_ended_early_change_nothing() -> None:
    assert seconds(learned(60.0, 61.0, 59.0, 60.0, 36000.0, 60.0, 0.1)) == pytest.approx(60.0)


def test_the_spread_is_that_of_the_runs() -> None:
    generator = np.random.default_rng(5)
    spreads = []
    for _ in range(200):
        expected = learned(*np.exp(0.5 * generator.standard_normal(KEPT_RUNS)).tolist()).expected_s("t")
        assert expected is not None
        spreads.append(expected.spread)
    assert np.median(spreads) == pytest.approx(0.5, rel=0.15)


def test_a_median_of_sixteen_runs_with_a_fifth_of_noise_is_within_a_tenth() -> None:
    generator = np.random.default_rng(1)
    errors = []
    for _ in range(500):
        noise = np.exp(0.2 * generator.standard_normal(KEPT_RUNS))
        errors.append(abs(seconds(learned(*(300.0 * noise).tolist())) / 300.0 - 1.0))
    assert np.percentile(errors, 90) < 0.11
    assert np.median(errors) < 0.05


@pytest.mark.parametrize("factor", [3.0, 1.0 / 3.0])
def test_a_template_that_changes_its_work_is_found_after_a_few_runs(factor: float) -> None:
    durations = learned(*[100.0] * 40)
    after = [100.0 * factor] * CHANGE_RUNS
    for number, run_s in enumerate(after):
        assert seconds(durations) == pytest.approx(100.0)
        durations.completed("t", run_s, 1.0, 100.0 + number)
    assert seconds(durations) == pytest.approx(100.0 * factor)
    assert durations.counts["changed"] == 1


def test_noise_alone_is_no_change() -> None:
    generator = np.random.default_rng(3)
    durations = learned(*np.exp(0.3 * generator.standard_normal(5000)).tolist())
    assert durations.counts["changed"] <= 2


def test_runs_of_two_kinds_are_no_change_while_one_kind_is_rare() -> None:
    generator = np.random.default_rng(4)
    durations = learned(*(100.0 if kind < 0.1 else 10.0 for kind in generator.random(2000)))
    assert durations.counts["changed"] <= 2
    assert seconds(durations) == pytest.approx(10.0)


def test_old_runs_are_forgotten_and_the_latest_is_always_kept() -> None:
    durations = TemplateDurations(memory_s=100.0)
    for at in range(4):
        durations.completed("t", 10.0, 1.0, float(at))
    durations.completed("t", 20.0, 1.0, 1000.0)
    assert durations.expected_s("t") == (pytest.approx(20.0), pytest.approx(0.268, abs=1e-3), 1)


def test_a_clock_that_jumps_back_loses_nothing() -> None:
    durations = learned(10.0, 10.0, 10.0)
    durations.completed("t", 10.0, 1.0, -1e9)
    expected = durations.expected_s("t")
    assert expected is not None
    assert expected.runs == 4


@pytest.mark.parametrize(
    ("run_s", "speed", "at"),
    [
        (math.nan, 1.0, 0.0), (math.inf, 1.0, 0.0), (0.0, 1.0, 0.0), (-5.0, 1.0, 0.0), (5.0, 0.0, 0.0),
        (5.0, -1.0, 0.0), (5.0, math.nan, 0.0), (5.0, math.inf, 0.0), (5.0, 1.0, math.nan), (-5.0, -1.0, 0.0),
        (1e308, 1e308, 0.0), (1e-308, 1e-308, 0.0),
    ],
)  # fmt: skip
def test_a_run_that_makes_no_sense_is_counted_and_not_kept(run_s: float, speed: float, at: float) -> None:
    durations = TemplateDurations()
    assert not durations.completed("t", run_s, speed, at)
    assert durations.expected_s("t") is None
    assert durations.counts == {"invalid": 1}


def test_the_template_that_ran_longest_ago_gives_way() -> None:
    durations = TemplateDurations(templates=2)
    for number, template in enumerate(("a", "b", "a", "c")):
        durations.completed(template, 1.0, 1.0, float(number))
    assert [durations.expected_s(template) is not None for template in "abc"] == [True, False, True]
    assert len(durations) == 2


def test_the_eight_thousand_templates_of_the_default_fit_into_twelve_megabytes() -> None:
    durations = TemplateDurations(templates=512)
    tracemalloc.start()
    for number in range(700):
        for run in range(KEPT_RUNS + 1):
            durations.completed(f"{number:016x}", 1.0 + run, 1.0, float(number))
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(durations) == 512
    assert held / 512 * 8192 < 12e6


def test_a_run_costs_less_than_fifty_microseconds() -> None:
    durations = learned(*[1.0] * KEPT_RUNS)
    began = time.process_time()
    for number in range(2000):
        durations.completed("t", 1.0, 1.0, float(number))
    assert (time.process_time() - began) / 2000 < 50e-6


@pytest.mark.parametrize(("memory_s", "templates"), [(0.0, 1), (-1.0, 1), (math.nan, 1), (1.0, 0)])
def test_limits_that_make_no_sense_are_refused(memory_s: float, templates: int) -> None:
    with pytest.raises(InvalidInputError, match="give positive numbers"):
        TemplateDurations(memory_s, templates)
