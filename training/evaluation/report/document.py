"""A study as the JSON that is committed beside a policy. Equal studies give equal bytes: no dates, numbers rounded.

The one thing that differs from run to run is how fast the reporting machine simulates.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np

from policy.heuristics import NEWEST_KUBERNETES
from training.evaluation.contestants import BundleScorer, training_seed
from training.evaluation.plan import LARGE, REFERENCE, STUDY_SEEDS, TRACE_FILE_SCENARIO, Plan
from training.evaluation.protocol import PERCENTILES, SLA
from training.evaluation.report.capacity import sustainable_load
from training.evaluation.report.coverage import coverage_goals
from training.evaluation.report.curves import Curve, read_curve
from training.evaluation.report.evidence import Evidence, further_goals
from training.evaluation.report.goals import LOAD_VARIANCE, Goal, better_on_both, by_load, gap, judge
from training.evaluation.report.highest_load import Highest, best_rule_by_load, highest_load, load_ratio
from training.evaluation.statistics import (
    Estimate,
    estimate,
    improvement_probability,
    interquartile_mean,
    paired_difference,
)
from training.evaluation.study import Study
from training.files import read_json
from training.simulator.draws import episode_seeds
from training.simulator.scenarios import load_scenario
from training.simulator.traces import load_trace

JSON_FILE: Final = "evaluation.json"

DIGITS: Final = 5
"""Significant digits of every number."""

METRICS: Final = (
    SLA,
    "reward",
    "completion_rate",
    "lateness",
    "failure_rate",
    "cpu_used",
    "cpu_allocated",
    LOAD_VARIANCE,
)
"""What the document holds of every condition; meanings stand in `training.simulator.episode`. The usual condition has
slowdowns by class of pods besides."""


@dataclass(frozen=True, slots=True)
class Provenance:
    """Where a study's policies came from."""

    command: str = ""  # that repeats the report; paths as file names only
    bundles: Mapping[str, BundleScorer] = field(default_factory=dict)  # every trained policy by its name
    trace: Path | None = None  # the file behind the `openb` condition
    evidence: Evidence = field(default_factory=Evidence)  # what was measured apart from the study

    def curves(self) -> dict[str, Curve | None]:
        """How the training of each bundle went, where that lies beside it."""
        return {name: read_curve(bundle.path) for name, bundle in self.bundles.items()}


def all_goals(study: Study, provenance: Provenance) -> list[Goal]:
    """Those that the study decides, then the others."""
    return [*judge(study, provenance.curves()), *coverage_goals(study), *further_goals(provenance.evidence)]


def as_document(study: Study, provenance: Provenance | None = None) -> dict[str, Any]:
    """What is written as `evaluation.json`.

    ``scenarios`` is scenario -> scorer -> metric -> {mean, low, high, seeds}; ``goals`` is every goal with its value.
    """
    provenance = provenance or Provenance()
    curves = provenance.curves()
    subject = provenance.bundles.get(study.policy)
    document: dict[str, Any] = {
        "policy": study.policy,
        "model_sha256": subject.sha256 if subject else None,
        "command": provenance.command,
        "about": {
            "numbers": f"{DIGITS} significant digits",
            "intervals": "95 %, bootstrap over episodes, which every scorer of a condition met alike",
            "seeds": "number of episodes behind an estimate; one seed each",
            "first_seed": STUDY_SEEDS[0],
            "kubernetes": NEWEST_KUBERNETES,
        },
        "scenario_versions": {item.scenario.name: item.scenario.version for item in study.evaluations.values()},
        "bundles": {name: _bundle(study, bundle, curves[name]) for name, bundle in provenance.bundles.items()},
        "goals": [_goal(goal) for goal in all_goals(study, provenance)],
        "by_load": {
            line: {label: {"value": goal.value, "pass": goal.reached} for label, goal in goals.items()}
            for line, goals in by_load(study).items()
        },
        "verdicts": {label: _verdict(study, label) for label in study.evaluations},
    }
    if study.oracle:
        document["oracle"] = {
            "condition": study.usual,
            SLA: _entry(estimate(study.oracle[SLA]), len(study.oracle[SLA])),
            "gap_closed": _entry(gap(study, study.usual), len(study.oracle[SLA])),
        }
    if study.seeds:
        document["seeds"] = _seeds(study)
    document["trade_off"] = _trade_off(study)
    if len(study.large_sweep()) > 1:
        document["highest_load"] = _highest_loads(study)
    if TRACE_FILE_SCENARIO in document["scenario_versions"]:
        document["trace"] = _trace(study, provenance.trace)
    document["evidence"] = _evidence(provenance.evidence)
    document["scenarios"] = {
        label: {scorer: _metrics(study, label, scorer) for scorer in evaluation.values}
        for label, evaluation in study.evaluations.items()
    }
    rounded: dict[str, Any] = _rounded(document)
    return rounded


