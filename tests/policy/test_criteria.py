"""The four criteria against kube-scheduler's formulas, and their range."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from policy import criteria
from policy.cluster import COLUMNS, ClusterState, DemandBatch, PodDemand
from tests.policy.states import demands, random_state, requesting, silent_demands


def node(*, requested: tuple[float, float] = (0.0, 0.0), used: float = 0.0, speed: float = 1.0) -> ClusterState:
    """One node of 10 cores and 100 GiB."""
    idle = ClusterState.idle([10.0], [100.0], [speed])
    return replace(requesting(idle, requested[:1], requested[1:]), cpu_used=np.array([used]))


POD = PodDemand(cpu=2.0, memory=10.0, urgency=0.5)


@pytest.mark.parametrize(
    ("requested", "headroom", "balance"),
    [
        ((0.0, 0.0), (0.8 + 0.9) / 2, 0.95),
        ((3.0, 40.0), (0.5 + 0.5) / 2, 1.0),
        ((8.0, 0.0), (0.0 + 0.9) / 2, 0.55),
        ((12.0, 90.0), 0.0, 1.0),
    ],
    ids=["empty", "balanced", "CPU full", "overcommitted"],
)
def test_requests_give_kube_schedulers_scores(requested: tuple[float, float], headroom: float, balance: float) -> None:
    assert criteria.headroom(node(requested=requested), POD)[0] == pytest.approx(headroom)
    assert criteria.balance(node(requested=requested), POD)[0] == pytest.approx(balance)


@pytest.mark.parametrize(
    ("used", "speed", "expected"),
    [(0.0, 1.0, 0.5), (0.0, 1.6, 0.8), (6.7, 1.0, 0.375), (8.7, 1.0, 0.25), (18.7, 1.0, 0.125), (0.0, 3.0, 1.0)],
    ids=["idle", "fast", "half way past the knee", "full", "twice full", "clipped"],
)
def test_expected_speed_is_speed_times_share_times_contention(used: float, speed: float, expected: float) -> None:
    assert criteria.expected_speed(node(used=used, speed=speed), POD)[0] == pytest.approx(expected)


NOTHING = PodDemand(0.0, 0.0, 0.5, cpu_nonzero=2.0, memory_nonzero=10.0)


def test_headroom_counts_nonzero_requests_and_balance_real_ones() -> None:
    state = replace(node(requested=(3.0, 40.0)), cpu_nonzero=np.array([4.0]), memory_nonzero=np.array([60.0]))
    half = PodDemand(2.0, 0.0, 0.5, memory_nonzero=10.0)
    assert criteria.headroom(state, half)[0] == pytest.approx((0.4 + 0.3) / 2)
    assert criteria.balance(state, half)[0] == pytest.approx(1.0 - (0.5 - 0.4) / 2)
    assert criteria.evaluate(state, half)[0].tolist() == pytest.approx([0.35, 0.95, 0.5, 1.0])


def test_a_pod_that_requests_nothing_changes_no_balance() -> None:
    """kube-scheduler skips BalancedAllocation for it, so every node must get the same."""
    state = requesting(ClusterState.idle([10.0] * 3, 100.0), [0.0, 9.0, 3.0], [90.0, 0.0, 50.0])
    assert criteria.balance(state, NOTHING).tolist() == [criteria.BALANCED] * 3
    assert criteria.evaluate(state, NOTHING)[:, 1].tolist() == [criteria.BALANCED] * 3
    assert criteria.headroom(state, NOTHING)[0] == pytest.approx((0.8 + 0.0) / 2)
    batch = DemandBatch(*(np.array([[value], [value]]) for value in (0.0, 0.0, 0.5, 2.0, 10.0)))
    batch.cpu[1] = 2.0
    both = criteria.evaluate(ClusterState(*(np.stack([getattr(state, name)] * 2) for name in COLUMNS)), batch)
    assert both[0, :, 1].tolist() == [criteria.BALANCED] * 3
    np.testing.assert_array_equal(both[1, :, 1], criteria.balance(state, PodDemand(2.0, 0.0, 0.5)).astype(np.float32))


@given(seed=st.integers(0, 2**32 - 1), demand=demands | silent_demands)
def test_criteria_stay_between_zero_and_one(seed: int, demand: PodDemand) -> None:
    measured = criteria.evaluate(random_state(np.random.default_rng(seed), 8), demand)
    assert measured.shape == (8, criteria.CRITERIA_COUNT)
    assert ((measured >= 0.0) & (measured <= 1.0)).all()
    assert (measured[:, 3] == 1.0).all()


@given(seed=st.integers(0, 2**32 - 1), demand=demands | silent_demands)
def test_physical_criteria_stay_between_zero_and_one(seed: int, demand: PodDemand) -> None:
    measured = criteria.physical(random_state(np.random.default_rng(seed), 8), demand)
    assert measured.shape == (8, criteria.CRITERIA_COUNT)
    assert ((measured >= 0.0) & (measured <= 1.0)).all()
    assert (measured[:, criteria.CONSTANT] == 1.0).all()


def test_physical_criteria_are_chances_and_room() -> None:
    # uses 1.3 cores, 0.13 of the node; the margin of rate over urgency is 1 / (1.221 x 0.819) = 1: even odds
    pod = PodDemand(cpu=2.0, memory=10.0, urgency=1.0 / 1.221)
    in_time, neighbours, room, _ = criteria.physical(node(), pod)[0].tolist()
    assert in_time == pytest.approx(0.5)
    assert neighbours == 1.0
    assert room == pytest.approx(0.85 / (1.0 + (0.1 / 0.9) ** 16))
    in_time, neighbours, _, _ = criteria.physical(node(used=7.0), pod)[0].tolist()
    margin = 1.0 - 0.302 * (0.83 - 0.567) / 0.433
    assert in_time == pytest.approx(margin**5 / (1.0 + margin**5))
    assert neighbours == pytest.approx(1.0 / (1.0 + 0.169 * 7.0 * 0.13 / 0.433))
    # 70 GiB are used by pods that request nothing, and this one may use twice its request: 90 of 100
    full = replace(node(), memory_used=np.array([70.0]), memory_ratio=np.array([(70.0 + 5.0) / 5.0]))
    assert criteria.physical(full, pod)[0, 2] == pytest.approx(0.85 / 2.0)


def test_a_speed_beyond_all_bounds_is_in_time() -> None:
    fast = replace(node(), node_speed=np.array([1e300]))
    assert criteria.physical(fast, PodDemand(cpu=1.0, memory=1.0, urgency=0.0))[0, 0] == pytest.approx(1.0)


def test_a_set_is_found_by_the_names_of_its_criteria() -> None:
    for each in criteria.CRITERIA_SETS.values():
        assert criteria.set_of(list(each.names)) is each
        assert len(each.names) == len(each.meanings) == criteria.CRITERIA_COUNT
        assert each.names[criteria.CONSTANT] == "constant"
    assert criteria.set_of(["headroom"]) is None
