"""Late placements avoided against kube-default: what is gathered for the estimate, and how it is told.

While all nodes of a decision are remembered, kube-default's choice among them is worked out and kept. Once the pod has
ended, `extender.trials.effect` estimates from both. Works in a thread, never on the event loop.
"""

from __future__ import annotations

import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from extender.errors import EvidenceError
from extender.history.ledger import Decision, Ledger, usual_s
from extender.history.outcomes import Outcome
from extender.pace import unhurried
from extender.templates import without_ending
from extender.trials.comparison import CONFIDENCE
from extender.trials.effect import NODE, Estimate, Evidence, Values, by_arms, by_model, described
from extender.trials.experiment import ARMS, CANDIDATE, CONTROL, Experiment
from policy import heuristics

DAY_S: Final = 86400.0

LOOKED_AT: Final = 200
"""Decisions per update whose kube-default choice is worked out, up to 3 ms each on 5,000 nodes."""

MOST_SIGHTS: Final = 10_000
"""Decisions whose kube-default choice is kept, some 0.7 KB each."""

MOST_PODS: Final = 4000
"""Pods that the model is fitted to; of more, every second, third or so."""

TIES: Final = 4
"""Nodes kept of those that kube-default prefers alike; kube-scheduler draws one of them all."""

RESULTS: Final = ("same", "other", "unlike", "forgotten", "stopped", "no_sla")
"""What is known of pods that ended; `unlike` is part of `other`."""

METHODS: Final = {
    "experiment": "measured by the experiment",
    "model": "estimated by a model of how long pods run, not by an experiment",
}


@dataclass(frozen=True, slots=True)
class Sight:
    """What kube-default would have chosen for one decision."""

    number: int  # of the decision
    alike: int  # nodes that it prefers to all others
    names: tuple[str, ...]  # of some of them, at most `TIES`
    nodes: NDArray[np.float32]  # the pod on these, as `described`, ``[len(names), 8]``
    leading: frozenset[str]  # those of the nodes rated best that it prefers too


