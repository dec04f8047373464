"""Scorers measured on suites of test episodes: every number with its interval, as JSON and as tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from rich.table import Table

from policy.errors import InvalidInputError
from policy.scorers import Scorer
from training.evaluation.protocol import Evaluation, evaluate
from training.evaluation.statistics import Estimate, paired_difference
from training.simulator.draws import TEST_SEEDS
from training.simulator.scenarios import load_scenario

METRICS: Final = (
    "sla_violation_rate",
    "reward",
    "lateness",
    "completion_rate",
    "cpu_used",
    "cpu_allocated",
    "load_variance",
)
"""What tables and JSON hold, in order; meanings stand in `training.simulator.episode`."""

HEADLINE: Final = "sla_violation_rate"


@dataclass(frozen=True, slots=True)
class Suite:
    """Test episodes of one kind.

    Attributes:
        scenario: name of a versioned scenario.
        load: offered load; None lets each episode draw its own from the scenario.
        nodes: nodes per cluster; None keeps the scenario's.
        episodes: how many; the first ones of the test seeds.
    """

    scenario: str
    load: float | None = None
    nodes: int | None = None
    episodes: int = 64

    @property
    def name(self) -> str:
        """For example ``reference-50@0.4``, without what is the scenario's own."""
        size = "" if self.nodes is None else f"-{self.nodes}"
        load = "" if self.load is None else f"@{self.load:g}"
        return f"{self.scenario}{size}{load}"


Results = dict[str, dict[str, dict[str, Estimate]]]
"""Suite -> scorer -> metric -> estimate."""

VERSUS_FIRST: Final = "sla_violation_rate_minus_first"
"""Metric of every scorer but the first: SLA violation rate less the first scorer's, paired by episode."""


def measure(scorers: Sequence[Scorer], suites: Sequence[Suite]) -> Results:
    """Play every suite's episodes with every scorer; the same episodes for each, so differences are paired.

    Raises:
        InvalidInputError: as `play_suite`.
    """
    results: Results = {}
    for suite in suites:
        played = play_suite(scorers, suite)
        results[suite.name] = {scorer.name: _metrics(played, scorer.name) for scorer in scorers}
        first = played.values[scorers[0].name][HEADLINE]
        for scorer in scorers[1:]:
            rate = played.values[scorer.name][HEADLINE]
            known = np.isfinite(first) & np.isfinite(rate)
            results[suite.name][scorer.name][VERSUS_FIRST] = paired_difference(rate[known], first[known])
    return results


def play_suite(scorers: Sequence[Scorer], suite: Suite) -> Evaluation:
    """Every scorer on the suite's test episodes.

    Raises:
        InvalidInputError: the scenario is unknown, or the suite asks for no or too many episodes.
    """
    if not 1 <= suite.episodes <= len(TEST_SEEDS):
        raise InvalidInputError(f"seeds is {suite.episodes}; give a number from 1 to {len(TEST_SEEDS)}")
    return evaluate(
        scorers, load_scenario(suite.scenario), TEST_SEEDS[: suite.episodes], load=suite.load, nodes=suite.nodes
    )


def _metrics(played: Evaluation, scorer: str) -> dict[str, Estimate]:
    return {metric: played.mean(scorer, metric) for metric in METRICS}


def to_document(results: Results, suites: Sequence[Suite]) -> dict[str, Any]:
    """As JSON: suite -> scorer -> metric -> {mean, low, high, seeds}."""
    episodes = {suite.name: suite.episodes for suite in suites}
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
    """SLA violations in percent with intervals, one row a scorer and one column a suite."""
    scorers = list(next(iter(results.values())))
    lines = ["| policy | " + " | ".join(results) + " |", "|---|" + "---|" * len(results)]
    lines += [
        f"| {scorer} | " + " | ".join(percent(suite[scorer][HEADLINE]) for suite in results.values()) + " |"
        for scorer in scorers
    ]
    return "\n".join(lines)


def rich_table(name: str, scorers: Mapping[str, Mapping[str, Estimate]]) -> Table:
    """One suite on a terminal: a row a scorer, fewest SLA violations first."""
    table = Table(title=name)
    for column in ("policy", "SLA violations %", *METRICS[1:]):
        table.add_column(column, no_wrap=column not in METRICS)
    for scorer, metrics in sorted(scorers.items(), key=lambda item: item[1][HEADLINE].value):
        table.add_row(scorer, percent(metrics[HEADLINE]), *(f"{metrics[metric].value:.3f}" for metric in METRICS[1:]))
    return table


def percent(estimate: Estimate) -> str:
    """``1.23 (1.01-1.45)`` for 0.0123 with its interval."""
    return f"{100 * estimate.value:.2f} ({100 * estimate.low:.2f}-{100 * estimate.high:.2f})"