def read_document(folder: Path) -> dict[str, Any]:
    """The report in a folder, such as the one committed beside a policy.

    Raises:
        InvalidInputError: there is none, or it does not read.
    """
    return read_json(folder / JSON_FILE, "write it with maddpg-train report")


def renewed(document: dict[str, Any], evidence: Evidence) -> dict[str, Any]:
    """The same study's document with other evidence: what the episodes showed stays as it is."""
    kept = document["goals"][: -len(further_goals(Evidence()))] if "evidence" in document else document["goals"]
    goals = [*kept, *(_goal(goal) for goal in further_goals(evidence))]
    changed: dict[str, Any] = _rounded({**document, "goals": goals, "evidence": _evidence(evidence)})
    return changed


def to_text(document: dict[str, Any]) -> str:
    """As JSON, every estimate on a line of its own."""
    return _lines(document, 0) + "\n"


def _goal(goal: Goal) -> dict[str, Any]:
    return {"name": goal.name, "value": goal.value, "goal": goal.goal, "pass": goal.reached}


def _evidence(evidence: Evidence) -> dict[str, Any]:
    clusters = STUDY_SEEDS[: Plan().large_episodes]
    sustained = sustainable_load(load_scenario(REFERENCE).resized(LARGE), episode_seeds(clusters))
    return {
        "decisions_per_second": {str(nodes): speed for nodes, speed in evidence.speeds.items()},
        "sustainable_load": {"nodes": LARGE, **_entry(estimate(sustained), len(sustained))},
        "scale": evidence.scale,
        "ablations": evidence.ablations,
    }


def _lines(value: Any, depth: int) -> str:
    """Indented by one blank a level; what holds no further mapping or list stands on one line."""
    if not isinstance(value, (dict, list)) or not value:
        return json.dumps(value, allow_nan=False)
    children = list(value.values()) if isinstance(value, dict) else value
    if not any(isinstance(child, (dict, list)) for child in children):
        return json.dumps(value, allow_nan=False)
    pad = " " * (depth + 1)
    if isinstance(value, dict):
        body = [f"{pad}{json.dumps(key)}: {_lines(child, depth + 1)}" for key, child in value.items()]
    else:
        body = [pad + _lines(child, depth + 1) for child in value]
    opening, closing = ("{", "}") if isinstance(value, dict) else ("[", "]")
    return opening + "\n" + ",\n".join(body) + "\n" + " " * depth + closing


def _rounded(value: Any) -> Any:
    """Floats to `DIGITS`; None for what is not finite, since JSON has no NaN."""
    if isinstance(value, dict):
        return {key: _rounded(child) for key, child in value.items()}
    if isinstance(value, list):
        return [_rounded(child) for child in value]
    if isinstance(value, (float, np.floating)):
        return float(f"{value:.{DIGITS}g}") if np.isfinite(value) else None
    return value


def _entry(found: Estimate | Highest, seeds: int) -> dict[str, Any]:
    return {"mean": found.value, "low": found.low, "high": found.high, "seeds": seeds}


