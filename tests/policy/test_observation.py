"""What an agent sees: the eight features against hand-computed values."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from policy import features
from policy.cluster import ClusterState, DemandBatch, PodDemand
from policy.observation import estimated_pressure, observe, observe_unclipped
from tests.policy.states import demands, random_state, requesting, silent_demands


def test_every_feature_has_its_hand_computed_value() -> None:
    state = replace(
        requesting(ClusterState.idle([8.0], [32.0], [1.4]), [2.0], [4.0]),
        cpu_used=np.array([1.0]),
        memory_used=np.array([8.0]),
        cpu_pressure=np.array([0.2]),
    )
    seen = observe(state, PodDemand(cpu=2.0, memory=4.0, urgency=0.5))
    np.testing.assert_allclose(seen, [[0.5, 0.25, 0.125, 0.25, 0.2, 0.4, 0.25, 0.5]], rtol=1e-6)
    assert seen.dtype == np.float32


def test_requests_are_nonzero_requests() -> None:
    """A pod that requests nothing is seen, while it is asked about and once it is there."""
    state = replace(ClusterState.idle([8.0], [32.0]), cpu_nonzero=np.array([2.0]), memory_nonzero=np.array([4.0]))
    seen = observe(state, PodDemand(0.0, 0.0, 0.5, cpu_nonzero=2.0, memory_nonzero=4.0))
    np.testing.assert_array_equal(seen, [[0.5, 0.25, 0.0, 0.0, 0.0, 0.0, 0.25, 0.5]])


@given(seed=st.integers(0, 2**32 - 1), demand=demands | silent_demands)
def test_observations_stay_within_the_bounds_of_the_schema(seed: int, demand: PodDemand) -> None:
    state = random_state(np.random.default_rng(seed), 12)
    seen = observe(state, demand)
    assert ((seen >= features.LOW) & (seen <= features.HIGH)).all()


def test_values_outside_the_bounds_show_before_clipping() -> None:
    state = replace(ClusterState.idle([2.0], [4.0]), cpu_used=np.array([9.0]))
    demand = PodDemand(cpu=1.0, memory=1.0, urgency=0.0)
    assert observe_unclipped(state, demand)[0, 2] == pytest.approx(4.5)
    assert observe(state, demand)[0, 2] == 2.0


def test_many_clusters_at_once_equal_each_cluster_alone() -> None:
    generator = np.random.default_rng(3)
    state = random_state(generator, 4, 6)
    cpu, memory, urgency = generator.uniform(0.0, 1.0, (3, 4, 1))
    together = observe(state, DemandBatch(cpu, memory, urgency))
    for row in range(4):
        alone = ClusterState(*(getattr(state, name)[row] for name in ClusterState.__dataclass_fields__))
        demand = PodDemand(cpu[row, 0], memory[row, 0], urgency[row, 0])
        np.testing.assert_array_equal(together[row], observe(alone, demand))


@pytest.mark.parametrize(
    ("use", "pressure"),
    [(0.0, 0.0), (0.6, 0.0), (0.8, 0.15), (1.0, 0.3), (2.0, 0.8), (100.0, 1.0)],
    ids=["idle", "at the knee", "past the knee", "full", "twice full", "hopeless"],
)
def test_pressure_is_estimated_from_use(use: float, pressure: float) -> None:
    estimate = estimated_pressure(np.array([use * 4.0]), np.array([4.0]))
    assert estimate[0] == pytest.approx(pressure, abs=1e-9)


def test_the_schema_fingerprint_moves_with_the_meaning_of_a_feature(monkeypatch: pytest.MonkeyPatch) -> None:
    before = features.schema_fingerprint()
    changed = (replace(features.FEATURES[0], meaning="something else"), *features.FEATURES[1:])
    monkeypatch.setattr(features, "FEATURES", changed)
    assert features.schema_fingerprint() != before
