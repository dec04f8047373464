"""`maddpg-train run`: from its options to orders, progress on stderr, and a summary of what came out."""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from policy.errors import InvalidInputError, SchedulerError
from training.config import TrainingConfig, load_config
from training.files import lock
from training.learning.loop import BEST_FILE, LATEST_FILE, Outcome, Progress
from training.processes import Failure
from training.runs.order import DEFAULT_THREADS, PATIENCE_S, Order, read_outcome, train_seed
from training.runs.progress import RunProgress
from training.runs.seeds import (
    PLAN_FILE,
    Plan,
    begin,
    last_record,
    load_plan,
    parse_seeds,
    run_here,
    seed_folder,
    unfinished,
)


class SeedsError(SchedulerError):
    """Some of several runs failed; the others have not."""


@dataclass(frozen=True, slots=True)
class Request:
    """The options, as given; None and False where they were not."""

    out: Path
    default_config: Path
    config: Path | None
    seed: int | None
    seeds: str | None
    updates: int | None
    minutes: float | None
    threads: int | None
    jobs: int | None
    ray: bool
    ray_address: str | None
    resume: bool

    @property
    def max_seconds(self) -> float | None:
        """Limit of this call."""
        return None if self.minutes is None else 60.0 * self.minutes

    def settings(self) -> TrainingConfig:
        """The configuration with what the options override."""
        overrides = {"seed": self.seed, "updates": self.updates}
        given = {name: value for name, value in overrides.items() if value is not None}
        return load_config(self.config or self.default_config).model_copy(update=given)

    def command(self) -> str:
        """The command that repeats a run, for the model card; without its seed and folder."""
        words = ["maddpg-train", "run", "--config", str(self.config or "training/configs/default.yaml")]
        words += ["--threads", str(self.threads or DEFAULT_THREADS)]
        if self.updates is not None:
            words += ["--updates", str(self.updates)]
        return shlex.join(words)


def run_one(request: Request, console: Console) -> Outcome:
    """Begin, or go on with, the run in ``--out``.

    Raises:
        InvalidInputError: options contradict each other or what the folder holds.
        CheckpointError: there is nothing to go on from.
    """
    several = {"--jobs": request.jobs is not None, "--ray": request.ray}
    if any(several.values()):
        raise InvalidInputError(f"{' and '.join(name for name in several if several[name])} spread --seeds; give those")
    if request.resume:
        if request.config is not None or request.seed is not None or request.updates is not None:
            raise InvalidInputError(
                "--resume takes its settings from the checkpoint; drop --config, --seed and --updates"
            )
        order = Order(request.out, None, "", request.threads, request.max_seconds)
    else:
        if (request.out / LATEST_FILE).exists() or (request.out / PLAN_FILE).exists():
            raise InvalidInputError(f"--out {request.out} already holds a run; give --resume or another folder")
        seed = "" if request.seed is None else f" --seed {request.seed}"
        command = f"{request.command()}{seed} --out OUT"
        threads = request.threads or DEFAULT_THREADS
        order = Order(request.out, request.settings(), command, threads, request.max_seconds)
    with RunProgress(console) as progress:

        def watch(standing: Progress) -> None:
            note = f"reward {standing.reward:+.3f}"
            if standing.best is not None:
                note += f", selection {standing.score:.3f} (best {standing.best:.3f})"
            progress.show("training", standing.updates, standing.total, standing.episodes, note)

        return train_seed(order, watch)


