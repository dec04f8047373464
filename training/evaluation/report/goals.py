"""What is to be reached, judged by a study's numbers. A goal that is missed is said to be; none is bent."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np

from training.evaluation.plan import GREEDY, LARGE, RANDOM, REFERENCE, TRACE_FILE_SCENARIO
from training.evaluation.protocol import SLA
from training.evaluation.report.curves import Curve
from training.evaluation.report.highest_load import best_rule_by_load, highest_load
from training.evaluation.statistics import Estimate, gap_closed, paired_difference, relative_change
from training.evaluation.study import Study

SEEDS_ASKED: Final = 5
LOAD_VARIANCE: Final = "load_variance"


@dataclass(frozen=True, slots=True)
class Goal:
    """One line of what is to be reached."""

    name: str  # what is measured, with scenario and load
    value: float | None  # what was measured; None where nothing could be
    goal: str  # the condition, in words
    reached: bool  # whether it holds


@dataclass(frozen=True, slots=True)
class Line:
    """A goal that is asked at the usual load and looked up at every other."""

    name: str  # what is measured
    goal: str  # the condition, in words
    measure: Callable[[Study, str], float]  # the value, of a study and a condition
    holds: Callable[[float], bool]  # whether a value will do


def _change(metric: str, rival: str) -> Callable[[Study, str], float]:
    def measure(study: Study, label: str) -> float:
        return relative_change(study.values(label, study.policy, metric), study.values(label, rival, metric)).value

    return measure


def _mean(metric: str) -> Callable[[Study, str], float]:
    def measure(study: Study, label: str) -> float:
        return float(np.nanmean(study.values(label, study.policy, metric)))

    return measure


def _over_best_rule(study: Study, label: str, policy: str | None = None) -> float:
    """SLA violations of a policy, by default the study's, over those of the best rule there."""
    return _ratio(study.rate(label, policy or study.policy), study.rate(label, study.best_rule(label)))


LINES: Final = (
    Line("reward against kube-default", ">= 0.30", _change("reward", GREEDY), lambda value: value >= 0.30),
    Line("SLA violations", "< 0.03", _mean(SLA), lambda value: value < 0.03),
    Line("SLA violations against kube-default", "<= -0.65", _change(SLA, GREEDY), lambda value: value <= -0.65),
    Line("SLA violations against random", "<= -0.89", _change(SLA, RANDOM), lambda value: value <= -0.89),
    Line("completion", "> 0.98", _mean("completion_rate"), lambda value: value > 0.98),
    Line("CPU allocated", "> 0.85", _mean("cpu_allocated"), lambda value: value > 0.85),
    Line("SLA violations over the best rule's", "< 1", _over_best_rule, lambda value: value < 1.0),
)
"""The original report's table, and the best rule; `by_load` says at which loads of the sweep each one holds."""


def by_load(study: Study) -> dict[str, dict[str, Goal]]:
    """Name of the line -> condition of the sweep -> the line judged there."""
    return {line.name: {label: _judged(study, line, label) for label in study.sweep().values()} for line in LINES}


def judge(study: Study, curves: Mapping[str, Curve | None] | None = None) -> list[Goal]:
    """Every goal that can be judged by what was played.

    Args:
        study: with the usual condition at least.
        curves: name of a training seed's policy -> how its training went, None where that is not known.
    """
    goals = [_judged(study, line, study.usual) for line in LINES[:-1]]
    goals.append(_balance(study))
    goals.append(_sweep(study))
    for label, what in _held_out(study).items():
        name = f"{label}: SLA violations over the best rule's ({study.best_rule(label)}), {what}"
        goals.append(_below_one(name, _over_best_rule(study, label)))
    if study.oracle:
        goals.append(gap_goal(study, study.usual))
    goals += _training_seeds(study, curves or {})
    goals += _on_large(study)
    return goals


def gap_goal(study: Study, label: str) -> Goal:
    """The goal that half of the gap to the oracle is closed, on the usual condition or what else is told of it."""
    closed = gap(study, label).value
    return Goal(f"{label}: gap to the oracle closed", closed, ">= 0.5", bool(closed >= 0.5))


def gap(study: Study, label: str) -> Estimate:
    """Gap between the best rule and the oracle that the policy closes, on the episodes that the oracle played.

    The oracle played the usual condition; it knows the truth, whatever schedulers are told.
    """
    count = len(study.oracle[SLA])
    ours, best = study.values(label, study.policy), study.values(label, study.best_rule(label))
    return gap_closed(ours[:count], best[:count], study.oracle[SLA])


def better_on_both(study: Study) -> list[str]:
    """Policies with fewer SLA violations and less load variance than kube-default, both intervals apart from 0.

    Paired by episode; fewest SLA violations first.
    """
    found = [
        name
        for name in study.policies
        if all(_difference(study, name, metric).high < 0.0 for metric in (SLA, LOAD_VARIANCE))
    ]
    return sorted(found, key=lambda name: study.rate(study.usual, name))


