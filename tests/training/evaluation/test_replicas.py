"""The largest share of a workload's replicas on one node."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from policy import heuristics
from policy.heuristics import Heuristic
from training.evaluation.protocol import evaluate
from training.evaluation.replicas import REPLICA_SHARE, ReplicaCounts
from training.simulator.conditions import Condition
from training.simulator.deviations import REPLICAS, find_scenario
from training.simulator.draws import TEST_SEEDS

SHORT = replace(find_scenario("first-look"), episode_arrivals=4 * REPLICAS)


def test_the_share_is_the_mean_over_workloads_of_the_largest() -> None:
    scenario = replace(SHORT, nodes=3, episode_arrivals=12, arrivals=replace(SHORT.arrivals, replicas=4))
    counts = ReplicaCounts(scenario, 2)
    # the first cluster: 3 of 4 on one node, then 2 of 4 (one never placed), nothing of the third workload
    placed = [0, 0, 1, 0, 2, 2, 1, -1]
    for number, node in enumerate(placed):
        counts.add(np.array([number, number]), np.array([node, -1]))
    counts.add(np.array([12, 12]), np.array([0, 0]))  # beyond the episode
    shares = counts.largest_share()
    assert shares[0] == pytest.approx((3 / 4 + 2 / 3) / 2)
    assert np.isnan(shares[1])


def test_evaluation_measures_it_where_workloads_have_replicas() -> None:
    first_fit = Heuristic("first-fit", lambda state, demand: -np.arange(len(state)) + 0.0 * state.cpu_used)
    condition = Condition(SHORT, 0.2, episodes=4)
    played = evaluate([first_fit, heuristics.by_name("kube-default")], condition, TEST_SEEDS)
    packed, spread = (played.values[name][REPLICA_SHARE] for name in ("first-fit", "kube-default"))
    assert (packed > spread).all()
    assert (spread >= 1.0 / REPLICAS).all()
    assert (packed <= 1.0).all()
    small = replace(find_scenario("three"), episode_arrivals=60)
    usual = evaluate([first_fit], Condition(small, 0.2, episodes=2), TEST_SEEDS)
    assert REPLICA_SHARE not in usual.values["first-fit"]
