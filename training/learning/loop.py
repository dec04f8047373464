"""The training loop: rounds of episodes, an update at every step, checkpoints and selection between rounds.

A round plays one episode in every cluster of one arena. Everything is saved between rounds, where the simulator has no
state of its own, so a run that goes on from a checkpoint repeats bit for bit what an uninterrupted one does.
"""

from __future__ import annotations

import copy
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch

from training.config import TrainingConfig, parse_config
from training.learning.algorithms import build_algorithm
from training.learning.checkpoint import CheckpointError, load_checkpoint, save_checkpoint
from training.learning.collector import Arena
from training.learning.networks import AnyActor, build_actor, soft_update
from training.learning.precision import settled
from training.learning.records import Records
from training.learning.selection import ActorModuleScorer, Best, Selection
from training.learning.updates import DivergedError

LATEST_FILE: Final = "latest.pt"
BEST_FILE: Final = "best.pt"
PROVENANCE: Final = ("command", "updates", "seconds", "threads", "best")
Clock = Callable[[], float]


@dataclass(frozen=True, slots=True)
class Progress:
    """Where a run stands, told to whoever watches it."""

    updates: int  # gradient updates done
    total: int  # updates of the whole run
    episodes: int
    reward: float  # team reward per decision in the last round
    score: float | None  # last selection score, None before the first; lower is better
    best: float | None  # best selection score so far


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a call of `Trainer.run` ended."""

    updates: int  # gradient updates of the run so far
    episodes: int  # episodes of the run so far
    seconds: float  # time spent training, this call and those before it
    finished: bool  # whether all configured updates are done
    best: dict[str, float]  # ``{"updates", "score", rates...}`` of the best checkpoint; empty without selection suites


class Trainer:
    """One run in one folder: ``latest.pt``, ``best.pt``, ``metrics.jsonl`` and ``tensorboard/``.

    Args:
        config: of the run; `optimiser.matmul: auto` is settled here, and checkpoints keep what was chosen.
        folder: where it lives.
        command: what repeats the run, for the model card.
        clock: monotonic seconds; read for time limits and time spent, never for anything learned.

    Attributes:
        threads: Torch threads that wrote the checkpoint it goes on from; None of a run that begins.
    """

    def __init__(self, config: TrainingConfig, folder: Path, command: str = "", clock: Clock = time.monotonic) -> None:
        config = settled(config)
        self.config = config
        self._command = command
        self._folder = folder
        self._clock = clock
        self._arenas = [Arena(config, index) for index in range(len(config.arenas))]
        self.algorithm = build_algorithm(config, self._arenas[0].nodes)
        self._average = copy.deepcopy(self.algorithm.actor).requires_grad_(False)
        self._initial = copy.deepcopy(self._average)
        self._choices = np.random.default_rng(np.random.SeedSequence((config.seed, len(config.arenas))))
        self._best = Best()
        self._score: float | None = None
        self._selected_at = 0
        self._saved_episodes: int | None = None
        self.threads: int | None = None
        self._seconds = 0.0

    @property
    def episodes(self) -> int:
        """Episodes played in all arenas."""
        return sum(arena.episodes for arena in self._arenas)

    @classmethod
    def resume(cls, folder: Path, clock: Clock = time.monotonic) -> Trainer:
        """The run in `folder`, as its latest checkpoint left it.

        Raises:
            CheckpointError: there is none, or it does not read.
        """
        content = load_checkpoint(folder / LATEST_FILE)
        trainer = cls(
            parse_config(content["config"], "the checkpoint's configuration"), folder, content["command"], clock
        )
        trainer._load(content)
        return trainer

    def run(
        self,
        *,
        max_seconds: float | None = None,
        max_updates: int | None = None,
        watch: Callable[[Progress], None] | None = None,
    ) -> Outcome:
        """Train until the configured updates are done, or a limit is reached; ends with a checkpoint between rounds.

        Args:
            max_seconds: of this call; the round under way is completed.
            max_updates: of this call; the round under way is completed.
            watch: called after every step of the simulator that updated.
        """
        began, done_before, before = self._clock(), self.algorithm.updates, self._seconds
        selection = Selection(self.config.selection) if self.config.selection.suites else None
        fresh = self._saved_episodes is None
        # A run that was killed before its first checkpoint begins again, and so do its records.
        with Records(self._folder, resume_at=-1 if fresh else done_before) as records:
            if selection is not None and fresh:
                records.write("rival", 0, selection.rival_rates())
            while self.algorithm.updates < self.config.updates:
                elapsed = self._clock() - began
                if max_seconds is not None and elapsed >= max_seconds:
                    break
                if max_updates is not None and self.algorithm.updates - done_before >= max_updates:
                    break
                self._play_round(records, watch)
                self._seconds = before + self._clock() - began
                finished = self.algorithm.updates >= self.config.updates
                due = self.algorithm.updates - self._selected_at >= self.config.selection.every_updates
                if selection is not None and (due or finished):
                    self._select(selection, records)
                    if finished:
                        self._blend(selection, records)
                if finished or self.episodes - (self._saved_episodes or 0) >= self.config.checkpoint_episodes:
                    self.save()
            if self.episodes != self._saved_episodes:
                self.save()
        return Outcome(
            self.algorithm.updates,
            self.episodes,
            self._seconds,
            self.algorithm.updates >= self.config.updates,
            dict(self._best.rates),
        )

    def save(self) -> None:
        """Write ``latest.pt``, and ``best.pt`` where there is a best actor; each atomically."""
        self._saved_episodes = self.episodes
        save_actors(
            self._folder,
            self.config,
            self._best,
            {
                "command": self._command,
                "seconds": self._seconds,
                "updates": self.algorithm.updates,
                "episodes": self.episodes,
                "actor": self._average.state_dict(),
                "algorithm": self.algorithm.state_dict(),
                "arenas": [arena.state_dict() for arena in self._arenas],
                "choices": self._choices.bit_generator.state,
                "best_actor": self._best.weights,
                "score": self._score,
                "selected_at": self._selected_at,
            },
        )

    def _load(self, content: dict[str, Any]) -> None:
        try:
            self.algorithm.load_state_dict(content["algorithm"])
            self._average.load_state_dict(content["actor"])
            for arena, state in zip(self._arenas, content["arenas"], strict=True):
                arena.load_state_dict(state)
            self._choices.bit_generator.state = content["choices"]
            self._best.rates, self._best.weights = content["best"], content["best_actor"]
            self._score, self._selected_at = content["score"], content["selected_at"]
            self._seconds, self.threads = content["seconds"], content["threads"]
        except (KeyError, ValueError, RuntimeError, TypeError) as error:
            raise CheckpointError(
                f"the checkpoint does not fit its own configuration ({error}); train again"
            ) from error
        self._saved_episodes = self.episodes

    def _play_round(self, records: Records, watch: Callable[[Progress], None] | None) -> None:
        """One episode of the arena that has played least for its share, with an update after every few steps."""
        arena = min(self._arenas, key=lambda each: each.collected / each.settings.share)
        logs: dict[str, list[float]] = defaultdict(list)
        arena.begin()
        for step in range(arena.steps):
            arena.step(self.algorithm, self._sigma())
            if (step + 1) % arena.settings.steps_per_update == 0 and self.algorithm.updates < self.config.updates:
                for name, value in self._update().items():
                    logs[name].append(value)
                if watch is not None and logs:
                    watch(self._progress(arena.mean_reward(step + 1)))
        record = {name: float(np.mean(values)) for name, values in logs.items()}
        record |= arena.finish()
        record |= {"episodes": self.episodes, "nodes": arena.nodes, "sigma": self._sigma()}
        records.write("train", self.algorithm.updates, record)

    def _update(self) -> dict[str, float]:
        """One update from an arena drawn by share among those warmed up; nothing before any is."""
        ready = [arena for arena in self._arenas if len(arena.replay) >= arena.settings.warmup]
        if not ready:
            return {}
        shares = np.array([arena.settings.share for arena in ready])
        arena = ready[int(self._choices.choice(len(ready), p=shares / shares.sum()))]
        batch = arena.replay.sample(arena.settings.batch, arena.gamma, arena.n_step, self._beta())
        update = self.algorithm.update(batch)
        if not np.isfinite(list(update.logs.values())).all():
            raise DivergedError(
                f"update {self.algorithm.updates} gave {update.logs}; lower optimiser.actor_rate or critic_rate"
            )
        arena.replay.reprioritise(batch, update.errors)
        # Checkpoints along one run differ by more than chance; their running average is steadier than any of them.
        soft_update(self._average, self.algorithm.actor, self.config.objective.average_update)
        return update.logs

    def _select(self, selection: Selection, records: Records) -> None:
        """Measure the actor on the selection suites; keep it if it is the best so far."""
        rates = self._measure(selection, self._average)
        self._score, self._selected_at = rates["score"], self.algorithm.updates
        records.write("selection", self.algorithm.updates, rates)

    def _blend(self, selection: Selection, records: Records) -> None:
        """Measure weights between the initial and the trained ones too; keep the best."""
        for share in self.config.selection.blend:
            between = copy.deepcopy(self._initial)
            soft_update(between, self._average, share)
            rates = self._measure(selection, between, {"blend": share})
            records.write("blend", self.algorithm.updates, {"share": share, **rates})

    def _measure(
        self, selection: Selection, actor: AnyActor, origin: dict[str, float] | None = None
    ) -> dict[str, float]:
        """The actor's rates and score; it is kept, with `origin`, if it is the best so far."""
        rates = selection.rates(ActorModuleScorer(actor, "training", self.config.actor))
        self._best.offer(actor, {"updates": self.algorithm.updates, **(origin or {}), **rates})
        return rates

    def _sigma(self) -> float:
        """Noise scale now: linear in updates, from start to end."""
        settings = self.config.exploration
        done = min(self.algorithm.updates / self.config.updates, 1.0)
        return settings.sigma_start + (settings.sigma_end - settings.sigma_start) * done

    def _beta(self) -> float:
        """Share of the bias of prioritised draws that is corrected now: linear in updates, up to all of it."""
        start = self.config.replay.beta_start
        return start + (1.0 - start) * min(self.algorithm.updates / self.config.updates, 1.0)

    def _progress(self, reward: float) -> Progress:
        return Progress(
            self.algorithm.updates,
            self.config.updates,
            self.episodes,
            reward,
            self._score,
            self._best.rates.get("score"),
        )


