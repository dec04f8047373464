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

LATENCY_SHARES: Final = (50, 95, 99)
OUTCOME_SHARES: Final = (50, 95)


def performance(decisions: Iterable[Decision], counts: Counts) -> dict[str, Any]:
    """The report as JSON.

    Returns:
        ``since_start``: sums of this process. ``remembered``: `summarised` over all decisions given. ``by_scorer``: the
        same for each scorer that answered.
    """
    every = list(decisions)
    by_scorer: dict[str, list[Decision]] = {}
    for decision in every:
        by_scorer.setdefault(decision.scorer, []).append(decision)
    return {
        "since_start": counts.document(),
        "remembered": summarised(every),
        "by_scorer": {name: summarised(part) for name, part in sorted(by_scorer.items())},
    }


def summarised(decisions: Sequence[Decision]) -> dict[str, Any]:
    """What these decisions came to; any group of them, such as one scorer's or one arm's.

    Returns:
        ``decisions``, ``from`` and ``to`` (seconds since the epoch), ``scorers``, ``fallback_reasons``, ``states`` and
        ``failures`` (attempts that failed, of these pods) as counts; ``bound``; ``rated``: of the bound ones, those
        whose node's priority is known; ``rated_best_share``: of these, the share on a node that none was rated above;
        ``latency_ms`` and ``bind_s``: percentiles; ``restarts``, ``oom_killed``; ``late``, ``on_time`` and
        ``lateness_unknown`` of those that ended, ``late_share`` of the known, and ``slowdown``: percentiles. Shares and
        percentiles are None where nothing is known.
    """
    outcomes = [decision.outcome for decision in decisions if decision.outcome is not None]
    bound = [it for it in outcomes if it.bound_at is not None]
    rated = [it.among_best for it in bound if it.among_best is not None]
    ended = [it for it in bound if it.removed_at is not None]
    judged = [it.late for it in ended if it.late is not None]
    times = [decision.at for decision in decisions]
    failures = Counter(
        decision.former_failure.partition(":")[0] for decision in decisions if decision.former_failure is not None
    )
    failures.update(it.failure for it in outcomes if it.failure is not None)
    return {
        "decisions": len(decisions),
        "from": min(times, default=None),
        "to": max(times, default=None),
        "scorers": dict(Counter(decision.scorer for decision in decisions)),
        "fallback_reasons": dict(
            Counter(decision.fallback_reason for decision in decisions if decision.fallback_reason is not None)
        ),
        "states": dict(Counter("waiting" if it.outcome is None else it.outcome.state for it in decisions)),
        "failures": dict(failures),
        "bound": len(bound),
        "rated": len(rated),
        "rated_best_share": _share(rated),
        "latency_ms": _percentiles([decision.latency_s * 1000.0 for decision in decisions], LATENCY_SHARES),
        "bind_s": _percentiles([it.bind_s for it in bound if it.bind_s is not None], OUTCOME_SHARES),
        "restarts": sum(it.restarts for it in outcomes),
        "oom_killed": sum(it.oom_killed for it in outcomes),
        "late": sum(judged),
        "on_time": len(judged) - sum(judged),
        "lateness_unknown": len(ended) - len(judged),
        "late_share": _share(judged),
        "slowdown": _percentiles([it.slowdown for it in ended if it.slowdown is not None], OUTCOME_SHARES),
    }


def as_text(report: dict[str, Any]) -> str:
    """The report for people, as lines."""
    whole = report["remembered"]
    sections = [_section("all decisions remembered", whole)]
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
        ("late", f"{late}; unknown: {part['lateness_unknown']}"),
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
