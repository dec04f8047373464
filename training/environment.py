"""The simulator as Gymnasium and PettingZoo know environments: one cluster, one decision a step. Trains nothing.

Gymnasium's single agent answers with one bid per node and criterion, a flat Box of n x 4, because that is what the
service puts to use: the same criteria and the same argmax follow, so the agent learns what serving needs, for any
number of nodes. A node's index would instead tie the policy to one cluster size, and offer actions that are not
feasible.

In PettingZoo every node is an agent. Each sees its own row alone, all act at once, and all end together.
"""

from __future__ import annotations

from typing import Any, Final

import gymnasium
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray
from pettingzoo import ParallelEnv

from policy import criteria
from policy.errors import InvalidInputError
from policy.features import HIGH, LOW
from policy.observation import observe
from policy.scorers import combine
from training.simulator.draws import cluster_seeds
from training.simulator.knowledge import LABELLED, knowledge
from training.simulator.scenarios import Scenario, load_scenario
from training.simulator.simulation import Simulator
from training.simulator.ties import PENDING, best_nodes
from training.simulator.warmup import tell

SEED_LIMIT: Final = 2**62


class _Cluster:
    """One simulated cluster as both faces drive it; arguments as theirs."""

    def __init__(self, scenario: Scenario | str, nodes: int | None, load: float | None, told: str) -> None:
        named = load_scenario(scenario) if isinstance(scenario, str) else scenario
        self.scenario = named if nodes is None else named.resized(nodes)
        self.load = load
        self._known = knowledge(told)
        self.nodes = self.scenario.nodes
        self._simulator = Simulator(self.scenario, 1)
        self._ties = np.random.default_rng(0)
        self._begun = False
        self._steps = 0

    def reset(self, seed: int) -> NDArray[np.float32]:
        """A new episode; returns the first observation, ``[n, 8]``."""
        seeds = cluster_seeds(seed, 1)
        self._simulator.reset(seeds, self.load, tell(self.scenario, seeds, self.load, self._known))
        self._ties = np.random.default_rng(seed)
        self._begun = True
        self._steps = 0
        return self.observation()

    def observation(self) -> NDArray[np.float32]:
        """What each node's agent sees, ``[n, 8]``."""
        row: NDArray[np.float32] = observe(self._simulator.state, self._simulator.demand)[0]
        return row

    def feasible(self) -> NDArray[np.bool_]:
        """Which nodes take the pod, ``[n]``."""
        row: NDArray[np.bool_] = self._simulator.feasible[0]
        return row

    def step(self, bids: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32], bool, dict[str, Any]]:
        """Place the pod by these bids, ``[n, 4]``; next observation, reward by node, whether it is over, facts."""
        if not self._begun:
            raise InvalidInputError("step before reset; call reset first")
        if bids.shape != (self.nodes, criteria.CRITERIA_COUNT) or not np.isfinite(bids).all():
            raise InvalidInputError(
                f"bids have shape {bids.shape}; give finite [{self.nodes}, {criteria.CRITERIA_COUNT}]"
            )
        simulator = self._simulator
        clipped = np.clip(bids, -1.0, 1.0).astype(np.float32)
        preference = combine(clipped, criteria.evaluate(simulator.state, simulator.demand)[0])
        best = np.flatnonzero(best_nodes(preference, self.feasible()))
        placement = int(self._ties.choice(best)) if len(best) else PENDING
        result = simulator.step(np.array([placement]))
        self._steps += 1
        facts = {
            "placement": placement,
            "violations": int(result.violations[0]),
            "lateness": float(result.lateness[0]),
            "finished": int(result.finished[0]),
            "failed": int(result.failed[0]),
            "elapsed": float(result.elapsed[0]),
        }
        return self.observation(), result.node_reward[0], self._steps >= self.scenario.episode_arrivals, facts


