"""One decision: a pod and node names in, a priority for each name out, always, and within the deadline.

The scorer in use answers (`extender.scorer.scoring`); when it is late, missing or failing, the fallback heuristic
does, from the same rows; the reason is recorded with the decision and counted. The scorer may be replaced between any
two decisions, and a decision ends with the one it began with.

Refuses to know HTTP, Kubernetes or Prometheus.
"""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Final

import numpy as np

from extender.cluster.lookup import Named, Rows, find
from extender.cluster.table import UNKNOWN, ClusterTable
from extender.demand import Asked, asks_alike, pod_demand, urgency_rules
from extender.errors import NoScorerError
from extender.history.counterfactual import Judge
from extender.history.ledger import Decision, Ledger
from extender.history.timeline import Timeline
from extender.pods import Pod
from extender.scorer.fallback import TOO_MANY_NODES, reason_of
from extender.scorer.load import LoadedScorer
from extender.scorer.scoring import NO_ROWS, Hooks, Scoring, ScoringLimits
from extender.scorer.trust import Rating, TrainingRange
from extender.settings import Settings
from extender.trials.experiment import CANDIDATE, Experiment, workload_of
from extender.trials.shadow import Shadow
from extender.verdict import Question, Scores, Verdict, recorded
from policy import heuristics
from policy.cluster import PodDemand
from policy.errors import ScoringError
from policy.observation import observe_unclipped
from policy.priorities import MAX_PRIORITY, TEMPERATURE, priorities

ONLY_FEASIBLE: Final = "only-feasible"
"""Scorer named on decisions where one node was left, so that nobody had to choose."""

WATCH: Final = "watch"
"""Verb named on decisions about which kube-scheduler asked nothing: the watch showed the pod on its node."""

NEUTRAL: Final = "neutral"
"""Scorer named on decisions where every node got the neutral priority."""


