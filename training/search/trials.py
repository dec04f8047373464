"""Hyperparameter search: Optuna draws a configuration, the trainer trains it, and a trial that lags behind is stopped.

Everything lies in one folder: ``study.db`` (SQLite, as Optuna has it), ``trial-N/`` (a run each) and ``best.yaml``.
A search that was killed goes on where it stood: its unfinished trial is failed and queued again with the attribute
``resumes: N``, and trains on from the checkpoint in ``trial-N``. Every draw has its own seed and training resumes bit
for bit, so an interrupted search draws and finds what an uninterrupted one does.

Whoever trains in a folder holds a lock (flock) on it, which ends with the process however that ends. Several processes
may therefore search in one folder at once; then the order in which trials finish decides what is drawn next.
"""

from __future__ import annotations

import json
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final

import numpy as np
import optuna
import yaml
from optuna.trial import FrozenTrial, TrialState

from policy.errors import InvalidInputError, SchedulerError
from training.config import TrainingConfig
from training.files import LOCK_FILE, is_locked, lock, remove_leftovers, write_text
from training.learning.checkpoint import CheckpointError
from training.learning.loop import LATEST_FILE, Clock, Progress, Trainer
from training.learning.records import METRICS_FILE
from training.search.space import SearchSpace
from training.search.storage import RESUMES, best_trial, by_folder, folder_number, opened
from training.simulator.scenarios import load_scenario

BEST_FILE: Final = "best.yaml"
FAILED: Final = "failed"
"""Attribute of a trial that will not be tried again: why."""


class SearchError(SchedulerError):
    """No trial of a search came to anything."""


@dataclass(frozen=True, slots=True)
class SearchSettings:
    """What a search is begun with, and can only go on with."""

    base: TrainingConfig  # configuration of every trial but for what is drawn; its seed is every trial's
    space: SearchSpace
    seed: int  # of the draws
    threads: int  # of torch, which the caller sets; part of what makes training repeat exactly

    def document(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "config": self.base.model_dump(mode="json"),
            "space": self.space.model_dump(mode="json"),
            "seed": self.seed,
            "threads": self.threads,
        }


@dataclass(frozen=True, slots=True)
class Standing:
    """Where a search stands, told at every step of training that updated."""

    trial: int  # number of the trial in training, as its folder has it
    begun: int  # trials begun, this one included
    best: float | None  # lowest score of the completed trials; None before the first
    progress: Progress


@dataclass(frozen=True, slots=True)
class Found:
    """How a call of `Search.run` ended."""

    completed: int  # trials that trained to the end
    pruned: int  # trials that were stopped early
    failed: int  # trials whose values do not go together, or whose training diverged
    unfinished: int  # trials that are queued to go on, or in training by another process
    # lowest score, the selection score of `training.learning.selection`; None while none is completed
    best: float | None
    best_trial: int | None  # number of its folder
    values: dict[str, Any]  # what was drawn for it


