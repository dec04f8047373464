"""Why this node: the features, bids, criteria and contributions behind a decision, from the rows recorded with it.

Computed when somebody asks, never on the path of a request. Refuses to look at the cluster as it is now.
"""

from __future__ import annotations

from dataclasses import asdict
from itertools import zip_longest
from typing import Any

import numpy as np

from extender.cluster.account import SpeedBasis
from extender.history.counterfactual import smallest_changes
from extender.history.ledger import Decision
from policy import criteria, heuristics
from policy.cluster import ClusterState
from policy.errors import ScoringError
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
        "model_sha256": decision.model_sha256,
        "arm": decision.arm or None,
        "workload": decision.workload or None,
        "fallback_reason": decision.fallback_reason,
        "warning": decision.warning,
        "demand": asdict(decision.demand),
        "odd_nodes": {"count": decision.odd, "some": {each.node: each.why for each in decision.odd_nodes}},
        "candidates": decision.candidates,
        "unknown_nodes": decision.unknown,
        "rated_best": decision.best_count,
        "assumed": decision.assumed,
        "top": [
            {**asdict(rated), "speed": None if basis is None else _basis(basis)}
            for rated, basis in zip_longest(decision.top, decision.bases[: len(decision.names)])
        ],
        "latency_ms": decision.latency_s * 1000.0,
        "attempt": decision.attempt,
        "first_at": decision.first_at,
        "former_failure": decision.former_failure,
        "state": "waiting" if decision.outcome is None else decision.outcome.state,
        "outcome": None if decision.outcome is None else asdict(decision.outcome),
    }


def explanation(
    decision: Decision, scorer: Scorer | None, kubernetes: str = heuristics.NEWEST_KUBERNETES
) -> dict[str, Any]:
    """The decision with the reasons for each of its best nodes. Asks the scorer some thousand rows: use a thread.

    Args:
        decision: what was decided.
        scorer: what decides now; None while nothing does.
        kubernetes: minor version of Kubernetes whose kube-default is told.

    Returns:
        `summary` and ``nodes``: for each of the best, best first, its features, criteria, and, where actors decided,
        bids and contributions (bid x criterion; they add up to the preference, except of a node named among
        ``odd_nodes``, which is judged apart: see `extender.scorer.trust`); ``kube_default``: the preference that
        kube-scheduler's default scores give the same node (their sum over 100), and its rank among these nodes (1 is
        best); and ``speed``: its value, source, interval and evidence. ``kube_default_version``: of which minor version
        of Kubernetes. ``kube_default_choice``: the nodes among them that it would have preferred. ``counterfactual``:
        what would have made the second best win, as `smallest_changes` says, with ``node``; odd nodes are passed over;
        None where there is no second, or where what decided cannot be asked any more; then ``unexplained`` says why,
        and there are no bids.
    """
    result = {**summary(decision), "kube_default_version": kubernetes}
    if decision.rows is None:
        return {
            **result,
            "nodes": [],
            "kube_default_choice": [],
            "counterfactual": None,
            "unexplained": "no node known",
        }
    features = observe(decision.rows, decision.demand)
    measures = criteria.evaluate(decision.rows, decision.demand)
    usual = heuristics.kube_default(decision.rows, decision.demand, kubernetes)
    decider, unexplained = _decider(decision, decision.rows, scorer, kubernetes)
    bids = decider.bids(decision.rows, decision.demand) if isinstance(decider, ActorScorer) else None
    nodes = []
    for i, rated in enumerate(decision.top):
        basis = decision.bases[i] if i < len(decision.bases) else SpeedBasis()
        reasons: dict[str, Any] = {
            **asdict(rated),
            "speed": {"value": float(decision.rows.node_speed[i]), **asdict(basis)},
            "features": _named(FEATURE_NAMES, features[i]),
            "criteria": _named(criteria.CRITERIA_NAMES, measures[i]),
            "bids": None if bids is None else _named(criteria.CRITERIA_NAMES, bids[i]),
            "contributions": None if bids is None else _named(criteria.CRITERIA_NAMES, bids[i] * measures[i]),
            "kube_default": {"preference": float(usual[i]), "rank": 1 + int(np.count_nonzero(usual > usual[i]))},
        }
        nodes.append(reasons)
    counterfactual = None
    plain = _plain(decision)
    if decider is not None and len(plain) > 1:
        changes = smallest_changes(decider, decision.rows, decision.demand, winner=plain[0], other=plain[1])
        counterfactual = {"node": decision.names[plain[1]], **changes}
    return {
        **result,
        "nodes": nodes,
        "kube_default_choice": [decision.names[i] for i in np.flatnonzero(usual == usual.max()).tolist()],
        "counterfactual": counterfactual,
        "unexplained": unexplained,
    }


