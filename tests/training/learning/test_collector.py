"""Arenas and selection: what reaches the replay, and how a policy is measured while it learns."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from policy import heuristics
from policy.errors import InvalidInputError
from tests.training.tiny_runs import (  # noqa: F401 - a fixture
    ARRIVALS,
    NODES,
    document,
    one_thread,
    tiny_config,
    write_scenario,
)
from training.config import ActorConfig, SelectionConfig, SuiteConfig, TrainingConfig, parse_config
from training.learning.algorithms import build_algorithm
from training.learning.collector import Arena
from training.learning.networks import Actor
from training.learning.selection import ActorModuleScorer, Selection, violation_rate
from training.simulator.conditions import Condition


def play(config: TrainingConfig, index: int = 0, episodes: int = 1) -> Arena:
    """An arena after some episodes with the untrained actor."""
    arena = Arena(config, index)
    algorithm = build_algorithm(config, arena.nodes)
    for _ in range(episodes):
        arena.begin()
        for _ in range(arena.steps):
            arena.step(algorithm, 0.3)
        arena.finish()
    return arena


def test_an_episode_fills_the_replay_with_what_serving_would_see(tmp_path: Path) -> None:
    arena = play(tiny_config(tmp_path))
    replay = arena.replay
    assert len(replay) == ARRIVALS * 4
    assert arena.episodes == 4
    assert arena.collected == ARRIVALS * 4
    rows = slice(0, ARRIVALS)
    placed = replay.placement[rows]
    chosen = np.take_along_axis(replay.feasible[rows], np.maximum(placed, 0)[..., None], axis=2)[..., 0]
    assert (chosen | (placed < 0)).all()
    assert (replay.measures[rows][..., 3] == 1.0).all()
    assert np.abs(replay.bids[rows]).max() <= 1.0
    assert replay.bids[rows].std() > 0.1
    assert replay.last.sum() == 1


def test_rewards_without_shaping_are_what_the_nodes_were_charged(tmp_path: Path) -> None:
    arena = play(tiny_config(tmp_path, objective={"shaping": False}))
    charged = arena.replay.reward[:ARRIVALS]
    assert (charged <= 0.0).all()
    assert charged.min() < 0.0
    assert charged.sum(2).mean() == pytest.approx(arena.mean_reward(ARRIVALS), rel=1e-5)


def test_shaping_adds_no_more_to_an_episode_than_its_potentials_at_the_ends(tmp_path: Path) -> None:
    # The bids do not depend on rewards before the first update, so both play the same episode.
    plain = play(tiny_config(tmp_path, objective={"shaping": False}))
    shaped = play(tiny_config(tmp_path, objective={"shaping": True}))
    assert np.array_equal(plain.replay.placement, shaped.replay.placement)
    discounts = plain.gamma ** np.arange(ARRIVALS)[:, None, None]
    extra = (discounts * (shaped.replay.reward[:ARRIVALS] - plain.replay.reward[:ARRIVALS])).sum(0)
    last = plain.gamma**ARRIVALS * shaped.potential
    assert last.min() < 0.0
    assert extra == pytest.approx(last, abs=1e-4)
    assert shaped.mean_reward(ARRIVALS) == plain.mean_reward(ARRIVALS)


def test_equal_seeds_collect_equal_transitions_and_other_seeds_do_not(tmp_path: Path) -> None:
    first, second = (play(tiny_config(tmp_path, seed=5)).replay for _ in range(2))
    other = play(tiny_config(tmp_path, seed=6)).replay
    assert np.array_equal(first.observation, second.observation)
    assert np.array_equal(first.placement, second.placement)
    assert not np.array_equal(first.observation, other.observation)


def test_later_episodes_are_other_episodes(tmp_path: Path) -> None:
    replay = play(tiny_config(tmp_path), episodes=2).replay
    assert not np.array_equal(replay.observation[0], replay.observation[ARRIVALS + 1])


def test_an_arena_of_more_nodes_covers_the_same_time(tmp_path: Path) -> None:
    settings = document(tmp_path, objective={"discount": 0.99, "n_step": 8, "reference_nodes": NODES})
    settings["arenas"] = [settings["arenas"][0], {**settings["arenas"][0], "nodes": 2 * NODES}]
    config = parse_config(settings)
    small, large = Arena(config, 0), Arena(config, 1)
    assert large.steps == 2 * small.steps
    assert large.n_step == 2 * small.n_step == 16
    assert large.gamma**2 == pytest.approx(small.gamma) == pytest.approx(0.99)
    weights = [arena.scenario.reward.balance_weight for arena in (small, large)]
    assert weights[0] == pytest.approx(2 * weights[1])


def test_prices_of_use_and_node_classes_override_the_scenario(tmp_path: Path) -> None:
    settings = document(tmp_path, objective={"balance_weight": 0.3, "spread_weight": 6.0, "reference_nodes": NODES})
    classes = [{"name": "only", "cores": 64, "memory": 256, "speed": 1.5}]
    settings["arenas"] = [{**settings["arenas"][0], "node_classes": classes}]
    arena = play(parse_config(settings))
    assert arena.scenario.reward.balance_weight == pytest.approx(0.3)
    assert arena.scenario.reward.spread_weight == pytest.approx(6.0)
    assert (arena.replay.observation[:ARRIVALS, :, :, 5] == 0.5).all()


def test_clusters_of_an_arena_are_told_different_things_by_turns(tmp_path: Path) -> None:
    settings = document(tmp_path)
    settings["arenas"] = [{**settings["arenas"][0], "told": ["labelled", "bare", "learned-2"]}]
    arena = play(parse_config(settings), episodes=2)
    labelled, bare, learned, again = (arena.replay.observation[: 2 * ARRIVALS, cluster, :, 5] for cluster in range(4))
    assert set(np.unique(bare)) == {0.0}
    allowed = [each.speed - 1.0 for each in arena.scenario.node_classes]
    for shown in (labelled, again):
        assert np.abs(shown[..., None] - allowed).min(axis=-1).max() < 1e-6
    assert np.abs(learned[..., None] - allowed).min(axis=-1).max() > 1e-3
    assert play(parse_config(settings)).replay.observation[0].tolist() == arena.replay.observation[0].tolist()


def test_what_nobody_can_tell_is_refused_where_it_stands(tmp_path: Path) -> None:
    settings = document(tmp_path)
    settings["selection"]["suites"][0]["told"] = "guessed"
    settings["arenas"][0]["told"] = []
    with pytest.raises(InvalidInputError, match=r"arenas\.0\.told.*selection\.suites\.0\.told: .*told is 'guessed'"):
        parse_config(settings)


def test_a_selection_suite_is_told_less(tmp_path: Path) -> None:
    suite = SuiteConfig(scenario=str(write_scenario(tmp_path)), load=0.7, nodes=6, clusters=8)
    rule = heuristics.by_name("expected-speed")
    blind = suite.model_copy(update={"told": "no-speed"})
    assert violation_rate(rule, blind.condition, 5) > violation_rate(rule, suite.condition, 5)


def test_violation_rate_is_a_function_of_the_seed(tmp_path: Path) -> None:
    suite = Condition(str(write_scenario(tmp_path)), 0.7, nodes=6, episodes=8)
    rule = heuristics.by_name("most-allocated")
    assert violation_rate(rule, suite, 5) == violation_rate(rule, suite, 5)
    assert violation_rate(rule, suite, 5) != violation_rate(rule, suite, 6)


def test_an_actor_that_bids_on_expected_speed_alone_scores_as_the_rule(tmp_path: Path) -> None:
    suite = SuiteConfig(scenario=str(write_scenario(tmp_path)), load=0.8, clusters=8)
    actor = Actor((8,), (0.0, 0.0, 0.5, 0.0))
    torch.nn.init.zeros_(actor.head.weight)
    selection = Selection(SelectionConfig(suites=(suite,)))
    rates = selection.rates(ActorModuleScorer(actor, "rule", ActorConfig()))
    (name,) = selection.rival_rates()
    assert rates[name] == pytest.approx(selection.rival_rates()[name], abs=0.02)
    assert rates["score"] == pytest.approx(1.0, abs=0.15)


def test_a_selection_suite_that_decides_nothing_is_refused(tmp_path: Path) -> None:
    path = write_scenario(tmp_path)
    path.write_text(path.read_text().replace(f"episode_arrivals: {ARRIVALS}", "episode_arrivals: 3"))
    with pytest.raises(InvalidInputError, match="episode_arrivals"):
        violation_rate(heuristics.by_name("kube-default"), Condition(str(path), 0.4, episodes=2), 5)