def save_actors(folder: Path, config: TrainingConfig, best: Best, latest: dict[str, Any]) -> None:
    """Write ``latest.pt``, and before it ``best.pt`` where there is a best actor; each atomically.

    Args:
        folder: of the run.
        config: of the run.
        best: so far.
        latest: ``actor``, ``updates``, ``command`` and ``seconds``, and what else a run needs to go on.
    """
    shared = {"config": config.model_dump(mode="json"), "threads": torch.get_num_threads(), "best": best.rates}
    if best.rates:
        origin = {name: latest[name] for name in ("command", "seconds")}
        chosen = {"updates": int(best.rates["updates"]), "actor": best.weights}
        save_checkpoint(folder / BEST_FILE, {**shared, **origin, **chosen})
    save_checkpoint(folder / LATEST_FILE, {**shared, **latest})


def load_actor(path: Path) -> tuple[AnyActor, TrainingConfig, dict[str, Any]]:
    """The actor of a checkpoint, its configuration, and its provenance by the names in `PROVENANCE`.

    Raises:
        CheckpointError: it does not read or does not fit.
    """
    content = load_checkpoint(path)
    try:
        config = parse_config(content["config"], "the checkpoint's configuration")
        actor = build_actor(config.actor)
        actor.load_state_dict(content["actor"])
        return actor, config, {name: content[name] for name in PROVENANCE}
    except (KeyError, RuntimeError) as error:
        raise CheckpointError(f"checkpoint {path} does not fit its own configuration ({error}); use another") from error
