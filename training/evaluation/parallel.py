"""Episodes played by several processes: equal results whatever their number. Knows nothing of what they are for."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from policy.errors import InvalidInputError
from policy.scorers import Scorer
from training.evaluation.oracle import Oracle
from training.evaluation.protocol import play, play_with
from training.processes import Failure, TaskError, one_thread_each, run_in_processes
from training.simulator.draws import FloatArray, episode_seeds
from training.simulator.knowledge import Knowledge
from training.simulator.scenarios import Scenario
from training.simulator.warmup import tell

Metrics = dict[str, FloatArray]


@dataclass(frozen=True, slots=True)
class Task:
    """Some episodes of one condition for one scorer: what a process plays at a time."""

    label: str  # of the condition
    scorer: Scorer  # who plays; where `oracle` is set, the policy that the oracle rolls forward
    scenario: Scenario  # with its number of nodes
    load: float | None
    seeds: range  # the episodes, side by side
    oracle: bool = False
    known: Knowledge = field(default_factory=Knowledge)  # what schedulers are told

    @property
    def cost(self) -> float:
        """Rough share of the time, to start long ones first: rows scored."""
        rows = float(self.scenario.episode_arrivals * self.scenario.nodes * len(self.seeds))
        return 150.0 * rows if self.oracle else rows


def run_task(task: Task) -> Metrics:
    """Play it with a scorer that has not played before, so that neither order nor company changes a number."""
    scorer, seeds = copy.deepcopy(task.scorer), episode_seeds(task.seeds)
    told = tell(task.scenario, seeds, task.load, task.known)
    if task.oracle:
        return play_with(Oracle(seeds, scorer), task.scenario, seeds, task.load, told)
    return play(scorer, task.scenario, seeds, task.load, told)


def run_tasks(tasks: Sequence[Task], jobs: int = 1, watch: Callable[[Task], None] = lambda _: None) -> list[Metrics]:
    """Play every task; the results in the order of the tasks.

    Args:
        tasks: their scorers must pickle where jobs > 1.
        jobs: processes; 1 plays here.
        watch: told each task that has been played.

    Raises:
        InvalidInputError: jobs is below 1.
        TaskError: a process could not play a task.
    """
    if jobs < 1:
        raise InvalidInputError(f"jobs is {jobs}; give a number of processes, at least 1")
    if jobs == 1:
        played = []
        for task in tasks:
            played.append(run_task(task))
            watch(task)
        return played
    results: dict[int, Metrics] = {}

    def keep(number: int, result: Metrics | Failure) -> None:
        if isinstance(result, Failure):
            raise TaskError(result.reason)
        results[number] = result
        watch(tasks[number])

    longest_first = sorted(range(len(tasks)), key=lambda number: -tasks[number].cost)
    with one_thread_each():  # there is a process for each core
        run_in_processes(run_task, {number: tasks[number] for number in longest_first}, jobs, ended=keep, reuse=True)
    return [results[number] for number in range(len(tasks))]
