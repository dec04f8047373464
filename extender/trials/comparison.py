"""What the two arms of an experiment came to, by workload, and whether that tells them apart. Pure.

The unit is the workload: its pods share an arm, an image and a load, so they are one observation, the mean over them,
and not many. Every pod of a workload counts, also where the fallback answered for the candidate or one node was left:
to leave those out would compare unlike pods.

A difference of means has Welch's interval (B. L. Welch, Biometrika 34, 1947). A verdict takes more than a 95 % interval
that leaves out 0: with several measures one of them would do so by chance, so each is judged at 1 - 0.05 / measures
(Bonferroni), and no arm of fewer than `FEWEST` workloads is judged at all.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from statistics import NormalDist
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from extender.history.aggregate import summarised
from extender.history.ledger import Decision
from extender.pace import unhurried
from extender.trials.experiment import ARMS, CANDIDATE, CONTROL, Experiment
from policy.errors import InvalidInputError

CONFIDENCE: Final = 0.95
FEWEST: Final = 30
"""Workloads an arm must have before it is judged: the means of fewer, of such skewed values, are far from normal."""

FEWEST_FOR_INTERVAL: Final = 5
UNDECIDED: Final = "undecided"
MIXED: Final = "mixed"
VERDICTS: Final = (CONTROL, CANDIDATE, MIXED, UNDECIDED)

Values = NDArray[np.float64]


def _fact(name: str, *, once_bound: bool = False) -> Callable[[Decision], float | None]:
    """Return what reads a field of a pod's outcome; None where it is not known."""

    def read(decision: Decision) -> float | None:
        outcome = decision.outcome
        if outcome is None or (once_bound and outcome.bound_at is None):
            return None
        value = getattr(outcome, name)
        return None if value is None else float(value)

    return read


def _failed(decision: Decision) -> float | None:
    outcome = decision.outcome
    if decision.former_failure is not None or (outcome is not None and outcome.failure is not None):
        return 1.0
    return 0.0 if outcome is not None and outcome.bound_at is not None else None


def _node(decision: Decision) -> int | None:
    """Position, among the rows kept, of the node that the pod was bound to."""
    outcome = decision.outcome
    if outcome is None or decision.rows is None or outcome.node not in decision.names:
        return None
    return decision.names.index(outcome.node)


def _node_cpu_pressure(decision: Decision) -> float | None:
    position = _node(decision)
    return None if position is None or decision.rows is None else float(decision.rows.cpu_pressure[position])


def _node_cpu_use(decision: Decision) -> float | None:
    position, rows = _node(decision), decision.rows
    return None if position is None or rows is None else float(rows.cpu_used[position] / rows.cpu_allocatable[position])


@dataclass(frozen=True, slots=True)
class Measure:
    """Something known of a pod."""

    meaning: str  # what it is, with its unit
    of: Callable[[Decision], float | None]  # its value for a pod; None where it is not known
    judged: bool = True  # whether less of it is better; else it is shown alone


MEASURES: Final = {
    "waiting_s": Measure("from the first decision until bound, seconds", _fact("bind_s")),
    "failed": Measure("share of pods with a failed attempt", _failed),
    "restarts": Measure("restarts of containers a pod", _fact("restarts", once_bound=True)),
    "oom_killed": Measure("share of pods with a container killed for its memory", _fact("oom_killed", once_bound=True)),
    "late": Measure("share of pods that were late, where that is known", _fact("late")),
    "slowdown": Measure("time to the end over the declared duration, where that is known", _fact("slowdown")),
    "node_cpu_pressure": Measure("CPU pressure of the pod's node when it was decided, 0..1", _node_cpu_pressure),
    "node_cpu_use": Measure("CPU use of the pod's node when it was decided, over allocatable", _node_cpu_use, False),
}


@dataclass(frozen=True, slots=True)
class Difference:
    """Mean of the candidate's arm less that of the control's."""

    value: float  # the difference
    # low, high: its interval; None where there are too few workloads for one
    low: float | None
    high: float | None
    tells: bool  # whether the interval leaves out 0
    # how many times the workloads it would take, if the true difference were this one; None if no number of them can be
    # told, because there is no difference yet
    needed: float | None