class Avoidance:
    """Estimates the late placements avoided over the last day, from the decisions that a ledger remembers.

    Args:
        ledger: remembers decisions and what became of the pods.
        kubernetes: minor version of Kubernetes whose kube-default is meant.
        experiment: in progress; None: there is none.
        scorer: name of what decides outside the candidate's arm.
        clock: seconds since the epoch; that of decisions.

    Attributes:
        latest: what `update` returned last.
    """

    def __init__(
        self,
        ledger: Ledger,
        kubernetes: str,
        experiment: Experiment | None = None,
        scorer: str = "",
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._ledger = ledger
        self._kubernetes = kubernetes
        self._experiment = experiment
        self._kube_arm = _arm_of_kube_default(experiment, scorer)
        self._clock = clock
        self._sights: OrderedDict[str, Sight] = OrderedDict()
        self._looked_up_to = -1
        self.latest = _told(clock(), 0.0, Counter(), None, None, "no pod has been looked at yet")

    def update(self) -> dict[str, Any]:
        """Look at new decisions and estimate again; in a thread.

        Returns:
            JSON: ``value``, ``low`` and ``high``, the late placements avoided and their 95 % interval, or None and
            ``why``; ``method``: `experiment` or `model`; ``at`` and ``hours``: when, and how far back; ``ended``: pods
            that ended then, by what is known of them: ``same`` and ``other`` node by kube-default, of these ``unlike``
            any node seen, ``forgotten`` nodes, ``stopped`` at their deadline, or with ``no_sla`` to be late by;
            ``sentence``: the same in words.
        """
        self._look()
        self.latest = self._estimated()
        return self.latest

    def _look(self) -> None:
        """Work out what kube-default would have chosen, while the nodes of the decision are remembered."""
        looked_up_to, looked_at = self._looked_up_to, 0
        for place, decision in unhurried(self._ledger.newest_first()):
            if place <= looked_up_to or looked_at >= LOOKED_AT:
                break
            self._looked_up_to = max(self._looked_up_to, place)
            if (sight := sighted(decision, self._kubernetes)) is not None:
                looked_at += 1
                self._sights[decision.uid] = sight
        for uid in unhurried([uid for uid in self._sights if self._ledger.get(uid) is None]):
            del self._sights[uid]
        while len(self._sights) > MOST_SIGHTS:
            self._sights.popitem(last=False)

    def _estimated(self) -> dict[str, Any]:
        now = self._clock()
        ended, oldest = list[tuple[Decision, Outcome]](), now
        for decision in unhurried(self._ledger.latest()):
            outcome, oldest = decision.outcome, min(oldest, decision.at)
            if (
                outcome is not None
                and outcome.bound_at is not None
                and now - DAY_S <= (outcome.removed_at or 0.0) <= now
            ):
                ended.append((decision, outcome))
        since = max(now - DAY_S, oldest)
        if self._experiment is not None and self._kube_arm is not None:
            return self._by_arms(now, since, ended, self._experiment.key, self._kube_arm)
        return self._by_model(now, since, ended)

    def _by_arms(
        self, now: float, since: float, ended: list[tuple[Decision, Outcome]], key: str, kube_arm: str
    ) -> dict[str, Any]:
        in_arms = [(it, what) for it, what in unhurried(ended) if it.experiment == key and it.arm in ARMS]
        known = [(it, what.late) for it, what in unhurried(in_arms) if what.late is not None]
        kube = np.array([it.arm == kube_arm for it, _ in known], dtype=np.bool_)
        counts = Counter({"same": int(kube.sum()), "other": int((~kube).sum()), "no_sla": len(ended) - len(known)})
        late = np.array([each for _, each in known], dtype=np.bool_)
        try:
            found = by_arms(late, _numbered([it for it, _ in known]), kube)
        except EvidenceError as missing:
            return _told(now, since, counts, "experiment", None, str(missing))
        return _told(now, since, counts, "experiment", found, None)

    def _by_model(self, now: float, since: float, ended: list[tuple[Decision, Outcome]]) -> dict[str, Any]:
        counts, known = Counter[str](), list[tuple[Decision, Outcome, Sight]]()
        for decision, outcome in unhurried(ended):
            sight = self._sights.get(decision.uid)
            if outcome.late is None:
                counts["no_sla"] += 1
            elif outcome.slowdown is None:
                counts["stopped"] += 1
            elif sight is None or sight.number != decision.number or outcome.node not in decision.names:
                counts["forgotten"] += 1
            else:
                known.append((decision, outcome, sight))
        every = -(-len(known) // MOST_PODS) or 1
        evidence = _gathered(known[::every])
        elsewhere = every * float(evidence.weights.sum())
        counts["other"] = round(elsewhere)
        counts["same"] = len(known) - counts["other"]
        try:
            found = by_model(evidence)
        except EvidenceError as missing:
            return _told(now, since, counts, "model", None, str(missing))
        found = Estimate(*(every * each for each in found))
        counts["unlike"] = round(found.unlike)
        return _told(now, since, counts, "model", found, None)


def sighted(decision: Decision, kubernetes: str) -> Sight | None:
    """Return what kube-default would have chosen; None where the nodes are forgotten."""
    contenders = decision.contenders  # once: the ledger may forget them meanwhile
    if contenders is None:
        return None
    field = contenders.recall()
    usual = heuristics.kube_default(field.state, decision.demand, kubernetes)
    best = np.flatnonzero(usual == usual.max())
    kept = best[np.linspace(0, len(best) - 1, min(TIES, len(best))).round().astype(np.intp)]
    return Sight(
        number=decision.number,
        alike=len(best),
        names=tuple(field.names[i] for i in kept.tolist()),
        nodes=described(field.state.take(kept), decision.demand, 1.0).astype(np.float32),
        leading=frozenset(decision.names).intersection(field.names[i] for i in best.tolist()),
    )


def _gathered(known: Iterable[tuple[Decision, Outcome, Sight]]) -> Evidence:
    seen, times, pods = list[Values](), list[tuple[float, float, float, float]](), list[int]()
    other, weights, decisions = list[Values](), list[float](), list[Decision]()
    for decision, outcome, sight in unhurried(known):
        expected = outcome.expected_s or usual_s(decision)
        if decision.rows is None or outcome.node is None or outcome.slowdown is None or not expected:
            continue
        lived = outcome.slowdown * expected
        ran = (outcome.finished_at or outcome.removed_at or 0.0) - (outcome.bound_at or 0.0)
        ran = min(ran, lived) if ran > 0.0 else lived
        times.append((lived - ran, max(ran, 1e-3), expected, expected / decision.demand.urgency))
        place = np.array([decision.names.index(outcome.node)])
        seen.append(described(decision.rows.take(place), decision.demand, expected)[0])
        elsewhere = [i for i, name in enumerate(sight.names) if name != outcome.node]
        share = (sight.alike - (outcome.node in sight.leading)) / sight.alike
        for i in elsewhere:
            other.append(np.append(sight.nodes[i, :-1].astype(np.float64), seen[-1][-1]))
            pods.append(len(decisions))
            weights.append(share / len(elsewhere))
        decisions.append(decision)
    waited, ran_s, expected_s, allowed = np.array(times, dtype=np.float64).reshape(-1, 4).T
    return Evidence(
        np.array(seen).reshape(-1, NODE + 2),
        waited,
        ran_s,
        expected_s,
        allowed,
        _numbered(decisions),
        np.array(other).reshape(-1, NODE + 2),
        np.array(pods, dtype=np.intp),
        np.array(weights, dtype=np.float64),
    )


def _numbered(decisions: Iterable[Decision]) -> NDArray[np.intp]:
    """The same number for pods of one workload, ``[n]``: by its name where no experiment says which it is."""
    numbers = dict[str, int]()
    names = (it.workload or f"{it.namespace}/{without_ending(it.name)}" for it in unhurried(decisions))
    return np.array([numbers.setdefault(name, len(numbers)) for name in names], dtype=np.intp)


def _arm_of_kube_default(experiment: Experiment | None, scorer: str) -> str | None:
    """The arm in which kube-default alone decides; None where there is none, or both do."""
    if experiment is None:
        return None
    deciders = {CONTROL: scorer, CANDIDATE: experiment.candidate.scorer.name}
    arms = [arm for arm, name in deciders.items() if name == heuristics.KUBE_DEFAULT]
    return arms[0] if len(arms) == 1 else None


def _told(
    now: float, since: float, counts: Counter[str], method: str | None, found: Estimate | None, why: str | None
) -> dict[str, Any]:
    told = {name: counts[name] for name in RESULTS}
    document: dict[str, Any] = {
        "value": None if found is None else found.value,
        "low": None if found is None else found.low,
        "high": None if found is None else found.high,
        "confidence": CONFIDENCE,
        "method": method,
        "why": why,
        "at": now,
        "hours": max(now - since, 0.0) / 3600.0 if since else 0.0,
        "ended": told,
    }
    return {**document, "sentence": sentence(document)}


def sentence(document: dict[str, Any]) -> str:
    """The estimate in words, for people."""
    counts, value = document["ended"], document["value"]
    every = sum(counts.values()) - counts["unlike"]
    judged = counts["same"] + counts["other"] - counts["unlike"]
    over = f"over the last {document['hours']:.3g} h"
    if value is None:
        why = document["why"]
        return f"Late placements avoided against kube-default {over}: not enough seen. {why[:1].upper()}{why[1:]}."
    more = f"{abs(value):.0f} late placements {'avoided' if value >= 0.0 else 'more, not fewer,'} against kube-default"
    chance = "; no effect is possible too" if document["low"] <= 0.0 <= document["high"] else ""
    return (
        f"About {more} {over} (95 % interval {document['low']:.0f} to {document['high']:.0f}{chance}), "
        f"{METHODS[document['method']]}. It says something of {judged} of {every} pods that ended."
    )
