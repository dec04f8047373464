"""Why this node: the features, bids, criteria and contributions behind a decision, from the rows recorded with it.

Computed when somebody asks, never on the path of a request. Refuses to look at the cluster as it is now.
"""

from __future__ import annotations

from itertools import zip_longest
from typing import Any, Final

import numpy as np
from msgspec import to_builtins
from numpy.typing import NDArray

from extender.cluster.account import SpeedBasis
from extender.history.contenders import Recalled
from extender.history.counterfactual import Judge, smallest_changes
from extender.history.ledger import TOP, Decision
from extender.history.sentences import LEAST, gains
from policy import heuristics, shortage
from policy.criteria import CLASSIC
from policy.errors import ScoringError
from policy.features import FEATURE_NAMES
from policy.observation import observe
from policy.scorers import ActorScorer, Preferences

UNKNOWN_BASIS: Final = SpeedBasis(source="unknown")
"""Of nodes beyond the best, and in records of versions before 0.2."""

SHORTAGE: Final = "memory_shortage"
"""Name of the contribution that is no bid: by how much a node falls whose memory may run out."""

CHOICES: Final = 20
"""Most names among those that kube-default rates alike."""


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
        "demand": to_builtins(decision.demand),
        "urgency": {
            "value": decision.demand.urgency,
            "source": decision.urgency_source or None,
            "reason": decision.urgency_reason or None,
        },
        "expected": None
        if decision.expected_s is None
        else {"seconds": decision.expected_s, "runs": decision.expected_runs},
        "odd_nodes": {"count": decision.odd, "some": {each.node: each.why for each in decision.odd_nodes}},
        "candidates": decision.candidates,
        "unknown_nodes": decision.unknown,
        "rated_best": decision.best_count,
        "assumed": decision.assumed,
        "top": [
            {**to_builtins(rated), "speed": None if basis is None else _basis(basis)}
            for rated, basis in zip_longest(decision.top, decision.bases[: len(decision.names)])
        ],
        "latency_ms": decision.latency_s * 1000.0,
        "attempt": decision.attempt,
        "first_at": decision.first_at,
        "former_failure": decision.former_failure,
        "state": "waiting" if decision.outcome is None else decision.outcome.state,
        "outcome": None if decision.outcome is None else to_builtins(decision.outcome),
    }


