"""Goals of a policy that is to hold everywhere: with inputs missing or learned, other physics, memory, first looks.

A goal's name begins with its condition. Where rules are met, the paired 95 % interval over episodes decides, and every
rule is given the same inputs as the policy. Plays nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from training.evaluation.plan import GREEDY, REFERENCE
from training.evaluation.protocol import SLA
from training.evaluation.report.goals import Goal, gap_goal
from training.evaluation.statistics import Estimate, paired_difference
from training.evaluation.study import Study
from training.simulator.deviations import MEMORY, PHYSICS

RIVAL: Final = "marginal-cost"
"""The rule that a trained policy must beat to earn its place: a formula of nine numbers."""

KILLED: Final = "failure_rate"

LOADS: Final = (0.2, 0.3, 0.4, 0.5, 0.6)
WON: Final = 3
"""Of `LOADS`, those at which the policy must be below `RIVAL` by the whole interval."""

LABELLED_MOST, LEARNED_MOST = 0.0075, 0.025
"""SLA violations on the usual condition, with labels and with what 30 completions a node teach."""

MORE_KILLED: Final = 0.001
"""Share of pods killed that may exceed kube-default's."""

ELSEWHERE: Final = ("urgent", "first-look", "three", *PHYSICS)
"""Variants in which no rule may be better."""


def coverage_goals(study: Study) -> list[Goal]:
    """Every goal whose condition was played."""
    return [
        *_labelled(study),
        *_learned(study),
        *_without(study, "unlabelled"),
        *_without(study, "bare"),
        *_memory(study),
        *_elsewhere(study),
    ]


def _played(study: Study, told: str = "") -> dict[float, str]:
    """Load -> label, of `LOADS` on the reference's own nodes."""
    prefix = f"{told} {REFERENCE}@" if told else f"{REFERENCE}@"
    labels = {load: f"{prefix}{load:g}" for load in LOADS}
    return {load: label for load, label in labels.items() if label in study.evaluations}


def _difference(study: Study, label: str, rule: str, metric: str = SLA) -> Estimate:
    """The policy's metric less the rule's, episode by episode."""
    return paired_difference(study.values(label, study.policy, metric), study.values(label, rule, metric))


def _labelled(study: Study) -> Iterator[Goal]:
    labels = _played(study)
    if len(labels) < len(LOADS) or RIVAL not in study.rules:
        return
    found = {label: _difference(study, label, RIVAL) for label in labels.values()}
    below = [label for label, each in found.items() if each.high < 0.0]
    above = [label for label, each in found.items() if each.low > 0.0]
    loads = f"labelled {REFERENCE} at {LOADS[0]:g} to {LOADS[-1]:g}: loads with SLA violations"
    yield Goal(f"{loads} below {RIVAL}'s, whole interval", float(len(below)), f">= {WON}", len(below) >= WON)
    yield Goal(f"{loads} above {RIVAL}'s, whole interval", float(len(above)), "0", not above)
    rate = study.rate(study.usual, study.policy)
    name = f"labelled {study.usual}: SLA violations"
    yield Goal(name, rate, f"<= {LABELLED_MOST:g}", rate <= LABELLED_MOST)


def _learned(study: Study) -> Iterator[Goal]:
    for label in _played(study, "learned").values():
        rate = study.rate(label, study.policy)
        if label == f"learned {study.usual}":
            yield Goal(f"{label}: SLA violations", rate, f"<= {LEARNED_MOST:g}", rate <= LEARNED_MOST)
            if study.oracle:
                yield gap_goal(study, label)
        share = rate / max(study.rate(label, GREEDY), 1e-9)
        yield Goal(f"{label}: SLA violations over {GREEDY}'s", share, "<= 1/3", share <= 1.0 / 3.0)
        yield _below_every_rule(study, label)


def _without(study: Study, told: str) -> Iterator[Goal]:
    for label in _played(study, told).values():
        yield _below_every_rule(study, label)


def _memory(study: Study) -> Iterator[Goal]:
    for label in study.evaluations:
        if label.split("@")[0] in MEMORY:
            more = _difference(study, label, GREEDY, KILLED).value
            name = f"{label}: share of pods killed, less {GREEDY}'s"
            yield Goal(name, more, f"<= {MORE_KILLED:g}", more <= MORE_KILLED)
            less = _difference(study, label, GREEDY).value
            yield Goal(f"{label}: SLA violations less {GREEDY}'s", less, "< 0", less < 0.0)


def _elsewhere(study: Study) -> Iterator[Goal]:
    for label in study.evaluations:
        if label.split("@")[0] in ELSEWHERE:
            name, found = _from_best_rule(study, label)
            yield Goal(name, found.value, "interval not above 0", found.low <= 0.0)


def _below_every_rule(study: Study, label: str) -> Goal:
    name, found = _from_best_rule(study, label)
    return Goal(name, found.value, "< 0", found.value < 0.0)


def _from_best_rule(study: Study, label: str) -> tuple[str, Estimate]:
    """Name and value of the distance to the best rule there."""
    rule = study.best_rule(label)
    return f"{label}: SLA violations less the best rule's ({rule})", _difference(study, label, rule)
