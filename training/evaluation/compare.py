"""Whether two policies differ: both play the same held-out episodes, and the paired difference decides.

An episode's seed fixes its nodes, arrivals and hidden processes whatever a scorer does, so what remains between two
scorers in one episode is the scorers' own doing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from rich.table import Table

from policy.bundle import load_bundle
from policy.errors import InvalidInputError
from policy.scorers import ActorScorer, Scorer
from training.evaluation import tables
from training.evaluation.baselines import baselines
from training.evaluation.protocol import SLA, Evaluation, evaluate
from training.evaluation.replicas import REPLICA_SHARE
from training.evaluation.statistics import Estimate, improvement_probability, paired_difference
from training.simulator.conditions import Condition
from training.simulator.draws import TEST_SEEDS

LOWER_IS_BETTER: Final = {
    "sla_violation_rate": True,
    "lateness": True,
    "load_variance": True,
    "reward": False,
    "completion_rate": False,
    "failure_rate": True,
    REPLICA_SHARE: True,
}
"""The metrics by which one policy can be better than another; use and allocation of CPU are neither good nor bad."""


@dataclass(frozen=True, slots=True)
class Difference:
    """Two scorers in one condition."""

    condition: str  # name of the suite, for example ``reference-50@0.4``
    metric: str  # what was compared
    first: float  # mean over episodes
    second: float  # mean over the same episodes
    difference: Estimate  # mean of first - second, paired by episode, with its 95 % interval
    improvement: Estimate  # probability that the first is better in an episode, a tie counting half, with its interval
    episodes: int  # how many both have a value in
    better: str | None  # ``first``, ``second``, or None where the interval holds 0
    first_name: str
    second_name: str

    @property
    def verdict(self) -> str:
        """In words: A is the first, B the second."""
        return {"first": "A better", "second": "B better", None: "no difference shown"}[self.better]


def policy_or_rule(name: str) -> Scorer:
    """The scorer of a policy bundle's folder, or the rule of that name.

    Raises:
        BundleError: the folder is no valid bundle.
        InvalidInputError: neither a folder nor a rule.
    """
    path = Path(name)
    if path.is_dir():
        return load_bundle(path).scorer()
    rules = {rule.name: rule for rule in baselines()}
    if name not in rules:
        raise InvalidInputError(f"{name!r} is no folder of a policy bundle and no rule; rules are {', '.join(rules)}")
    return rules[name]


def pair(first: str, second: str) -> tuple[Scorer, Scorer]:
    """Two scorers as `policy_or_rule` finds them; bundles of one name are told apart by their folders.

    Raises:
        BundleError: a folder is no valid bundle.
        InvalidInputError: one is neither a folder nor a rule, or both are the same.
    """
    if first == second:
        raise InvalidInputError(f"both are {first!r}; give two policies or rules")
    ours, theirs = policy_or_rule(first), policy_or_rule(second)
    if ours.name == theirs.name:
        return _named(ours, first), _named(theirs, second)
    return ours, theirs


def _named(scorer: Scorer, folder: str) -> Scorer:
    if isinstance(scorer, ActorScorer):
        scorer.name = f"{scorer.name} ({folder})"
    return scorer


def difference(played: Evaluation, first: str, second: str, metric: str, condition: str) -> Difference:
    """What an evaluation says of two of its scorers.

    Raises:
        InvalidInputError: no episode has a value from both, or the metric is none to be better by.
    """
    if metric not in LOWER_IS_BETTER:
        raise InvalidInputError(f"metric is {metric!r}; give one of {', '.join(LOWER_IS_BETTER)}")
    if metric not in played.values[first]:
        raise InvalidInputError(f"{condition} has no {metric}: its scenario has no workloads of several replicas")
    ours, theirs = played.values[first][metric], played.values[second][metric]
    known = np.isfinite(ours) & np.isfinite(theirs)
    if not known.any():
        raise InvalidInputError(f"{condition}: no episode gives {first} and {second} a {metric}; play more episodes")
    ours, theirs = ours[known], theirs[known]
    paired = paired_difference(ours, theirs)
    lower = LOWER_IS_BETTER[metric]
    better = None
    if paired.high < 0.0 or paired.low > 0.0:
        better = "first" if (paired.high < 0.0) == lower else "second"
    return Difference(
        condition,
        metric,
        float(ours.mean()),
        float(theirs.mean()),
        paired,
        improvement_probability(ours, theirs, lower),
        int(known.sum()),
        better,
        first,
        second,
    )


def compare(
    first: Scorer,
    second: Scorer,
    conditions: Sequence[Condition],
    metric: str = SLA,
    watch: Callable[[str], None] = lambda _: None,
) -> list[Difference]:
    """Both scorers in every condition; `watch` is told the name of each before it is played.

    Raises:
        InvalidInputError: as `training.evaluation.protocol.evaluate` and `difference`; or both scorers have one name.
    """
    found = []
    for condition in conditions:
        watch(condition.label)
        played = evaluate([first, second], condition, TEST_SEEDS)
        found.append(difference(played, first.name, second.name, metric, condition.label))
    return found


def as_document(differences: Sequence[Difference]) -> list[dict[str, Any]]:
    """As JSON: one entry a condition, with its verdict."""
    return [{**asdict(each), "verdict": each.verdict} for each in differences]


def rich_table(differences: Sequence[Difference]) -> Table:
    """One row a condition."""
    first, second = differences[0].first_name, differences[0].second_name
    title = f"A: {first}, B: {second}; {differences[0].metric}, 95 % intervals"
    header = ["condition", "episodes", "A", "B", "A - B, paired", "P(A better)", "verdict"]
    rows = []
    for each in differences:
        means = [f"{each.first:.4f}", f"{each.second:.4f}"]
        found = [interval(each.difference), interval(each.improvement, ".2f")]
        rows.append([each.condition, str(each.episodes), *means, *found, each.verdict])
    return tables.rich(title, header, rows, folded=["condition"])


def interval(estimate: Estimate, form: str = "+.4f") -> str:
    """Return a number with its interval; by default a difference, with signs."""
    return f"{estimate.value:{form}} ({estimate.low:{form}} to {estimate.high:{form}})"