class Hindsight:
    """One decision with all that is remembered of its nodes, to be asked about any of them.

    Asks the scorer and rates all nodes by kube-default: use a thread.

    Args:
        decision: what was decided.
        judge: what decides like that now; None where nothing does.
        kubernetes: minor version of Kubernetes whose kube-default is told.

    Attributes:
        field: the nodes remembered, best first; None where none was known.
        whole: whether these are all nodes of which anything was known.
        usual: what kube-default prefers, ``[n]``.
        plain: which nodes are not odd: the scorer's own answer about them decided, bool ``[n]``.
        judge: what decided, if it can still be asked and says the same of the same rows; else None.
        unexplained: why not.
    """

    def __init__(self, decision: Decision, judge: Judge | None, kubernetes: str = heuristics.NEWEST_KUBERNETES) -> None:
        self.decision = decision
        self.kubernetes = kubernetes
        self.field, self.whole = _remembered(decision)
        self.judge: Judge | None = None
        self.unexplained: str | None = "no node known"
        self.usual: Preferences = np.empty(0)
        self.plain: NDArray[np.bool_] = np.empty(0, dtype=np.bool_)
        if self.field is None:
            return
        self.usual = heuristics.kube_default(self.field.state, decision.demand, kubernetes)
        odd = {each.node for each in decision.odd_nodes}
        self.plain = np.array([name not in odd for name in self.field.names])
        self.judge, self.unexplained = self._decider(judge)
        if self.judge is not None:
            self.plain &= ~self.judge.odd(self.field.state, decision.demand)

    def position(self, node: str) -> int | None:
        """Return the rank of a node, from 0; None if it is not among those remembered."""
        if self.field is None or node not in self.field.names:
            return None
        return self.field.names.index(node)

    def reasons(self, positions: list[int]) -> list[dict[str, Any]]:
        """Return what there is to say of the nodes at these ranks, as JSON; see `explained`."""
        if self.field is None:
            return []
        demand, rows = self.decision.demand, self.field.state.take(np.array(positions, dtype=np.intp))
        asked = None if self.judge is None else self.judge.scorer
        bids = asked.bids(rows, demand) if isinstance(asked, ActorScorer) else None
        known = [] if bids is None else [bool(np.isfinite(each).all()) for each in bids]
        criteria = asked.criteria if isinstance(asked, ActorScorer) else CLASSIC
        features, measures = observe(rows, demand), criteria.evaluate(rows, demand)
        short = shortage.shortage_chance(rows, demand)
        lowered = shortage.bounded(np.zeros(rows.shape), rows, demand)
        bases = dict(zip(self.decision.names, self.decision.bases, strict=False))
        told = []
        for i, position in enumerate(positions):
            usual = self.usual[position]
            basis = bases.get(self.field.names[position], UNKNOWN_BASIS)
            rank = 1 + int(np.count_nonzero(self.usual > usual)) if self.whole else None
            told.append(
                {
                    "node": self.field.names[position],
                    "preference": float(self.field.preferences[position]),
                    "priority": int(self.field.priorities[position]),
                    "speed": {"value": float(rows.node_speed[i]), **to_builtins(basis)},
                    "features": _named(FEATURE_NAMES, features[i]),
                    "criteria": _named(criteria.names, measures[i]),
                    "bids": None if bids is None or not known[i] else _named(criteria.names, bids[i]),
                    "contributions": None
                    if bids is None or not known[i]
                    else {**_named(criteria.names, bids[i] * measures[i]), SHORTAGE: float(lowered[i])},
                    "memory_shortage_chance": float(short[i]),
                    "kube_default": {"preference": float(usual), "rank": rank},
                }
            )
        return told

    @property
    def meanings(self) -> dict[str, str]:
        """Return what the contributions of what decided mean, in an operator's words, by name."""
        asked = None if self.judge is None else self.judge.scorer
        told = asked.criteria if isinstance(asked, ActorScorer) else CLASSIC
        return {
            **dict(zip(told.names, told.meanings, strict=True)),
            SHORTAGE: "how safe it is from running out of memory",
        }

    def choice(self) -> list[int] | None:
        """Return the ranks of the nodes that kube-default prefers to all others; None where not all are remembered."""
        if self.field is None or not self.whole:
            return None
        best: list[int] = np.flatnonzero(self.usual == self.usual.max()).tolist()
        return best

    def changes(self, position: int) -> dict[str, Any] | None:
        """Return what would have made the node at this rank win, as `smallest_changes` says; None if nobody knows."""
        if self.field is None or self.judge is None or len(self.field.names) < 2:
            return None
        target = float(np.delete(self.field.preferences, position).max())
        try:
            row = self.field.state.take(np.array([position]))
            told = smallest_changes(self.judge, row, self.decision.demand, target)
        except ScoringError:  # of features that it never met it may have no finite preference
            return None
        return {**told, "behind_by": target - float(self.field.preferences[position])}

    def why_not(self, node: str) -> dict[str, Any]:
        """Return why another node was preferred to this one, as JSON; see `explained`."""
        position = self.position(node)
        if self.field is None or position is None:
            return {"node": node, "rank": None, "why": self._absent(node)}
        first, other = self.reasons([0, position])
        lost = gains(first, other) if self.plain[[0, position]].all() else None
        changes = None if position == 0 else self.changes(position)
        odd = not bool(self.plain[position])
        return {**other, "rank": position + 1, "why": None, "odd": odd, "lost_by": lost, "counterfactual": changes}

    def _absent(self, node: str) -> str:
        if self.field is not None and node in self.field.unknown:
            return "this service did not know the node, so it got the neutral priority"
        if not self.whole:
            return "it was not among the best nodes, and the others are no longer remembered"
        return (
            "kube-scheduler did not ask about it: one of its filters refused the node, or it had found enough nodes "
            "before (percentageOfNodesToScore)"
        )

    def _decider(self, judge: Judge | None) -> tuple[Judge | None, str | None]:
        """Return what decided, if it can still be asked and says the same of the same rows; else None and why not.

        A policy of the same name may have been replaced since, and a decision kept on disk may be older than the
        process.
        """
        decision, field = self.decision, self.field
        candidate = judge if judge is not None and judge.scorer.name == decision.scorer else None
        if candidate is None and decision.scorer in heuristics.DETERMINISTIC:
            candidate = Judge(heuristics.by_name(decision.scorer, self.kubernetes))
        if candidate is None or field is None:
            return None, f"{decision.scorer} cannot be asked for its reasons now"
        plain = self.plain & ~candidate.odd(field.state, decision.demand)
        some = np.flatnonzero(plain)[:TOP]
        try:
            again = candidate.scorer.preferences(field.state.take(some), decision.demand)
        except ScoringError as error:
            return None, f"{decision.scorer} fails: {error}"
        if not np.allclose(again, field.preferences.take(some), rtol=1e-4, atol=1e-5):
            return None, f"{decision.scorer} has been replaced since, and would rate these nodes otherwise"
        return candidate, None