class Search:
    """A search in one folder, begun or to be gone on with.

    Args:
        settings: refused where the folder's search was begun with others.
        out: the folder.
        command: what repeats the search, for the checkpoints of its trials.
        clock: monotonic seconds; read for time limits and time spent, never for anything drawn or learned.

    Raises:
        InvalidInputError: the space does not fit the base configuration, or the settings differ from those of the
            search in `out`; the message names the field.
    """

    def __init__(self, settings: SearchSettings, out: Path, command: str = "", clock: Clock = time.monotonic) -> None:
        if not settings.base.selection.suites:
            raise InvalidInputError(
                "the base configuration has no selection.suites, which trials are compared by; add one"
            )
        self._settings = settings
        self._distributions = settings.space.distributions(settings.base)
        names = [arena.scenario for arena in settings.base.arenas]
        for name in (*names, *(suite.scenario for suite in settings.base.selection.suites)):
            load_scenario(name)  # an unknown one fails here rather than in every trial
        self._out = out
        self._command = command
        self._clock = clock

    def run(
        self,
        trials: int,
        *,
        max_seconds: float | None = None,
        watch: Callable[[Standing], None] | None = None,
        say: Callable[[str], None] | None = None,
    ) -> Found:
        """Search until so many trials are begun and finished, those of earlier calls included.

        Args:
            trials: of the whole search.
            max_seconds: of this call; the round of training under way is completed, and its trial queued to go on.
            watch: called at every step of training that updated.
            say: told, a line each, how trials end.

        Raises:
            SearchError: all trials are done and none completed.
            InvalidInputError: the folder is not a search's, or was begun with other settings.
        """
        told = say or (lambda _line: None)
        deadline = None if max_seconds is None else self._clock() + max_seconds
        rules = self._settings.space.pruner
        # Selections are counted from 1, and the pruner lets those before n_warmup_steps pass.
        pruner = optuna.pruners.MedianPruner(
            n_startup_trials=rules.startup_trials, n_warmup_steps=rules.warmup_selections + 1
        )
        with opened(self._out, self._settings.document(), pruner) as study:
            while deadline is None or self._clock() < deadline:
                with lock(self._out):
                    self._settle(study)
                    taken = self._take(study, trials)
                if taken is None:
                    break
                trial, number, held = taken
                with held:
                    told(self._train(study, trial, number, deadline, watch))
            with lock(self._out):
                self._settle(study)
            return _found(study)

    def _take(self, study: optuna.Study, trials: int) -> tuple[optuna.Trial, int, IO[str]] | None:
        """The next trial with the number of its folder and the lock on it: one queued to go on, or a new one."""
        known = study.get_trials(deepcopy=False)
        numbers = sorted(by_folder(known))
        queued = next((trial for trial in known if trial.state is TrialState.WAITING), None)
        if queued is not None:
            turn = numbers.index(folder_number(queued))
        elif len(numbers) < trials:
            turn = len(numbers)
        else:
            return None
        seed = np.random.SeedSequence((self._settings.seed, turn)).generate_state(1)
        study.sampler = optuna.samplers.TPESampler(
            seed=int(seed[0]), n_startup_trials=self._settings.space.random_trials
        )
        trial = study.ask(self._distributions)
        number = folder_number(trial)
        return trial, number, lock(self._folder(number))

    def _train(
        self,
        study: optuna.Study,
        trial: optuna.Trial,
        number: int,
        deadline: float | None,
        watch: Callable[[Standing], None] | None,
    ) -> str:
        """Train one trial and tell the study; a line on how it ended. Out of time, it stays to be queued again."""
        name = f"trial {number}"
        try:
            config = self._settings.space.configure(self._settings.base, trial.params)
        except InvalidInputError as error:
            return self._fail(study, trial, name, str(error))
        trainer = self._trainer(config, number)
        selections = _Selections(self._folder(number) / METRICS_FILE)
        begun = len(by_folder(study.get_trials(deepcopy=False)))
        best = best_trial(study)

        def step(progress: Progress) -> None:
            for order, score in selections.unread():
                trial.report(score, order)
                if trial.should_prune():
                    raise optuna.TrialPruned
            if watch is not None:
                watch(Standing(number, begun, None if best is None else best.value, progress))

        try:
            left = None if deadline is None else max(deadline - self._clock(), 0.0)
            outcome = trainer.run(max_seconds=left, watch=step)
        except optuna.TrialPruned:
            study.tell(trial, state=TrialState.PRUNED)
            return f"{name}: stopped early at {trainer.algorithm.updates} updates"
        except (InvalidInputError, CheckpointError):
            raise
        except (SchedulerError, RuntimeError, ValueError) as error:  # numbers that stopped being finite
            return self._fail(study, trial, name, f"training failed: {error}")
        if not outcome.finished:
            return f"{name}: out of time at {outcome.updates} of {config.updates} updates; the same command goes on"
        for order, score in selections.unread():
            trial.report(score, order)
        trial.set_user_attr("updates", int(outcome.best["updates"]))
        trial.set_user_attr("seconds", outcome.seconds)
        study.tell(trial, outcome.best["score"])
        return f"{name}: score {outcome.best['score']:.4f}"

    def _trainer(self, config: TrainingConfig, number: int) -> Trainer:
        """The run in the trial's folder, from its checkpoint where there is one."""
        folder = self._folder(number)
        remove_leftovers(folder / LATEST_FILE)  # a checkpoint that a kill cut in two
        if (folder / LATEST_FILE).exists():
            return Trainer.resume(folder, self._clock)
        for leftover in folder.iterdir():  # what was written before the first checkpoint is written again
            if leftover.name != LOCK_FILE:
                shutil.rmtree(leftover) if leftover.is_dir() else leftover.unlink()
        return Trainer(config, folder, f"{self._command} # trial {number}".strip(), self._clock)

    def _fail(self, study: optuna.Study, trial: optuna.Trial, name: str, reason: str) -> str:
        trial.set_user_attr(FAILED, reason)
        study.tell(trial, state=TrialState.FAIL)
        return f"{name}: {reason}"

    def _settle(self, study: optuna.Study) -> None:
        """Queue trials whose process ended, drop checkpoints nobody goes on from, write the best configuration.

        Right after a kill at any point, its own included; the caller holds the lock of the folder.
        """
        for number, tries in by_folder(study.get_trials(deepcopy=False)).items():
            last, folder = tries[-1], self._folder(number)
            if last.state is TrialState.RUNNING:
                if is_locked(folder):
                    continue
                study.tell(last.number, state=TrialState.FAIL)
            elif last.state is TrialState.WAITING:
                continue
            elif last.state is not TrialState.FAIL or FAILED in last.user_attrs:
                (folder / LATEST_FILE).unlink(missing_ok=True)  # its replay takes most of the space
                continue
            # A kill may come between two fields of a draw. The draw's seed brings them again.
            drawn = next((each.params for each in tries if each.params.keys() == self._distributions.keys()), {})
            study.enqueue_trial(drawn, user_attrs={RESUMES: number})
        best = best_trial(study)
        if best is not None:
            self._write_best(best)

    def _write_best(self, best: FrozenTrial) -> None:
        """A configuration that ``maddpg-train run --config`` takes, whole or not at all."""
        config = self._settings.space.configure(self._settings.base, best.params).model_dump(mode="json")
        drawn = "".join(f"#   {name}: {value}\n" for name, value in sorted(best.params.items()))
        text = (
            f"# The best of `maddpg-train tune` so far: trial {folder_number(best)}, score {best.value:.6g}.\n"
            "# Drawn:\n"
            f"{drawn}{yaml.safe_dump(config, sort_keys=False)}"
        )
        write_text(self._out / BEST_FILE, text)

    def _folder(self, number: int) -> Path:
        return self._out / f"trial-{number}"