def difference(control: Values, candidate: Values, confidence: float = CONFIDENCE) -> Difference:
    """Welch's interval for the difference of two means, from one value a workload, ``[n]`` and ``[m]``, n, m > 0."""
    value = float(candidate.mean() - control.mean())
    if min(len(control), len(candidate)) < FEWEST_FOR_INTERVAL:
        return Difference(value, None, None, tells=False, needed=None)
    parts = [float(values.var(ddof=1)) / len(values) for values in (control, candidate)]
    error = math.sqrt(sum(parts))
    if error == 0.0:
        return Difference(value, value, value, tells=value != 0.0, needed=None)
    freedom = sum(parts) ** 2 / sum(
        part**2 / (len(values) - 1) for part, values in zip(parts, (control, candidate), strict=True)
    )
    half = t_quantile(0.5 + confidence / 2.0, freedom) * error
    needed = None if value == 0.0 else (half / value) ** 2
    return Difference(value, value - half, value + half, tells=abs(value) > half, needed=needed)


def t_quantile(share: float, freedom: float) -> float:
    """Quantile of Student's t: Abramowitz and Stegun 26.7.5, off by less than 0.2 % from 4 degrees of freedom on.

    Raises:
        InvalidInputError: fewer than 4 degrees of freedom.
    """
    if freedom < FEWEST_FOR_INTERVAL - 1 - 1e-9:
        raise InvalidInputError(f"{freedom:g} degrees of freedom are too few for this formula; give 4 or more")
    x = NormalDist().inv_cdf(share)
    terms = (
        x,
        (x**3 + x) / 4,
        (5 * x**5 + 16 * x**3 + 3 * x) / 96,
        (3 * x**7 + 19 * x**5 + 17 * x**3 - 15 * x) / 384,
        (79 * x**9 + 776 * x**7 + 1482 * x**5 - 1920 * x**3 - 945 * x) / 92160,
    )
    return float(sum(term / freedom**i for i, term in enumerate(terms)))


@dataclass(eq=False)
class Comparison:
    """Compares the arms of an experiment over the decisions that are remembered."""

    experiment: Experiment
    decisions: Callable[[], Iterable[Decision]]
    latest: dict[str, Any] = field(default_factory=dict)  # what `compared` returned last; empty before the first time

    def update(self) -> dict[str, Any]:
        """Compare now, some 40 ms per thousand decisions; in a thread."""
        self.latest = compared(self.decisions(), self.experiment.key, self.experiment.share)
        return self.latest


def compared(decisions: Iterable[Decision], key: str, share: float) -> dict[str, Any]:
    """What an experiment came to, as JSON.

    Args:
        decisions: all that are remembered.
        key: of the experiment; others' decisions are left out.
        share: of the workloads in the candidate's arm.

    Returns:
        ``arms``: for each, its workloads, and `report.summarised` of its pods. ``measures``: for each of `MEASURES`,
        what it means, for each arm the mean over workloads with its 95 % interval and standard deviation, the
        difference with its 95 % interval, which arm it is better in, if that can be told, and how many more workloads
        it would take if the difference seen were the true one. ``verdict``: `control` or `candidate` where every
        measure that tells them apart is for it, `mixed` where they disagree, else `undecided`, with ``reason`` and
        ``more_workloads``; None where no number can be given.
    """
    arms: dict[str, list[Decision]] = {arm: [] for arm in ARMS}
    for decision in unhurried(decisions):
        if decision.experiment == key and decision.arm in arms:
            arms[decision.arm].append(decision)
    workloads = {arm: len({decision.workload for decision in unhurried(part)}) for arm, part in arms.items()}
    means = {name: {arm: _by_workload(part, it.of) for arm, part in arms.items()} for name, it in MEASURES.items()}
    judged = [name for name, it in MEASURES.items() if it.judged and all(len(part) for part in means[name].values())]
    strict = 1.0 - (1.0 - CONFIDENCE) / max(len(judged), 1)
    measures = {name: _measured(name, means[name], share, strict) for name in MEASURES}
    found = {measures[name]["better"] for name in judged} - {None}
    verdict = UNDECIDED if not found else MIXED if len(found) > 1 else found.pop()
    wanted = [measures[name]["more_workloads"] for name in judged if measures[name]["more_workloads"] is not None]
    more = None if verdict != UNDECIDED else min(wanted, default=_missing(workloads, share))
    return {
        "verdict": verdict,
        "reason": _reason(verdict, workloads, more, share),
        "more_workloads": more,
        "confidence": CONFIDENCE,
        "judged_at": strict,
        "arms": {arm: {"workloads": workloads[arm], **summarised(part)} for arm, part in arms.items()},
        "measures": measures,
    }


