"""Why this node: the features, bids, criteria and contributions behind a decision, from the rows recorded with it.

Computed when somebody asks, never on the path of a request. Refuses to look at the cluster as it is now.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import numpy as np

from extender.decisions.ledger import Decision
from policy import criteria, heuristics
from policy.features import FEATURE_NAMES
from policy.observation import observe
from policy.scorers import ActorScorer, Scorer


def summary(decision: Decision) -> dict[str, Any]:
    """The decision as JSON, without the reasons."""
    return {
        "number": decision.number,
        "pod": {"uid": decision.uid, "namespace": decision.namespace, "name": decision.name},
        "at": decision.at,
        "verb": decision.verb,
        "scorer": decision.scorer,
        "fallback_reason": decision.fallback_reason,
        "warning": decision.warning,
        "demand": asdict(decision.demand),
        "candidates": decision.candidates,
        "unknown_nodes": decision.unknown,
        "rated_best": decision.best_count,
        "assumed": decision.assumed,
        "top": [asdict(rated) for rated in decision.top],
        "latency_ms": decision.latency_s * 1000.0,
        "attempt": decision.attempt,
        "first_at": decision.first_at,
        "former_failure": decision.former_failure,
        "state": "waiting" if decision.outcome is None else decision.outcome.state,
        "outcome": None if decision.outcome is None else asdict(decision.outcome),
    }


def explanation(decision: Decision, scorer: Scorer | None) -> dict[str, Any]:
    """The decision with the reasons for each of its best nodes.

    Args:
        decision: what was decided.
        scorer: what decides now; its bids are shown if it is the one that decided then, by name.

    Returns:
        `summary` and ``nodes``: for each of the best, best first, its features, criteria, and, where actors decided,
        bids and contributions (bid x criterion; they add up to the preference); and ``kube_default``: the preference
        that kube-scheduler's default score gives the same node, and its rank among these nodes (1 is best).
    """
    result = summary(decision)
    if decision.rows is None:
        return {**result, "nodes": []}
    features = observe(decision.rows, decision.demand)
    measures = criteria.evaluate(decision.rows, decision.demand)
    usual = heuristics.kube_default(decision.rows, decision.demand)
    decided_by_actors = isinstance(scorer, ActorScorer) and scorer.name == decision.scorer
    bids = (
        scorer.bids(decision.rows, decision.demand) if decided_by_actors and isinstance(scorer, ActorScorer) else None
    )
    nodes = []
    for i, rated in enumerate(decision.top):
        reasons: dict[str, Any] = {
            **asdict(rated),
            "features": _named(FEATURE_NAMES, features[i]),
            "criteria": _named(criteria.CRITERIA_NAMES, measures[i]),
            "bids": None if bids is None else _named(criteria.CRITERIA_NAMES, bids[i]),
            "contributions": None if bids is None else _named(criteria.CRITERIA_NAMES, bids[i] * measures[i]),
            "kube_default": {"preference": float(usual[i]), "rank": 1 + int(np.count_nonzero(usual > usual[i]))},
        }
        nodes.append(reasons)
    return {**result, "nodes": nodes}


def _named(names: tuple[str, ...], values: np.ndarray[Any, Any]) -> dict[str, float]:
    return {name: float(value) for name, value in zip(names, values, strict=True)}