class _Selections:
    """Selection scores in a run's records, each told once, from the first on: a resumed trial tells its past again.

    Args:
        path: of the records; opened at the first call, since a run that begins writes them anew.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offset = 0
        self._count = 0

    def unread(self) -> Iterator[tuple[int, float]]:
        """Order (from 1) and score of every selection since the last call."""
        with self._path.open(encoding="utf-8") as file:
            file.seek(self._offset)
            lines = file.readlines()
            self._offset = file.tell()
        for line in lines:
            record = json.loads(line)
            if record["kind"] in ("selection", "blend"):
                self._count += 1
                yield self._count, float(record["score"])


def _found(study: optuna.Study) -> Found:
    tries = by_folder(study.get_trials(deepcopy=False))
    ended = [each[-1] for each in tries.values()]
    count = Counter(trial.state for trial in ended)
    unfinished = count[TrialState.WAITING] + count[TrialState.RUNNING]
    best = best_trial(study)
    if best is None and ended and not unfinished:
        raise SearchError(
            f"none of {len(ended)} trials completed; the last: {ended[-1].user_attrs.get(FAILED, 'stopped early')}"
        )
    return Found(
        completed=count[TrialState.COMPLETE],
        pruned=count[TrialState.PRUNED],
        failed=count[TrialState.FAIL],
        unfinished=unfinished,
        best=None if best is None else best.value,
        best_trial=None if best is None else folder_number(best),
        values={} if best is None else dict(best.params),
    )
