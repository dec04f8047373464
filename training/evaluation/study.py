"""The whole evaluation of policies against baselines: who meets whom, and what came of it.

Every value in the result comes from episodes played here; nothing is copied in.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import numpy as np

from policy.scorers import Scorer
from training.evaluation.baselines import baselines
from training.evaluation.parallel import Metrics, Task, run_tasks
from training.evaluation.plan import (
    GREEDY,
    LARGE,
    REFERENCE,
    STUDY_SEEDS,
    Plan,
    large_conditions,
    small_conditions,
    usual_label,
)
from training.evaluation.protocol import BATCH, SLA, Evaluation
from training.simulator.conditions import Condition
from training.simulator.draws import FloatArray

ORACLE: Final = "oracle"

TASK_NODES: Final = 400
"""Nodes that a task simulates side by side on large clusters; fixed, because it must not depend on the machine."""

ORACLE_BATCH: Final = 8


@dataclass(slots=True)
class Study:
    """What was played."""

    policy: str  # name of the policy that the goals are about
    rules: list[str]  # names of the baselines
    # label, as ``reference@0.4`` or ``reference-50@0.4`` -> what happened
    evaluations: dict[str, Evaluation] = field(default_factory=dict)
    seeds: list[str] = field(default_factory=list)  # names of policies trained alike but for their seed
    others: list[str] = field(default_factory=list)  # names of further policies, points of the trade-off
    # metric -> value of each episode of the oracle on the first reference episodes; empty without one
    oracle: dict[str, FloatArray] = field(default_factory=dict)

    @property
    def policies(self) -> list[str]:
        """Every trained policy, the one that the goals are about first."""
        return [self.policy, *self.seeds, *self.others]

    @property
    def usual(self) -> str:
        """The condition of every headline."""
        return usual_label()

    def sweep(self) -> dict[float, str]:
        """Load -> label of the sweep on the reference's own nodes, lowest first."""
        return self._loads(f"{REFERENCE}@")

    def large_sweep(self) -> dict[float, str]:
        """Load -> label of the sweep on `LARGE` nodes, lowest first."""
        return self._loads(f"{REFERENCE}-{LARGE}@")

    def values(self, label: str, scorer: str, metric: str = SLA) -> FloatArray:
        """One value for each episode."""
        return self.evaluations[label].values[scorer][metric]

    def rate(self, label: str, scorer: str) -> float:
        """Mean SLA violation rate."""
        return float(np.nanmean(self.values(label, scorer)))

    def rules_at(self, label: str) -> list[str]:
        """The baselines that played there, fewest SLA violations first."""
        known = [name for name in self.rules if name in self.evaluations[label].values]
        return sorted(known, key=lambda name: self.rate(label, name))

    def best_rule(self, label: str) -> str:
        """The baseline with the fewest SLA violations there."""
        return self.rules_at(label)[0]

    def _loads(self, prefix: str) -> dict[float, str]:
        labels = [label for label in self.evaluations if label.startswith(prefix)]
        return dict(sorted((self.evaluations[label].load or 0.0, label) for label in labels))


def run_study(
    policy: Scorer,
    plan: Plan | None = None,
    *,
    seeds: Sequence[Scorer] = (),
    others: Sequence[Scorer] = (),
    trace: Path | None = None,
    jobs: int = 1,
    watch: Callable[[str, float], None] = lambda _label, _share: None,
) -> Study:
    """Play the whole plan on `STUDY_SEEDS`.

    Args:
        policy: what the goals are about; plays everything, as the rules do on up to 30 nodes.
        plan: what is played; the frozen suite by default.
        seeds: policies trained alike but for their seed; they play the reference scenario's sweep.
        others: further policies; as `seeds`.
        trace: a file in the openb format, or our own, that the trace scenario plays besides its sample.
        jobs: processes; results do not depend on it.
        watch: told what has been played, and which share of the present half of the work it was: the first half is
            up to 30 nodes, and names the rivals of the second, on larger clusters.

    Raises:
        InvalidInputError: two scorers share a name, or the trace cannot be read.
    """
    plan = plan or Plan()
    rules = baselines()
    study = Study(
        policy.name, [each.name for each in rules], seeds=[each.name for each in seeds], others=[o.name for o in others]
    )
    everybody, swept = [policy, *rules], [*seeds, *others]
    small = small_conditions(plan, trace)
    players = [(item, [*everybody, *(swept if item.label.startswith(f"{REFERENCE}@") else ())]) for item in small]
    usual, episodes = small[0], min(plan.oracle_episodes, small[0].episodes)
    oracle = _batches(usual, policy, episodes, ORACLE_BATCH, oracle=True)
    _play(study, players, oracle, jobs, watch)
    best = study.rules_at(study.usual)[: plan.best_rivals]
    few = [policy, *(rule for rule in rules if rule.name in {*plan.rivals, *best, GREEDY})]
    _play(study, [(item, few) for item in large_conditions(plan)], [], jobs, watch)
    return study


def _play(
    study: Study,
    players: Sequence[tuple[Condition, Sequence[Scorer]]],
    oracle: Sequence[Task],
    jobs: int,
    watch: Callable[[str, float], None],
) -> None:
    """Everything at once, so that no process waits for another; then put the pieces together."""
    tasks = [*oracle]
    for condition, scorers in players:
        tasks += [task for scorer in scorers for task in _tasks(condition, scorer)]
    whole = sum(task.cost for task in tasks)
    results = run_tasks(tasks, jobs, lambda task: watch(task.label, task.cost / whole))
    pieces: dict[tuple[str, str], list[Metrics]] = {}
    for task, metrics in zip(tasks, results, strict=True):
        pieces.setdefault((task.label, ORACLE if task.oracle else task.scorer.name), []).append(metrics)
    joined = {
        key: {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        for key, parts in pieces.items()
    }
    if oracle:
        study.oracle = joined[oracle[0].label, ORACLE]
    for condition, scorers in players:
        played = {scorer.name: joined[condition.label, scorer.name] for scorer in scorers}
        seeds = STUDY_SEEDS[: condition.episodes]
        study.evaluations[condition.label] = Evaluation(condition.sized(), condition.load, seeds, played)


def _tasks(condition: Condition, scorer: Scorer) -> list[Task]:
    nodes = condition.sized().nodes
    batch = max(1, min(BATCH, TASK_NODES // nodes)) if nodes > 30 else BATCH
    return _batches(condition, scorer, condition.episodes, batch)


def _batches(condition: Condition, scorer: Scorer, episodes: int, batch: int, *, oracle: bool = False) -> list[Task]:
    scenario, load, known = condition.sized(), condition.load, condition.knowledge
    return [
        Task(condition.label, scorer, scenario, load, STUDY_SEEDS[first : min(first + batch, episodes)], oracle, known)
        for first in range(0, episodes, batch)
    ]
