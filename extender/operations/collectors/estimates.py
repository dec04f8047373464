"""Speeds of nodes: where they come from, and what they are learned from."""

from __future__ import annotations

from typing import Final

from extender.operations.families import Family
from extender.operations.inventory import KnowsMachines


def _sources(source: KnowsMachines) -> dict[str, float]:
    return {} if source.speeds is None else dict(source.speeds.counts())


def _completions(source: KnowsMachines) -> dict[str, float]:
    return {} if source.completed is None else dict(source.completed.counts)


def _benchmarks(source: KnowsMachines) -> dict[str, float]:
    return {} if source.benchmarks is None else dict(source.benchmarks.counts)


def _evidence(source: KnowsMachines) -> dict[str, float]:
    return {} if source.speeds is None or source.speeds.refused is not None else dict(source.speeds.evidence())


def _estimated(source: KnowsMachines) -> dict[str, float]:
    if source.speeds is None:
        return {}
    fitted = source.speeds.fitted
    return {"estimated": len(fitted.estimates), "unconnected": len(fitted.unconnected)}


def _fit_s(source: KnowsMachines) -> float:
    return 0.0 if source.speeds is None else source.speeds.fit_s


def _fit_age(source: KnowsMachines) -> float:
    age = None if source.speeds is None else source.speeds.fit_age
    return float("nan") if age is None else age


ESTIMATES: Final[tuple[Family[KnowsMachines], ...]] = (
    Family(
        "maddpg_node_speeds",
        "Nodes by the source of their speed: annotation, label, setting, completions, probe, published, default",
        _sources,
        ("source",),
    ),
    Family(
        "maddpg_completions_total",
        "Pods seen to succeed, by whether their CPU time was measured, or why not",
        _completions,
        ("result",),
    ),
    Family(
        "maddpg_benchmarks_total",
        "Results of benchmarks of nodes, by whether they were accepted, or why not; see `node_speed_benchmark`",
        _benchmarks,
        ("result",),
    ),
    Family(
        "maddpg_speed_evidence_total",
        "Completions with a CPU time, by what became of them as evidence of speeds; and nodes and templates that were "
        "found to have changed",
        _evidence,
        ("event",),
    ),
    Family(
        "maddpg_speed_nodes",
        "Nodes whose speed completions show, and nodes with completions that share no template with others",
        _estimated,
        ("state",),
    ),
    Family("maddpg_speed_fit_seconds", "CPU time of the last fit of speeds, in a thread", _fit_s),
    Family("maddpg_speed_fit_age_seconds", "Time since the last fit of speeds; NaN before the first", _fit_age),
)
