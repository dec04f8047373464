"""Every variant with every seed, a few processes at a time; what is finished is kept and never run again."""

from __future__ import annotations

import json
import os
import subprocess  # nosec B404 # one call, below
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from policy.errors import InvalidInputError, SchedulerError
from training.ablation.run import RESULT_FILE, TASK_FILE, write_json
from training.ablation.variants import Plan, Variant

Results = dict[str, dict[int, dict[str, Any]]]
"""Variant -> training seed -> what `training.ablation.run` wrote."""


class AblationError(SchedulerError):
    """A run failed; the others' results are kept."""


def parse_seeds(text: str) -> list[int]:
    """``1-5`` or ``1,3,9`` or both, as distinct ascending numbers.

    Raises:
        InvalidInputError: it is something else.
    """
    seeds: set[int] = set()
    try:
        for part in text.split(","):
            first, dash, last = part.partition("-")
            seeds.update(range(int(first), int(last if dash else first) + 1))
    except ValueError:
        seeds = set()
    if not seeds:
        raise InvalidInputError(f"--seeds is {text!r}; give numbers and ranges of them, such as 1-5 or 1,2,7")
    return sorted(seeds)


def train_and_play(plan: Plan, seeds: Sequence[int], out: Path, jobs: int, say: Callable[[str], None]) -> Results:
    """Run what is not finished yet, `jobs` processes at a time; a run that was killed goes on from its checkpoint.

    Args:
        plan: variants and episodes.
        seeds: of the training runs.
        out: folder; each run lives in ``runs/<variant>/<seed>``.
        jobs: processes at once, one thread each.
        say: told of every run that ends.

    Raises:
        InvalidInputError: `out` holds a run of another configuration.
        AblationError: runs failed; the message has the last line of each one's log.
    """
    tasks = [(variant, seed, _prepared(plan, variant, seed, out)) for seed in seeds for variant in plan.variants]
    waiting = [task for task in tasks if not (task[2] / RESULT_FILE).exists()]
    say(f"{len(tasks)} runs, {len(tasks) - len(waiting)} of them finished before")
    failures: list[str] = []
    done = len(tasks) - len(waiting)
    running: set[subprocess.Popen[bytes]] = set()

    def work(task: tuple[Variant, int, Path]) -> None:
        nonlocal done
        variant, seed, folder = task
        problem = _run(folder, running)
        done += 1
        if problem is not None:
            failures.append(f"{variant.name} seed {seed}: {problem}")
        say(f"[{done}/{len(tasks)}] {variant.name} seed {seed}: {problem or 'finished'}")

    with ThreadPoolExecutor(jobs) as pool:
        futures = [pool.submit(work, task) for task in waiting]
        try:
            for future in futures:
                future.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            for process in list(running):
                process.terminate()
            raise
    if failures:
        raise AblationError("; ".join(failures))
    results: Results = {variant.name: {} for variant in plan.variants}
    for variant, seed, folder in tasks:
        results[variant.name][seed] = json.loads((folder / RESULT_FILE).read_text(encoding="utf-8"))
    return results


def _prepared(plan: Plan, variant: Variant, seed: int, out: Path) -> Path:
    """The run's folder, with its task in it."""
    folder = out / "runs" / variant.name / str(seed)
    config = variant.config.model_copy(update={"seed": seed})
    task = {"config": config.model_dump(mode="json"), "play": plan.play.model_dump(mode="json")}
    path = folder / TASK_FILE
    try:
        if path.exists():
            if json.loads(path.read_text(encoding="utf-8")) != task:
                raise InvalidInputError(f"{folder} holds a run of another configuration; give another --out")
        else:
            folder.mkdir(parents=True, exist_ok=True)
            write_json(path, task)
    except OSError as error:
        raise InvalidInputError(f"--out {out} cannot be used ({error.strerror}); give another folder") from error
    return folder


def _run(folder: Path, running: set[subprocess.Popen[bytes]]) -> str | None:
    """Run one process to its end; None, or the last line it said."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(  # noqa: S603 # nosec B603 # our own module, by this interpreter
            [sys.executable, "-m", "training.ablation.run", str(folder)],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
        running.add(process)
        code = process.wait()
        running.discard(process)
    if code == 0:
        return None
    lines = (folder / "log").read_text(encoding="utf-8", errors="replace").splitlines()
    return f"exit code {code}: {lines[-1] if lines else 'it said nothing'}"
