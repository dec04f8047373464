"""How well deciding has gone: sums, shares and percentiles over the decisions remembered. Pure; decides no winner.

Shares and percentiles are over the decisions of which the fact is known, and that number stands beside them: the rest
is unknown, not good.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any, Final

import numpy as np

from extender.history.ledger import Counts, Decision
from extender.history.outcomes import Outcome
from extender.pace import unhurried

LATENCY_SHARES: Final = (50, 95, 99)
OUTCOME_SHARES: Final = (50, 95)


def performance(decisions: Iterable[Decision], counts: Counts) -> dict[str, Any]:
    """The report as JSON. In a thread.

    Returns:
        ``since_start``: sums of this process. ``remembered``: `summarised` over all decisions given. ``by_scorer``: the
        same for each scorer that answered.
    """
    every = list(unhurried(decisions))
    by_scorer: dict[str, list[Decision]] = {}
    for decision in unhurried(every):
        by_scorer.setdefault(decision.scorer, []).append(decision)
    return {
        "since_start": counts.document(),
        "remembered": summarised(every),
        "by_scorer": {name: summarised(part) for name, part in sorted(by_scorer.items())},
    }


def summarised(decisions: Iterable[Decision]) -> dict[str, Any]:
    """What these decisions came to; any group of them, such as one scorer's or one arm's. In a thread.

    Returns:
        ``decisions``, ``from`` and ``to`` (seconds since the epoch), ``scorers``, ``fallback_reasons``, ``states`` and
        ``failures`` (attempts that failed, of these pods) as counts; ``bound``; ``rated``: of the bound ones, those
        whose node's priority is known; ``rated_best_share``: of these, the share on a node that none was rated above;
        ``latency_ms`` and ``bind_s``: percentiles; ``restarts``, ``oom_killed``; ``late``, ``on_time`` and
        ``lateness_unknown`` of those that ended; ``lateness_inferred``: how many of the first two rest on what former
        runs took, for want of a declared duration; ``late_share`` of the known, and ``slowdown``: percentiles. Shares
        and percentiles are None where nothing is known.
    """
    times, latencies, outcomes = list[float](), list[float](), list[Outcome]()
    scorers, reasons, states, failures = Counter[str](), Counter[str](), Counter[str](), Counter[str]()
    for decision in unhurried(decisions):
        times.append(decision.at)
        latencies.append(decision.latency_s * 1000.0)
        scorers[decision.scorer] += 1
        if decision.fallback_reason is not None:
            reasons[decision.fallback_reason] += 1
        if decision.former_failure is not None:
            failures[decision.former_failure.partition(":")[0]] += 1
        states["waiting" if decision.outcome is None else decision.outcome.state] += 1
        if decision.outcome is not None:
            outcomes.append(decision.outcome)
    bound, rated, bind_s = list[Outcome](), list[bool](), list[float]()
    for outcome in unhurried(outcomes):
        if outcome.failure is not None:
            failures[outcome.failure] += 1
        if outcome.bound_at is not None:
            bound.append(outcome)
            rated.extend([] if outcome.among_best is None else [outcome.among_best])
            bind_s.extend([] if outcome.bind_s is None else [outcome.bind_s])
    ended = [it for it in unhurried(bound) if it.removed_at is not None]
    known = [it for it in unhurried(ended) if it.late is not None]
    judged = [it.late is True for it in unhurried(known)]
    return {
        "decisions": len(times),
        "from": min(times, default=None),
        "to": max(times, default=None),
        "scorers": dict(scorers),
        "fallback_reasons": dict(reasons),
        "states": dict(states),
        "failures": dict(failures),
        "bound": len(bound),
        "rated": len(rated),
        "rated_best_share": _share(rated),
        "latency_ms": _percentiles(latencies, LATENCY_SHARES),
        "bind_s": _percentiles(bind_s, OUTCOME_SHARES),
        "restarts": sum(it.restarts for it in unhurried(outcomes)),
        "oom_killed": sum(it.oom_killed for it in unhurried(outcomes)),
        "late": sum(judged),
        "on_time": len(judged) - sum(judged),
        "lateness_unknown": len(ended) - len(judged),
        "lateness_inferred": sum(it.inferred for it in unhurried(known)),
        "late_share": _share(judged),
        "slowdown": _percentiles([it.slowdown for it in unhurried(ended) if it.slowdown is not None], OUTCOME_SHARES),
    }


def as_text(report: dict[str, Any]) -> str:
    """The report for people, as lines."""
    whole = report["remembered"]
    avoided = report.get("late_avoided")  # earlier versions do not tell
    sections = [] if avoided is None else [str(avoided["sentence"])]
    sections += [_section("all decisions remembered", whole)]
    if len(report["by_scorer"]) > 1:
        sections.extend(_section(f"by {name}", part) for name, part in report["by_scorer"].items())
    since = report["since_start"]
    sections.append(
        f"since the start: {since['decisions']} decisions, {since['fallbacks']} by the fallback, {since['bound']} seen "
        f"bound, {_counted(since['ended'])} ended, {_counted(since['failures'])} failed attempts"
    )
    return "\n\n".join(sections)


def _section(title: str, part: dict[str, Any]) -> str:
    late = "unknown" if part["late_share"] is None else f"{part['late_share']:.1%} of {part['late'] + part['on_time']}"
    best = "unknown" if part["rated_best_share"] is None else f"{part['rated_best_share']:.1%} of {part['rated']}"
    lines = (
        ("decisions", f"{part['decisions']}: {_counted(part['scorers'])}"),
        ("fallback", _counted(part["fallback_reasons"])),
        ("latency", _shown(part["latency_ms"], "ms")),
        ("now", _counted(part["states"])),
        ("failed attempts", _counted(part["failures"])),
        ("bound", f"{part['bound']}; on the node rated best: {best}"),
        ("time to bound", _shown(part["bind_s"], "s")),
        ("restarts", f"{part['restarts']}; out of memory: {part['oom_killed']} pods"),
        ("late", f"{late}, {part['lateness_inferred']} of them inferred; unknown: {part['lateness_unknown']}"),
        ("slowdown", _shown(part["slowdown"], "")),
    )
    return "\n".join((title, *(f"  {name:16} {value}" for name, value in lines)))


def _counted(counts: dict[str, int]) -> str:
    return ", ".join(f"{count} {name}" for name, count in sorted(counts.items(), key=lambda it: -it[1])) or "none"


def _shown(percentiles: dict[str, float] | None, unit: str) -> str:
    if percentiles is None:
        return "unknown"
    return ", ".join(f"{name} {value:.4g}{unit and ' ' + unit}" for name, value in percentiles.items())


def _share(facts: Sequence[bool]) -> float | None:
    return sum(facts) / len(facts) if facts else None


def _percentiles(values: Sequence[float], shares: Sequence[int]) -> dict[str, float] | None:
    """``{"p50": ...}``, linearly interpolated; None without values."""
    if not values:
        return None
    return {f"p{share}": float(value) for share, value in zip(shares, np.percentile(values, shares), strict=True)}
