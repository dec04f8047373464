"""Preferences to priorities: integers 0..10, monotone, fine near the top."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from policy.errors import InvalidInputError, NonFinitePreferenceError
from policy.priorities import MAX_PRIORITY, TAIL, TAIL_TEMPERATURE, priorities

finite = st.floats(-4.0, 4.0, width=32)


@given(st.lists(finite, min_size=1, max_size=50), st.floats(0.01, 1.0))
def test_priorities_are_integers_in_range_and_monotone(values: list[float], temperature: float) -> None:
    preferences = np.array(values, dtype=np.float32)
    given_priorities = priorities(preferences, temperature)
    assert given_priorities.dtype == np.int64
    assert given_priorities.min() >= 0
    assert given_priorities.max() == MAX_PRIORITY
    assert given_priorities[preferences.argmax()] == MAX_PRIORITY
    assert (np.diff(given_priorities[np.argsort(preferences)]) >= 0).all()


def test_the_levels_are_spent_near_the_top() -> None:
    got = priorities(np.array([0.0, -0.01, -0.05, -0.1, -0.3, -1.0]), temperature=0.1)
    assert got.tolist() == [10, 9, 6, 4, 1, 0]


def test_nodes_far_from_the_best_are_told_apart() -> None:
    """The best one is no longer asked about once it is full, and in-tree scores may outweigh what it has more."""
    got = priorities(np.array([2.21, 1.79, 1.59, 1.08]), temperature=0.012)
    assert got.tolist() == [10, 1, 0, 0]
    assert priorities(np.array([2.21, 2.19, 2.14, 2.0]), temperature=0.012).tolist() == [10, 3, 2, 1]


def test_no_nodes_give_no_priorities() -> None:
    assert priorities(np.empty(0)).shape == (0,)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_preferences_that_are_not_finite_are_refused_with_the_row_named(bad: float) -> None:
    with pytest.raises(NonFinitePreferenceError, match="row 1"):
        priorities(np.array([0.0, bad, 1.0]))


@pytest.mark.parametrize("temperature", [0.0, -1.0, np.nan, np.inf])
def test_a_temperature_that_is_not_positive_is_refused(temperature: float) -> None:
    with pytest.raises(InvalidInputError, match="temperature"):
        priorities(np.array([0.0]), temperature)


@given(st.lists(finite, min_size=1, max_size=50), st.floats(0.01, 1.0))
def test_priorities_are_the_greater_exponential_rounded(values: list[float], temperature: float) -> None:
    preferences = np.array(values, dtype=np.float32)
    lost = preferences.astype(np.float64) - preferences.max()
    exact = np.maximum(MAX_PRIORITY * np.exp(lost / temperature), TAIL * np.exp(lost / TAIL_TEMPERATURE))
    sure = np.abs(exact % 1.0 - 0.5) > 1e-9  # at a half itself, either way is right
    assert (priorities(preferences, temperature)[sure] == np.rint(exact[sure])).all()
