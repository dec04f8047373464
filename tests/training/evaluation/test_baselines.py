"""Every baseline against an example computed by hand or taken from its source's own tests."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from policy.cluster import ClusterState, PodDemand
from policy.scorers import Scorer
from tests.policy.states import demands, random_state, silent_demands
from training.evaluation.baselines import (
    LoadVariationRiskBalancing,
    LowRiskOverCommitment,
    PowerOfTwoChoices,
    RoundRobin,
    StaticWeights,
    baselines,
    best_fit,
    first_fit,
    koordinator_load_aware,
    overcommitment_risk,
    target_load_packing,
    variation_risk,
)
from training.evaluation.static_weights import best_static
from training.simulator.scenarios import load_scenario

POD = PodDemand(cpu=1.0, memory=2.0, urgency=0.5)


def cluster(**columns: list[float]) -> ClusterState:
    """Nodes of 10 cores and 40 GiB with the given columns."""
    size = len(next(iter(columns.values())))
    values = {
        "cpu_allocatable": [10.0] * size,
        "memory_allocatable": [40.0] * size,
        "cpu_requested": [0.0] * size,
        "memory_requested": [0.0] * size,
        "cpu_used": [0.0] * size,
        "memory_used": [0.0] * size,
        "cpu_pressure": [0.0] * size,
        "node_speed": [1.0] * size,
        **columns,
    }
    arrays = {name: np.array(column, dtype=np.float64) for name, column in values.items()}
    return ClusterState(**arrays, version=np.zeros(size, dtype=np.int64))


def test_round_robin_takes_turns_and_skips_none() -> None:
    rule, state = RoundRobin(), cluster(cpu_used=[0.0] * 3)
    assert [int(rule.preferences(state, POD).argmax()) for _ in range(5)] == [0, 1, 2, 0, 1]
    # the node whose turn it is does not fit: the one after it is next best
    assert np.argsort(-rule.preferences(state, POD)).tolist() == [2, 0, 1]
    rule.reset()
    assert int(rule.preferences(state, POD).argmax()) == 0


def test_first_fit_prefers_the_first() -> None:
    assert first_fit(cluster(cpu_used=[9.0, 0.0]), POD).tolist() == [0.0, -1.0]


def test_best_fit_leaves_least() -> None:
    state = cluster(cpu_requested=[1.0, 8.0, 8.0], memory_requested=[4.0, 32.0, 4.0])
    # left: (8 + 34 GiB), (1 + 6), (1 + 34), over 10 cores and 40 GiB
    np.testing.assert_allclose(best_fit(state, POD), [-(0.8 + 0.85), -(0.1 + 0.15), -(0.1 + 0.85)])


def test_best_fit_takes_a_node_that_does_not_fit_last() -> None:
    """Pods that request nothing still fit by kube-scheduler's filter; each would go to the fullest node for ever."""
    nothing = PodDemand(0.0, 0.0, 0.5, 0.1, 0.2)
    state = replace(
        cluster(cpu_requested=[0.0, 0.0, 0.0, 9.0]),
        cpu_nonzero=np.array([0.0, 9.95, 30.0, 9.0]),
    )
    assert np.argsort(-best_fit(state, nothing)).tolist() == [3, 0, 1, 2]


def test_best_fit_prefers_the_small_node_that_is_filled() -> None:
    state = cluster(cpu_allocatable=[2.0, 18.0], memory_allocatable=[4.0, 76.0])
    assert int(best_fit(state, POD).argmax()) == 0


def test_power_of_two_takes_the_less_used_of_two() -> None:
    rule, state = PowerOfTwoChoices(seed=3), cluster(cpu_used=[0.0, 2.0, 4.0, 6.0, 8.0])
    chosen = np.array([int(rule.preferences(state, POD).argmax()) for _ in range(4000)])
    # P(node k is the less used of two of five) = (4 - k) / 10
    assert np.bincount(chosen, minlength=5) / 4000 == pytest.approx([0.4, 0.3, 0.2, 0.1, 0.0], abs=0.03)
    rule.reset()
    assert [int(rule.preferences(state, POD).argmax()) for _ in range(50)] == chosen[:50].tolist()


