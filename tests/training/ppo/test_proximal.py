"""MAPPO and IPPO by BenchMARL on small clusters; skipped where requirements/ppo.txt is not installed."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest
import torch

from policy.bundle import load_bundle
from policy.errors import InvalidInputError
from policy.features import FEATURE_NAMES
from tests.training.command_line import invoke
from tests.training.tiny_runs import ARRIVALS, NODES, one_thread, quick_parity, tiny_config  # noqa: F401
from training.config import TrainingConfig
from training.learning.collector import Arena, look_at
from training.learning.loop import load_actor

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of TorchRL, about itself
    pytest.importorskip("benchmarl", reason="BenchMARL is not installed: pip install -r requirements/ppo.txt")
    from torchrl.envs.utils import check_env_specs

    from training.ppo.proximal import ProximalRun
    from training.ppo.task import GROUP, ClustersEnv

pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.usefixtures("quick_parity")]

SEEN = ["cpu_requested", "cpu_used", "node_speed"]


def config(folder: Path, algorithm: str = "mappo", **overrides: object) -> TrainingConfig:
    smallest = {
        "actor": {"hidden": [16, 16], "features": SEEN},
        "objective": {"entropy_bonus": 0.0, "worse_penalty": 1.0},
        "optimiser": {"actor_after": 8},
        "exploration": {"sigma_start": 0.1},
        "ppo": {"steps": 10, "epochs": 2, "minibatch": 10},
    }
    return tiny_config(folder, algorithm=algorithm, updates=24, **smallest | overrides)


def bids_for(node: int, clusters: int = 4) -> torch.Tensor:
    """Bids by which a node is preferred, whatever the criteria."""
    bids = torch.zeros(clusters, NODES, 4)
    bids[:, node, 3] = 1.0
    return bids


def test_the_environment_gives_what_its_specs_say(tmp_path: Path) -> None:
    check_env_specs(ClustersEnv(config(tmp_path), 4))


def test_an_episode_begins_as_that_of_a_maddpg_run(tmp_path: Path) -> None:
    run = config(tmp_path)
    arena = Arena(run, 0)
    arena.begin()
    seen = ClustersEnv(run, 4).reset()[GROUP, "observation"]
    np.testing.assert_array_equal(seen.numpy(), look_at(arena._simulator, run.actor).observation)


def test_the_pod_goes_to_the_node_that_bids_most_and_all_get_the_reward_of_the_team(tmp_path: Path) -> None:
    run = config(tmp_path, objective={"shaping": False})
    env, arena = ClustersEnv(run, 4), Arena(run, 0)
    arena.begin()
    state = env.reset()
    for _ in range(ARRIVALS):
        feasible = look_at(arena._simulator, run.actor).feasible
        if not feasible[:, 1].all():
            break
        state[GROUP, "action"] = bids_for(1)
        state = env.step(state)["next"]
        reward = arena._simulator.step(np.ones(4, dtype=np.int64)).node_reward.sum(axis=1, keepdims=True)
        np.testing.assert_allclose(state["reward"].numpy(), reward, rtol=1e-5)


def test_an_end_is_a_truncation_and_the_next_episode_is_another(tmp_path: Path) -> None:
    env = ClustersEnv(config(tmp_path), 4)
    first = env.reset()
    state = first.clone()
    for _ in range(ARRIVALS):
        state[GROUP, "action"] = bids_for(0)
        state = env.step(state)["next"]
    assert state["truncated"].all()
    assert not state["terminated"].any()
    assert not torch.equal(env.reset()[GROUP, "observation"], first[GROUP, "observation"])


@pytest.mark.parametrize("algorithm", ["mappo", "ippo"])
def test_a_run_moves_the_actor_and_what_it_leaves_can_be_exported(algorithm: str, tmp_path: Path) -> None:
    outcome = ProximalRun(config(tmp_path, algorithm), tmp_path / "run", "the command").run()
    assert (outcome.updates, outcome.episodes) == (24, 4)
    assert outcome.best["score"] > 0.0
    actor, _, known = load_actor(tmp_path / "run" / "latest.pt")
    weights = actor.get_parameter("body.0.weight")
    assert not weights[:, [name not in SEEN for name in FEATURE_NAMES]].any()
    assert known["command"] == "the command"
    invoke("export", tmp_path / "run" / "latest.pt", "--out", tmp_path / "bundle", "--unplayed")
    manifest = load_bundle(tmp_path / "bundle").manifest
    assert manifest.training["config"]["algorithm"] == algorithm
    assert f"| algorithm | {algorithm} of BenchMARL" in (tmp_path / "bundle" / "MODEL_CARD.md").read_text()


def test_the_actor_waits_for_the_critic(tmp_path: Path) -> None:
    run = ProximalRun(config(tmp_path, optimiser={"actor_after": 24}), tmp_path / "run")
    run.run()
    assert all(torch.equal(after, run._initial.state_dict()[name]) for name, after in run.actor.state_dict().items())


def test_a_run_repeats(tmp_path: Path) -> None:
    runs = [ProximalRun(config(tmp_path), tmp_path / name) for name in ("one", "two")]
    weights = []
    for run in runs:
        run.run()
        weights.append(run.actor.state_dict())
    assert all(torch.equal(tensor, weights[1][name]) for name, tensor in weights[0].items())


def test_minibatches_that_do_not_divide_a_collection_are_refused(tmp_path: Path) -> None:
    odd = config(tmp_path, ppo={"steps": 10, "minibatch": 11})
    with pytest.raises(InvalidInputError, match="minibatch 11 does not divide 40"):
        ProximalRun(odd, tmp_path / "run")