def as_text(document: dict[str, Any]) -> str:
    """What `/v1/experiment` says, for people, as lines."""
    arms, candidate = document["arms"], document["candidate"]
    lines = [
        f"candidate {candidate['scorer']} for {document['share']:.4g} of the workloads: {document['verdict']}",
        f"  {document['reason']}",
    ]
    for arm in ARMS:
        part = arms[arm]
        by = Counter(part["scorers"]).most_common()
        shown = ", ".join(f"{count} by {name}" for name, count in by) or "none"
        lines.append(f"  {arm:9} {part['workloads']} workloads, {part['decisions']} pods: {shown}")
    for name, it in document["measures"].items():
        lines.append(f"{name}: {it['meaning']}")
        lines.extend(
            f"  {arm:10} {_interval(it[arm]['mean'], it[arm])}; {it[arm]['workloads']} workloads" for arm in ARMS
        )
        lines.append(f"  {'difference':10} {_interval(it['difference']['value'], it['difference'])}" + _told(it))
    return "\n".join(lines)


def _measured(name: str, arms: dict[str, Values], share: float, strict: float) -> dict[str, Any]:
    measure, control, candidate = MEASURES[name], arms[CONTROL], arms[CANDIDATE]
    result: dict[str, Any] = {"meaning": measure.meaning, "judged": measure.judged}
    result |= {arm: _described(values) for arm, values in arms.items()}
    result |= {"difference": {"value": None, "low": None, "high": None}, "better": None, "more_workloads": None}
    sizes = {arm: len(values) for arm, values in arms.items()}
    missing = _missing(sizes, share)
    if min(sizes.values()) == 0:
        return result
    shown, judged = difference(control, candidate), difference(control, candidate, strict)
    result["difference"] = {"value": shown.value, "low": shown.low, "high": shown.high}
    if not measure.judged:
        return result
    if judged.tells and missing == 0:
        result["better"] = CANDIDATE if judged.value < 0.0 else CONTROL
    elif missing is not None:
        by_effect = 0 if judged.needed is None else math.ceil((judged.needed - 1.0) * sum(sizes.values()))
        result["more_workloads"] = max(missing, by_effect) or None
    return result


def _by_workload(decisions: Sequence[Decision], of: Callable[[Decision], float | None]) -> Values:
    """The mean over the pods of each workload of which the value is known, ``[workloads]``."""
    values: dict[str, list[float]] = {}
    for decision in unhurried(decisions):
        value = of(decision)
        if value is not None and math.isfinite(value):
            values.setdefault(decision.workload, []).append(value)
    return np.array([sum(part) / len(part) for part in unhurried(values.values())], dtype=np.float64)


def _described(values: Values) -> dict[str, Any]:
    """Mean, its interval, and the standard deviation over workloads."""
    count = len(values)
    low = high = deviation = None
    mean = float(values.mean()) if count else None
    if mean is not None and count >= FEWEST_FOR_INTERVAL:
        deviation = float(values.std(ddof=1))
        half = t_quantile(0.5 + CONFIDENCE / 2.0, count - 1) * deviation / math.sqrt(count)
        low, high = mean - half, mean + half
    return {"workloads": count, "mean": mean, "low": low, "high": high, "deviation": deviation}


def _missing(workloads: dict[str, int], share: float) -> int | None:
    """How many more workloads it takes until each arm has `FEWEST`; None if one never gets any."""
    shares = {CONTROL: 1.0 - share, CANDIDATE: share}
    lacking = {arm: max(FEWEST - count, 0) for arm, count in workloads.items()}
    if any(lack and shares[arm] <= 0.0 for arm, lack in lacking.items()):
        return None
    return max(math.ceil(lack / shares[arm]) if lack else 0 for arm, lack in lacking.items())


def _reason(verdict: str, workloads: dict[str, int], more: int | None, share: float) -> str:
    if verdict in ARMS:
        return f"every measure that tells the arms apart is better in the {verdict}'s"
    if verdict == MIXED:
        return "some measures are better in the candidate's arm, others in the control's"
    if _missing(workloads, share) is None:
        return f"experiment_share is {share:g}: one arm gets no workloads"
    if not more:
        return "no measure differs between the arms so far"
    if min(workloads.values()) < FEWEST:
        return f"each arm needs {FEWEST} workloads; about {more} more workloads would do"
    return f"no difference is beyond chance; if those seen are real, about {more} more workloads would show one"


def _interval(value: float | None, part: dict[str, Any]) -> str:
    if value is None:
        return "unknown"
    return f"{value:.4g}" + ("" if part["low"] is None else f" ({part['low']:.4g} to {part['high']:.4g})")


def _told(measure: dict[str, Any]) -> str:
    if measure["better"] is not None:
        return f": better in the {measure['better']}'s arm"
    more = measure["more_workloads"]
    return "" if more is None else f": undecided, about {more} more workloads"
