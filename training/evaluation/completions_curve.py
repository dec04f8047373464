"""What a policy is worth where nothing is labelled, by how many completed pods a cluster has learned from.

Behind `maddpg-train learned`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import astuple, dataclass, replace
from typing import Final

import numpy as np

from policy import heuristics
from policy.scorers import Scorer
from training.evaluation import tables
from training.evaluation.protocol import BATCH, SLA, evaluate
from training.evaluation.statistics import Estimate
from training.simulator.conditions import Condition
from training.simulator.draws import FloatArray, episode_seeds
from training.simulator.nodes import draw_nodes
from training.simulator.warmup import tell

COMPLETIONS: Final = (0, 1, 3, 10, 30, 100)
"""Completed pods per node, the points of the curve."""

SPLIT: Final = ("labelled", "learned-speed", "inferred-urgency", "learned", "no-speed", "unlabelled", "bare")
"""What is told in the second table: it shows which part costs what."""


@dataclass(frozen=True, slots=True)
class Point:
    """One point of the curve."""

    completions: int  # per node
    rates: dict[float, Estimate]  # SLA violations by the share of templates that show deadlines
    median_error: float  # of the speeds that are told, relative, over all nodes of all episodes
    high_error: float  # its 90th percentile


def curve(
    scorer: Scorer,
    condition: Condition,
    seeds: range,
    completions: Sequence[int] = COMPLETIONS,
    watch: Callable[[str], None] = lambda _: None,
) -> list[Point]:
    """Play the same episodes after so many completions per node, with the usual share of deadlines, none and all.

    Args:
        scorer: the policy.
        condition: what is played, whatever it says of what is told.
        seeds: of the episodes.
        completions: per node, for each point.
        watch: told what is about to be played.

    Raises:
        InvalidInputError: as `training.evaluation.protocol.evaluate`.
    """
    scenario = condition.sized()
    shares = list(dict.fromkeys((scenario.templates.deadlines, 0.0, 1.0)))
    points = []
    for count in completions:
        known, rates = replace(condition, told=f"learned-{count}"), {}
        for share in shares:
            watch(f"{known.label}, {share:.0%} with a deadline")
            shown = replace(scenario, templates=replace(scenario.templates, deadlines=share))
            played = evaluate([scorer], replace(known, scenario=shown), seeds)
            rates[share] = played.mean(scorer.name, SLA)
        errors = speed_errors(known, seeds)
        points.append(Point(count, rates, float(np.median(errors)), float(np.quantile(errors, 0.9))))
    return points


def speed_errors(condition: Condition, seeds: range) -> FloatArray:
    """Return the relative errors of the speeds that are told, ``[episodes x n]``.

    Where nothing gives the scale, speeds compare nodes with each other; so both sides are taken relative to their
    geometric mean in the cluster.
    """
    scenario, errors = condition.sized(), []
    for first in range(0, condition.episodes, BATCH):
        batch = episode_seeds(seeds[first : min(first + BATCH, condition.episodes)])
        off = np.log(tell(scenario, batch, condition.load, condition.knowledge).speed)
        off -= np.log(draw_nodes(scenario, batch).speed)
        errors.append(np.abs(np.expm1(off - off.mean(axis=1, keepdims=True))).ravel())
    return np.concatenate(errors)


def split(
    scorer: Scorer, condition: Condition, seeds: range, watch: Callable[[str], None] = lambda _: None
) -> dict[str, Estimate]:
    """SLA violations by what is told, and those of kube-default, whom nothing of it concerns."""
    found = {}
    for told in SPLIT:
        known = replace(condition, told=told)
        watch(known.label)
        found[told] = evaluate([scorer], known, seeds).mean(scorer.name, SLA)
    rule = heuristics.by_name("kube-default")
    found[rule.name] = evaluate([rule], condition, seeds).mean(rule.name, SLA)
    return found


def curve_table(points: Sequence[Point]) -> str:
    """The curve as Markdown: one row for each number of completions."""
    header = ["completions per node", *(f"SLA violations %, {share:.0%} with a deadline" for share in points[0].rates)]
    rows = [
        [
            str(point.completions),
            *(tables.percent(*astuple(rate)) for rate in point.rates.values()),
            f"{100 * point.median_error:.1f}",
            f"{100 * point.high_error:.1f}",
        ]
        for point in points
    ]
    return "\n".join(tables.markdown([*header, "error of speeds %, median", "90th percentile"], rows))


def split_table(found: dict[str, Estimate]) -> str:
    """What is told as Markdown: one row for each name."""
    rows = [[name, tables.percent(*astuple(rate))] for name, rate in found.items()]
    return "\n".join(tables.markdown(["told", "SLA violations %"], rows))
