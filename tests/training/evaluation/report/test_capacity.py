"""The bound on sustained load: above what any use of a node finishes, and 1 where nothing stands in the way."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from training.evaluation.report.capacity import peak_throughput, sustainable_load
from training.simulator.contention import SENSITIVITY, rates
from training.simulator.draws import episode_seeds
from training.simulator.scenarios import Hidden, load_scenario

REFERENCE = load_scenario("reference")
SEEDS = episode_seeds(range(8))


def test_no_use_of_a_node_finishes_more_work_than_the_bound() -> None:
    generator = np.random.default_rng(1)
    use = generator.uniform(0.0, 1.5, (20_000, 1)) * generator.dirichlet([0.5, 0.5, 0.5], 20_000) * 8.0
    noise = generator.uniform(0.6, 1.4, 20_000)
    ones = np.ones(20_000)
    finished = (use * rates(use, 8.0 * ones, ones, 0.0 * ones, noise, SENSITIVITY)).sum(axis=1) / 8.0
    bound = peak_throughput(SENSITIVITY.min() * noise)
    assert (finished <= bound + 1e-12).all()
    assert (finished / bound).max() > 0.98, "the bound is far from what a node can do"


@pytest.mark.parametrize(
    ("sensitivity", "most"),
    [
        pytest.param(0.0, 1.0, id="nothing disturbs"),
        pytest.param(0.2, 0.8, id="full use is best"),
        pytest.param(0.35, 0.66446, id="in between"),  # use r = (0.4 + 0.6 x 0.35) / (2 x 0.35), worked by hand
        pytest.param(5.0, 0.6, id="at the knee"),
    ],
)
def test_the_best_use_is_found(sensitivity: float, most: float) -> None:
    assert peak_throughput(np.array([sensitivity]))[0] == pytest.approx(most, abs=1e-4)


def test_a_cluster_without_decay_is_bounded_by_its_best_use_alone() -> None:
    still = replace(REFERENCE, hidden=Hidden())
    assert sustainable_load(still, SEEDS) == pytest.approx(0.66446, abs=1e-4)


def test_decay_takes_its_mean() -> None:
    # the mean of a normal variable of deviation 0.25 that is cut at 0 is 0.25 / sqrt(2 pi)
    decaying = replace(REFERENCE, hidden=Hidden(decay_spread=0.25))
    assert sustainable_load(decaying, SEEDS) == pytest.approx(0.66446 * (1.0 - 0.25 / np.sqrt(2.0 * np.pi)), abs=1e-3)


def test_the_reference_scenario_has_a_bound_for_every_cluster_and_size() -> None:
    for nodes in (10, 100):
        bound = sustainable_load(REFERENCE.resized(nodes), SEEDS)
        assert bound.shape == (8,)
        assert ((bound > 0.5) & (bound < 0.7)).all()
