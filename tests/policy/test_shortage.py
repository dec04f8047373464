"""Nodes that may run out of memory come last, whatever is bid for them; all others are left as they are."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from statistics import NormalDist

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from policy import shortage
from policy.arithmetic import ARRAYS, FLOATS
from policy.bundle import load_bundle
from policy.cluster import EXPECTED_USE_RATIO, ClusterState, PodDemand
from policy.criteria import CLASSIC
from policy.observation import observe
from policy.scorers import ActorScorer, combine
from tests.policy.states import demands, random_state, requesting, write_bundle

POD = PodDemand(cpu=1.0, memory=4.0, urgency=0.5)


def holding(unseen: float, used: float, ratio: float = 1.2) -> ClusterState:
    """One node of 100 GiB, with pods not measured yet that request so much, among others of that ratio."""
    state = requesting(ClusterState.idle([10.0], [100.0]), [1.0], [80.0])
    unmeasured = {"memory_unseen": np.array([unseen]), "memory_ratio": np.array([ratio])}
    return replace(state, memory_used=np.array([used]), **unmeasured)


def test_pods_not_measured_yet_are_expected_to_use_what_the_others_do() -> None:
    # 20 GiB of requests count as 13 GiB of the 40
    assert shortage.expected_memory(holding(20.0, 40.0), POD, ARRAYS)[0] == pytest.approx(27.0 + 1.2 * 20.0 + 1.2 * 4.0)


def test_the_ratio_is_that_of_what_was_measured_and_near_1_while_little_was() -> None:
    assert shortage.use_ratio(60.0, 50.0, 100.0, FLOATS) == pytest.approx(65.0 / 55.0)
    assert shortage.use_ratio(0.0, 0.0, 100.0, FLOATS) == 1.0
    assert shortage.use_ratio(1.0, 90.0, 100.0, FLOATS) == EXPECTED_USE_RATIO
    assert shortage.use_ratio(90.0, 1.0, 100.0, FLOATS) == pytest.approx(95.0 / 6.0)


def test_pods_that_left_since_the_measurement_do_not_count() -> None:
    # 55 GiB were measured of pods that requested 45: a ratio of 60 / 50; those that are left request 15
    state = replace(holding(0.0, 55.0), memory_requested=np.array([15.0]), memory_nonzero=np.array([15.0]))
    assert shortage.expected_memory(state, POD, ARRAYS)[0] == pytest.approx(1.2 * (15.0 + 5.0) - 5.0 + 1.2 * 4.0)


def test_pods_that_request_nothing_count_with_what_was_measured() -> None:
    state = replace(holding(0.0, 80.0, ratio=85.0 / 6.0), memory_nonzero=np.array([1.0]))
    assert shortage.expected_memory(state, POD, ARRAYS)[0] == pytest.approx(80.0 + shortage.MOST_USE * 4.0)


def test_the_chance_is_the_normal_laws() -> None:
    for used in (60.0, 75.0, 80.0, 85.0, 99.0):
        state = holding(20.0, used)
        expected, deviation = shortage.expected_memory(state, POD, ARRAYS)[0], shortage.spread(state, POD, ARRAYS)[0]
        law = NormalDist(float(expected), float(deviation))
        assert shortage.shortage_chance(state, POD)[0] == pytest.approx(1.0 - law.cdf(100.0), abs=0.01)


def test_the_bound_lies_where_the_chance_is_the_largest_that_is_taken() -> None:
    deviation = shortage.USE_SPREAD * 1.2 * 4.0  # one pod of the usual size
    assert shortage.spread(holding(0.0, 0.0), POD, ARRAYS)[0] == pytest.approx(deviation)
    full = 100.0 - shortage.RISK * deviation - 1.2 * 4.0
    assert shortage.excess(holding(0.0, full), POD, ARRAYS)[0] == pytest.approx(0.0, abs=1e-9)
    assert shortage.shortage_chance(holding(0.0, full), POD)[0] == pytest.approx(shortage.LARGEST_CHANCE, abs=0.01)
    assert NormalDist().cdf(-shortage.RISK) == pytest.approx(shortage.LARGEST_CHANCE, abs=1e-4)


def test_an_empty_cluster_has_no_chance_of_a_shortage() -> None:
    nothing = PodDemand(0.0, 0.0, 0.0)
    assert shortage.shortage_chance(holding(0.0, 0.0), nothing).tolist() == [0.0]


@given(seed=st.integers(0, 2**32 - 1), demand=demands)
def test_nodes_beyond_the_bound_come_after_all_others_the_less_full_the_sooner(seed: int, demand: PodDemand) -> None:
    generator = np.random.default_rng(seed)
    state = random_state(generator, 12)
    wanted = generator.uniform(-4.0, 4.0, 12).astype(np.float32)
    bounded = shortage.bounded(wanted, state, demand)
    over = shortage.excess(state, demand, ARRAYS)
    beyond = over > 0.0
    np.testing.assert_array_equal(bounded[~beyond], wanted[~beyond])
    if beyond.any() and not beyond.all():
        assert bounded[beyond].max() < bounded[~beyond].min()
    alike = shortage.bounded(np.zeros(12), state, demand)[beyond]
    assert (np.diff(alike[np.argsort(over[beyond])]) <= 0.0).all()


def test_no_bid_of_a_policy_overrules_the_bound(tmp_path: Path) -> None:
    actors = load_bundle(write_bundle(tmp_path)).actors
    state = random_state(np.random.default_rng(0), 3, 6)
    state = replace(state, memory_used=np.zeros((3, 6)), memory_nonzero=np.zeros((3, 6)))
    state.memory_used[:, 2] = state.memory_nonzero[:, 2] = 3.0 * state.memory_allocatable[:, 2]
    free = combine(actors.bids(observe(state, POD)), CLASSIC.evaluate(state, POD))
    bounded = ActorScorer(actors).preferences(state, POD)
    others = np.delete(np.arange(6), 2)
    np.testing.assert_allclose(bounded[:, others], free[:, others], rtol=1e-5, atol=1e-6)
    assert (bounded[:, 2] < bounded[:, others].min(axis=1)).all()


@pytest.mark.parametrize("scale", [1.0, 1.0 / 32.0])
def test_a_small_node_of_small_pods_is_judged_as_a_large_one_of_large_pods(scale: float) -> None:
    """Half full of pods that were not measured: 16 of 32 GiB, or half of one GiB."""
    idle = ClusterState.idle([8.0 * scale], [32.0 * scale])
    state = requesting(idle, [1.0 * scale], [16.0 * scale])
    state = replace(state, memory_used=0.65 * state.memory_requested, memory_unseen=state.memory_requested)
    chance = shortage.shortage_chance(state, PodDemand(0.1 * scale, 1.0 * scale, 0.5))
    assert chance[0] < shortage.LARGEST_CHANCE / 5.0


def test_the_spread_of_pods_is_that_of_large_ones_from_a_large_node_on() -> None:
    for memory, of_each in ((1.0, 0.125), (8.0, 1.0), (32.0, 4.0), (512.0, 4.0)):
        state = ClusterState.idle([4.0], [memory])
        deviation = shortage.spread(state, PodDemand(0.1, 0.1, 0.5), ARRAYS)
        assert deviation[0] == pytest.approx(shortage.USE_SPREAD * (0.1 * of_each) ** 0.5)
