"""The best constant bids, by random search on selection seeds.

`python -m training.evaluation.static_weights` prints them.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from training.evaluation.baselines import StaticWeights
from training.evaluation.protocol import evaluate
from training.simulator.draws import SELECTION_SEEDS
from training.simulator.scenarios import Scenario, load_scenario

EPISODES: Final = 64
CANDIDATES: Final = 60
FINALISTS: Final = 6
SEED: Final = 1


def best_static(scenario: Scenario, candidates: int = CANDIDATES, episodes: int = EPISODES) -> StaticWeights:
    """The weights with the fewest SLA violations among random ones and the corners.

    Candidates meet a quarter of the episodes; the best `FINALISTS` of them meet all.
    """
    generator = np.random.default_rng(SEED)
    drawn = generator.uniform(-1.0, 1.0, (candidates, 3))
    drawn[:, 2] = np.abs(drawn[:, 2])  # nobody wants the slowest node
    corners = np.array([[0.0, 0.0, 1.0], [1.0, 0.0, 1.0], [1.0, 1.0, 1.0], [0.5, 0.5, 0.0]])
    tried = [tuple(row) for row in np.round(np.vstack([corners, drawn]), 3).tolist()]
    for share in (max(1, episodes // 4), episodes):
        scorers = [StaticWeights(weights, str(weights)) for weights in tried]
        result = evaluate(scorers, scenario, SELECTION_SEEDS[:share])
        rate = {scorer.weights: result.mean(scorer.name, "sla_violation_rate").value for scorer in scorers}
        tried = sorted(tried, key=lambda weights: rate[weights])[:FINALISTS]
    return StaticWeights(tried[0])


if __name__ == "__main__":
    print(best_static(load_scenario("reference")).weights)
