"""The best feasible node: what ties, who wins, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest

from policy.errors import NonFinitePreferenceError
from training.simulator.ties import best_nodes, drawn_node


def test_a_pod_that_fits_nowhere_stays_pending() -> None:
    feasible = np.array([[False] * 3, [False, True, False]])
    best = best_nodes(np.zeros((2, 3)), feasible)
    assert drawn_node(best, np.random.default_rng(1).random((2, 3))).tolist() == [-1, 1]


def test_ties_are_broken_at_random_among_the_best_feasible() -> None:
    preference = np.tile(np.array([1.0, 3.0, 2.0, 2.0]), (2000, 1))
    feasible = np.tile(np.array([True, False, True, True]), (2000, 1))
    placed = drawn_node(best_nodes(preference, feasible), np.random.default_rng(1).random(feasible.shape))
    assert (placed == 2).mean() == pytest.approx(0.5, abs=0.05)
    assert set(placed.tolist()) == {2, 3}


def test_one_cluster_is_judged_as_many_are() -> None:
    assert best_nodes(np.array([1.0, 2.0, 2.0]), np.array([True, True, True])).tolist() == [False, True, True]
    assert not best_nodes(np.array([1.0]), np.array([False])).any()


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_preference_that_is_not_finite_is_refused(value: float) -> None:
    with pytest.raises(NonFinitePreferenceError, match="broken"):
        best_nodes(np.full((1, 2), value), np.ones((1, 2), dtype=np.bool_), "broken")