@pytest.mark.parametrize(
    ("used", "score"),
    [
        # predicted use is (used + 1.5) / 10
        pytest.param(0.5, 70.0, id="20 %: 60 x 20 / 40 + 40"),
        pytest.param(2.5, 100.0, id="40 %, the target, scores best"),
        pytest.param(5.5, 20.0, id="70 %: 40 x 30 / 60"),
        pytest.param(8.5, 0.0, id="100 %"),
        pytest.param(9.5, 0.0, id="beyond"),
    ],
)
def test_target_load_packing_packs_to_the_target_and_spreads_beyond(used: float, score: float) -> None:
    assert target_load_packing(cluster(cpu_used=[used]), POD).tolist() == [score]


@pytest.mark.parametrize(
    ("mean", "deviation", "margin", "sensitivity", "score"),
    [
        # the cases of analysis_test.go: average 40 and request 10 of 100, deviation 36
        pytest.param(0.5, 0.36, 1.0, 1.0, 57, id="valid data"),
        pytest.param(0.1, 0.36, 1.0, 2.0, 65, id="negative usedAvg counts as none"),
        pytest.param(1.1, 0.36, 1.0, 2.0, 20, id="large usedAvg"),
        pytest.param(0.5, -0.36, 1.0, 2.0, 75, id="negative usedStdev counts as none"),
        pytest.param(0.5, 1.2, 1.0, 2.0, 25, id="large usedStdev"),
        pytest.param(0.5, 0.36, -1.0, 1.0, 75, id="negative margin"),
        pytest.param(0.5, 0.36, 1.0, -1.0, 57, id="negative sensitivity"),
        pytest.param(0.5, 0.36, 1.0, 0.0, 75, id="zero sensitivity"),
    ],
)
def test_variation_risk_scores_as_trimarans_own_tests_say(
    mean: float, deviation: float, margin: float, sensitivity: float, score: int
) -> None:
    got = variation_risk(np.array([mean]), np.array([deviation]), margin, sensitivity)
    assert round(float(got[0])) == score


def test_variation_risk_avoids_the_restless_of_two_equally_used_nodes() -> None:
    rule = LoadVariationRiskBalancing()
    for turn in range(60):
        swing = 3.0 if turn % 2 else -3.0
        scores = rule.preferences(cluster(cpu_used=[5.0, 5.0 + swing]), POD)
    assert scores[0] > scores[1]
    # calm node: average 0.5, request 0.1, no deviation; memory is idle, so CPU decides
    assert scores[0] == 70.0


@pytest.mark.parametrize(
    ("mean", "requested", "limit", "requested_before", "limit_before", "risk"),
    [
        # the cases of lowriskovercommitment_test.go: capacity 4 cores and 4 Ki
        pytest.param(0.8, 0.5, 0.75, 0.25, 0.5, 0.5, id="test-cpu-1"),
        pytest.param(0.25, 0.5, 1.5, 0.0, 0.0, 0.25, id="test-mem-1"),
        pytest.param(0.8, 1.0, 1.25, 0.75, 1.0, 1.0, id="test-cpu-2"),
        pytest.param(0.25, 0.25, 1.75, 0.125, 1.5, 0.75, id="test-mem-2"),
    ],
)
def test_overcommitment_risk_is_what_trimarans_own_tests_say(
    mean: float, requested: float, limit: float, requested_before: float, limit_before: float, risk: float
) -> None:
    columns = [np.array([value]) for value in (mean, 0.0, requested, limit, requested_before, limit_before)]
    assert overcommitment_risk(*columns)[0] == pytest.approx(risk)


def test_overcommitment_risk_fits_a_beta_distribution_to_measured_use() -> None:
    # mean 1/2 and variance 1/12 are the uniform distribution's: Beta(1, 1). With limits beyond the node, the risk is
    # half the probability of more than what is requested, 0.25, and half of (1.2 - 1) / (1.2 - 0.8)
    deviation = np.sqrt(1.0 / 12.0) / np.sqrt(5.0)
    columns = [np.array([value]) for value in (0.5, deviation, 0.8, 1.2, 0.75, 1.1)]
    assert overcommitment_risk(*columns)[0] == pytest.approx(0.5 * 0.5 + 0.5 * 0.25)
    # limits below the node: given that use stays below 0.9, it exceeds 0.75 with (0.9 - 0.75) / 0.9
    columns = [np.array([value]) for value in (0.5, deviation, 0.8, 0.95, 0.75, 0.9)]
    assert overcommitment_risk(*columns)[0] == pytest.approx(0.5 * (0.15 / 0.9))


