"""Candidates, in the shadow and in an experiment, and a cluster that is only observed."""

from __future__ import annotations

from typing import Final

from extender.feasibility import UNMODELLED
from extender.observer import RESULTS, Observer
from extender.operations.families import Family
from extender.trials.avoidance import RESULTS as ENDED
from extender.trials.avoidance import Avoidance
from extender.trials.comparison import VERDICTS, Comparison
from extender.trials.shadow import Shadow


def _rank_correlation(shadow: Shadow) -> float:
    counts = shadow.counts()
    return counts.rank_correlation_sum / counts.ranked if counts.ranked else float("nan")


def _priorities(shadow: Shadow) -> dict[str, float]:
    counts = shadow.counts()
    return {"true": counts.priorities_far, "false": counts.priorities - counts.priorities_far}


SHADOW: Final[tuple[Family[Shadow], ...]] = (
    Family(
        "maddpg_shadow_requests_total",
        "Requests that the shadow's candidate scored too (compared), failed on (failed) or was too slow for (dropped), "
        "and those with nothing to compare with (skipped)",
        lambda shadow: {name: getattr(shadow.counts(), name) for name in ("compared", "dropped", "failed", "skipped")},
        ("result",),
    ),
    Family(
        "maddpg_shadow_same_best_total",
        "Requests compared whose best node is the best of the shadow's candidate too",
        lambda shadow: shadow.counts().same_best,
    ),
    Family(
        "maddpg_shadow_rank_correlation",
        "Mean rank correlation, -1 to 1, of the shadow's candidate with what decided; NaN until one is known",
        _rank_correlation,
    ),
    Family(
        "maddpg_shadow_priorities_total",
        "Priorities compared, by whether the shadow's candidate differs by more than 1",
        _priorities,
        ("far",),
    ),
    Family(
        "maddpg_shadow_seconds_total", "Time that the shadow's candidate took", lambda shadow: shadow.counts().seconds
    ),
)


def _arms(comparison: Comparison, name: str) -> dict[str, float]:
    return {arm: part[name] for arm, part in comparison.latest.get("arms", {}).items()}


def _means(comparison: Comparison) -> dict[tuple[str, str], float]:
    return {
        (arm, name): _known(measure[arm]["mean"])
        for name, measure in comparison.latest.get("measures", {}).items()
        for arm in comparison.latest["arms"]
    }


def _differences(comparison: Comparison) -> dict[tuple[str, str], float]:
    return {
        (name, bound): _known(value)
        for name, measure in comparison.latest.get("measures", {}).items()
        for bound, value in measure["difference"].items()
    }


def _verdicts(comparison: Comparison) -> dict[str, float]:
    latest = comparison.latest
    return {verdict: latest["verdict"] == verdict for verdict in VERDICTS} if latest else {}


def _known(value: float | None) -> float:
    return float("nan") if value is None else value


EXPERIMENT: Final[tuple[Family[Comparison], ...]] = (
    Family(
        "maddpg_experiment_workloads",
        "Workloads remembered, by arm of the experiment",
        lambda comparison: _arms(comparison, "workloads"),
        ("arm",),
    ),
    Family(
        "maddpg_experiment_pods",
        "Pods remembered, by arm of the experiment",
        lambda comparison: _arms(comparison, "decisions"),
        ("arm",),
    ),
    Family(
        "maddpg_experiment_mean",
        "Mean over an arm's workloads, by measure; NaN until it is known",
        _means,
        ("arm", "measure"),
    ),
    Family(
        "maddpg_experiment_difference",
        "The candidate's mean less the control's (value), and its 95 % interval (low, high), by measure; NaN until it "
        "is known",
        _differences,
        ("measure", "bound"),
    ),
    Family(
        "maddpg_experiment_verdict",
        "1 for what the experiment says: control, candidate, mixed or undecided",
        _verdicts,
        ("verdict",),
    ),
)

AVOIDANCE: Final[tuple[Family[Avoidance], ...]] = (
    Family(
        "maddpg_late_placements_avoided",
        "Estimate of the late placements avoided against kube-default over the last day (value), and its 95 % interval "
        "(low, high); NaN while not enough is known",
        lambda avoidance: {bound: _known(avoidance.latest[bound]) for bound in ("value", "low", "high")},
        ("bound",),
    ),
    Family(
        "maddpg_late_placements_pods",
        "Pods that ended over that day, by what kube-default would have chosen: the same node (same), another (other); "
        "of these unlike any node seen (unlike); or why that is not known: nodes forgotten, stopped at a deadline, "
        "no_sla to be late by",
        lambda avoidance: {name: avoidance.latest["ended"][name] for name in ENDED},
        ("result",),
    ),
)

OBSERVER: Final[tuple[Family[Observer], ...]] = (
    Family(
        "maddpg_observed_pods_total",
        "Pods that others placed: on a node that we rate as high as any (same), on another (other), where only one "
        "could take them (one_node), too fast to be rated (skipped), or not to be rated (not_rated)",
        lambda observer: {name: observer.results[name] for name in RESULTS},
        ("result",),
    ),
    Family(
        "maddpg_observed_unmodelled_total",
        "Pods observed that something restricts which is not modelled, by what",
        lambda observer: {name: observer.unmodelled[name] for name in UNMODELLED},
        ("restriction",),
    ),
    Family(
        "maddpg_observed_not_foreseen_total",
        "Pods observed that went where, by what is modelled, they could not run",
        lambda observer: observer.not_foreseen,
    ),
)
