"""What holds in every episode, whatever the scenario, the seed and the scheduler: hypothesis looks for exceptions."""

from __future__ import annotations

from dataclasses import fields, replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.training.plain_scenarios import at_random
from training.simulator.scenarios import Scenario, load_scenario, scenario_names
from training.simulator.simulation import Simulator

SCENARIOS = {name: load_scenario(name) for name in scenario_names()}
HOSTILE = replace(
    SCENARIOS["peak"],
    name="hostile",
    hidden=replace(SCENARIOS["peak"].hidden, node_loss_time=200.0, node_return_time=60.0, memory_use_sigma=0.9),
)
"""Nodes are lost every few minutes and memory runs out."""

scenarios = st.sampled_from([*SCENARIOS.values(), HOSTILE])
episodes = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@episodes
@given(
    scenario=scenarios,
    nodes=st.integers(1, 6),
    seed=st.integers(0, 2**63),
    load=st.floats(0.1, 1.5),
    lazy=st.booleans(),
)
def test_no_pod_is_lost_and_no_node_is_overbooked(
    scenario: Scenario, nodes: int, seed: int, load: float, lazy: bool
) -> None:
    simulator = Simulator(replace(scenario, nodes=nodes), 3, seed)
    simulator.reset(seed, load)
    generator = np.random.default_rng(seed)
    before = simulator.counts()
    for _ in range(60):
        placement = at_random(simulator, generator)
        if lazy:  # a scheduler that leaves every third pod in the queue
            placement = np.where(generator.random(3) < 0.3, -1, placement)
        result = simulator.step(placement)
        counts = simulator.counts()
        pods_in = counts["running"] + counts["pending"] + counts["finished"] + counts["failed"]
        np.testing.assert_array_equal(counts["arrived"], pods_in)
        np.testing.assert_array_equal(counts["finished"] - before["finished"], result.finished)
        np.testing.assert_array_equal(counts["failed"] - before["failed"], result.failed)
        before = counts
        state = simulator.state
        assert (state.cpu_requested <= state.cpu_allocatable).all()
        assert (state.memory_requested <= state.memory_allocatable).all()
        for cluster in range(3):
            listed = simulator.snapshot(cluster)
            # requests are multiples of 1/8, so their sums are exact: equality, not closeness
            cpu = np.bincount(listed.node, listed.cpu, minlength=nodes)
            memory = np.bincount(listed.node, listed.memory, minlength=nodes)
            np.testing.assert_array_equal(state.cpu_requested[cluster], cpu)
            np.testing.assert_array_equal(state.memory_requested[cluster], memory)
            assert len(set(listed.pod.tolist())) == len(listed.pod)
        assert np.isfinite(result.node_reward).all()
        assert (result.node_reward <= 0.0).all()
        assert (result.elapsed >= 0.0).all()
        potential = simulator.potential()
        assert np.isfinite(potential).all()
        assert (potential <= 0.0).all()
        assert (potential[state.cpu_requested == 0.0] == 0.0).all()
        assert not simulator.feasible[~simulator._world.nodes.up].any()


@episodes
@given(scenario=scenarios, seed=st.integers(0, 2**63))
def test_equal_seeds_give_equal_episodes(scenario: Scenario, seed: int) -> None:
    small = replace(scenario, nodes=3)
    first, second = Simulator(small, 2, seed), Simulator(small, 2, seed + 1)
    second.reset(seed)
    for _ in range(50):
        for name in ("cpu_requested", "cpu_used", "memory_used", "cpu_pressure", "node_speed"):
            np.testing.assert_array_equal(getattr(first.state, name), getattr(second.state, name))
        placement = at_random(first, np.random.default_rng(seed))
        one, two = first.step(placement), second.step(placement)
        np.testing.assert_array_equal(one.node_reward, two.node_reward)
    for name, values in first.metrics().items():
        np.testing.assert_array_equal(values, second.metrics()[name])


@episodes
@given(scenario=scenarios, seed=st.integers(0, 2**63), arrivals=st.integers(2, 60))
def test_what_a_scheduler_does_changes_neither_arrivals_nor_nodes(scenario: Scenario, seed: int, arrivals: int) -> None:
    small = replace(scenario, nodes=4)
    packed, idle = Simulator(small, 1, seed), Simulator(small, 1, seed)
    while packed.arrived[0] < arrivals:
        packed.step(np.where(packed.feasible.any(axis=1), packed.feasible.argmax(axis=1), -1))
    while idle.arrived[0] < arrivals:
        idle.step(np.array([-1]))
    assert packed.now.tolist() == idle.now.tolist()
    assert packed._world.nodes.up.tolist() == idle._world.nodes.up.tolist()
    one, other = packed._world, idle._world
    np.testing.assert_array_equal(one.nodes.decay_state, other.nodes.decay_state)
    np.testing.assert_array_equal(one.workload_state, other.workload_state)
    for column in fields(one.table):
        np.testing.assert_array_equal(getattr(one.table, column.name), getattr(other.table, column.name))


@episodes
@given(scenario=scenarios, seed=st.integers(0, 2**62))
def test_an_episode_does_not_depend_on_its_neighbours(scenario: Scenario, seed: int) -> None:
    small = replace(scenario, nodes=3)
    seeds = np.array([seed, seed + 1, seed + 2], dtype=np.uint64)
    together, alone = Simulator(small, 3), Simulator(small, 1)
    together.reset(seeds)
    alone.reset(seeds[1:2])
    for _ in range(60):
        np.testing.assert_array_equal(together.state.cpu_used[1:2], alone.state.cpu_used)
        placement = np.where(together.feasible.any(axis=1), together.feasible.argmax(axis=1), -1)
        one, two = together.step(placement), alone.step(placement[1:2])
        np.testing.assert_allclose(one.node_reward[1:2], two.node_reward, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("name", scenario_names())
def test_a_clone_lives_the_same_future_and_leaves_the_original_alone(name: str) -> None:
    original = Simulator(replace(SCENARIOS[name], nodes=3), 4, 9)
    generator = np.random.default_rng(1)
    for _ in range(120):
        original.step(at_random(original, generator))
    twin = original.clone()
    repeated = original.clone(np.array([2, 2, 0]))
    before = original.state
    rewards = []
    for _ in range(80):
        placement = at_random(twin, np.random.default_rng(5))
        rewards.append((placement, twin.step(placement).node_reward))
    np.testing.assert_array_equal(before.cpu_used, original.state.cpu_used)
    for placement, reward in rewards:
        one, many = original.step(placement), repeated.step(placement[[2, 2, 0]])
        np.testing.assert_array_equal(one.node_reward, reward)
        np.testing.assert_allclose(many.node_reward, reward[[2, 2, 0]], rtol=1e-6, atol=1e-9)
