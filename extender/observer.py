"""What we would have chosen for each pod that the cluster's own scheduler places: a first look that changes nothing.

As the watch shows that a waiting pod is on a node, and before the table counts it there, the nodes where it could have
run are rated as they are. The record is a decision like any other, so that it can be explained, and the ledger joins it
with what becomes of the pod. A scheduler saw the cluster a moment earlier than we do, and may have looked at a part of
it only: what follows from that counts as a difference. Refuses to assume anything, and to write to the cluster.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol, runtime_checkable

import numpy as np
import structlog

from extender.cluster.decoding import ObservedPod
from extender.cluster.listeners import PodListener
from extender.cluster.lookup import Rows
from extender.cluster.table import UNKNOWN, ClusterTable
from extender.engine import Engine
from extender.errors import UNDECODABLE, kind_of
from extender.feasibility import Constraints, NodeFacts, Room, can_run, constraints_of
from extender.history.ledger import Decision
from extender.pods import Pod
from extender.scorer.fallback import reason_of
from extender.verdict import Question, Scores, Verdict
from policy.cluster import ClusterState, PodDemand
from policy.errors import InvalidQuantityError, ScoringError
from policy.priorities import MAX_PRIORITY, priorities

OBSERVE: Final = "observe"
"""Verb named on decisions that were only observed."""

RESULTS: Final = ("same", "other", "one_node", "skipped", "not_rated")
"""What comes of a pod: it went to a node that we rate as high as any; to another one; there was no other where it could
run; there was no time to rate it; or what it asks for does not parse, or the table does not know its node."""

SHARE: Final = 0.25
"""Most of the event loop's time that ratings may take; the watch and the endpoints need the rest."""

SAVED_S: Final = 1.0
"""Seconds of rating that may be saved up for a burst of pods."""

MEASURES: Final[Mapping[str, Callable[[ClusterState], np.ndarray[Any, Any]]]] = {
    "node_speed": lambda state: state.node_speed,
    "cpu_used": lambda state: state.cpu_used / state.cpu_allocatable,
    "cpu_pressure": lambda state: state.cpu_pressure,
    "memory_used": lambda state: state.memory_used / state.memory_allocatable,
    "cpu_requested": lambda state: state.cpu_requested / state.cpu_allocatable,
}
"""What is compared of the node that was taken and the one that we would have taken, before the pod was there."""

_log = structlog.stdlib.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class _Choice:
    """Nodes where a pod could have run, the one it went to, and what restricts it without being modelled."""

    rows: Rows
    taken: int
    foreseen: bool
    unmodelled: Sequence[str]


@runtime_checkable
class Observable(Protocol):
    """A source that keeps what filters read of nodes."""

    facts: dict[str, NodeFacts]