def test_low_risk_overcommitment_avoids_a_node_whose_use_exceeds_its_requests() -> None:
    rule = LowRiskOverCommitment()
    state = cluster(cpu_requested=[6.0, 6.0], cpu_used=[3.0, 9.0])
    for _ in range(5):
        scores = rule.preferences(state, POD)
    assert scores[0] > scores[1]


def test_koordinator_leaves_most_of_what_it_estimates_to_be_used() -> None:
    state = cluster(cpu_used=[5.0, 10.0], memory_used=[10.0, 0.0])
    # (10 - 5 - 0.85) / 10 = 41 %, (40 - 10 - 1.4) / 40 = 71 %; then 0 % and 96 %
    assert koordinator_load_aware(state, POD).tolist() == [56.0, 48.0]


def test_static_weights_are_constant_bids() -> None:
    state = cluster(cpu_requested=[4.0, 0.0], node_speed=[1.5, 0.5])
    headroom = [(0.5 + 0.95) / 2, (0.9 + 0.95) / 2]
    balance = [1 - (0.5 - 0.05) / 2, 1 - (0.1 - 0.05) / 2]
    expected = 0.5 * np.array(headroom) - 0.25 * np.array(balance) + 2.0 * np.array([0.75, 0.25])
    np.testing.assert_allclose(StaticWeights((0.5, -0.25, 2.0)).preferences(state, POD), expected)


def test_the_search_finds_weights_no_worse_than_the_corners_it_starts_from() -> None:
    small = load_scenario("reference").resized(4)
    found = best_static(small, candidates=4, episodes=4)
    assert found.weights[2] > 0.0


def test_every_baseline_scores_one_cluster_and_many_under_its_own_name() -> None:
    rules = baselines(seed=1)
    assert len({rule.name for rule in rules}) == len(rules) >= 14
    one = cluster(cpu_used=[1.0, 2.0, 3.0, 4.0])
    many = ClusterState(*(np.stack([getattr(one, name)] * 3) for name in ClusterState.__slots__))
    for rule in rules:
        assert isinstance(rule, Scorer)
        assert rule.preferences(one, POD).shape == (4,)
        scores = rule.preferences(many, POD)
        assert scores.shape == (3, 4)
        assert np.isfinite(scores).all()


UNAWARE = ("random", "round-robin", "first-fit", "power-of-two")
"""Rules that draw, or look at the order of nodes: nothing to compare."""


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    demand=demands | silent_demands,
    column=st.sampled_from(["cpu_used", "memory_used"]),
    share=st.floats(1.0, 30.0),
)
def test_no_rule_prefers_a_node_that_uses_more_than_it_has(
    seed: int, demand: PodDemand, column: str, share: float
) -> None:
    """All else equal, use beyond what is allocatable never makes a node better, whatever the node was like before.

    Trimaran's and Koordinator's formulas end at 100 % of use, and are cut there as their sources do.
    """
    one = random_state(np.random.default_rng(seed), 1)
    size = getattr(one, column.replace("used", "allocatable"))
    pair = one.take(np.array([0, 0]))
    getattr(pair, column)[1] = max(float(getattr(one, column)[0]), share * size[0])
    for rule in baselines():
        if rule.name in UNAWARE:
            continue
        usual, overloaded = rule.preferences(pair, demand).tolist()
        assert overloaded <= usual, f"{rule.name}: {overloaded} for {share:g} x {column}, {usual} for {one}"


PACKING = ("most-allocated",)
"""Full is what it looks for; a resource counts as at most 100 %, as in most_allocated.go."""

BALANCING = ("kube-default", "static-weights")
"""Balance may prefer the node that is full of both resources to one that is full of one of them, as
balanced_allocation.go does: kube-scheduler's filter takes such nodes out before."""


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), demand=demands | silent_demands, share=st.floats(1.0, 30.0))
def test_no_rule_prefers_a_node_of_which_more_is_requested_than_it_has(
    seed: int, demand: PodDemand, share: float
) -> None:
    one = random_state(np.random.default_rng(seed), 1)
    pair = one.take(np.array([0, 0]))
    for state in (pair.cpu_requested, pair.cpu_nonzero):
        state[1] += share * one.cpu_allocatable[0]
    for state in (pair.memory_requested, pair.memory_nonzero):
        state[1] += share * one.memory_allocatable[0]
    for rule in baselines():
        if rule.name in (*UNAWARE, *PACKING, *BALANCING):
            continue
        usual, overloaded = rule.preferences(pair, demand).tolist()
        assert overloaded <= usual, f"{rule.name}: {overloaded} against {usual} for {one}"