class Engine:
    """Decides. Owned by the event loop's thread.

    Args:
        timer: monotonic seconds; the clock of `received`.
        shadow: a candidate that is told of every answer; None: there is none.
        experiment: a candidate that decides for some workloads; None: there is none.

    Attributes:
        scoring: the scorer in use, and whatever belongs to it; None while there is none.
        questions: requests for priorities since the start.
        odd_nodes: candidates of decisions that were odd, by what became of them; see `extender.scorer.trust`.
        timeline: the rows of the table as they were.
    """

    def __init__(
        self,
        *,
        settings: Settings,
        table: ClusterTable,
        loaded: LoadedScorer | None,
        ledger: Ledger,
        clock: Callable[[], float] = time.time,
        timer: Callable[[], float] = time.perf_counter,
        hooks: Hooks | None = None,
        shadow: Shadow | None = None,
        experiment: Experiment | None = None,
    ) -> None:
        self.table = table
        self.fallback = heuristics.by_name(settings.fallback, settings.kubernetes_version)
        self.ledger = ledger
        self.settings = settings
        self._scoring_limits = ScoringLimits(
            settings.demand_classes, settings.breaker_failures, settings.breaker_cooling_s, settings.range_tolerance
        )
        self._urgency = urgency_rules(settings)
        self._generator = random.Random(settings.random_seed)  # noqa: S311 # nosec B311 # a draw, no secret
        self._clock = clock
        self._timer = timer
        self.timeline = Timeline(table)
        self._hooks = replace(hooks or Hooks(), waits=self.timeline.mark)
        self._shadow = shadow
        self.questions = 0
        self._numbers = 0
        self.odd_nodes: Counter[str] = Counter()
        self._fallback_training = TrainingRange(LoadedScorer(self.fallback, TEMPERATURE, ""), settings.range_tolerance)
        self._asked: tuple[Pod, Asked] | None = None
        """The pod that was asked about last, and what it asks for."""
        self._distrusted: ScoringError | None = None
        self.scoring = None if loaded is None else self._scoring_of(loaded)
        self._experiment = experiment
        self._candidate: Scoring | None = None
        if experiment is not None:
            hooks = replace(experiment.hooks, waits=self.timeline.mark)
            self._candidate = Scoring(experiment.candidate, table, self._scoring_limits, timer, hooks)

    def distrust(self, reason: ScoringError | None) -> None:
        """Let the fallback decide for this reason: what is known is too old. None: trust it again."""
        self._distrusted = reason

    def trusted(self, scoring: Scoring | None) -> Scoring:
        """Return what is to be asked; raises `ScoringError` if there is none, or what is known is too old for it."""
        if scoring is None:
            raise NoScorerError("no policy is loaded")
        if self._distrusted is not None:
            raise self._distrusted.with_traceback(None)  # one error for many decisions: keep no frames of them
        return scoring

    def serve(self, loaded: LoadedScorer) -> None:
        """Use another scorer from the next decision on; those begun end with the former one."""
        before, self.scoring = self.scoring, self._scoring_of(loaded)
        if before is not None:
            before.retire()

    def judge_of(self, decision: Decision) -> Judge | None:
        """Return what made this decision, if it is still in use."""
        for scoring in (self.scoring, self._candidate):
            if scoring is None:
                continue
            loaded = scoring.loaded
            if (loaded.scorer.name, loaded.model_sha256) == (decision.scorer, decision.model_sha256):
                return Judge(loaded.scorer, scoring.training.odd)
        return Judge(self.fallback, self._fallback_training.odd) if decision.scorer == self.fallback.name else None

    def _scoring_of(self, loaded: LoadedScorer) -> Scoring:
        return Scoring(loaded, self.table, self._scoring_limits, self._timer, self._hooks)

    def stop(self) -> bool:
        """End the scorers' threads; returns whether they ended."""
        ended = [scoring.stop() for scoring in (self.scoring, self._candidate) if scoring is not None]
        return all(ended)

    async def decide(self, pod: Pod, nodes: Named, received: float | None = None) -> Verdict:
        """Rate every node for this pod, one of them above all others, and assume that it is chosen.

        Call `finish` with the verdict when the answer is on its way, before anything else changes the table.

        Args:
            pod: the pod to be placed.
            nodes: the feasible nodes, as the table knows them now.
            received: when the request arrived, by the engine's timer; default: now.

        Raises:
            InvalidQuantityError: a request of the pod does not parse.
        """
        received = self._timer() if received is None else received
        self.questions += 1
        wanted = self.asked_for(pod)
        demand = wanted.demand
        scoring, arm, workload = self._chosen(pod)
        question = Question(pod, wanted, "prioritize", received, arm, workload)
        table = self.table
        table.withdraw(pod.metadata.uid)  # asked again: the former attempt failed, and a pod must not see itself
        if len(nodes.names) > self.settings.max_nodes:
            neutral = Scores(np.empty(0), NEUTRAL, TOO_MANY_NODES)
            return self._conclude(question, NO_ROWS, list(dict.fromkeys(nodes.names)), neutral, None)
        rows, unknown = nodes.rows, nodes.unknown
        rating: Rating | None = None
        reason: str | None = None
        state, version = table.state, table.version
        try:
            due = received + self.settings.deadline_ms / 1000.0
            rating = await self.trusted(scoring).preferences(state, demand, rows, due)
        except ScoringError as error:
            reason = reason_of(error)
        if table.assignments != nodes.assignments:
            # while we waited nodes came or went, and a row may mean another one now: those count as unknown
            names, asked = nodes.names, nodes.asked
            same = (asked != UNKNOWN) & (table.rows_of(names) == asked)
            stayed = np.isin(rows, asked[same])
            rows, unknown = rows[stayed], list(dict.fromkeys(names[i] for i in np.flatnonzero(~same).tolist()))
            if rating is not None:
                rating = Rating(rating.preferences[stayed], None if rating.odd is None else rating.odd.take(stayed))
        if rating is None or scoring is None:
            scores = self.fallen_back(demand, rows, reason)
            version = table.version
        else:
            scores = Scores.of(scoring, rating)
        return self._conclude(question, rows, unknown, scores, scoring, version)

    def look_ahead(self, pod: Pod, nodes: Named) -> None:
        """This pod will be asked about for these nodes: score what must be, if that is quick; changes no answer.

        kube-scheduler asks for priorities as soon as it has worked on the answer to /filter; meanwhile we may work too.

        Raises:
            InvalidQuantityError: a request of the pod does not parse.
        """
        scoring, _, _ = self._chosen(pod)
        if scoring is not None and self._distrusted is None and len(nodes.names) <= self.settings.max_nodes:
            scoring.prepare(nodes.rows, self.asked_for(pod).demand)

    def note_only_feasible(self, pod: Pod, name: str, verb: str, received: float | None = None) -> Decision:
        """Remember a pod that had one node left, for which kube-scheduler asks no priorities, and assume it there.

        Args:
            pod: the pod.
            name: the node.
            verb: what told of it: `filter`, or `WATCH`.
            received: when that was, by the engine's timer; default: now.

        Raises:
            InvalidQuantityError: a request of the pod does not parse.
        """
        asked = self.asked_for(pod)
        nodes = find(self.table, [name])
        scores = Scores(np.zeros(len(nodes.rows)), ONLY_FEASIBLE, None)
        _, arm, workload = self._chosen(pod)  # nobody chose, but to leave these pods out would compare unlike pods
        received = self._timer() if received is None else received
        question = Question(pod, asked, verb, received, arm, workload)
        return self.record(self._conclude(question, nodes.rows, nodes.unknown, scores, None))

    def finish(self, verdict: Verdict) -> Decision:
        """After an answer: remember it, and score the row whose placement it assumed, if that is quick.

        The next pod alike then finds that done; where none came before, none is expected.
        """
        if self._shadow is not None:
            self._offer(self._shadow, verdict)
        decision = self.record(verdict)
        scoring = verdict.scoring
        if scoring is not None and verdict.assumed is not None and scoring.comes_again(decision.demand):
            row = self.table.row_of(verdict.assumed)
            if row != UNKNOWN:
                scoring.placed(row, decision.demand, len(verdict.rows))
        return decision

    def asked_for(self, pod: Pod) -> Asked:
        """What a pod asks for; worked out once for /filter and /prioritize, and for pods alike that follow each other.

        Raises:
            InvalidQuantityError: a request of the pod does not parse.
        """
        if self._asked is None or not (self._asked[0] is pod or asks_alike(pod, self._asked[0])):
            self._asked = pod, pod_demand(pod, self._urgency, self.table.workloads)
        return self._asked[1]

    def _chosen(self, pod: Pod) -> tuple[Scoring | None, str, str]:
        """The scorer that decides for a pod, and the pod's arm and workload in the experiment."""
        if self._experiment is None:
            return self.scoring, "", ""
        workload = workload_of(pod)
        arm = self._experiment.arm_of(workload)
        return self._candidate if arm == CANDIDATE else self.scoring, arm, workload

    def _offer(self, shadow: Shadow, verdict: Verdict) -> None:
        """Let the shadow compare what the scorer in use answered."""
        scores, scoring = verdict.scores, verdict.scoring
        if scoring is None or scoring is not self.scoring or scores.fallback_reason is not None:
            shadow.skip()
            return
        demand = verdict.question.asked.demand
        shadow.offer(verdict.state, demand, verdict.rows, scores.preferences, verdict.first, scores.temperature)

    def fallen_back(self, demand: PodDemand, rows: Rows, reason: str | None) -> Scores:
        """Preferences by the fallback, from the rows as they are now."""
        part, training = self.table.state.take(rows), self._fallback_training
        codes = training.codes(observe_unclipped(part, demand))
        preferences, odd = training.settled(self.fallback.preferences(part, demand), codes, TEMPERATURE)
        return Scores(preferences, self.fallback.name, reason, odd=odd)

    # ---- concluding ----------------------------------------------------------------------------------------------

    def _conclude(
        self,
        question: Question,
        rows: Rows,
        unknown: Sequence[str],
        scores: Scores,
        scoring: Scoring | None,
        version: int | None = None,
    ) -> Verdict:
        """Turn preferences to priorities, single one node out, assume the pod there.

        Where several nodes share the highest priority, the one of the highest preference keeps it and the others get
        one less; why so, says `extender.cluster.assumption`. Where kube-scheduler draws among nodes, because several
        are unknown or not scored and none is above them, nobody knows where the pod goes and no placement is assumed.

        `version` is the table's when the preferences were made; None: they were made now.
        """
        table, state, uid = self.table, self.table.state, question.pod.metadata.uid
        version = table.version if version is None else version
        rated = priorities(scores.preferences, scores.temperature)
        assumed: str | None = None
        first, best_count = 0, len(unknown)
        if len(rows):
            (alike,) = (rated == MAX_PRIORITY).nonzero()
            neutral = self.settings.unknown_node_priority
            best_count = len(alike) + (len(unknown) if neutral == MAX_PRIORITY else 0)
            first = self._first(alike.tolist(), scores.preferences.take(alike).tolist())
            rated[alike] = MAX_PRIORITY - 1
            rated[first] = MAX_PRIORITY
            if not unknown or neutral < MAX_PRIORITY:
                assumed = table.name_of(int(rows[first]))
        elif len(unknown) == 1:
            assumed = unknown[0]
        if assumed is not None and uid:
            asked = question.asked.demand
            requests = asked.cpu, asked.memory, asked.cpu_nonzero, asked.memory_nonzero
            table.assume(uid, assumed, *requests, gang=question.pod.spec.in_group)
        return Verdict(
            rows=rows,
            priorities=rated,
            unknown=unknown,
            assumed=assumed,
            first=first,
            best_count=best_count,
            question=question,
            scores=scores,
            state=state,
            version=version,
            scoring=scoring,
            latency_s=self._timer() - question.received,
        )

    def record(self, verdict: Verdict) -> Decision:
        """Remember a verdict, with the nodes rated best and their rows as they were."""
        self._numbers += 1
        if verdict.scores.odd is not None:
            self.odd_nodes.update(verdict.scores.odd.counts())
        key = self._experiment.key if self._experiment is not None else ""
        decision = recorded(verdict, self.table, self.timeline, self._numbers, self._clock(), key)
        self.ledger.record(decision)
        return decision

    def _first(self, positions: list[int], preferences: list[float]) -> int:
        """The one of these positions that has the highest preference; of equals, any, each as likely."""
        best = max(preferences)
        equals = [position for position, each in zip(positions, preferences, strict=True) if each == best]
        return equals[self._generator.randrange(len(equals)) if len(equals) > 1 else 0]