def _difference(study: Study, name: str, metric: str) -> Estimate:
    """Metric of the policy less kube-default's on the usual condition."""
    ours, theirs = study.values(study.usual, name, metric), study.values(study.usual, GREEDY, metric)
    return paired_difference(ours, theirs)


def _judged(study: Study, line: Line, label: str) -> Goal:
    value = line.measure(study, label)
    name = f"{label}: {line.name}"
    if line.name == "CPU allocated":
        name += f" (CPU used: {_mean('cpu_used')(study, label):.3f})"
    return Goal(name, value, line.goal, bool(line.holds(value)))


def _balance(study: Study) -> Goal:
    """One of the bundles on both axes; the value is its load variance against kube-default's."""
    winners = better_on_both(study)
    nearest = min(study.policies, key=lambda name: float(study.values(study.usual, name, LOAD_VARIANCE).mean()))
    name = winners[0] if winners else nearest
    theirs = study.values(study.usual, GREEDY, LOAD_VARIANCE)
    change = relative_change(study.values(study.usual, name, LOAD_VARIANCE), theirs).value
    rate = study.rate(study.usual, name)
    verb = "best on both axes" if winners else "none is better on both axes; least load variance"
    return Goal(
        f"{study.usual}: load variance against kube-default ({verb}: bundle {name}, SLA violations {rate:.4f})",
        change,
        f"< 0, with SLA violations < {study.rate(study.usual, GREEDY):.4f}",
        bool(winners),
    )


def _sweep(study: Study) -> Goal:
    ratios = {label: _over_best_rule(study, label) for label in study.sweep().values()}
    lost = [label for label, ratio in ratios.items() if not ratio < 1.0]
    return Goal(
        "every load of the sweep: largest SLA violations over the best rule's"
        + (f" (not below it at {', '.join(lost)})" if lost else ""),
        max(ratios.values()),
        "< 1",
        not lost,
    )


def _held_out(study: Study) -> dict[str, str]:
    """Conditions of other machines, traces or sizes than the usual one -> what they are."""
    found = {}
    for label, evaluation in study.evaluations.items():
        scenario = evaluation.scenario
        if scenario.name == "unseen":
            found[label] = "machines that training never had"
        elif scenario.name == "trace":
            found[label] = "sample trace in the shape of openb"
        elif scenario.name == TRACE_FILE_SCENARIO:
            found[label] = "trace file"
        elif label.startswith(f"{REFERENCE}-") and evaluation.load == study.evaluations[study.usual].load:
            found[label] = f"{scenario.nodes} nodes without retraining"
    usual = study.evaluations[study.usual].scenario
    return {study.usual: f"{usual.nodes} nodes", **found}


def _below_one(name: str, ratio: float) -> Goal:
    return Goal(name, ratio, "< 1", bool(ratio < 1.0))


def _training_seeds(study: Study, curves: Mapping[str, Curve | None]) -> list[Goal]:
    if not study.seeds:
        return [Goal("training seeds", 0.0, f">= {SEEDS_ASKED}", False)]
    usual = max(_over_best_rule(study, study.usual, name) for name in study.seeds)
    swept = max(_over_best_rule(study, label, name) for label in study.sweep().values() for name in study.seeds)
    every = "every load of the sweep: largest SLA violations of a training seed over the best rule's"
    unwell = [name for name in study.seeds if (curve := curves.get(name)) is None or curve.diverged]
    return [
        Goal("training seeds", float(len(study.seeds)), f">= {SEEDS_ASKED}", len(study.seeds) >= SEEDS_ASKED),
        _below_one(f"{study.usual}: SLA violations of the worst training seed over the best rule's", usual),
        _below_one(every, swept),
        Goal("training seeds that diverged, or whose curve is not known", float(len(unwell)), "0", not unwell),
    ]


def _on_large(study: Study) -> list[Goal]:
    sweep = study.large_sweep()
    load = study.evaluations[study.usual].load
    goals = []
    if load in sweep:
        label = sweep[load]
        ours, greedy, best = study.rate(label, study.policy), study.rate(label, GREEDY), study.best_rule(label)
        third, over_best = ours < study.rate(label, best) / 3.0, _over_best_rule(study, label)
        goals += [
            Goal(f"{label}: SLA violations over kube-default's", _ratio(ours, greedy), "< 0.1", ours < 0.1 * greedy),
            Goal(f"{label}: SLA violations over the best rule's ({best})", over_best, "< 1/3", third),
        ]
    if len(sweep) > 1:
        best = best_rule_by_load(study)
        mine, held = highest_load(study, study.policy).value, highest_load(study, best).value
        wanted = f">= {1.2 * held:.3f}, 1.2 times that of {best}" if held else "any, where no rule has one"
        name = f"{REFERENCE}-{LARGE}: highest load with SLA violations under 5 %"
        goals.append(Goal(name, mine, wanted, mine is not None and (held is None or mine >= 1.2 * held)))
    return goals


def _ratio(ours: float, theirs: float) -> float:
    """Infinite where theirs is 0 and ours is not; 1, a tie, where both are."""
    if theirs > 0.0:
        return ours / theirs
    return 1.0 if ours == 0.0 else float("inf")
