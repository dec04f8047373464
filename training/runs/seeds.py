"""Several seeds of one configuration: a folder each under OUT, and a process each on this machine."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Final

from policy.errors import InvalidInputError
from training.config import TrainingConfig
from training.files import Section, read_json, validated, write_json
from training.learning.loop import LATEST_FILE, Outcome
from training.learning.records import METRICS_FILE
from training.processes import Failure, run_in_processes
from training.runs.order import Order, read_outcome, train_seed

PLAN_FILE: Final = "seeds.json"
TAIL_BYTES: Final = 1 << 14
"""Enough of the end of a record file to hold its last few lines."""

MOST_SEEDS: Final = 1000

Results = dict[int, Outcome | Failure]
"""By seed: how its run ended, or why it failed."""

Watch = Callable[[int], None]
"""Told of a seed whose records may have grown."""


def parse_seeds(text: str) -> tuple[int, ...]:
    """Seeds of ``1-5`` or ``1,3,7-9``, ascending.

    Raises:
        InvalidInputError: it is neither, or names more than `MOST_SEEDS`.
    """
    found: set[int] = set()
    for part in text.split(","):
        match = re.fullmatch(r"\s*(\d{1,9})(?:-(\d{1,9}))?\s*", part)
        first, last = (int(match[1]), int(match[2] or match[1])) if match else (1, 0)
        if first > last or last - first >= MOST_SEEDS:
            raise InvalidInputError(
                f"--seeds is {text!r}; give seeds and ascending ranges, such as 1-5 or 1,3,7-9, at most {MOST_SEEDS}"
            )
        found.update(range(first, last + 1))
    if len(found) > MOST_SEEDS:
        raise InvalidInputError(f"--seeds is {text!r}, {len(found)} seeds; give at most {MOST_SEEDS}")
    return tuple(sorted(found))


class Plan(Section):
    """What the runs under one folder have in common; kept there, so that every seed can begin or go on later."""

    config: TrainingConfig  # of every run but for its seed
    seeds: tuple[int, ...]  # one run each
    threads: int  # Torch threads of each run
    command: str  # of one run, without its seed

    def order(self, out: Path, seed: int, max_seconds: float | None) -> Order:
        """The run of one seed, in ``OUT/seed-N``."""
        config = self.config.model_copy(update={"seed": seed})
        command = f"{self.command} --seed {seed} --out OUT"
        return Order(seed_folder(out, seed), config, command, self.threads, max_seconds)


def seed_folder(out: Path, seed: int) -> Path:
    """Where the run of a seed lives; absolute, since a worker elsewhere has another working directory."""
    return out.resolve() / f"seed-{seed}"


def begin(out: Path, plan: Plan, *, resume: bool) -> None:
    """Keep the plan in `out`; with `resume`, a folder that holds the same one is gone on with.

    Raises:
        InvalidInputError: the folder holds runs already, or others than these.
    """
    if (out / LATEST_FILE).exists():
        raise InvalidInputError(f"--out {out} holds a single run; give another folder for --seeds")
    if not (out / PLAN_FILE).exists():
        write_json(out / PLAN_FILE, plan.model_dump(mode="json"))
        return
    if not resume:
        raise InvalidInputError(f"--out {out} already holds runs; give --resume or another folder")
    kept = load_plan(out)
    differing = [name for name in Plan.model_fields if getattr(plan, name) != getattr(kept, name)]
    if differing:
        raise InvalidInputError(
            f"--out {out} holds runs that began with other settings ({', '.join(differing)}); "
            "give --resume and --out alone to go on with them, or another folder"
        )


def load_plan(out: Path) -> Plan:
    """The plan kept in `out`.

    Raises:
        InvalidInputError: there is none, or it does not read.
    """
    path = out / PLAN_FILE
    hint = "begin with --seeds in another folder"
    return validated(Plan, read_json(path, hint), str(path), hint)


def unfinished(out: Path, plan: Plan, max_seconds: float | None = None) -> dict[int, Order]:
    """An order for every seed whose run has not finished."""
    ended = {seed: read_outcome(seed_folder(out, seed)) for seed in plan.seeds}
    return {
        seed: plan.order(out, seed, max_seconds)
        for seed, outcome in ended.items()
        if outcome is None or not outcome.finished
    }


def last_record(folder: Path) -> dict[str, Any] | None:
    """The last ``train`` record of a run: its step, episodes, reward; None before the first."""
    try:
        with (folder / METRICS_FILE).open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - TAIL_BYTES))
            lines = file.read().decode("utf-8", errors="replace").splitlines()
    except OSError:
        return None
    for line in reversed(lines):
        try:
            record: dict[str, Any] = json.loads(line)
        except ValueError:
            continue  # the first line of the tail is cut; the last may be half written
        if record["kind"] == "train":
            return record
    return None


def run_here(orders: Mapping[int, Order], jobs: int, watch: Watch) -> Results:
    """Carry out the orders in processes of this machine; one that fails does not stop the others.

    Args:
        orders: by seed.
        jobs: processes at a time.
        watch: told of every seed under way, every second, and of each that has ended.
    """

    def watch_all(seeds: Iterable[int]) -> None:
        for seed in seeds:
            watch(seed)

    return run_in_processes(train_seed, orders, jobs, ended=lambda seed, _: watch(seed), watch=watch_all)
