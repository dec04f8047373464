"""Episodes played by several processes: equal results whatever their number. Knows nothing of what they are for."""

from __future__ import annotations

import copy
import multiprocessing
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from policy.errors import InvalidInputError
from policy.scorers import Scorer
from training.evaluation.oracle import play_oracle
from training.evaluation.protocol import play
from training.simulator.draws import FloatArray, episode_seeds
from training.simulator.scenarios import Scenario

THREAD_VARIABLES: Final = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
"""What numeric libraries read when they are first imported: one thread each, since there is a process for each core."""

Metrics = dict[str, FloatArray]


@dataclass(frozen=True, slots=True)
class Task:
    """Some episodes of one condition for one scorer: what a process plays at a time.

    Attributes:
        label: of the condition.
        scorer: who plays; where `oracle` is set, the policy that the oracle rolls forward.
        scenario: with its number of nodes.
        load: offered load.
        seeds: the episodes, side by side.
        oracle: whether the oracle plays.
    """

    label: str
    scorer: Scorer
    scenario: Scenario
    load: float
    seeds: range
    oracle: bool = False

    @property
    def cost(self) -> float:
        """Rough share of the time, to start long ones first: rows scored."""
        rows = float(self.scenario.episode_arrivals * self.scenario.nodes * len(self.seeds))
        return 150.0 * rows if self.oracle else rows


def run_task(task: Task) -> Metrics:
    """Play it with a scorer that has not played before, so that neither order nor company changes a number."""
    scorer, seeds = copy.deepcopy(task.scorer), episode_seeds(task.seeds)
    if task.oracle:
        return play_oracle(task.scenario, seeds, task.load, scorer)
    return play(scorer, task.scenario, seeds, task.load)


def run_tasks(tasks: Sequence[Task], jobs: int = 1, watch: Callable[[Task], None] = lambda _: None) -> list[Metrics]:
    """Play every task; the results in the order of the tasks.

    Args:
        tasks: their scorers must pickle where jobs > 1.
        jobs: processes; 1 plays here.
        watch: told each task that has been played.

    Raises:
        InvalidInputError: jobs is below 1.
    """
    if jobs < 1:
        raise InvalidInputError(f"jobs is {jobs}; give a number of processes, at least 1")
    if jobs == 1:
        results: dict[int, Metrics] = {}
        for number, task in enumerate(tasks):
            results[number] = run_task(task)
            watch(task)
    else:
        results = _run_in_processes(tasks, jobs, watch)
    return [results[number] for number in range(len(tasks))]


def _run_in_processes(tasks: Sequence[Task], jobs: int, watch: Callable[[Task], None]) -> dict[int, Metrics]:
    order = sorted(range(len(tasks)), key=lambda number: -tasks[number].cost)
    results = {}
    # spawned, not forked: ONNX Runtime's threads do not survive a fork
    with _one_thread_each(), ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn")) as pool:
        pending = {pool.submit(run_task, tasks[number]): number for number in order}
        try:
            for future in as_completed(pending):
                number = pending[future]
                results[number] = future.result()
                watch(tasks[number])
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return results


@contextmanager
def _one_thread_each() -> Iterator[None]:
    """Processes started within see `THREAD_VARIABLES` at 1; afterwards the environment is as it was."""
    before = {name: os.environ.get(name) for name in THREAD_VARIABLES}
    os.environ.update(dict.fromkeys(THREAD_VARIABLES, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
