"""The trained policy's preference is the sum of bid x criterion."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from policy import criteria, shortage
from policy.actors import Actors
from policy.bundle import load_bundle
from policy.cluster import PodDemand
from policy.errors import NonFinitePreferenceError
from policy.observation import observe
from policy.scorers import ActorScorer, Scorer, combine
from tests.policy.states import actor_model, random_state, write_bundle

POD = PodDemand(cpu=1.0, memory=2.0, urgency=0.5)


def test_preference_is_the_sum_of_bid_times_criterion(tmp_path: Path) -> None:
    actors = load_bundle(write_bundle(tmp_path)).actors
    state = random_state(np.random.default_rng(0), 3, 6)
    scorer = ActorScorer(actors)
    assert isinstance(scorer, Scorer)
    expected = (actors.bids(observe(state, POD)) * criteria.evaluate(state, POD)).sum(axis=-1)
    expected = shortage.bounded(expected, state, POD)
    np.testing.assert_allclose(scorer.preferences(state, POD), expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(scorer.bids(state, POD), actors.bids(observe(state, POD)))


def test_constant_bids_are_the_known_heuristics() -> None:
    measures = np.array([[0.2, 0.3, 0.4, 1.0]], dtype=np.float32)
    least_plus_balanced = np.array([[1.0, 1.0, 0.0, 0.0]], dtype=np.float32)
    assert combine(least_plus_balanced, measures)[0] == pytest.approx(0.5)


def test_bids_that_are_not_finite_are_refused() -> None:
    scorer = ActorScorer(Actors(actor_model(np.full((8, 4), np.nan))), name="broken")
    with pytest.raises(NonFinitePreferenceError, match="broken"):
        scorer.preferences(random_state(np.random.default_rng(0), 4), POD)