def explained(past: Hindsight, other: str | None = None) -> dict[str, Any]:
    """Return the decision with the reasons for its best nodes. Asks the scorer some thousand rows: use a thread.

    Args:
        past: the decision and all that is remembered of its nodes.
        other: a node of which to tell why it was not preferred; None: of none.

    Returns:
        `summary` and ``nodes``: for each of the best, best first, its features, criteria, and, where actors decided,
        bids and contributions (bid x criterion, and as ``memory_shortage`` by how much `policy.shortage` lowers a node
        whose ``memory_shortage_chance`` exceeds `policy.shortage.LARGEST_CHANCE`; they add up to the preference, except
        of a node named among ``odd_nodes``, which is judged apart: see `extender.scorer.trust`; None of one for which
        the actors gave no finite bid); ``speed``: its value,
        source, interval and evidence; and ``kube_default``: the preference that kube-scheduler's default scores give
        the same node (their sum over 100), and its rank among all nodes (1 is best).
        ``kube_default_version``: of which minor version of Kubernetes. ``all_nodes``: whether all nodes of
        the decision are remembered; where they are not, kube-default's ranks and choice are not known, and None.
        ``kube_default_choice``: the nodes that it would have preferred, at most `CHOICES`, and ``kube_default_alike``
        how many. ``counterfactual``: what would have made the second best win, as `smallest_changes` says, with
        ``node``; odd nodes are passed over; None where there is no second, or where what decided cannot be asked any
        more; then ``unexplained`` says why, and there are no bids. ``why_not``: the same as in ``nodes`` of the node
        asked about, with its ``rank``, whether it is ``odd``, what each criterion made it lose (``lost_by``) and what
        would have made it win (``counterfactual``); ``why`` tells why nothing else is known of it.
    """
    choice = past.choice()
    names = () if past.field is None else past.field.names
    counterfactual = None
    second = np.flatnonzero(past.plain)[:2].tolist()
    if len(second) > 1 and (changes := past.changes(second[1])) is not None:
        counterfactual = {"node": names[second[1]], **changes}
    return {
        **summary(past.decision),
        "kube_default_version": past.kubernetes,
        "all_nodes": past.whole,
        "nodes": past.reasons(list(range(min(TOP, len(names))))),
        "kube_default_choice": None if choice is None else [names[i] for i in choice[:CHOICES]],
        "kube_default_alike": None if choice is None else len(choice),
        "counterfactual": counterfactual,
        "unexplained": past.unexplained,
        "why_not": None if other is None else past.why_not(other),
    }


def short_reason(
    decision: Decision, node: str, judge: Judge | None, kubernetes: str = heuristics.NEWEST_KUBERNETES
) -> str:
    """Return why the pod went to this node, in a sentence or two, at most some 500 characters.

    Names nodes and criteria alone.

    Args:
        decision: what was decided.
        node: where the pod is.
        judge: what decides like that now; None where nothing does.
        kubernetes: minor version of Kubernetes whose kube-default is told.
    """
    by = decision.scorer + (f" (fallback: {decision.fallback_reason})" if decision.fallback_reason else "")
    past = Hindsight(decision, judge, kubernetes)
    field, position = past.field, past.position(node)
    if field is None or position is None:
        best = f"; it preferred {decision.names[0]}" if decision.names else ""
        return f"{node} was not among the best of {decision.candidates} nodes by {by}{best}."
    [rated] = past.reasons([position])
    said = (
        f"{node}: number {position + 1} of {decision.candidates} nodes by {by}, priority {rated['priority']} of 10, "
        f"preference {rated['preference']:.3f}"
    )
    at_risk = [rated]
    if len(field.names) > 1:
        compared = 0 if position else 1
        [other] = past.reasons([compared])
        ahead = rated["preference"] - other["preference"]
        said += f", {abs(ahead):.3f} {'ahead of' if ahead >= 0.0 else 'behind'} {other['node']}"
        gained = gains(rated, other) if past.plain[[position, compared]].all() else None
        if gained is not None:
            most = max(gained, key=lambda name: gained[name] if ahead >= 0.0 else -gained[name])
            if min(abs(ahead), abs(gained[most])) >= LEAST:
                said += f", most of it by {most} ({gained[most]:+.3f}): {past.meanings[most]}"
        at_risk.append(other)
    for each in at_risk:
        if each["memory_shortage_chance"] > shortage.LARGEST_CHANCE:
            said += f"; memory may run out on {each['node']} (chance {each['memory_shortage_chance']:.0%})"
    choice = past.choice()
    if choice is not None and position not in choice:
        said += f"; kube-default {kubernetes} would have preferred {field.names[choice[0]]}"
    return f"{said}."


def _remembered(decision: Decision) -> tuple[Recalled | None, bool]:
    """Return the nodes that are remembered, best first, and whether these are all that were known."""
    contenders = decision.contenders  # once: the ledger may forget them meanwhile
    if contenders is not None:
        return contenders.recall(), True
    if decision.rows is None:
        return None, False
    kept = Recalled(decision.names, decision.rows, decision.preferences, decision.priorities)
    return kept, len(decision.names) == decision.candidates - decision.unknown


def _basis(basis: SpeedBasis) -> dict[str, Any]:
    """Source and interval of a speed, in few bytes."""
    low, high = (None if bound is None else round(bound, 3) for bound in (basis.low, basis.high))
    told: dict[str, Any] = {"source": basis.source, "low": low, "high": high, "completions": basis.completions}
    shares = {"share_left": basis.share_left, "full_at": basis.full_at}
    return told | {name: round(share, 3) for name, share in shares.items() if share != 1.0}


def _named(names: tuple[str, ...], values: np.ndarray[Any, Any]) -> dict[str, float]:
    return {name: float(value) for name, value in zip(names, values, strict=True)}