def run_seeds(request: Request, console: Console) -> dict[int, Outcome]:
    """Begin, or go on with, a run for each seed in ``--out``; those that have finished are left alone.

    Returns:
        How each run stands, by seed.

    Raises:
        InvalidInputError: options contradict each other or what the folder holds, or Ray is not there.
        SeedsError: some runs failed; what the others did is kept.
    """
    out = request.out
    if request.ray_address is not None and not request.ray:
        raise InvalidInputError("--ray-address needs --ray")
    if request.ray_address is not None and request.jobs is not None:
        raise InvalidInputError(
            "--jobs is for this machine; a Ray cluster runs as many seeds as its CPUs allow: drop it"
        )
    if request.seed is not None:
        raise InvalidInputError("--seed names the seed of a single run; give it in --seeds")
    if request.ray:
        from training.runs.ray import import_ray

        import_ray()  # before anything is written
    plan = _plan(request)
    with lock(out, PATIENCE_S):
        if request.seeds is not None:
            begin(out, plan, resume=request.resume)
        orders = unfinished(out, plan, request.max_seconds)
        for seed in set(plan.seeds) - orders.keys():
            console.print(f"seed {seed}: has finished", highlight=False)
        with RunProgress(console) as progress:

            def watch(seed: int) -> None:
                record = last_record(seed_folder(out, seed))
                if record is not None:
                    note = f"reward {record['reward']:+.3f}"
                    total = plan.config.updates
                    progress.show(f"seed {seed}", record["step"], total, record["episodes"], note)

            cpus = os.cpu_count() or 1
            jobs = request.jobs or max(1, cpus // plan.threads)
            if not orders:
                results = {}
            elif request.ray:
                from training.runs.ray import run_on_ray

                results = run_on_ray(orders, request.ray_address, jobs * plan.threads, watch)
            else:
                results = run_here(orders, jobs, watch)
    failed = {seed: result.reason for seed, result in sorted(results.items()) if isinstance(result, Failure)}
    if failed:
        lines = "; ".join(f"seed {seed}: {reason}" for seed, reason in failed.items())
        raise SeedsError(f"{len(failed)} of {len(plan.seeds)} runs failed; --resume goes on with them: {lines}")
    outcomes = {seed: read_outcome(seed_folder(out, seed)) for seed in plan.seeds}
    return {seed: outcome for seed, outcome in outcomes.items() if outcome is not None}


def _plan(request: Request) -> Plan:
    """What the options ask for; where they name no seeds, what ``--out`` holds."""
    if request.seeds is not None:
        seeds, threads = parse_seeds(request.seeds), request.threads or DEFAULT_THREADS
        return Plan(config=request.settings(), seeds=seeds, threads=threads, command=request.command())
    if request.config is not None or request.updates is not None:
        raise InvalidInputError("--resume takes its settings from --out; drop --config and --updates, or give --seeds")
    return load_plan(request.out)


def best_seed(outcomes: Mapping[int, Outcome]) -> int | None:
    """The seed whose best checkpoint has the lowest selection score; None where none was measured."""
    scores = {seed: outcome.best["score"] for seed, outcome in outcomes.items() if outcome.best}
    return min(scores, key=lambda seed: (scores[seed], seed)) if scores else None


def rich_table(outcomes: Mapping[int, Outcome]) -> Table:
    """Every seed's best checkpoint; the best of them in bold."""
    named = (name for outcome in outcomes.values() for name in outcome.best)
    measured = list(dict.fromkeys(name for name in named if name not in ("updates", "blend")))
    table = Table("seed", "state", "updates", "episodes", "minutes", "best at", *measured)
    best = best_seed(outcomes)
    for seed, outcome in sorted(outcomes.items()):
        state = "finished" if outcome.finished else "stopped"
        numbers = [str(outcome.updates), str(outcome.episodes), f"{outcome.seconds / 60:.1f}"]
        if outcome.best:
            share = f", {outcome.best['blend']:.0%} of the way" if "blend" in outcome.best else ""
            numbers += [f"{outcome.best['updates']:.0f}{share}", *(f"{outcome.best[name]:.4g}" for name in measured)]
        table.add_row(str(seed), state, *numbers, style="bold" if seed == best else "")
    return table


def verdict(out: Path, outcomes: Mapping[int, Outcome]) -> str:
    """The line below the table: which checkpoint is the one to export."""
    best = best_seed(outcomes)
    stopped = [str(seed) for seed, outcome in sorted(outcomes.items()) if not outcome.finished]
    going_on = f"; seeds {', '.join(stopped)} stopped, --resume goes on" if stopped else ""
    if best is None:
        return f"no selection suite, so no seed is the best{going_on}"
    checkpoint = out / seed_folder(out, best).name / BEST_FILE
    return f"best: seed {best}, selection score {outcomes[best].best['score']:.4g}: {checkpoint}{going_on}"
