"""The best constant bids, by random search on selection seeds.

`maddpg-train static-weights` prints them.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from training.evaluation.baselines import StaticWeights
from training.evaluation.protocol import SLA, evaluate
from training.simulator.conditions import Condition
from training.simulator.draws import SELECTION_SEEDS
from training.simulator.scenarios import Scenario

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
        result = evaluate(scorers, Condition(scenario, episodes=share), SELECTION_SEEDS)
        rate = {scorer.weights: result.mean(scorer.name, SLA).value for scorer in scorers}
        tried = sorted(tried, key=lambda weights: rate[weights])[:FINALISTS]
    return StaticWeights(tried[0])
