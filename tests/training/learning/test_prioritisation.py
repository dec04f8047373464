"""Prioritised replay: what is drawn how often, how the bias is corrected, and what a resumed run draws."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from policy.errors import InvalidInputError
from tests.training.tiny_runs import NODES, one_thread, random_batch, tiny_config  # noqa: F401 - a fixture
from training.config import ReplayConfig
from training.learning.algorithms import build_algorithm
from training.learning.loop import Trainer
from training.learning.prioritisation import Priorities
from training.learning.replay import Look, Replay
from training.learning.updates import DivergedError, Update, absolute_errors, weighted_loss

CLUSTERS = 4


def opened(rows: int, alpha: float = 1.0, smallest: float = 1e-9) -> Priorities:
    """Priorities of which every row but the last can be drawn."""
    priorities = Priorities(rows, CLUSTERS, alpha, smallest)
    for row in range(rows - 1):
        priorities.open(row)
    return priorities


def shares(priorities: Priorities, rows: int, size: int = 40_000) -> np.ndarray:
    """How often each transition is drawn, ``[rows, clusters]``, a share of all draws."""
    row, cluster, _ = priorities.draw(size, 0.0, np.random.default_rng(1))
    counts = np.zeros((rows, CLUSTERS))
    np.add.at(counts, (row, cluster), 1.0)
    return counts / size


@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.0])
def test_transitions_are_drawn_in_proportion_to_their_priority_to_the_power_of_alpha(alpha: float) -> None:
    priorities = opened(6, alpha)
    rows, clusters = np.divmod(np.arange(5 * CLUSTERS), CLUSTERS)
    errors = np.linspace(0.1, 3.0, 5 * CLUSTERS)
    priorities.update(rows, clusters, errors)
    expected = errors**alpha / (errors**alpha).sum()
    assert np.allclose(shares(priorities, 6)[:5].ravel(), expected, atol=1e-3)


def test_what_is_new_is_drawn_as_often_as_the_largest_error_so_far() -> None:
    priorities = opened(4)
    priorities.update(np.array([0, 0]), np.array([0, 1]), np.array([9.0, 0.0]))
    priorities.open(3)
    drawn = shares(priorities, 4)
    assert drawn[3] == pytest.approx(drawn[0, 0], rel=0.02)
    assert drawn[0, 1] == 0.0


def test_an_error_of_zero_is_drawn_as_often_as_the_smallest_priority_says() -> None:
    priorities = opened(2, smallest=0.5)
    priorities.update(np.zeros(2, dtype=np.intp), np.array([0, 1]), np.array([0.0, 1.0]))
    drawn = shares(priorities, 2)
    assert drawn[0, 1] / drawn[0, 0] == pytest.approx(3.0, rel=0.05)


def test_cleared_rows_are_never_drawn() -> None:
    priorities = opened(5)
    priorities.clear(2)
    drawn = shares(priorities, 5)
    assert not drawn[[2, 4]].any()
    assert drawn[[0, 1, 3]].sum() == pytest.approx(1.0)


def test_full_weights_make_the_mean_of_prioritised_draws_that_of_uniform_ones() -> None:
    generator = np.random.default_rng(3)
    priorities = opened(41, alpha=0.7)
    rows, clusters = np.divmod(np.arange(40 * CLUSTERS), CLUSTERS)
    errors = generator.exponential(size=40 * CLUSTERS)
    priorities.update(rows, clusters, errors)
    row, cluster, weight = priorities.draw(200_000, 1.0, generator)
    drawn = errors[row * CLUSTERS + cluster]
    assert (weight * drawn).sum() / weight.sum() == pytest.approx(errors.mean(), rel=0.02)
    assert drawn.mean() > 1.2 * errors.mean()


@pytest.mark.parametrize("beta", [0.0, 0.4, 1.0])
def test_weights_follow_the_paper(beta: float) -> None:
    priorities = opened(2)
    errors = np.array([1.0, 2.0, 4.0, 8.0])
    priorities.update(np.zeros(4, dtype=np.intp), np.arange(4), errors)
    _, cluster, weight = priorities.draw(64, beta, np.random.default_rng(1))
    expected = (4 * errors / errors.sum()) ** -beta
    assert weight.max() == 1.0
    assert np.allclose(weight, expected[cluster] / expected[cluster].max(), rtol=1e-6)


def test_nothing_to_draw_is_an_error() -> None:
    with pytest.raises(InvalidInputError, match="empty"):
        Priorities(3, 2, 0.6, 1e-3).draw(1, 0.4, np.random.default_rng(1))


def prioritised(rows: int, **settings: Any) -> Replay:
    config = ReplayConfig(kind="prioritised", **settings)
    return Replay(rows * 2, 2, 3, np.random.default_rng(1), config)


def play(replay: Replay, length: int, first: int) -> None:
    """An episode whose observations count on from `first`; reward 1 everywhere."""
    for step in range(first, first + length + 1):
        value = np.full((2, 3, 8), step, dtype=np.float32)
        look = Look(value, value[..., :4], np.ones((2, 3), dtype=bool))
        if step == first + length:
            replay.append_last(look)
        else:
            replay.append(look, np.zeros((2, 3, 4)), np.zeros(2, dtype=np.int64), np.ones((2, 3)))


def starts(replay: Replay) -> set[int]:
    return {int(value) for value in replay.sample(2000, 0.9).observation[:, 0, 0]}


def test_neither_last_looks_nor_the_newest_row_start_a_transition_before_and_after_the_buffer_wraps() -> None:
    replay = prioritised(10)
    play(replay, 4, 0)
    assert starts(replay) == {0, 1, 2, 3}
    play(replay, 6, 100)  # 5 + 7 rows in 10: the first two are overwritten
    assert starts(replay) == {2, 3, 100, 101, 102, 103, 104, 105}
    value = np.full((2, 3, 8), 7, dtype=np.float32)
    look = Look(value, value[..., :4], np.ones((2, 3), dtype=bool))
    replay.append(look, np.zeros((2, 3, 4)), np.zeros(2, dtype=np.int64), np.ones((2, 3)))
    assert starts(replay) == {3, 100, 101, 102, 103, 104, 105}
    assert len(replay) == 2 * 7


def test_prioritised_transitions_have_the_rewards_of_many_steps() -> None:
    replay = prioritised(40)
    play(replay, 5, 0)
    batch = replay.sample(200, 0.5, steps=3)
    start = batch.observation[:, 0, 0].numpy()
    left = np.minimum(3, 5 - start)
    assert np.allclose(batch.discount[:, 0].numpy(), 0.5**left)
    assert np.allclose(batch.reward[:, 0].numpy(), 2.0 - 2.0 * 0.5**left)
    assert np.array_equal(batch.next_observation[:, 0, 0].numpy(), start + left)


def test_what_surprised_is_drawn_again_more_often() -> None:
    replay = prioritised(40, alpha=1.0)
    play(replay, 20, 0)
    batch = replay.sample(400, 0.9)
    surprising = batch.observation[:, 0, 0] == 7
    replay.reprioritise(batch, np.where(surprising.numpy(), 10.0, 0.1))
    again = replay.sample(400, 0.9).observation[:, 0, 0]
    assert (again == 7).float().mean() > 5 * surprising.float().mean()


def test_a_uniform_replay_gives_no_weights_and_ignores_errors() -> None:
    replay = Replay(80, 2, 3, np.random.default_rng(1))
    play(replay, 5, 0)
    batch = replay.sample(50, 0.9)
    replay.reprioritise(batch, np.full(50, 1e9))
    assert batch.weight is None
    assert len({int(value) for value in replay.sample(200, 0.9).observation[:, 0, 0]}) == 5


def test_weights_scale_the_loss_of_their_transition() -> None:
    estimate, target = torch.zeros(2, 3), torch.tensor([[1.0] * 3, [2.0] * 3])
    assert weighted_loss(estimate, target, None).item() == pytest.approx(2.5)
    assert weighted_loss(estimate, target, torch.ones(2, 1)).item() == pytest.approx(2.5)
    assert weighted_loss(estimate, target, torch.tensor([[1.0], [0.25]])).item() == pytest.approx(1.0)


def test_errors_of_different_nodes_and_critics_do_not_cancel() -> None:
    target = torch.zeros(1, 2)
    errors = absolute_errors([torch.tensor([[1.0, -1.0]]), torch.tensor([[3.0, -3.0]])], target)
    assert errors.tolist() == [2.0]


CRITICS: list[dict[str, Any]] = [
    {"algorithm": algorithm, "critic": {"hidden": [16, 16], "kind": kind}}
    for algorithm in ("maddpg", "matd3")
    for kind in ("set", "joint")
]


@pytest.mark.parametrize("overrides", CRITICS, ids=lambda each: f"{each['algorithm']}-{each['critic']['kind']}")
def test_every_algorithm_and_critic_trains_with_priorities(overrides: dict[str, Any], tmp_path: Path) -> None:
    config = tiny_config(tmp_path, updates=20, replay={"kind": "prioritised"}, **overrides)
    assert Trainer(config, tmp_path / "run").run().finished


@pytest.mark.parametrize("algorithm", ["maddpg", "matd3"])
def test_a_weight_of_zero_takes_a_transition_out_of_the_critics_step(algorithm: str, tmp_path: Path) -> None:
    batch = random_batch(32, NODES)
    columns = {name: getattr(batch, name) for name in batch.__slots__}
    half = torch.cat([torch.ones(16, 1), torch.zeros(16, 1)])
    gradients = []
    for reward in (batch.reward, torch.cat([batch.reward[:16], 50.0 + batch.reward[16:]])):
        learner = build_algorithm(tiny_config(tmp_path, algorithm=algorithm), NODES)
        update = learner.update(type(batch)(**{**columns, "reward": reward, "weight": half}))
        gradients.append(update.logs["critic_gradient"])
        assert update.errors.shape == (32,)
    assert gradients[0] == pytest.approx(gradients[1], rel=1e-5)
    assert update.errors[16:].min() > 40.0


def test_beta_rises_to_one_over_the_updates_of_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    betas = []
    draw = Priorities.draw

    def watched(self: Priorities, size: int, beta: float, generator: np.random.Generator) -> Any:
        betas.append(beta)
        return draw(self, size, beta, generator)

    monkeypatch.setattr(Priorities, "draw", watched)
    config = tiny_config(tmp_path, updates=40, replay={"kind": "prioritised", "beta_start": 0.2})
    Trainer(config, tmp_path / "run").run()
    assert betas == pytest.approx([0.2 + 0.8 * done / 40 for done in range(40)])


def test_a_run_that_diverges_stops_with_the_update_and_keeps_its_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = Trainer(tiny_config(tmp_path), tmp_path / "run")
    trainer.run(max_updates=20)
    before = (tmp_path / "run" / "latest.pt").read_bytes()
    nothing = Update({"critic_loss": float("nan")}, np.zeros(16))
    monkeypatch.setattr(trainer.algorithm, "update", lambda _: nothing)
    with pytest.raises(DivergedError, match=r"critic_loss.*lower optimiser"):
        trainer.run()
    assert (tmp_path / "run" / "latest.pt").read_bytes() == before
