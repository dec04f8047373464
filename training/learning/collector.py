"""Clusters of one size and the replay they fill: look, bid, place, keep. Refuses to learn."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from policy import shortage
from policy.arithmetic import ARRAYS
from policy.criteria import CRITERIA_COUNT, CRITERIA_SETS
from policy.observation import observe
from policy.scorers import combine
from training.config import ActorConfig, ArenaConfig, ObjectiveConfig, TrainingConfig
from training.learning.maddpg import Maddpg
from training.learning.networks import bid_mask, lowest_bid
from training.learning.noise import Noise
from training.learning.placement import sample_placement
from training.learning.replay import Look, Replay
from training.simulator.deviations import find_scenario
from training.simulator.draws import cluster_seeds
from training.simulator.knowledge import knowledge
from training.simulator.scenarios import Scenario
from training.simulator.simulation import Simulator
from training.simulator.warmup import tell


def look_at(simulator: Simulator, settings: ActorConfig) -> Look:
    """What every agent sees before the next decision, computed by the same functions as in serving."""
    state, demand = simulator.state, simulator.demand
    feasible = simulator.feasible
    if settings.memory_bound:  # as serving ranks them: last, so never chosen where there is another
        within = feasible & (shortage.excess(state, demand, ARRAYS) <= 0.0)
        feasible = np.where(within.any(axis=1, keepdims=True), within, feasible)
    measures = CRITERIA_SETS[settings.criteria_set].evaluate(state, demand)
    return Look(observe(state, demand), measures, feasible.copy())


def arena_scenario(arena: ArenaConfig, objective: ObjectiveConfig) -> Scenario:
    """The arena's scenario, with its nodes, their classes and the prices of use overridden where configured.

    The prices are charged at every arrival, so they are scaled to cost a node as much in the same time in every size.
    """
    scenario = find_scenario(arena.scenario)
    if arena.nodes is not None:
        scenario = scenario.resized(arena.nodes)
    if arena.node_classes:
        scenario = replace(scenario, node_classes=arena.node_classes)
    share = objective.reference_nodes / scenario.nodes
    overridden = {
        name: share * (getattr(scenario.reward, name) if given is None else given)
        for name, given in (
            ("balance_weight", objective.balance_weight),
            ("spread_weight", objective.spread_weight),
        )
    }
    return replace(scenario, reward=replace(scenario.reward, **overridden))


def step_discount(objective: ObjectiveConfig, nodes: int) -> float:
    """Discount of one step: arrivals are nodes / reference_nodes times as frequent, so a step covers less time."""
    discount: float = objective.discount ** (1.0 / (nodes / objective.reference_nodes))
    return discount


class Episodes:
    """Episodes of an arena, in all of its clusters at once; each follows from the run's seed and its number alone.

    Args:
        config: of the run.
        index: which of ``config.arenas`` it is.
        clusters: how many are simulated.
    """

    def __init__(self, config: TrainingConfig, index: int, clusters: int) -> None:
        self._config, self._index, self._clusters = config, index, clusters
        settings = config.arenas[index]
        self.scenario = arena_scenario(settings, config.objective)
        self.simulator = Simulator(self.scenario, clusters, config.seed)
        self._known = [knowledge(settings.told[cluster % len(settings.told)]) for cluster in range(clusters)]

    def begin(self, number: int) -> None:
        """Start the episode of that number, from 0 on."""
        stream = np.random.default_rng(np.random.SeedSequence((self._config.seed, self._index, 1 + number)))
        loads = stream.uniform(self._config.load.low, self._config.load.high, self._clusters)
        seeds = cluster_seeds(int(stream.integers(2**62)), self._clusters)
        self.simulator.reset(seeds, loads, tell(self.scenario, seeds, loads, self._known))


class Arena:
    """Simulated clusters, exploration noise and replay, all drawn from streams of their own.

    Args:
        config: of the run.
        index: which of ``config.arenas`` this is.

    Attributes:
        potential: of the nodes at the last look, ``[clusters, n]``; what shaping adds comes from its change.
    """

    def __init__(self, config: TrainingConfig, index: int) -> None:
        self.settings = config.arenas[index]
        self._config = config
        self.clusters = self.settings.clusters
        self._play = Episodes(config, index, self.clusters)
        self.scenario, self._simulator = self._play.scenario, self._play.simulator
        self.nodes = self.scenario.nodes
        self.gamma = step_discount(config.objective, self.nodes)
        self.n_step = max(1, round(config.objective.n_step * (self.nodes / config.objective.reference_nodes)))
        draws, noises, placements = np.random.SeedSequence((config.seed, index)).spawn(3)
        self._placements = np.random.default_rng(placements)
        self._noises = np.random.default_rng(noises)
        shape = (self.clusters, self.nodes, CRITERIA_COUNT)
        self._noise = Noise(config.exploration.noise, shape, config.exploration.theta, self._noises)
        self._bid_mask = bid_mask(config.actor)
        self._lowest = lowest_bid(config.actor)
        generator = np.random.default_rng(draws)
        self.replay = Replay(self.settings.replay, self.clusters, self.nodes, generator, config.replay)
        self.potential = np.zeros((self.clusters, self.nodes))
        self.episodes = 0
        self._reward = 0.0
        self._pending = 0

    @property
    def steps(self) -> int:
        """Decisions of one episode."""
        return self.scenario.episode_arrivals

    @property
    def collected(self) -> int:
        """Transitions collected since the run began."""
        return self.episodes * self.steps

    def begin(self) -> None:
        """Start the next episode in every cluster."""
        self._play.begin(self.episodes)
        self._noise.reset()
        self.potential = np.zeros((self.clusters, self.nodes))  # nothing runs yet
        self._reward = 0.0
        self._pending = 0

    def step(self, algorithm: Maddpg, sigma: float) -> None:
        """One decision in every cluster, at noise scale `sigma`, kept in the replay."""
        settings = self._config.exploration
        look = look_at(self._simulator, self._config.actor)
        noise = self._bid_mask * self._noise.draw(sigma)
        bids = np.clip(algorithm.bids(look.observation) + noise, self._lowest, 1.0)
        placement = sample_placement(
            combine(bids, look.measures), look.feasible, settings.temperature, settings.uniform_share, self._placements
        )
        reward = self._simulator.step(placement).node_reward
        self._reward += float(reward.sum())
        if self._config.objective.shaping:
            before, self.potential = self.potential, self._simulator.potential()
            reward += (self.gamma * self.potential - before).astype(np.float32)
        self.replay.append(look, bids, placement, reward)
        self._pending += int((placement < 0).sum())

    def mean_reward(self, steps: int) -> float:
        """Team reward per decision over the first `steps` steps of the episode under way."""
        return self._reward / (steps * self.clusters)

    def finish(self) -> dict[str, float]:
        """End the episode: keep the last look, from which its last transitions bootstrap.

        Returns:
            To record: ``reward``, the team's per decision, and ``pending_share``, of decisions where the pod fitted
            nowhere.
        """
        self.replay.append_last(look_at(self._simulator, self._config.actor))
        self.episodes += self.clusters
        pending_share = self._pending / (self.clusters * self.steps)
        return {"reward": self.mean_reward(self.steps), "pending_share": pending_share}

    def state_dict(self) -> dict[str, Any]:
        """State between episodes; the simulator has none, since every episode starts from its seed."""
        return {
            "episodes": self.episodes,
            "replay": self.replay.state_dict(),
            "placements": self._placements.bit_generator.state,
            "noises": self._noises.bit_generator.state,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up a state saved between episodes."""
        self.episodes = state["episodes"]
        self.replay.load_state_dict(state["replay"])
        self._placements.bit_generator.state = state["placements"]
        self._noises.bit_generator.state = state["noises"]
