"""How scorers are compared: the statistics, the protocol, the oracle and the table."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from policy import heuristics
from policy.errors import InvalidInputError, NonFinitePreferenceError
from tests.training.command_line import invoke
from tests.training.plain_scenarios import first_fit, plain
from training.evaluation import baselines
from training.evaluation.oracle import Oracle
from training.evaluation.protocol import choose, evaluate, play, play_with
from training.evaluation.statistics import (
    estimate,
    gap_closed,
    improvement_probability,
    interquartile_mean,
    paired_difference,
    relative_change,
)
from training.simulator.conditions import Condition
from training.simulator.draws import SELECTION_SEEDS, TEST_SEEDS, episode_seeds
from training.simulator.scenarios import load_scenario
from training.simulator.simulation import Simulator

SMALL = replace(load_scenario("reference").resized(3), warmup_arrivals=20, episode_arrivals=80)
KUBE = heuristics.by_name("kube-default")
SPEED = heuristics.by_name("expected-speed")

# ---- statistics


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        pytest.param([1.0, 2.0, 3.0, 100.0], 2.5, id="four: the middle two"),
        pytest.param([0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 100.0], 3.5, id="eight: the middle four"),
        # 1.25 is cut at each end: 0.75 of the second, the third, 0.75 of the fourth
        pytest.param([0.0, 1.0, 5.0, 6.0, 100.0], (0.75 * 1 + 5 + 0.75 * 6) / 2.5, id="five: fractions count"),
        pytest.param([7.0], 7.0, id="one"),
    ],
)
def test_the_interquartile_mean_leaves_a_quarter_out_at_each_end(values: list[float], expected: float) -> None:
    assert float(interquartile_mean(np.array(values))) == pytest.approx(expected)
    assert float(interquartile_mean(np.array(values[::-1]))) == pytest.approx(expected)


def test_intervals_cover_the_true_mean_as_often_as_they_say() -> None:
    generator = np.random.default_rng(0)
    covered = 0
    for _ in range(200):
        found = estimate(generator.normal(3.0, 1.0, 40))
        covered += found.low <= 3.0 <= found.high
    assert 0.88 <= covered / 200 <= 0.99


def test_equal_numbers_give_equal_intervals() -> None:
    values = np.random.default_rng(1).random(30)
    assert estimate(values) == estimate(values.copy())


def test_the_bootstrap_is_stratified() -> None:
    # two trained policies that differ in everything, with no spread within: nothing to resample
    found = estimate(np.array([[1.0] * 10, [3.0] * 10]))
    assert (found.value, found.low, found.high) == (2.0, 2.0, 2.0)


def test_pairing_sees_a_difference_that_the_spread_of_episodes_hides() -> None:
    generator = np.random.default_rng(2)
    hard = generator.random(40)
    ours, theirs = hard - 0.02, hard + generator.normal(0.0, 0.005, 40)
    assert paired_difference(ours, theirs).high < 0.0
    assert estimate(ours).high > estimate(theirs).low


def test_relative_change_is_of_means() -> None:
    change = relative_change([1.0, 1.0, 1.0, 1.0], [2.0, 4.0, 2.0, 4.0])
    assert change.value == pytest.approx(-2 / 3)
    assert change.low < -2 / 3 < change.high
    assert np.isnan(relative_change([0.0, 0.0], [0.0, 0.0]).value)


def test_the_closed_gap_is_none_at_the_rule_and_one_at_the_oracle() -> None:
    rule, oracle = [4.0, 6.0, 5.0], [1.0, 3.0, 2.0]
    assert gap_closed(rule, rule, oracle).value == 0.0
    assert gap_closed(oracle, rule, oracle).value == 1.0
    assert gap_closed([2.5, 4.5, 3.5], rule, oracle).value == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("ours", "theirs", "expected"),
    [
        pytest.param([1.0, 1.0], [2.0, 2.0], 1.0, id="always less"),
        pytest.param([1.0, 3.0], [2.0, 2.0], 0.5, id="less as often as more"),
        pytest.param([2.0, 2.0], [2.0, 2.0], 0.5, id="ties count half"),
        pytest.param([1.0, 2.0], [2.0, 2.0], 0.75, id="a win and a tie"),
    ],
)
def test_the_probability_of_improvement_counts_episodes(
    ours: list[float], theirs: list[float], expected: float
) -> None:
    assert improvement_probability(ours, theirs).value == expected
    assert improvement_probability(ours, theirs, lower_is_better=False).value == 1.0 - expected


@pytest.mark.parametrize(
    "values",
    [pytest.param([], id="none"), pytest.param([1.0, np.nan], id="nan"), pytest.param([[[1.0]]], id="three axes")],
)
def test_numbers_that_are_no_sample_are_refused(values: object) -> None:
    with pytest.raises(InvalidInputError, match="values"):
        estimate(values)  # type: ignore[arg-type]


def test_samples_that_are_no_pairs_are_refused() -> None:
    with pytest.raises(InvalidInputError, match="pairs"):
        paired_difference([1.0, 2.0], [1.0, 2.0, 3.0])


# ---- protocol


def test_every_scorer_meets_the_same_episodes_and_results_repeat() -> None:
    first = evaluate([KUBE, SPEED], Condition(SMALL, 0.4, episodes=6), TEST_SEEDS)
    second = evaluate([SPEED, KUBE], Condition(SMALL, 0.4, episodes=6), TEST_SEEDS, batch=4)
    for name in ("kube-default", "expected-speed"):
        for metric, values in first.values[name].items():
            np.testing.assert_allclose(second.values[name][metric], values, rtol=1e-9, err_msg=metric)
    assert (first.values["kube-default"]["cpu_used"] != first.values["expected-speed"]["cpu_used"]).all()


def test_other_seeds_are_other_episodes() -> None:
    selection = evaluate([KUBE], Condition(SMALL, 0.4, episodes=4), SELECTION_SEEDS).values["kube-default"]["cpu_used"]
    test = evaluate([KUBE], Condition(SMALL, 0.4, episodes=4), TEST_SEEDS).values["kube-default"]["cpu_used"]
    assert not np.isclose(selection, test).any()


def test_an_episode_goes_on_until_its_pods_are_decided() -> None:
    # all pods take 100 s or more on any node, so most of the last ones are undecided when the last arrives
    seeds = episode_seeds(TEST_SEEDS[:3])
    scenario = plain(3, load=(0.3, 0.3), episode_arrivals=40, warmup_arrivals=10)
    simulators: list[Simulator] = []

    def decide(simulator: Simulator, decision: int) -> np.ndarray:
        del decision
        simulators[:] = [simulator]
        return first_fit(simulator)

    result = play_with(decide, scenario, seeds, None)
    assert (simulators[0].undecided() == 0).all()
    assert (simulators[0].arrived > 40).all()
    assert np.isfinite(result["sla_violation_rate"]).all()


def test_ties_are_broken_at_random_over_the_feasible() -> None:
    seeds = np.arange(4000, dtype=np.uint64)
    preferences = np.tile([1.0, 3.0, 3.0, 3.0], (4000, 1))
    feasible = np.tile([True, True, False, True], (4000, 1))
    chosen = choose(preferences, feasible, seeds, 7)
    assert np.bincount(chosen, minlength=4) / 4000 == pytest.approx([0.0, 0.5, 0.0, 0.5], abs=0.03)
    assert chosen.tolist() == choose(preferences, feasible, seeds, 7).tolist()
    assert chosen.tolist() != choose(preferences, feasible, seeds, 8).tolist()


def test_a_pod_that_fits_nowhere_is_left_in_the_queue() -> None:
    nowhere = np.zeros((2, 3), dtype=np.bool_)
    assert choose(np.ones((2, 3)), nowhere, np.arange(2, dtype=np.uint64), 0).tolist() == [-1, -1]


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_preference_that_is_not_finite_is_refused(value: float) -> None:
    with pytest.raises(NonFinitePreferenceError, match="broken"):
        choose(np.full((1, 2), value), np.ones((1, 2), dtype=np.bool_), np.zeros(1, dtype=np.uint64), 0, "broken")


@pytest.mark.parametrize(
    ("scorers", "episodes", "batch", "named"),
    [
        pytest.param([KUBE, KUBE], 2, 2, "name", id="two of one name"),
        pytest.param([KUBE], 0, 2, "seeds is 0", id="no seeds"),
        pytest.param([KUBE], 3, 2, "seeds is 3; give a number from 1 to 2", id="too few seeds"),
        pytest.param([KUBE], 2, 0, "batch", id="no batch"),
    ],
)
def test_a_senseless_comparison_is_refused(scorers: list[object], episodes: int, batch: int, named: str) -> None:
    with pytest.raises(InvalidInputError, match=named):
        evaluate(scorers, Condition(SMALL, 0.4, episodes=episodes), TEST_SEEDS[:2], batch)  # type: ignore[arg-type]


# ---- oracle


def test_the_oracle_beats_the_policy_it_rolls_forward() -> None:
    seeds = episode_seeds(TEST_SEEDS[:6])
    base = play(KUBE, SMALL, seeds, 0.5)["sla_violation_rate"]
    best = play_with(Oracle(seeds, KUBE, horizon=6), SMALL, seeds, 0.5)["sla_violation_rate"]
    assert best.mean() < 0.85 * base.mean()
    assert (best <= base).all()


def test_looking_ahead_leaves_the_simulator_alone() -> None:
    seeds = episode_seeds(TEST_SEEDS[:2])
    simulator = Simulator(SMALL, 2, seeds)
    before = simulator.state
    placement = Oracle(seeds, horizon=3)(simulator, 0)
    np.testing.assert_array_equal(simulator.state.cpu_used, before.cpu_used)
    assert (simulator.arrived == 1).all()
    assert simulator.feasible[np.arange(2), placement].all()


def test_the_oracle_waits_where_a_pod_fits_nowhere() -> None:
    seeds = episode_seeds(TEST_SEEDS[:1])
    simulator = Simulator(plain(1), 1, seeds)
    while simulator.feasible.any():
        simulator.step(np.array([0]))
    assert Oracle(seeds, horizon=2)(simulator, 0).tolist() == [-1]


# ---- table


def test_the_table_names_its_condition_and_sorts_by_sla_violations(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(baselines, "baselines", lambda: [KUBE, SPEED])
    lines = invoke("rules", "reference", "--load", "0.4", "--nodes", "2", "--episodes", "2").splitlines()
    assert lines[0] == "reference version 1, 2 nodes, load 0.4, 2 test episodes"
    rates = [float(line.split("|")[2].split("[")[0]) for line in lines[4:]]
    assert len(rates) == 2
    assert rates == sorted(rates)