def _metrics(study: Study, label: str, scorer: str) -> dict[str, Any]:
    evaluation = study.evaluations[label]
    held = evaluation.values[scorer]
    names = list(METRICS)
    if label == study.usual:
        names += [f"{name}:{pod.name}" for pod in evaluation.scenario.pod_classes for name in PERCENTILES]
    found = {
        name: _entry(evaluation.mean(scorer, name), int(np.isfinite(held[name]).sum()))
        for name in names
        if name in held and np.isfinite(held[name]).any()
    }
    found[SLA]["interquartile_mean"] = evaluation.middle(scorer, SLA).value
    return found


def _verdict(study: Study, label: str) -> dict[str, Any]:
    """The policy against the best rule there, episode by episode."""
    best = study.best_rule(label)
    ours, theirs = study.values(label, study.policy), study.values(label, best)
    difference, better = paired_difference(ours, theirs), improvement_probability(ours, theirs)
    return {
        "best_rule": best,
        "verdict": "wins" if difference.high < 0.0 else "loses" if difference.low > 0.0 else "ties",
        "difference": _entry(difference, len(ours)),
        "probability_of_improvement": _entry(better, len(ours)),
    }


def _bundle(study: Study, bundle: BundleScorer, curve: Curve | None) -> dict[str, Any]:
    role = "subject" if bundle.name == study.policy else "training seed" if bundle.name in study.seeds else "trade-off"
    return {
        "role": role,
        "model_sha256": bundle.sha256,
        "training_seed": training_seed(bundle),
        "diverged": curve.diverged if curve else None,
        "last_selection_score": curve.scores[-1][1] if curve and curve.scores else None,
    }


def _seeds(study: Study) -> dict[str, Any]:
    """Training seeds as strata: what the algorithm gives, rather than one run of it."""
    found: dict[str, Any] = {}
    for label in study.sweep().values():
        rates = {name: study.rate(label, name) for name in study.seeds}
        table = np.stack([study.values(label, name) for name in study.seeds])
        best = study.best_rule(label)
        versus = [paired_difference(row, study.values(label, best)) for row in table]
        found[label] = {
            "sla_violation_rate": rates,
            "best_rule": best,
            "best_rule_rate": study.rate(label, best),
            "all_below_best_rule": all(rate < study.rate(label, best) for rate in rates.values()),
            "intervals_below_best_rule": sum(each.high < 0.0 for each in versus),
            "spread": max(rates.values()) - min(rates.values()),
            "mean": _entry(estimate(table), table.size),
            "interquartile_mean": _entry(estimate(table, interquartile_mean), table.size),
        }
    return found


def _trade_off(study: Study) -> dict[str, Any]:
    """Every policy and rule on the usual condition: SLA violations against load variance."""
    evaluation = study.evaluations[study.usual]
    return {
        "condition": study.usual,
        "better_than_kube_default_on_both": better_on_both(study),
        "points": {
            name: {metric: evaluation.mean(name, metric).value for metric in (LOAD_VARIANCE, SLA)}
            for name in evaluation.values
            if LOAD_VARIANCE in evaluation.values[name]
        },
    }


def _highest_loads(study: Study) -> dict[str, Any]:
    label = next(iter(study.large_sweep().values()))
    episodes = len(study.values(label, study.policy))
    best = best_rule_by_load(study)
    return {
        "loads": list(study.large_sweep()),
        "best_rule": best,
        "policy_over_best_rule": _entry(load_ratio(study, study.policy, best), episodes),
        "scorers": {
            name: _entry(highest_load(study, name), episodes) for name in [study.policy, *study.rules_at(label)]
        },
    }


def _trace(study: Study, path: Path | None) -> dict[str, Any]:
    """Which file the trace condition played."""
    scenario = next(item.scenario for item in study.evaluations.values() if item.scenario.name == TRACE_FILE_SCENARIO)
    trace = load_trace(scenario)
    return {
        "file": path.name if path else None,
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest() if path else None,
        "pods": len(trace),
        "skipped": trace.skipped,
    }