class Observer(PodListener):
    """Rates nodes for pods that others place; to be told before the ledger.

    Args:
        engine: whose scorer, fallback and ledger are used.
        source: keeps what filters read of nodes; without that no pod can be rated.
        decided: is told of each record.
        clock: seconds since the epoch.
        timer: monotonic seconds.

    Attributes:
        results: pods by what came of them, see `RESULTS`.
        unmodelled: pods by what restricts them and is not modelled.
        not_foreseen: pods that went where, by what is modelled, they could not run.
    """

    def __init__(
        self,
        *,
        engine: Engine,
        source: object,
        decided: Callable[[Decision], None],
        clock: Callable[[], float] = time.time,
        timer: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._engine = engine
        self._table: ClusterTable = engine.table
        self._source = source
        self._decided = decided
        self._timer = timer
        self._since = clock()
        self._saved_s, self._saved_at = SAVED_S, timer()
        self.results: Counter[str] = Counter()
        self.unmodelled: Counter[str] = Counter()
        self.not_foreseen = 0
        self._sums = {name: [0.0, 0.0] for name in MEASURES}

    def pod_placed(self, pod: Pod, node: str) -> None:
        """Rate the nodes where this pod could have run, and remember what came of it."""
        received = self._timer()
        self._saved_s = min(self._saved_s + SHARE * (received - self._saved_at), SAVED_S)
        self._saved_at = received
        if self._saved_s <= 0.0:
            self.results["skipped"] += 1
            return
        try:
            self._observe(pod, node, received)
        except (InvalidQuantityError, *UNDECODABLE) as error:
            _log.warning(
                "cannot observe a pod", pod=f"{pod.metadata.namespace}/{pod.metadata.name}", why=kind_of(error)
            )
            self.results["not_rated"] += 1
        self._saved_s -= self._timer() - received

    def _observe(self, pod: Pod, node: str, received: float) -> None:
        asked = self._engine.asked_for(pod)
        choice = self._choice(pod, node, asked.demand)
        if choice is None:
            self.results["not_rated"] += 1
            return
        self.unmodelled.update(choice.unmodelled)
        self.not_foreseen += not choice.foreseen
        verdict = self._rated(Question(pod, asked, OBSERVE, received), choice.rows)
        self._decided(self._engine.record(verdict))
        self._count(verdict, choice)

    def document(self) -> dict[str, Any]:
        """What came of the pods observed, as JSON."""
        same, other = self.results["same"], self.results["other"]
        return {
            "since": self._since,
            "pods": sum(self.results.values()),
            "results": {name: self.results[name] for name in RESULTS},
            "same_share": same / (same + other) if same + other else None,
            "not_foreseen": self.not_foreseen,
            "unmodelled": dict(self.unmodelled),
            "where_other": {
                name: {"taken": taken / other, "ours": ours / other} if other else None
                for name, (taken, ours) in self._sums.items()
            },
        }

    def _choice(self, pod: Pod, node: str, demand: PodDemand) -> _Choice | None:
        taken = self._table.row_of(node)
        if taken == UNKNOWN or not isinstance(pod, ObservedPod):
            return None
        constraints = constraints_of(pod.source)
        rows = self._feasible(constraints, demand)
        foreseen = taken in rows
        if not foreseen:
            rows.append(taken)
        return _Choice(np.array(rows, dtype=np.intp), taken, foreseen, constraints.unmodelled())

    def _feasible(self, constraints: Constraints, demand: PodDemand) -> list[int]:
        """Rows of the nodes where a pod could run."""
        table, state = self._table, self._table.state
        cpu = (state.cpu_allocatable - state.cpu_requested).tolist()
        memory = (state.memory_allocatable - state.memory_requested).tolist()
        extended = constraints.extended()
        found = []
        for name, facts in self._source.facts.items() if isinstance(self._source, Observable) else ():
            row = table.row_of(name)
            if row != UNKNOWN:
                room = Room(cpu[row], memory[row], facts.pods - table.pods_on(name))
                if can_run(name, facts, room, constraints, demand.cpu, demand.memory, extended):
                    found.append(row)
        return found

    def _rated(self, question: Question, rows: Rows) -> Verdict:
        """Our answer for these rows, had we been asked; it is assumed nowhere."""
        engine, state = self._engine, self._table.state
        try:
            scoring = engine.trusted(engine.scoring)
            scores = Scores.of(scoring, scoring.rated(state.take(rows), question.asked.demand))
        except ScoringError as error:
            scores = engine.fallen_back(question.asked.demand, rows, reason_of(error))
        rated = priorities(scores.preferences, scores.temperature)
        first = int(scores.preferences.argmax())
        alike = int(np.count_nonzero(rated == MAX_PRIORITY))
        name = self._table.name_of(int(rows[first]))
        return Verdict(
            rows=rows,
            priorities=rated,
            unknown=(),
            assumed=name,
            first=first,
            best_count=alike,
            question=question,
            scores=scores,
            state=state,
            version=self._table.version,
            scoring=None,
            latency_s=self._timer() - question.received,
        )

    def _count(self, verdict: Verdict, choice: _Choice) -> None:
        if len(verdict.rows) == 1:
            self.results["one_node"] += 1
            return
        (position,) = np.flatnonzero(verdict.rows == choice.taken)
        if verdict.priorities[position] == MAX_PRIORITY:
            self.results["same"] += 1
            return
        self.results["other"] += 1
        both = verdict.state.take(np.array([choice.taken, verdict.rows[verdict.first]], dtype=np.intp))
        for name, measure in MEASURES.items():
            for index, value in enumerate(measure(both).tolist()):
                self._sums[name][index] += value


def as_text(found: Mapping[str, Any]) -> str:
    """What came of the pods observed, for people."""
    results = found["results"]
    lines = [f"{found['pods']} pods were placed by others while we looked on."]
    if found["same_share"] is not None:
        compared = results["same"] + results["other"]
        lines.append(
            f"Of {compared} with a choice, {results['same']} ({found['same_share']:.1%}) went to a node that we rate "
            "as high as any."
        )
    if results["other"]:
        lines.append(f"The other {results['other']} we would have placed elsewhere. Means before the pod was there:")
        lines.append(f"  {'':14} {'their node':>10} {'our node':>10}")
        for name, means in found["where_other"].items():
            lines.append(f"  {name:14} {means['taken']:10.3f} {means['ours']:10.3f}")
    if results["one_node"]:
        lines.append(f"{results['one_node']} could run on one node only.")
    if results["skipped"]:
        lines.append(f"{results['skipped']} came too fast to be rated; the others are a sample.")
    if results["not_rated"]:
        lines.append(f"{results['not_rated']} could not be rated; the log says why.")
    if found["not_foreseen"]:
        lines.append(f"{found['not_foreseen']} went where, by what we model, they could not run.")
    if found["unmodelled"]:
        told = ", ".join(f"{name.replace('_', ' ')} ({count})" for name, count in sorted(found["unmodelled"].items()))
        lines.append(f"Restrictions that are not modelled, by pods that have them: {told}.")
    return "\n".join(lines)
