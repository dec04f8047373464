"""A run of MAPPO or IPPO by BenchMARL, with the selection, the averaging and the checkpoints of a MADDPG run.

A run is not resumed: BenchMARL's checkpoints hold neither optimisers nor the environment.
"""

from __future__ import annotations

import copy
import time
import warnings
from pathlib import Path

from benchmarl.experiment import Callback, Experiment, ExperimentConfig
from tensordict import TensorDictBase

from policy.errors import InvalidInputError
from training.config import PROXIMAL, TrainingConfig
from training.learning.collector import arena_scenario, step_discount
from training.learning.loop import Outcome, save_actors
from training.learning.networks import AnyActor, soft_update
from training.learning.records import Records
from training.learning.selection import ActorModuleScorer, Best, Selection
from training.ppo.heads import BidHeadConfig, ValueHeadConfig, actor_of, algorithm_config
from training.ppo.task import GROUP, ClustersTask


class ProximalRun(Callback):  # type: ignore[misc] # not installed where mypy runs
    """One run in one folder: ``latest.pt``, ``best.pt`` and ``metrics.jsonl``, as `training.learning.loop.Trainer`'s.

    Args:
        config: of the run; ``algorithm`` is ``mappo`` or ``ippo``.
        folder: where it lives.
        command: what repeats the run, for the model card.

    Raises:
        InvalidInputError: the configuration asks for another algorithm, or minibatches that do not divide a collection.
    """

    def __init__(self, config: TrainingConfig, folder: Path, command: str = "") -> None:
        super().__init__()
        if config.algorithm not in PROXIMAL:
            raise InvalidInputError(f"algorithm is {config.algorithm!r}; give {' or '.join(PROXIMAL)}, or use run")
        self.collected = config.arenas[0].clusters * config.ppo.steps
        if self.collected % config.ppo.minibatch:
            raise InvalidInputError(
                f"ppo.minibatch {config.ppo.minibatch} does not divide {self.collected}, a collection"
            )
        self.config, self._folder, self._command = config, folder, command
        self.updates = 0
        self._per_collection = config.ppo.epochs * self.collected // config.ppo.minibatch
        self.collections = -(-config.updates // self._per_collection)
        self._best = Best()
        self._selected_at = 0
        self._selection = Selection(config.selection) if config.selection.suites else None

    def run(self) -> Outcome:
        """Train until the configured updates are done; seconds are CPU time, of the selection too."""
        began = time.process_time()
        self._folder.mkdir(parents=True, exist_ok=True)
        with Records(self._folder, resume_at=-1) as self._records, warnings.catch_warnings():
            # BenchMARL warns of its own use of TorchRL, and of collections in which no episode ends.
            warnings.simplefilter("ignore")
            self._began = began
            experiment = self._experiment()
            # Not before: BenchMARL pickles the callbacks that it is built with.
            self.experiment = experiment
            experiment.callbacks.append(self)
            self.actor: AnyActor = actor_of(experiment.policy)
            self._average = copy.deepcopy(self.actor).requires_grad_(False)
            self._initial = copy.deepcopy(self._average)
            self._schedule(experiment)
            if self._selection is not None:
                self._records.write("rival", 0, self._selection.rival_rates())
                self._measure("selection", self._average, {})
            experiment.run()
            if self._selection is not None:
                for share in self.config.selection.blend:
                    between = copy.deepcopy(self._initial)
                    soft_update(between, self._average, share)
                    self._measure("blend", between, {"blend": share})
        seconds = time.process_time() - began
        self._save(seconds)
        episodes = self.collections * self.collected // experiment.max_steps
        return Outcome(self.updates, episodes, seconds, finished=True, best=dict(self._best.rates))

    def on_batch_collected(self, batch: TensorDictBase) -> None:
        """Set the rates of the updates to come."""
        self._reward = float(batch.get(("next", "reward")).mean())
        self._schedule(self.experiment)

    def on_train_step(self, batch: TensorDictBase, group: str) -> None:
        """Count the update and move the average."""
        self.updates += 1
        soft_update(self._average, self.actor, self.config.objective.average_update)

    def on_train_end(self, training_td: TensorDictBase, group: str) -> None:
        """Record what the updates on one collection gave, and select if it is time."""
        record = {name: float(value.float().mean()) for name, value in training_td.items()}
        seconds = time.process_time() - self._began
        self._records.write("train", self.updates, {**record, "reward": self._reward, "cpu_seconds": seconds})
        last = self.updates >= self.collections * self._per_collection
        if self._selection is not None and (
            last or self.updates - self._selected_at >= self.config.selection.every_updates
        ):
            self._selected_at = self.updates
            self._measure("selection", self._average, {})

    def _experiment(self) -> Experiment:
        config = self.config
        nodes = arena_scenario(config.arenas[0], config.objective).nodes
        settings = ExperimentConfig.get_from_yaml()
        settings.gamma = step_discount(config.objective, nodes)
        settings.clip_grad_val = config.optimiser.actor_clip
        settings.max_n_frames, settings.max_n_iters = None, self.collections
        settings.on_policy_collected_frames_per_batch = self.collected
        settings.on_policy_n_envs_per_worker = config.arenas[0].clusters
        settings.on_policy_n_minibatch_iters = config.ppo.epochs
        settings.on_policy_minibatch_size = config.ppo.minibatch
        settings.evaluation, settings.evaluation_episodes, settings.render = False, 1, False
        settings.loggers, settings.create_json, settings.save_folder = [], False, str(self._folder)
        return Experiment(
            task=ClustersTask("arena", {"training": config}),
            algorithm_config=algorithm_config(config),
            model_config=BidHeadConfig(config.actor, config.exploration.sigma_start),
            critic_model_config=ValueHeadConfig(config.critic.hidden),
            seed=config.seed,
            config=settings,
        )

    def _schedule(self, experiment: Experiment) -> None:
        """Linear decay of both rates; the actor's is 0 until the critic has had its updates alone."""
        settings = self.config.optimiser
        left = 1.0 - min(self.updates / (self.collections * self._per_collection), 1.0)
        factor = settings.final_share + (1.0 - settings.final_share) * left
        waits = self.updates < settings.actor_after
        rates = {"loss_objective": 0.0 if waits else settings.actor_rate, "loss_critic": settings.critic_rate}
        for name, rate in rates.items():
            experiment.optimizers[GROUP][name].param_groups[0]["lr"] = rate * factor

    def _measure(self, kind: str, actor: AnyActor, origin: dict[str, float]) -> None:
        """Measure the actor on the selection suites; keep it if it is the best so far."""
        if self._selection is None:
            return
        rates = self._selection.rates(ActorModuleScorer(actor, "training", self.config.actor))
        self._records.write(kind, self.updates, {**origin, **rates})
        self._best.offer(actor, {"updates": self.updates, **origin, **rates})

    def _save(self, seconds: float) -> None:
        latest = {"command": self._command, "seconds": seconds, "updates": self.updates}
        save_actors(self._folder, self.config, self._best, {**latest, "actor": self._average.state_dict()})
