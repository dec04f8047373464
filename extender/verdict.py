"""The answer to one question, with all that the record of it is made from. Decides nothing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from extender.cluster.lookup import Rows
from extender.cluster.table import ClusterTable
from extender.demand import Asked
from extender.history.contenders import Contenders
from extender.history.ledger import TOP, Decision, OddNode
from extender.history.timeline import Timeline
from extender.pods import Pod
from extender.scorer.scoring import Scoring
from extender.scorer.trust import OddRows, Rating
from policy.cluster import ClusterState
from policy.observation import observe_unclipped
from policy.priorities import TEMPERATURE
from policy.scorers import Preferences


class Scores(NamedTuple):
    """Preferences ``[n]``, who gave them, which of the rows are odd, and how sharply priorities fall with them."""

    preferences: Preferences
    scorer: str
    fallback_reason: str | None
    model_sha256: str = ""
    odd: OddRows | None = None
    temperature: float = TEMPERATURE

    @classmethod
    def of(cls, scoring: Scoring, rating: Rating) -> Scores:
        """Return what a scorer, which is no fallback, gave."""
        loaded = scoring.loaded
        name, digest = loaded.scorer.name, loaded.model_sha256
        return cls(rating.preferences, name, None, digest, rating.odd, loaded.temperature)


class Question(NamedTuple):
    """The pod, what it asks for, the verb, when it was asked, its arm and workload."""

    pod: Pod
    asked: Asked
    verb: str
    received: float
    arm: str = ""
    workload: str = ""


class Verdict(NamedTuple):
    """The answer, and what `Engine.finish` makes the record of it from."""

    rows: Rows  # distinct known nodes by row, ``[n]``
    priorities: NDArray[np.int64]  # theirs, ``[n]``, 0..10
    unknown: Sequence[str]  # names of all other nodes
    assumed: str | None  # the node the pod is assumed to go to; None if there is none, or kube-scheduler draws one
    first: int  # its position in `rows`; meaningless where there are no rows
    best_count: int  # nodes that would have shared the highest priority
    # question, scores: what was asked, and what the priorities were made of
    question: Question
    scores: Scores
    state: ClusterState  # the table's columns as they were
    version: int  # of the table when the preferences were made
    scoring: Scoring | None  # what was asked; None if nothing was
    latency_s: float  # time from the request's arrival to the verdict, seconds


def recorded(
    verdict: Verdict, table: ClusterTable, timeline: Timeline, number: int, at: float, experiment: str
) -> Decision:
    """The record of a verdict, with the nodes rated best and their rows as they were.

    Args:
        verdict: what was answered; nothing may have changed the table since, but for the placement it assumed.
        table: what is known.
        timeline: its rows as they were.
        number: of the decision.
        at: seconds since the epoch.
        experiment: key of the experiment; "" without one.
    """
    question, scores, rows = verdict.question, verdict.scores, verdict.rows
    top = np.array(_leading(scores.preferences, TOP, verdict.first) if len(rows) else (), dtype=np.intp)
    top_rows = rows.take(top)
    names = tuple(table.name_of(row) or "" for row in top_rows.tolist())
    metadata, asked = question.pod.metadata, question.asked
    expected = table.workloads.expected_s(question.pod)
    return Decision(
        number=number,
        uid=metadata.uid,
        namespace=metadata.namespace,
        name=metadata.name,
        at=at,
        verb=question.verb,
        scorer=scores.scorer,
        fallback_reason=scores.fallback_reason,
        warning=asked.warning,
        demand=asked.demand,
        urgency_source=asked.urgency.source,
        urgency_reason=asked.urgency.reason,
        expected_s=None if expected is None else round(expected.seconds, 3),
        expected_runs=0 if expected is None else expected.runs,
        candidates=len(rows) + len(verdict.unknown),
        unknown=len(verdict.unknown),
        best_count=verdict.best_count,
        assumed=verdict.assumed,
        names=names,
        preferences=scores.preferences.take(top),
        priorities=verdict.priorities.take(top),
        # the columns themselves: the placement just assumed is not derived into them yet
        rows=table.copy(top_rows) if len(rows) else None,
        latency_s=verdict.latency_s,
        model_sha256=scores.model_sha256,
        arm=question.arm,
        workload=question.workload,
        experiment=experiment,
        odd=0 if scores.odd is None else int(np.count_nonzero(scores.odd.codes)),
        bases=tuple(map(table.basis_of, names)),
        odd_nodes=() if scores.odd is None else _told(scores.odd, top.tolist(), verdict, table),
        contenders=_contenders(verdict, timeline),
    )


def _contenders(verdict: Verdict, timeline: Timeline) -> Contenders | None:
    """All nodes that the verdict is about; None where none was rated, or the rows it was made from are not known."""
    moment = timeline.at(verdict.version) if len(verdict.rows) else None
    if moment is None:
        return None
    rows, preferences, priorities = verdict.rows, verdict.scores.preferences, verdict.priorities
    return Contenders(moment, rows, preferences, priorities, verdict.unknown, verdict.scores.temperature)


def _told(odd: OddRows, top: list[int], verdict: Verdict, table: ClusterTable) -> tuple[OddNode, ...]:
    """Some of the odd nodes, and why they are odd: those rated best, then the others."""
    others = [position for position in np.flatnonzero(odd.codes).tolist() if position not in top]
    positions = [*(position for position in top if odd.codes[position]), *others][:TOP]
    rows = verdict.rows.take(positions)
    observation = observe_unclipped(table.copy(rows), verdict.question.asked.demand)
    return tuple(
        OddNode(table.name_of(row) or "", odd.training.why(each, code))
        for row, each, code in zip(rows.tolist(), observation, odd.codes[positions].tolist(), strict=True)
    )


def _leading(preferences: Preferences, count: int, first: int) -> list[int]:
    """Positions of the `count` highest preferences, best first; `first`, one of the best, leads them."""
    size = len(preferences)
    if size <= count:
        positions, values = list(range(size)), preferences.tolist()
    else:
        highest = preferences.argpartition(size - count - 1)[-count - 1 :]
        positions, values = highest.tolist(), preferences.take(highest).tolist()
    # by falling preference, then by position
    ranked = sorted((-value, each) for value, each in zip(values, positions, strict=True) if each != first)
    return [first, *(each for _, each in ranked[: count - 1])]
