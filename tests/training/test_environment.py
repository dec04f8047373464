"""The environment faces pass the ecosystem's own checks, and mean what the simulator means."""

from __future__ import annotations

import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from pettingzoo.test import parallel_api_test, parallel_seed_test

from policy.criteria import CRITERIA_COUNT
from policy.errors import InvalidInputError
from training.environment import ClusterEnv, NodesEnv


def test_gymnasium_accepts_the_single_agent_face() -> None:
    check_env(ClusterEnv("reference", nodes=4), skip_render_check=True)


def test_pettingzoo_accepts_the_face_with_an_agent_for_each_node() -> None:
    parallel_api_test(NodesEnv("reference", nodes=4), num_cycles=300)


def test_equal_seeds_give_equal_episodes_to_pettingzoo() -> None:
    parallel_seed_test(lambda: NodesEnv("reference", nodes=4), num_cycles=60)


def test_an_episode_is_truncated_after_the_scenarios_arrivals_and_never_terminated() -> None:
    env = ClusterEnv("reference", nodes=2)
    env.reset(seed=3)
    steps = 0
    truncated = False
    while not truncated:
        _, _, terminated, truncated, _ = env.step(np.zeros(2 * CRITERIA_COUNT, dtype=np.float32))
        steps += 1
        assert not terminated
    assert steps == 600 * 2 // 10


def test_a_node_that_bids_highest_on_the_constant_gets_the_pod() -> None:
    env = ClusterEnv("reference", nodes=5)
    _, facts = env.reset(seed=1)
    for chosen in (3, 1, 4):
        bids = np.full((5, CRITERIA_COUNT), 0.0, dtype=np.float32)
        bids[chosen, 3] = 1.0
        assert facts["feasible"][chosen]
        _, _, _, _, facts = env.step(bids.ravel())
        assert facts["placement"] == chosen


def test_both_faces_live_through_the_same_episode() -> None:
    single, many = ClusterEnv("reference", nodes=3), NodesEnv("reference", nodes=3)
    # both draw the episode's seed from PCG64(seed), so the same number names the same episode
    first, _ = single.reset(seed=11)
    rows, _ = many.reset(seed=11)
    np.testing.assert_array_equal(first, np.stack(list(rows.values())))
    bids = np.linspace(-0.5, 0.5, 3 * CRITERIA_COUNT, dtype=np.float32)
    for _ in range(40):
        _, reward, *_ = single.step(bids)
        _, rewards, *_ = many.step(dict(zip(many.agents, bids.reshape(3, -1), strict=True)))
        assert sum(rewards.values()) == pytest.approx(reward, rel=1e-6)


def test_a_team_shares_its_mean_reward() -> None:
    own, team = NodesEnv("reference", nodes=3), NodesEnv("reference", nodes=3, team=True)
    own.reset(seed=5)
    team.reset(seed=5)
    for _ in range(30):
        actions = {name: np.zeros(CRITERIA_COUNT, dtype=np.float32) for name in own.agents}
        _, mine, *_ = own.step(actions)
        _, ours, *_ = team.step(actions)
        assert len(set(ours.values())) == 1
        assert sum(ours.values()) == pytest.approx(sum(mine.values()), rel=1e-5, abs=1e-6)


@pytest.mark.parametrize(
    "action",
    [
        pytest.param(np.zeros(3, dtype=np.float32), id="too short"),
        pytest.param(np.full(2 * CRITERIA_COUNT, np.nan, dtype=np.float32), id="not a number"),
    ],
)
def test_a_senseless_action_is_refused(action: np.ndarray) -> None:
    env = ClusterEnv("reference", nodes=2)
    env.reset(seed=0)
    with pytest.raises(InvalidInputError, match=r"action|bids"):
        env.step(action)


def test_a_step_before_the_first_reset_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="reset"):
        ClusterEnv("reference", nodes=2).step(np.zeros(8, dtype=np.float32))


def test_an_agent_that_does_not_act_is_named() -> None:
    env = NodesEnv("reference", nodes=3)
    env.reset(seed=0)
    actions = {name: np.zeros(CRITERIA_COUNT, dtype=np.float32) for name in env.agents[:-1]}
    with pytest.raises(InvalidInputError, match="node_2"):
        env.step(actions)


def test_agents_see_what_is_told_in_the_same_episode() -> None:
    labelled, _ = ClusterEnv("reference", nodes=4).reset(seed=7)
    bare, _ = ClusterEnv("reference", nodes=4, told="bare").reset(seed=7)
    many, _ = NodesEnv("reference", nodes=4, told="bare").reset(seed=7)
    learned, _ = ClusterEnv("reference", nodes=4, told="learned-30").reset(seed=7)
    np.testing.assert_array_equal(bare[:, :4], labelled[:, :4])
    assert set(bare[:, 5]) == {0.0}
    assert set(bare[:, 7]) == {0.5}
    assert {float(shown[5]) for shown in many.values()} == {0.0}
    assert (learned[:, 5] != labelled[:, 5]).all()
    assert np.corrcoef(learned[:, 5], labelled[:, 5])[0, 1] > 0.9
    with pytest.raises(InvalidInputError, match="told is 'guessed'"):
        ClusterEnv("reference", told="guessed")


def test_nothing_is_drawn() -> None:
    with pytest.raises(InvalidInputError, match="render_mode"):
        ClusterEnv("reference", render_mode="human")
