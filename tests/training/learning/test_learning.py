"""Networks, critics, placement, noise, replay and the two algorithms."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from policy.errors import InvalidInputError
from policy.scorers import combine
from tests.training.tiny_runs import NODES, one_thread, random_batch, tiny_config  # noqa: F401 - a fixture
from training.config import parse_config
from training.learning.algorithms import build_algorithm
from training.learning.critics import Critics, JointCritic, SetCritic
from training.learning.loop import Trainer
from training.learning.networks import Actor, parameter_count, soft_update
from training.learning.noise import Noise
from training.learning.placement import (
    entropy,
    one_hot,
    placement_probabilities,
    preferences,
    sample_placement,
)
from training.learning.precision import settled
from training.learning.replay import Look, Replay


def test_untrained_actor_gives_the_initial_bids_almost_everywhere() -> None:
    actor = Actor((256, 256), (0.1, -0.2, 0.8, 0.0))
    bids = actor(torch.rand(100, 8))
    assert torch.allclose(bids, torch.tensor([0.1, -0.2, 0.8, 0.0]).expand(100, 4), atol=0.15)


def test_parameter_count_is_that_of_the_layers() -> None:
    expected = (8 * 256 + 256) + 2 * 256 + (256 * 256 + 256) + 2 * 256 + (256 * 4 + 4)
    assert parameter_count(Actor((256, 256), (0.0,) * 4)) == expected


@pytest.mark.parametrize("algorithm", ["maddpg", "matd3"])
def test_bfloat16_updates_follow_float32_ones_and_keep_weights_and_values_in_float32(
    algorithm: str, tmp_path: Path
) -> None:
    batch, logs = random_batch(64, NODES), {}
    for matmul in ("float32", "bfloat16"):
        learner = build_algorithm(tiny_config(tmp_path, algorithm=algorithm, optimiser={"matmul": matmul}), NODES)
        logs[matmul] = [learner.update(batch).logs["critic_loss"] for _ in range(20)]
        assert {parameter.dtype for parameter in learner.actor.parameters()} == {torch.float32}
    assert logs["bfloat16"] != logs["float32"]
    assert logs["bfloat16"] == pytest.approx(logs["float32"], rel=0.03)


@pytest.mark.parametrize(("bfloat16_s", "chosen"), [(0.5, "bfloat16"), (0.95, "float32"), (20.0, "float32")])
def test_auto_takes_bfloat16_where_it_is_clearly_faster(bfloat16_s: float, chosen: str, tmp_path: Path) -> None:
    times = {"bfloat16": bfloat16_s, "float32": 1.0}
    config = tiny_config(tmp_path, optimiser={"matmul": "auto"})
    assert settled(config, lambda matmul, _: times[matmul]).optimiser.matmul == chosen
    fixed = tiny_config(tmp_path, optimiser={"matmul": "bfloat16"})
    assert settled(fixed, lambda *_: pytest.fail("measured")) is fixed


def test_a_run_with_auto_keeps_what_was_measured_when_it_began(tmp_path: Path) -> None:
    trainer = Trainer(tiny_config(tmp_path, optimiser={"matmul": "auto"}), tmp_path / "run")
    assert trainer.config.optimiser.matmul in ("float32", "bfloat16")
    trainer.save()
    assert Trainer.resume(tmp_path / "run").config == trainer.config


def test_last_layer_is_computed_in_float32_under_autocast() -> None:
    actor, critic, batch = Actor((16, 16), (0.0,) * 4), SetCritic((16, 16)), random_batch(5, 7)
    with torch.autocast("cpu", torch.bfloat16):
        assert actor.unsquashed(batch.observation).dtype is torch.float32
        assert critic(batch.observation, batch.bids, batch.feasible.float()).dtype is torch.float32


def test_soft_update_moves_the_stated_share_of_the_way() -> None:
    target, source = torch.nn.Linear(2, 1), torch.nn.Linear(2, 1)
    before = target.weight.detach().clone()
    soft_update(target, source, 0.25)
    assert torch.allclose(target.weight, 0.75 * before + 0.25 * source.weight)


def test_set_critic_follows_a_permutation_of_the_nodes() -> None:
    critic, batch = SetCritic((16, 16)), random_batch(5, 7)
    order = torch.randperm(7)
    placed = one_hot(batch.placement, 7)
    plain = critic(batch.observation, batch.bids, placed)
    permuted = critic(batch.observation[:, order], batch.bids[:, order], placed[:, order])
    assert torch.allclose(plain[:, order], permuted, atol=1e-5)


@pytest.mark.parametrize("nodes", [1, 3, 40])
def test_set_critic_takes_any_number_of_nodes(nodes: int) -> None:
    batch = torch.rand(2, nodes, 8)
    assert SetCritic((16, 16, 16))(batch, torch.zeros(2, nodes, 4), torch.zeros(2, nodes)).shape == (2, nodes)


def test_set_critic_adds_the_advantage_of_the_chosen_node_only() -> None:
    critic, batch = SetCritic((16, 16)), random_batch(5, 7)
    base, advantage = critic.base_and_advantage(batch.observation)
    placed = one_hot(batch.placement, 7)
    assert torch.allclose(critic(batch.observation, batch.bids, placed), base + placed * advantage)


def test_set_critic_sees_the_other_nodes() -> None:
    critic, batch = SetCritic((16, 16)), random_batch(1, 3)
    base, _ = critic.base_and_advantage(batch.observation)
    changed = batch.observation.clone()
    changed[0, 2] += 0.5
    assert not torch.allclose(critic.base_and_advantage(changed)[0][0, 0], base[0, 0])


def test_joint_critic_values_the_team_from_observations_and_bids() -> None:
    critic, batch = JointCritic((32, 32), nodes=5), random_batch(6, 5)
    assert critic(batch.observation, batch.bids, torch.zeros(6, 5)).shape == (6, 1)
    assert parameter_count(critic) == (60 * 32 + 32) + 64 + (32 * 32 + 32) + 64 + (32 + 1)


def test_smaller_takes_per_transition_the_twin_with_the_smaller_team_value() -> None:
    critics, batch = Critics(lambda: SetCritic((16, 16)), twin=True), random_batch(50, 4)
    placed = one_hot(batch.placement, 4)
    first, second = critics(batch.observation, batch.bids, placed)
    chosen = critics.smaller(batch.observation, batch.bids, placed)
    expected = torch.minimum(first.sum(-1), second.sum(-1))
    assert torch.allclose(chosen.sum(-1), expected)
    assert not torch.allclose(first, second)


def test_preferences_agree_with_those_of_serving() -> None:
    batch = random_batch(8, 5)
    expected = combine(batch.bids.numpy(), batch.measures.numpy())
    assert np.allclose(preferences(batch.bids, batch.measures).numpy(), expected, atol=1e-6)


def test_placement_probabilities_are_a_softmax_over_feasible_nodes() -> None:
    feasible = torch.tensor([[True, False, True], [False, False, False]])
    result = placement_probabilities(torch.tensor([[0.1, 9.0, 0.2], [1.0, 2.0, 3.0]]), feasible, 0.1)
    expected = torch.softmax(torch.tensor([1.0, 2.0]), 0)
    assert torch.allclose(result[0, [0, 2]], expected)
    assert result[0, 1] == 0.0
    assert (result[1] == 0.0).all()


def test_entropy_has_a_finite_gradient_where_a_probability_underflows() -> None:
    preference = torch.tensor([[0.0, 90.0, 91.0]], requires_grad=True)
    value = entropy(placement_probabilities(preference, torch.tensor([[True, True, False]]), 0.1)).sum()
    value.backward()
    assert preference.grad is not None
    assert torch.isfinite(preference.grad).all()


def test_entropy_of_a_uniform_placement_is_the_logarithm_of_its_size() -> None:
    assert entropy(torch.full((1, 8), 0.125)).item() == pytest.approx(np.log(8), rel=1e-6)


def test_one_hot_of_a_pending_pod_is_zero_everywhere() -> None:
    assert one_hot(torch.tensor([2, -1]), 3).tolist() == [[0.0, 0.0, 1.0], [0.0, 0.0, 0.0]]


def test_sampled_placements_have_the_softmax_frequencies_and_stay_feasible() -> None:
    preference = np.tile(np.array([0.0, 0.1, 5.0], dtype=np.float32), (40_000, 1))
    feasible = np.tile(np.array([True, True, False]), (40_000, 1))
    drawn = sample_placement(preference, feasible, 0.1, 0.0, np.random.default_rng(1))
    assert set(drawn.tolist()) == {0, 1}
    assert (drawn == 1).mean() == pytest.approx(np.e / (1 + np.e), abs=0.01)


def test_uniform_share_draws_every_feasible_node_alike() -> None:
    preference = np.tile(np.array([0.0, 9.0], dtype=np.float32), (40_000, 1))
    drawn = sample_placement(preference, np.ones_like(preference, dtype=bool), 0.1, 0.2, np.random.default_rng(1))
    assert (drawn == 0).mean() == pytest.approx(0.1, abs=0.01)


def test_a_pod_that_fits_nowhere_stays_pending() -> None:
    preference, feasible = np.zeros((2, 3), dtype=np.float32), np.array([[False] * 3, [False, True, False]])
    assert sample_placement(preference, feasible, 0.1, 0.1, np.random.default_rng(1)).tolist() == [-1, 1]


def test_ou_noise_reverts_reaches_its_stationary_spread_and_resets() -> None:
    noise = Noise("ou", (5000,), 0.15, np.random.default_rng(1))
    for _ in range(60):
        last = noise.draw(0.3)
    assert last.std() == pytest.approx(0.3 / np.sqrt(0.15 * 1.85), rel=0.05)
    following = noise.draw(0.3)
    assert np.corrcoef(last, following)[0, 1] == pytest.approx(0.85, abs=0.02)
    noise.reset()
    assert noise.draw(0.0).max() == 0.0


def test_gaussian_noise_is_independent_with_the_given_sigma() -> None:
    noise = Noise("gaussian", (20_000,), 0.15, np.random.default_rng(1))
    first, second = noise.draw(0.2), noise.draw(0.2)
    assert first.std() == pytest.approx(0.2, rel=0.03)
    assert abs(np.corrcoef(first, second)[0, 1]) < 0.03
    assert not Noise("none", (3,), 0.15, np.random.default_rng(1)).draw(0.2).any()


def filled_replay(rows: int, episodes: list[int], clusters: int = 2) -> Replay:
    """A replay whose observation counts steps, so that a draw tells where it came from; reward is 1 everywhere."""
    replay = Replay(rows * clusters, clusters, 3, np.random.default_rng(1))
    step = 0

    def look() -> Look:
        nonlocal step
        step += 1
        value = np.full((clusters, 3, 8), step, dtype=np.float32)
        return Look(value, value[..., :4], np.ones((clusters, 3), dtype=bool))

    for length in episodes:
        for _ in range(length):
            placement = np.zeros(clusters, dtype=np.int64)
            replay.append(look(), np.zeros((clusters, 3, 4)), placement, np.ones((clusters, 3)))
        replay.append_last(look())
    return replay


def test_a_transition_is_followed_by_the_next_look_of_its_own_episode() -> None:
    batch = filled_replay(40, [5, 5, 5]).sample(500, 0.9)
    steps = batch.next_observation[:, 0, 0] - batch.observation[:, 0, 0]
    assert (steps == 1).all()
    assert set(batch.observation[:, 0, 0].tolist()).isdisjoint({6, 12, 18})
    assert torch.allclose(batch.discount, torch.full((500, 1), 0.9))


def test_the_newest_rows_stay_once_the_replay_is_full() -> None:
    replay = filled_replay(10, [5, 5, 5])
    batch = replay.sample(500, 0.9)
    assert len(replay) == 2 * 8
    assert batch.observation.min() >= 9
    assert (batch.next_observation[:, 0, 0] - batch.observation[:, 0, 0] == 1).all()


def test_n_step_rewards_stop_at_the_end_of_the_episode() -> None:
    batch = filled_replay(40, [5, 5]).sample(500, 0.5, steps=3)
    for index in range(500):
        start = int(batch.observation[index, 0, 0])
        left = min(3, (6 if start <= 6 else 12) - start)
        assert batch.reward[index, 0].item() == pytest.approx(sum(0.5**k for k in range(left)))
        assert batch.discount[index].item() == pytest.approx(0.5**left)
        assert batch.next_observation[index, 0, 0].item() == start + left


def test_an_empty_replay_cannot_be_sampled() -> None:
    with pytest.raises(InvalidInputError, match="empty"):
        Replay(100, 2, 3, np.random.default_rng(1)).sample(1, 0.9)


def test_a_replay_of_another_shape_is_refused() -> None:
    state = filled_replay(40, [5]).state_dict()
    with pytest.raises(InvalidInputError, match="observation"):
        Replay(80, 4, 3, np.random.default_rng(1)).load_state_dict(state)


PER_CLASS: dict[str, Any] = {"kind": "per_class", "speed_classes": [0.3, 0.7], "hidden": [16, 16]}
ALGORITHMS: list[dict[str, Any]] = [
    {"algorithm": "maddpg"},
    {"algorithm": "maddpg", "critic": {"hidden": [16, 16], "twin": False}},
    {"algorithm": "maddpg", "critic": {"hidden": [16, 16], "kind": "joint"}},
    {"algorithm": "maddpg", "objective": {"per_node": False}},
    {"algorithm": "matd3"},
    {"algorithm": "matd3", "critic": {"hidden": [16, 16], "kind": "joint"}},
    {"algorithm": "maddpg", "actor": PER_CLASS},
    {"algorithm": "matd3", "actor": {**PER_CLASS, "criteria": "constant"}},
]
NAMES = ["maddpg", "single", "joint", "team", "matd3", "matd3-joint", "per-class", "matd3-per-class-plain"]


@pytest.mark.parametrize("overrides", ALGORITHMS, ids=NAMES)
def test_updates_fit_the_critic_and_move_actor_and_targets(overrides: dict[str, Any], tmp_path: Any) -> None:
    algorithm = build_algorithm(tiny_config(tmp_path, **overrides), NODES)
    before = {name: tensor.clone() for name, tensor in algorithm.state_dict()["actor"].items()}
    targets = {name: tensor.clone() for name, tensor in algorithm.state_dict()["target_critics"].items()}
    batch = random_batch(32, NODES)
    losses = [algorithm.update(batch).logs["critic_loss"] for _ in range(60)]
    assert np.mean(losses[-5:]) < 0.5 * losses[0]
    state = algorithm.state_dict()
    assert all(not torch.equal(before[name], tensor) for name, tensor in state["actor"].items())
    assert any(not torch.equal(targets[name], tensor) for name, tensor in state["target_critics"].items())
    assert all(torch.isfinite(tensor).all() for tensor in state["actor"].values())


@pytest.mark.parametrize("overrides", ALGORITHMS[:3], ids=NAMES[:3])
def test_equal_seeds_learn_equal_weights(overrides: dict[str, Any], tmp_path: Any) -> None:
    config = tiny_config(tmp_path, **overrides)
    runs = []
    for _ in range(2):
        algorithm = build_algorithm(config, NODES)
        for seed in range(5):
            algorithm.update(random_batch(16, NODES, seed))
        runs.append(algorithm.state_dict()["actor"])
    assert all(torch.equal(runs[0][name], runs[1][name]) for name in runs[0])


def test_matd3_moves_the_actor_every_second_update_only(tmp_path: Any) -> None:
    algorithm = build_algorithm(tiny_config(tmp_path, algorithm="matd3"), NODES)
    head = algorithm.actor.head.weight
    start = head.detach().clone()
    algorithm.update(random_batch(16, NODES))
    assert torch.equal(head, start)
    algorithm.update(random_batch(16, NODES))
    assert not torch.equal(head, start)


@pytest.mark.parametrize("algorithm", ["maddpg", "matd3"])
def test_the_actor_waits_until_the_critics_know_something(algorithm: str, tmp_path: Any) -> None:
    learner = build_algorithm(tiny_config(tmp_path, algorithm=algorithm, optimiser={"actor_after": 3}), NODES)
    initial, critic = learner.actor.state_dict()["head.bias"].clone(), learner.critics.first.parameters()
    before = next(iter(critic)).clone()
    for _ in range(3):
        assert "actor_loss" not in learner.update(random_batch(16, NODES)).logs
    assert torch.equal(learner.actor.state_dict()["head.bias"], initial)
    assert not torch.equal(next(iter(learner.critics.first.parameters())), before)
    assert "actor_loss" in learner.update(random_batch(16, NODES)).logs
    assert not torch.equal(learner.actor.state_dict()["head.bias"], initial)


def test_learning_rates_decay_linearly_to_their_final_share(tmp_path: Any) -> None:
    config = tiny_config(tmp_path, updates=10, optimiser={"actor_rate": 1e-3, "critic_rate": 1e-2, "final_share": 0.1})
    algorithm = build_algorithm(config, NODES)
    rates = []
    for _ in range(10):
        algorithm.update(random_batch(8, NODES))
        rates.append(algorithm.state_dict()["critic_optimiser"]["param_groups"][0]["lr"])
    assert rates[0] == pytest.approx(1e-2)
    assert rates[5] == pytest.approx(5.5e-3)
    assert rates[-1] == pytest.approx(1.9e-3)


def test_the_set_critic_teaches_which_node_is_better(tmp_path: Any) -> None:
    """A bandit: placing on the fast node (feature 5) costs nothing, on the slow one 1; the actor must find out."""
    config = parse_config(
        {
            "updates": 150,
            "arenas": [{"scenario": "reference"}],
            "actor": {"hidden": [32, 32], "initial_bids": [0.0, 0.0, 0.0, 0.0]},
            "critic": {"hidden": [32, 32]},
            "optimiser": {"actor_rate": 3e-3, "critic_rate": 1e-2},
        }
    )
    algorithm = build_algorithm(config, 2)
    generator = torch.Generator().manual_seed(3)
    batch = random_batch(256, 2)
    observation = torch.full((256, 2, 8), 0.3)
    fast = torch.randint(0, 2, (256,), generator=generator)
    observation[:, :, 5] = one_hot(fast, 2)
    placement = torch.randint(0, 2, (256,), generator=generator)
    lesson = {
        "observation": observation,
        "measures": torch.ones(256, 2, 4),
        "feasible": torch.ones(256, 2, dtype=torch.bool),
        "placement": placement,
        "reward": -one_hot(placement, 2) * (placement != fast)[:, None],
        "discount": torch.zeros(256, 1),
        "next_observation": observation,
        "next_feasible": torch.ones(256, 2, dtype=torch.bool),
    }
    batch = type(batch)(**{name: lesson.get(name, getattr(batch, name)) for name in batch.__slots__})
    for _ in range(150):
        algorithm.update(batch)
    bids = algorithm.bids(observation.numpy())
    chosen = combine(bids, np.ones((256, 2, 4), dtype=np.float32)).argmax(1)
    assert (chosen == fast.numpy()).all()