class ClusterEnv(gymnasium.Env[NDArray[np.float32], NDArray[np.float32]]):
    """Gymnasium: observation Box ``[n, 8]``, action Box ``[n x 4]`` of bids, node by node; reward of the whole team.

    An episode is never terminated: a cluster goes on for ever. It is truncated after `Scenario.episode_arrivals`
    decisions.

    Args:
        scenario: what is simulated, or its name.
        nodes: number of nodes instead of the scenario's.
        load: offered load of every episode; by default the scenario's.
        told: what the agents are told, a name of `training.simulator.knowledge`.
        render_mode: must be None; there is nothing to draw.

    Raises:
        InvalidInputError: the scenario is unknown, or another render mode is asked for.
    """

    metadata: dict[str, Any] = {"render_modes": []}  # noqa: RUF012 - Gymnasium declares it so

    def __init__(
        self,
        scenario: Scenario | str = "reference",
        nodes: int | None = None,
        load: float | None = None,
        render_mode: str | None = None,
        told: str = LABELLED,
    ) -> None:
        if render_mode is not None:
            raise InvalidInputError(f"render_mode is {render_mode!r}; give None, nothing is drawn")
        self.render_mode = render_mode
        self._cluster = _Cluster(scenario, nodes, load, told)
        size = self._cluster.nodes
        self.observation_space = spaces.Box(np.tile(LOW, (size, 1)), np.tile(HIGH, (size, 1)), dtype=np.float32)
        self.action_space = spaces.Box(-1.0, 1.0, (size * criteria.CRITERIA_COUNT,), np.float32)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[np.float32], dict[str, Any]]:
        """Begin an episode; equal seeds, equal episodes. The facts hold `feasible`, ``[n]``."""
        super().reset(seed=seed, options=options)
        observation = self._cluster.reset(int(self.np_random.integers(SEED_LIMIT)))
        return observation, {"feasible": self._cluster.feasible()}

    def step(self, action: NDArray[np.float32]) -> tuple[NDArray[np.float32], float, bool, bool, dict[str, Any]]:
        """Place the pod by these bids; the reward is the sum over nodes."""
        bids = np.asarray(action, dtype=np.float32)
        if bids.size != self._cluster.nodes * criteria.CRITERIA_COUNT:
            raise InvalidInputError(f"action has {bids.size} numbers; give {self.action_space.shape}")
        observation, reward, over, facts = self._cluster.step(bids.reshape(self._cluster.nodes, -1))
        return observation, float(reward.sum()), False, over, {**facts, "feasible": self._cluster.feasible()}


class NodesEnv(ParallelEnv[str, NDArray[np.float32], NDArray[np.float32]]):  # type: ignore[misc] # untyped upstream
    """PettingZoo: every node an agent, observation Box ``[8]``, action Box ``[4]``, its own reward.

    Args:
        scenario: what is simulated, or its name.
        nodes: number of nodes instead of the scenario's.
        load: offered load of every episode; by default the scenario's.
        told: what the agents are told, a name of `training.simulator.knowledge`.
        team: give every agent the mean reward of all, instead of its own.
    """

    metadata: dict[str, Any] = {"name": "maddpg_scheduler_nodes_v0", "render_modes": []}  # noqa: RUF012 - as above
    render_mode: str | None = None

    def __init__(
        self,
        scenario: Scenario | str = "reference",
        nodes: int | None = None,
        load: float | None = None,
        team: bool = False,
        told: str = LABELLED,
    ) -> None:
        self._cluster = _Cluster(scenario, nodes, load, told)
        self._team = team
        self._generator = np.random.default_rng()
        self.possible_agents = [f"node_{row}" for row in range(self._cluster.nodes)]
        self.agents: list[str] = []
        self.observation_spaces = {name: spaces.Box(LOW, HIGH, dtype=np.float32) for name in self.possible_agents}
        shape = (criteria.CRITERIA_COUNT,)
        self.action_spaces = {name: spaces.Box(-1.0, 1.0, shape, np.float32) for name in self.possible_agents}

    def observation_space(self, agent: str) -> spaces.Space[NDArray[np.float32]]:
        """The eight features, with their bounds."""
        return self.observation_spaces[agent]

    def action_space(self, agent: str) -> spaces.Space[NDArray[np.float32]]:
        """A bid on each of the four criteria, -1..1."""
        return self.action_spaces[agent]

    def reset(
        self, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, NDArray[np.float32]], dict[str, dict[str, Any]]]:
        """Begin an episode; equal seeds, equal episodes. Each agent's facts hold `feasible`."""
        if seed is not None:
            self._generator = np.random.default_rng(seed)
        rows = self._cluster.reset(int(self._generator.integers(SEED_LIMIT)))
        self.agents = list(self.possible_agents)
        return self._by_agent(rows), self._facts({})

    def step(
        self, actions: dict[str, NDArray[np.float32]]
    ) -> tuple[
        dict[str, NDArray[np.float32]],
        dict[str, float],
        dict[str, bool],
        dict[str, bool],
        dict[str, dict[str, Any]],
    ]:
        """Place the pod by everybody's bids."""
        missing = [name for name in self.agents if name not in actions]
        if missing or not self.agents:
            raise InvalidInputError(
                f"no action for {missing or 'anybody, the episode is over'}; every agent acts at once"
            )
        bids = np.stack([np.asarray(actions[name], dtype=np.float32) for name in self.agents])
        rows, reward, over, facts = self._cluster.step(bids)
        if self._team:
            reward = np.full_like(reward, reward.mean())
        observations, infos = self._by_agent(rows), self._facts(facts)
        rewards = dict(zip(self.agents, reward.tolist(), strict=True))
        terminations = dict.fromkeys(self.agents, False)
        truncations = dict.fromkeys(self.agents, over)
        if over:
            self.agents = []
        return observations, rewards, terminations, truncations, infos

    def render(self) -> None:
        """Nothing is drawn."""

    def _by_agent(self, rows: NDArray[np.float32]) -> dict[str, NDArray[np.float32]]:
        return dict(zip(self.agents, rows, strict=True))

    def _facts(self, facts: dict[str, Any]) -> dict[str, dict[str, Any]]:
        feasible = self._cluster.feasible().tolist()
        return {name: {**facts, "feasible": fits} for name, fits in zip(self.agents, feasible, strict=True)}
