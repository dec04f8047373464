"""Kept scores equal scores computed afresh, over any history."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from extender.scorer.incremental import IncrementalPreferences
from policy.cluster import ClusterState, Demand, PodDemand
from policy.errors import InvalidInputError, ScoringError
from policy.heuristics import Random, by_name
from policy.scorers import Preferences, Scorer
from tests.policy.states import demands, random_state


class Counting:
    """A scorer that counts the rows it is asked about and can be told to fail."""

    name = "counting"
    local = True

    def __init__(self) -> None:
        self.rows = 0
        self.calls = 0
        self.failing = False
        self._rule: Scorer = by_name("expected-speed")

    def preferences(self, state: ClusterState, demand: Demand) -> Preferences:
        if self.failing:
            raise ScoringError("told to fail")
        self.rows += len(state)
        self.calls += 1
        return self._rule.preferences(state, demand)


POD = PodDemand(cpu=1.0, memory=2.0, urgency=0.5)


def change(state: ClusterState, rows: NDArray[np.intp], generator: np.random.Generator) -> None:
    state.cpu_used[rows] = generator.uniform(0.0, 8.0, len(rows))
    state.version[rows] += 1


histories = st.lists(
    st.tuples(st.integers(0, 3), st.lists(st.integers(0, 11), max_size=6, unique=True)), min_size=1, max_size=25
)


@settings(max_examples=60)
@given(history=histories, pods=st.lists(demands, min_size=4, max_size=4), seed=st.integers(0, 2**31))
def test_kept_scores_equal_fresh_ones_over_any_history(
    history: list[tuple[int, list[int]]], pods: list[PodDemand], seed: int
) -> None:
    generator = np.random.default_rng(seed)
    state = random_state(generator, 12)
    kept = IncrementalPreferences(by_name("expected-speed"), classes=3)
    for pod, rows in history:
        change(state, np.array(rows, dtype=np.intp), generator)
        fresh = by_name("expected-speed").preferences(state, pods[pod]).astype(np.float32)
        some = np.array(rows[::-1], dtype=np.intp)
        current = kept.current(state, pods[pod], some)
        if len(kept.stale(state, pods[pod], some)):
            assert current is None
        elif current is not None:
            np.testing.assert_array_equal(current, fresh[some])
        np.testing.assert_array_equal(kept.preferences(state, pods[pod]), fresh)
        np.testing.assert_array_equal(kept.current(state, pods[pod], some), fresh[some])
        assert len(kept) <= 3


def test_only_changed_rows_are_scored_again_in_one_call() -> None:
    generator = np.random.default_rng(2)
    state = random_state(generator, 100)
    scorer = Counting()
    kept = IncrementalPreferences(scorer)
    kept.preferences(state, POD)
    kept.preferences(state, POD)
    assert (scorer.calls, scorer.rows) == (1, 100)
    change(state, np.array([3, 77]), generator)
    assert kept.stale(state, POD).tolist() == [3, 77]
    kept.preferences(state, POD)
    assert (scorer.calls, scorer.rows) == (2, 102)


def test_a_subset_of_rows_is_answered_in_the_order_asked() -> None:
    state = random_state(np.random.default_rng(4), 10)
    scorer = Counting()
    kept = IncrementalPreferences(scorer)
    rows = np.array([7, 2, 5])
    full = by_name("expected-speed").preferences(state, POD).astype(np.float32)
    np.testing.assert_array_equal(kept.preferences(state, POD, rows), full[rows])
    assert scorer.rows == 3


def test_new_rows_are_scored_when_the_cluster_grows() -> None:
    generator = np.random.default_rng(6)
    kept = IncrementalPreferences(by_name("expected-speed"))
    kept.preferences(random_state(generator, 4), POD)
    grown = random_state(generator, 9)
    grown.version[:] = 1
    fresh = by_name("expected-speed").preferences(grown, POD).astype(np.float32)
    np.testing.assert_array_equal(kept.preferences(grown, POD), fresh)


def test_a_failing_scorer_leaves_nothing_wrong_behind() -> None:
    state = random_state(np.random.default_rng(8), 5)
    scorer = Counting()
    kept = IncrementalPreferences(scorer)
    scorer.failing = True
    with pytest.raises(ScoringError):
        kept.preferences(state, POD)
    scorer.failing = False
    assert kept.stale(state, POD).tolist() == [0, 1, 2, 3, 4]
    assert np.isfinite(kept.preferences(state, POD)).all()


def test_scores_that_depend_on_other_rows_cannot_be_kept() -> None:
    with pytest.raises(InvalidInputError, match="not local"):
        IncrementalPreferences(Random(np.random.default_rng(0)))


def test_remembering_no_class_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="classes"):
        IncrementalPreferences(by_name("expected-speed"), classes=0)


def test_forgetting_asks_the_scorer_again() -> None:
    state = random_state(np.random.default_rng(9), 5)
    scorer = Counting()
    kept = IncrementalPreferences(scorer)
    kept.preferences(state, POD)
    kept.clear()
    kept.preferences(state, POD)
    assert scorer.calls == 2
