"""State and demand refuse what cannot be."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from policy.cluster import ClusterState, PodDemand
from policy.errors import InvalidInputError
from tests.policy.states import random_state


def test_columns_of_another_shape_are_refused_with_the_column_named() -> None:
    state = ClusterState.idle([8.0, 16.0], 32.0)
    with pytest.raises(InvalidInputError, match=r"ClusterState\.cpu_used has shape \(3,\)"):
        replace(state, cpu_used=np.zeros(3))


def test_taking_rows_keeps_their_order_and_copies() -> None:
    state = random_state(np.random.default_rng(1), 5)
    taken = state.take(np.array([4, 1]))
    np.testing.assert_array_equal(taken.cpu_used, state.cpu_used[[4, 1]])
    taken.cpu_used[:] = -1.0
    assert (state.cpu_used >= 0.0).all()
    assert len(taken) == 2


def test_an_idle_state_does_not_share_its_columns() -> None:
    state = ClusterState.idle(8.0, np.full(3, 32.0))
    state.cpu_requested[0] = 1.0
    assert state.shape == (3,)
    assert state.cpu_used[0] == 0.0
    assert state.cpu_allocatable.tolist() == [8.0, 8.0, 8.0]


@pytest.mark.parametrize(
    ("field", "value"),
    [("cpu", -0.1), ("cpu", np.nan), ("memory", np.inf), ("memory", -1.0), ("urgency", 1.1), ("urgency", np.nan)],
)
def test_impossible_demands_are_refused_with_the_field_named(field: str, value: float) -> None:
    fine = {"cpu": 1.0, "memory": 1.0, "urgency": 0.5}
    with pytest.raises(InvalidInputError, match=rf"PodDemand\.{field}"):
        PodDemand(**{**fine, field: value})
