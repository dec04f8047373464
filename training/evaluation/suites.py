"""Scorers measured on test episodes of several conditions: every number with its interval, as JSON and as tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
from rich.table import Table

from policy.scorers import Scorer
from training.evaluation.protocol import SLA, Evaluation, evaluate
from training.evaluation.statistics import Estimate, paired_difference
from training.simulator.conditions import Condition
from training.simulator.draws import TEST_SEEDS

METRICS: Final = (
    SLA,
    "reward",
    "lateness",
    "completion_rate",
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
        results[condition.label] = {scorer.name: _metrics(played, scorer.name) for scorer in scorers}
        first = played.values[scorers[0].name][SLA]
        for scorer in scorers[1:]:
            rate = played.values[scorer.name][SLA]
            known = np.isfinite(first) & np.isfinite(rate)
            results[condition.label][scorer.name][VERSUS_FIRST] = paired_difference(rate[known], first[known])
    return results


def _metrics(played: Evaluation, scorer: str) -> dict[str, Estimate]:
    return {metric: played.mean(scorer, metric) for metric in METRICS}


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
    scorers = list(next(iter(results.values())))
    lines = ["| policy | " + " | ".join(results) + " |", "|---|" + "---|" * len(results)]
    lines += [
        f"| {scorer} | " + " | ".join(percent(suite[scorer][SLA]) for suite in results.values()) + " |"
        for scorer in scorers
    ]
    return "\n".join(lines)


def rich_table(name: str, scorers: Mapping[str, Mapping[str, Estimate]]) -> Table:
    """One condition on a terminal: a row per scorer, fewest SLA violations first."""
    table = Table(title=name)
    for column in ("policy", "SLA violations %", *METRICS[1:]):
        table.add_column(column, no_wrap=column not in METRICS)
    for scorer, metrics in sorted(scorers.items(), key=lambda item: item[1][SLA].value):
        table.add_row(scorer, percent(metrics[SLA]), *(f"{metrics[metric].value:.3f}" for metric in METRICS[1:]))
    return table


def rules_table(evaluation: Evaluation) -> str:
    """As Markdown: one row per scorer, fewest SLA violations first, with the interval of those."""
    lines = ["| scorer | SLA violations [95 %] | " + " | ".join(COLUMNS) + " |", "|---" * (len(COLUMNS) + 2) + "|"]
    for name in sorted(evaluation.values, key=lambda scorer: evaluation.mean(scorer, SLA).value):
        rate = evaluation.mean(name, SLA)
        cells = [f"{evaluation.mean(name, column).value:.4f}" for column in COLUMNS]
        lines.append(f"| {name} | {rate.value:.4f} [{rate.low:.4f}, {rate.high:.4f}] | {' | '.join(cells)} |")
    return "\n".join(lines)


def percent(estimate: Estimate) -> str:
    """``1.23 (1.01-1.45)`` for 0.0123 with its interval."""
    return f"{100 * estimate.value:.2f} ({100 * estimate.low:.2f}-{100 * estimate.high:.2f})"