def short_reason(
    decision: Decision, node: str, scorer: Scorer | None, kubernetes: str = heuristics.NEWEST_KUBERNETES
) -> str:
    """Why the pod went to this node, in a sentence or two, at most some 500 characters; names nodes and criteria alone.

    Args:
        decision: what was decided.
        node: where the pod is.
        scorer: what decides now; None while nothing does.
        kubernetes: minor version of Kubernetes whose kube-default is told.
    """
    by = decision.scorer + (f" (fallback: {decision.fallback_reason})" if decision.fallback_reason else "")
    if decision.rows is None or node not in decision.names:
        best = f"; it preferred {decision.names[0]}" if decision.names else ""
        return f"{node} was not among the best of {decision.candidates} nodes by {by}{best}."
    position = decision.names.index(node)
    rated = decision.top[position]
    said = (
        f"{node}: number {position + 1} of {decision.candidates} nodes by {by}, priority {rated.priority} of 10, "
        f"preference {rated.preference:.3f}"
    )
    others = [i for i in range(len(decision.names)) if i != position]
    decider, _ = _decider(decision, decision.rows, scorer, kubernetes)
    if others:
        ahead = rated.preference - decision.top[others[0]].preference
        said += f", {abs(ahead):.3f} {'ahead of' if ahead >= 0.0 else 'behind'} {decision.names[others[0]]}"
        if isinstance(decider, ActorScorer) and {position, others[0]} <= set(_plain(decision)):
            parts = decider.bids(decision.rows, decision.demand) * criteria.evaluate(decision.rows, decision.demand)
            gained = parts[position] - parts[others[0]]
            most = int(np.argmax(gained if ahead >= 0.0 else -gained))
            said += f", most of it by {criteria.CRITERIA_NAMES[most]} ({gained[most]:+.3f})"
    usual = heuristics.kube_default(decision.rows, decision.demand, kubernetes)
    if usual[position] < usual.max():
        said += f"; kube-default {kubernetes} would have preferred {decision.names[int(usual.argmax())]}"
    return f"{said}."


def _decider(
    decision: Decision, rows: ClusterState, scorer: Scorer | None, kubernetes: str
) -> tuple[Scorer | None, str | None]:
    """What decided, if it can still be asked and says the same of the same rows; else None and why not.

    A policy of the same name may have been replaced since, and a decision kept on disk may be older than the process.
    """
    candidate = scorer if scorer is not None and scorer.name == decision.scorer else None
    if candidate is None and decision.scorer in heuristics.DETERMINISTIC:
        candidate = heuristics.by_name(decision.scorer, kubernetes)
    if candidate is None:
        return None, f"{decision.scorer} cannot be asked for its reasons now"
    plain = np.array(_plain(decision), dtype=np.intp)
    try:
        again = candidate.preferences(rows.take(plain), decision.demand)
    except ScoringError as error:
        return None, f"{decision.scorer} fails: {error}"
    if not np.allclose(again, decision.preferences.take(plain), rtol=1e-4, atol=1e-5):
        return None, f"{decision.scorer} has been replaced since, and would rate these nodes otherwise"
    return candidate, None


def _plain(decision: Decision) -> list[int]:
    """Positions, among the best, of the nodes that are not odd: the scorer's own answer about them decided."""
    odd = {each.node for each in decision.odd_nodes}
    return [i for i, name in enumerate(decision.names) if name not in odd]


def _basis(basis: SpeedBasis) -> dict[str, Any]:
    """Source and interval of a speed, in few bytes."""
    low, high = (None if bound is None else round(bound, 3) for bound in (basis.low, basis.high))
    return {"source": basis.source, "low": low, "high": high, "completions": basis.completions}


def _named(names: tuple[str, ...], values: np.ndarray[Any, Any]) -> dict[str, float]:
    return {name: float(value) for name, value in zip(names, values, strict=True)}
