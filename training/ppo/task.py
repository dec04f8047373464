"""Clusters of one arena as a vectorised TorchRL environment, and as a task of BenchMARL. Trains nothing.

Every node is an agent that bids; the pod goes to the node with the highest preference, as in serving, so exploration is
the noise on the bids alone. All agents get the reward of the team.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import numpy as np
import torch
from benchmarl.environments.common import TaskClass
from numpy.typing import NDArray
from tensordict import TensorDict, TensorDictBase
from torchrl.data import Bounded, Composite, Unbounded
from torchrl.envs import EnvBase

from policy.criteria import CRITERIA_COUNT
from policy.features import HIGH, LOW
from policy.scorers import combine
from training.config import TrainingConfig
from training.learning.collector import Episodes, look_at, step_discount
from training.learning.replay import Look
from training.simulator.ties import best_nodes, drawn_node

GROUP: Final = "nodes"
"""The one group of agents."""


class ClustersEnv(EnvBase):  # type: ignore[misc] # not installed where mypy runs
    """The clusters of the first arena; batch size ``[clusters]``, agents ``[clusters, n]``.

    Episodes have the same arrivals, loads and knowledge as those that `training.learning.collector.Arena` plays for the
    same configuration. All of them begin and end together, and an end is a truncation.

    Args:
        config: of the run.
        clusters: how many are simulated at once.
    """

    def __init__(self, config: TrainingConfig, clusters: int) -> None:
        super().__init__(device="cpu", batch_size=[clusters])
        self._config, self._clusters = config, clusters
        self._play = Episodes(config, 0, clusters)
        self._simulator, scenario = self._play.simulator, self._play.scenario
        self.nodes, self.steps = scenario.nodes, scenario.episode_arrivals
        self.gamma = step_discount(config.objective, self.nodes)
        self.episodes = 0
        self._ties = np.random.default_rng(np.random.SeedSequence((config.seed, 0)))
        self._potential = np.zeros((clusters, self.nodes))
        self._look: Look | None = None
        self._step_number = 0
        shape = (clusters, self.nodes)
        low, high = (torch.tensor(edge).expand(*shape, -1) for edge in (LOW, HIGH))
        seen = Composite(observation=Bounded(low, high, dtype=torch.float32), shape=shape)
        bids = Composite(action=Bounded(-1.0, 1.0, (*shape, CRITERIA_COUNT), dtype=torch.float32), shape=shape)
        ends = {name: Unbounded((clusters, 1), dtype=torch.bool) for name in ("done", "terminated", "truncated")}
        self.observation_spec = Composite({GROUP: seen}, shape=(clusters,))
        self.action_spec = Composite({GROUP: bids}, shape=(clusters,))
        self.reward_spec = Composite(reward=Unbounded((clusters, 1)), shape=(clusters,))
        self.done_spec = Composite(ends, shape=(clusters,))

    def _reset(self, tensordict: TensorDictBase | None = None, **_: Any) -> TensorDictBase:
        self._play.begin(self.episodes)
        self._potential = np.zeros((self._clusters, self.nodes))  # nothing runs yet
        self._step_number = 0
        return TensorDict({**self._observed(), **self._ends()}, [self._clusters])

    def _step(self, tensordict: TensorDictBase) -> TensorDictBase:
        look = self._look
        if look is None:
            raise RuntimeError("step before reset")
        bids: NDArray[np.float32] = tensordict.get((GROUP, "action")).numpy()
        best = best_nodes(combine(bids, look.measures), look.feasible)
        reward = self._simulator.step(drawn_node(best, self._ties.random(best.shape))).node_reward.sum(axis=1)
        if self._config.objective.shaping:
            before, self._potential = self._potential, self._simulator.potential()
            reward = reward + (self.gamma * self._potential - before).sum(axis=1)
        self._step_number += 1
        over = self._step_number >= self.steps
        if over:
            self.episodes += self._clusters
        rewards = torch.from_numpy(reward.astype(np.float32)).unsqueeze(-1)
        return TensorDict({**self._observed(), **self._ends(over), "reward": rewards}, [self._clusters])

    def _observed(self) -> dict[str, TensorDictBase]:
        self._look = look_at(self._simulator, self._config.actor)
        rows = torch.from_numpy(self._look.observation.copy())
        return {GROUP: TensorDict({"observation": rows}, rows.shape[:2])}

    def _ends(self, over: bool = False) -> dict[str, torch.Tensor]:
        ended, never = torch.full((self._clusters, 1), over), torch.zeros((self._clusters, 1), dtype=torch.bool)
        return {"done": ended, "truncated": ended.clone(), "terminated": never}

    def _set_seed(self, seed: int | None) -> None:
        """Draw nothing from TorchRL's seed: episodes follow from the configuration's."""


class ClustersTask(TaskClass):  # type: ignore[misc] # not installed where mypy runs
    """`ClustersEnv` as BenchMARL asks for it; its configuration holds the run's under ``training``."""

    def get_env_fun(
        self, num_envs: int, continuous_actions: bool, seed: int | None, device: object
    ) -> Callable[[], EnvBase]:
        """Return what makes the environment."""
        return lambda: ClustersEnv(self.config["training"], num_envs)

    def supports_continuous_actions(self) -> bool:
        """Bids are numbers."""
        return True

    def supports_discrete_actions(self) -> bool:
        """Bids are numbers."""
        return False

    def max_steps(self, env: EnvBase) -> int:
        """Decisions of an episode."""
        return int(env.steps)

    def has_render(self, env: EnvBase) -> bool:
        """Nothing is drawn."""
        return False

    def group_map(self, env: EnvBase) -> dict[str, list[str]]:
        """All nodes are one group."""
        return {GROUP: [f"node_{row}" for row in range(env.nodes)]}

    def observation_spec(self, env: EnvBase) -> Composite:
        """The eight features of each node."""
        return env.full_observation_spec_unbatched

    def action_spec(self, env: EnvBase) -> Composite:
        """The four bids of each node."""
        return env.full_action_spec_unbatched

    def info_spec(self, env: EnvBase) -> None:
        """No facts besides."""

    def state_spec(self, env: EnvBase) -> None:
        """The critic reads the observations."""

    def action_mask_spec(self, env: EnvBase) -> None:
        """No bid is forbidden; nodes that cannot take the pod are left out when it is placed."""

    @staticmethod
    def env_name() -> str:
        """Name of the environment in BenchMARL's records."""
        return "clusters"
