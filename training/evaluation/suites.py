"""Scorers measured on test episodes of several conditions: every number with its interval, as JSON and as tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import astuple
from typing import Any, Final

import numpy as np
from rich.table import Table

from policy.scorers import Scorer
from training.evaluation import tables
from training.evaluation.protocol import SLA, Evaluation, evaluate
from training.evaluation.statistics import Estimate, paired_difference
from training.simulator.conditions import Condition
from training.simulator.draws import TEST_SEEDS

METRICS: Final = (
    SLA,
    "reward",
    "lateness",
    "completion_rate",
    "failure_rate",
    "cpu_used",
    "cpu_allocated",
    "load_variance",
)
"""What tables and JSON hold, in order; meanings stand in `training.simulator.episode`."""

COLUMNS: Final = ("lateness", "reward", "completion_rate", "cpu_used", "cpu_allocated", "load_variance")
"""What the table of docs/simulator.md holds besides SLA violations, in order."""

Results = dict[str, dict[str, dict[str, Estimate]]]
"""Condition -> scorer -> metric -> estimate."""

VERSUS_FIRST: Final = "sla_violation_rate_minus_first"
"""Metric of every scorer but the first: SLA violation rate less the first scorer's, paired by episode."""


def measure(scorers: Sequence[Scorer], conditions: Sequence[Condition]) -> Results:
    """Play every condition's test episodes with every scorer; the same episodes for each, so differences are paired.

    Raises:
        InvalidInputError: as `training.evaluation.protocol.evaluate`.
    """
    results: Results = {}
    for condition in conditions:
        played = evaluate(scorers, condition, TEST_SEEDS)
        results[condition.label] = {
            scorer.name: {metric: played.mean(scorer.name, metric) for metric in METRICS} for scorer in scorers
        }
        first = played.values[scorers[0].name][SLA]
        for scorer in scorers[1:]:
            rate = played.values[scorer.name][SLA]
            known = np.isfinite(first) & np.isfinite(rate)
            results[condition.label][scorer.name][VERSUS_FIRST] = paired_difference(rate[known], first[known])
    return results


def to_document(results: Results, conditions: Sequence[Condition]) -> dict[str, Any]:
    """As JSON: condition -> scorer -> metric -> {mean, low, high, seeds}."""
    episodes = {condition.label: condition.episodes for condition in conditions}
    return {
        name: {
            scorer: {
                metric: {"mean": value.value, "low": value.low, "high": value.high, "seeds": episodes[name]}
                for metric, value in metrics.items()
            }
            for scorer, metrics in scorers.items()
        }
        for name, scorers in results.items()
    }


def markdown_table(results: Results) -> str:
    """SLA violations in percent with intervals, one row per scorer and one column per condition."""
    scorers = next(iter(results.values()))
    rows = [[scorer, *(percent(suite[scorer][SLA]) for suite in results.values())] for scorer in scorers]
    return "\n".join(tables.markdown(["policy", *results], rows))


def rich_table(name: str, scorers: Mapping[str, Mapping[str, Estimate]]) -> Table:
    """One condition on a terminal: a row per scorer, fewest SLA violations first."""
    rows = [
        [scorer, percent(metrics[SLA]), *(f"{metrics[metric].value:.3f}" for metric in METRICS[1:])]
        for scorer, metrics in sorted(scorers.items(), key=lambda item: item[1][SLA].value)
    ]
    return tables.rich(name, ["policy", "SLA violations %", *METRICS[1:]], rows, folded=METRICS)


def rules_table(evaluation: Evaluation) -> str:
    """As Markdown: one row per scorer, fewest SLA violations first, with the interval of those."""
    rates = {name: evaluation.mean(name, SLA) for name in evaluation.values}
    rows = [
        [name, tables.bracketed(*astuple(rate)), *(f"{evaluation.mean(name, each).value:.4f}" for each in COLUMNS)]
        for name, rate in sorted(rates.items(), key=lambda item: item[1].value)
    ]
    return "\n".join(tables.markdown(["scorer", "SLA violations [95 %]", *COLUMNS], rows))


def percent(estimate: Estimate) -> str:
    """Return ``1.23 (1.01-1.45)`` for 0.0123 with its interval."""
    return tables.percent(*astuple(estimate))
