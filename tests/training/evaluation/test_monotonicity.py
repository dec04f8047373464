"""How often a scorer prefers the worse of two nodes that differ in one thing."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from policy import criteria, heuristics
from policy.actors import Actors
from policy.bundle import load_bundle, shipped_bundle_path
from policy.cluster import ClusterState, Demand, FloatArray
from policy.heuristics import Heuristic
from policy.scorers import ActorScorer
from training.config import ActorConfig
from training.evaluation.monotonicity import WORSENED, random_nodes, violations, worsened
from training.export import onnx_model
from training.learning.networks import build_actor


def test_a_rule_that_keeps_to_the_order_has_no_violation() -> None:
    assert set(violations(heuristics.by_name("expected-speed"), rows=1000).values()) == {0}


def test_a_rule_that_wants_the_worse_node_is_counted_by_kind() -> None:
    def slow_and_pressed(state: ClusterState, demand: Demand) -> FloatArray:
        del demand
        return state.cpu_pressure - state.node_speed

    found = violations(Heuristic("perverse", slow_and_pressed), rows=1000)
    wanted = {kind for kind, count in found.items() if count}
    assert wanted == {"slower", "more pressed"}
    assert found["slower"] > 990
    # a node whose tasks wait all the time cannot wait longer
    assert found["more pressed"] > 900


def test_worse_nodes_differ_in_one_thing() -> None:
    generator = np.random.default_rng(0)
    state, _ = random_nodes(100, generator)
    for column in WORSENED.values():
        worse = worsened(state, column, generator)
        changed = [name for name in ClusterState.__slots__ if (getattr(worse, name) != getattr(state, name)).any()]
        counted = [column.replace("requested", "nonzero")] if column.endswith("requested") else []
        assert changed == [column, *counted]


def test_the_same_nodes_are_asked_about_for_every_scorer() -> None:
    policy = load_bundle(shipped_bundle_path()).scorer()
    assert violations(policy, rows=500) == violations(policy, rows=500)


@pytest.mark.parametrize("seed", range(3))
def test_a_monotone_policy_has_no_violation_whatever_its_weights(seed: int) -> None:
    torch.manual_seed(seed)
    actor = build_actor(
        ActorConfig(kind="monotone", criteria_set="physical", hidden=(16, 16), initial_bids=(0.5, 0.5, 0.5, 0.5))
    )
    for parameter in actor.parameters():
        torch.nn.init.normal_(parameter, std=0.7)
    scorer = ActorScorer(Actors(onnx_model(actor)), criteria=criteria.PHYSICAL)
    assert set(violations(scorer).values()) == {0}
