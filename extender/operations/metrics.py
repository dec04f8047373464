"""Every metric of the service, in a registry of its own. Refuses to decide when anything is measured.

Counters of decisions are moved where the event happens (about a microsecond each). Gauges are refreshed by the
housekeeping task and when they are scraped, never by a request. Requests and scored rows are counted then too, or a few
dozen at a time: one after the other they cost a tenth of what they do each by itself, when caches are cold.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.metrics import MetricWrapperBase

from extender.cluster.source import INPUTS, ClusterSource
from extender.cluster.table import ClusterTable
from extender.history.ledger import Decision, Ledger
from extender.history.notes import Counts as NoteCounts
from extender.operations.signals import AT_RISK, RATED, RESOURCES, Judgement
from extender.scorer.breaker import Breaker, BreakerState
from extender.scorer.fallback import FALLBACK_REASONS
from extender.scorer.load import LoadedScorer
from extender.scorer.reload import REFUSAL_REASONS
from extender.trials.comparison import VERDICTS
from extender.trials.shadow import Shadow
from policy.features import FEATURE_NAMES, SCHEMA_VERSION

if TYPE_CHECKING:
    from extender.history.store import DecisionStore  # for its type alone: it brings SQLAlchemy

LATENCY_BUCKETS: Final = (
    0.0002, 0.0005, 0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.015, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0
)  # fmt: skip
"""Seconds: fine where kube-scheduler's throughput is decided, coarse up to its default httpTimeout."""

VERBS: Final = ("filter", "prioritize", "preempt", "bind")

REFUSALS: Final = ("connections", "requests", "header_timeout", "header_size", "client_name")
"""What a request can be refused for before anything looks at it; see `extender.connections`."""

UNCOUNTED: Final = 64
"""Requests that wait to be counted at most; to count them takes about 0.2 ms."""

HANDSHAKE_FAILURES: Final = (
    "no_certificate", "bad_certificate", "version", "plain_http", "refused_by_caller", "other"
)  # fmt: skip
"""What a TLS handshake can fail of; see `extender.transport.tls`."""


class Metrics:
    """The metrics of one service.

    Args:
        registry: where they are registered; default: a new one, so that two services in one process do not collide.
    """

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        self.registry = registry = CollectorRegistry() if registry is None else registry
        self.latency = Histogram(
            "maddpg_request_duration_seconds",
            "Time from a request's arrival to its answer, by verb",
            ["verb"],
            buckets=LATENCY_BUCKETS,
            registry=registry,
        )
        self.requests = Counter(
            "maddpg_requests", "Requests answered, by verb and HTTP status", ["verb", "code"], registry=registry
        )
        self.decisions = Counter(
            "maddpg_decisions", "Decisions, by the scorer that answered", ["scorer"], registry=registry
        )
        self.fallbacks = Counter(
            "maddpg_fallbacks",
            "Decisions not answered by the configured scorer, by reason",
            ["reason"],
            registry=registry,
        )
        self.warnings = Counter(
            "maddpg_pod_warnings", "Pods whose urgency annotation had to be ignored", registry=registry
        )
        self.unknown_nodes = Counter(
            "maddpg_unknown_nodes", "Node names asked about that the watch had not shown", registry=registry
        )
        self.clipped = Counter(
            "maddpg_observation_clipped",
            "Scored rows whose feature lay outside the range of training, by feature",
            ["feature"],
            registry=registry,
        )
        self.scored_rows = Counter(
            "maddpg_scored_rows", "Rows given to the scorer because they had changed or were new", registry=registry
        )
        self.bind_failures = Counter("maddpg_bind_failures", "Binds the API server refused", registry=registry)
        self.staleness = Gauge(
            "maddpg_input_staleness_seconds",
            "Time since the input was last known to be current; NaN if it never was",
            ["input"],
            registry=registry,
        )
        self.source_events = Gauge(
            "maddpg_source_events",
            "What happened to each input since the start: lists, watches, reconnects, failures",
            ["input", "event"],
            registry=registry,
        )
        self.synced = Gauge("maddpg_synced", "1 once nodes and pods have been listed", registry=registry)
        self.nodes = Gauge("maddpg_nodes", "Nodes known, by readiness", ["ready"], registry=registry)
        self.pods = Gauge("maddpg_pods", "Pods known to be on a node", registry=registry)
        self.assumed = Gauge(
            "maddpg_assumed_placements", "Placements believed that the watch has not shown yet", registry=registry
        )
        self.assumed_expired = Counter(
            "maddpg_assumed_expired", "Assumed placements that the watch never showed", registry=registry
        )
        self.ledger_size = Gauge("maddpg_ledger_decisions", "Decisions remembered", registry=registry)
        self.ledger_writes = Gauge(
            "maddpg_ledger_writes",
            "Decisions since the start that the ledger's file took (written), that found no room (dropped) or do not "
            "decode (unreadable), and attempts to write that failed (failures)",
            ["result"],
            registry=registry,
        )
        self.ledger_waiting = Gauge(
            "maddpg_ledger_waiting", "Decisions that wait to be written to the ledger's file", registry=registry
        )
        self.outcomes = Gauge(
            "maddpg_outcomes",
            "Pods seen bound since the start: on a node rated best, on another, on one whose rating is unknown, "
            "or without a decision here",
            ["kind"],
            registry=registry,
        )
        self.failures = Gauge(
            "maddpg_decision_failures",
            "Decisions since the start that did not lead to a bound pod, by reason",
            ["reason"],
            registry=registry,
        )
        self.ended = Gauge(
            "maddpg_pods_ended",
            "Pods decided upon and bound that ended since the start, by how",
            ["how"],
            registry=registry,
        )
        self.late = Gauge(
            "maddpg_pods_late",
            "Of the pods that ended, those that were late, those that were not, and those of which nobody can know",
            ["late"],
            registry=registry,
        )
        self.restarts = Gauge(
            "maddpg_pod_restarts", "Restarts of containers of pods decided upon, since the start", registry=registry
        )
        self.oom_killed = Gauge(
            "maddpg_pods_oom_killed", "Pods decided upon with a container killed for its memory", registry=registry
        )
        self.spans = Gauge(
            "maddpg_spans",
            "Spans that the collector of traces took, and that it did not",
            ["result"],
            registry=registry,
        )
        self.policy = Gauge(
            "maddpg_policy_info",
            "1 for the scorer in use",
            ["scorer", "model_sha256", "schema_version"],
            registry=registry,
        )
        self.refusals = Counter(
            "maddpg_refusals",
            "Requests and connections refused before they were looked at, by limit",
            ["reason"],
            registry=registry,
        )
        self.certificate_expiry = Gauge(
            "maddpg_tls_expiry_timestamp_seconds", "When the file's certificate ends", ["file"], registry=registry
        )
        self.certificate_issue = Gauge(
            "maddpg_tls_issue_timestamp_seconds", "When the file's certificate began", ["file"], registry=registry
        )
        self.certificate_loads = Counter(
            "maddpg_tls_loads", "Times that changed certificates were read, by result", ["result"], registry=registry
        )
        self.certificates_refused = Gauge(
            "maddpg_tls_refused",
            "1 while the certificates on disk are refused and the former ones serve on",
            registry=registry,
        )
        self.handshake_failures = Counter(
            "maddpg_tls_handshake_failures", "TLS handshakes that failed, by reason", ["reason"], registry=registry
        )
        self.pod_notes = Gauge(
            "maddpg_pod_notes",
            "Pods since the start on which it was said why they went where they did (written), that found no room "
            "(dropped), and that the API server refused or was away for (failed)",
            ["result"],
            registry=registry,
        )
        self.policy_swaps = Counter(
            "maddpg_policy_swaps", "Policies put to use while serving, after the first one", registry=registry
        )
        self.policy_refusals = Counter(
            "maddpg_policy_refusals",
            "Policy bundles refused while serving, by the file or field of the manifest that disagrees",
            ["reason"],
            registry=registry,
        )
        self.breaker_state = Gauge(
            "maddpg_breaker_state",
            "1 for the state of the scorer's circuit breaker: closed, open or half_open",
            ["state"],
            registry=registry,
        )
        self.breaker_opened = Gauge(
            "maddpg_breaker_opened", "How often the circuit breaker of the scorer in use opened", registry=registry
        )
        self.shadow_requests = Gauge(
            "maddpg_shadow_requests",
            "Requests since the start that the shadow's candidate scored too (compared), failed on (failed) or was too "
            "slow for (dropped), and those with nothing to compare with (skipped)",
            ["result"],
            registry=registry,
        )
        self.shadow_same_best = Gauge(
            "maddpg_shadow_same_best",
            "Requests compared since the start whose best node is the best of the shadow's candidate too",
            registry=registry,
        )
        self.shadow_rank_correlation = Gauge(
            "maddpg_shadow_rank_correlation",
            "Mean rank correlation, -1 to 1, of the shadow's candidate with what decided; NaN until one is known",
            registry=registry,
        )
        self.shadow_priorities = Gauge(
            "maddpg_shadow_priorities",
            "Priorities compared since the start, by whether the shadow's candidate differs by more than 1",
            ["far"],
            registry=registry,
        )
        self.shadow_seconds = Gauge(
            "maddpg_shadow_seconds", "Time that the shadow's candidate took since the start", registry=registry
        )
        self.experiment_workloads = Gauge(
            "maddpg_experiment_workloads", "Workloads remembered, by arm of the experiment", ["arm"], registry=registry
        )
        self.experiment_pods = Gauge(
            "maddpg_experiment_pods", "Pods remembered, by arm of the experiment", ["arm"], registry=registry
        )
        self.experiment_mean = Gauge(
            "maddpg_experiment_mean",
            "Mean over an arm's workloads, by measure; NaN until it is known",
            ["arm", "measure"],
            registry=registry,
        )
        self.experiment_difference = Gauge(
            "maddpg_experiment_difference",
            "The candidate's mean less the control's (value), and its 95 % interval (low, high), by measure; NaN until "
            "it is known",
            ["measure", "bound"],
            registry=registry,
        )
        self.experiment_verdict = Gauge(
            "maddpg_experiment_verdict",
            "1 for what the experiment says: control, candidate, mixed or undecided",
            ["verdict"],
            registry=registry,
        )
        self.pending_pods = Gauge(
            "maddpg_pending_pods",
            "Pods that wait for this scheduler, by how the best node with room would serve them: well (in time), badly "
            "(too slow for their urgency), nowhere (no node has room), unrated (too many kinds of pods to look at)",
            ["rated"],
            registry=registry,
        )
        self.pending_requests = Gauge(
            "maddpg_pending_requests",
            "What these pods request together",
            ["resource", "unit", "rated"],
            registry=registry,
        )
        self.placements = Counter(
            "maddpg_placements",
            "Pods decided upon here and seen bound, by whether their node was expected to be too slow for their "
            "urgency; unknown where it was not among the best few",
            ["at_risk"],
            registry=registry,
        )
        self.headroom = Gauge(
            "maddpg_headroom",
            "Allocatable less requested on nodes that are ready: of all together (cluster), and of the one with most "
            "(node)",
            ["resource", "unit", "of"],
            registry=registry,
        )
        self.headroom_ratio = Gauge(
            "maddpg_headroom_ratio",
            "Allocatable less requested over allocatable, of all nodes that are ready together",
            ["resource"],
            registry=registry,
        )
        self.node_headroom_ratio = Gauge(
            "maddpg_node_headroom_ratio",
            "The same of single nodes, those with the least room; see the setting `node_metrics`",
            ["node", "resource"],
            registry=registry,
        )
        self.node_expected_rate = Gauge(
            "maddpg_node_expected_rate",
            "Rate that a small pod is expected to run at on these nodes: 1 is an idle reference core's",
            ["node"],
            registry=registry,
        )
        self._labels = {
            next(iter(metric.describe())).name: metric._labelnames  # noqa: SLF001 - the library tells it nowhere else
            for metric in vars(self).values()
            if isinstance(metric, MetricWrapperBase)
        }
        self._verbs = {verb: self.latency.labels(verb) for verb in VERBS}
        self._answered = {verb: self.requests.labels(verb, "200") for verb in VERBS}
        self._reasons = {reason: self.fallbacks.labels(reason) for reason in FALLBACK_REASONS}
        self._refusals = {reason: self.refusals.labels(reason) for reason in REFUSALS}
        self._features = [self.clipped.labels(feature) for feature in FEATURE_NAMES]
        # at 0 from the start: Prometheus does not see a counter's first step if the counter comes with it
        for reason in REFUSAL_REASONS:
            self.policy_refusals.labels(reason)
        for at_risk in AT_RISK:
            self.placements.labels(at_risk)
        for reason in HANDSHAKE_FAILURES:
            self.handshake_failures.labels(reason)
        self._scorers: dict[str, Counter] = {}
        self._uncounted_rows = 0
        self._uncounted: list[tuple[str, int, float]] = []
        """Requests that were answered: verb, status, seconds."""

    def answered(self, verb: str, code: int, seconds: float) -> None:
        """One request was answered."""
        self._uncounted.append((verb, code, seconds))
        if len(self._uncounted) >= UNCOUNTED:
            self._count()

    def _count(self) -> None:
        """Count what was left for later."""
        for verb, code, seconds in self._uncounted:
            self._verbs[verb].observe(seconds)
            counter = self._answered[verb] if code == 200 else self.requests.labels(verb, str(code))
            counter.inc()
        self._uncounted.clear()
        self.scored_rows.inc(self._uncounted_rows)
        self._uncounted_rows = 0

    def refused(self, reason: str) -> None:
        """A request or a connection was refused for one of `REFUSALS`."""
        self._refusals[reason].inc()

    def decided(self, decision: Decision) -> None:
        """One decision was made."""
        counter = self._scorers.get(decision.scorer)
        if counter is None:
            counter = self._scorers[decision.scorer] = self.decisions.labels(decision.scorer)
        counter.inc()
        if decision.fallback_reason is not None:
            self._reasons[decision.fallback_reason].inc()
        if decision.warning is not None:
            self.warnings.inc()
        if decision.unknown:
            self.unknown_nodes.inc(decision.unknown)

    def scored(self, rows: int, outside: Sequence[int] | None) -> None:
        """So many rows were given to the scorer, and so many of them were outside the range of training, by feature."""
        self._uncounted_rows += rows
        if outside is not None:
            for counter, count in zip(self._features, outside, strict=True):
                if count:
                    counter.inc(count)

    def traced(self, exported: int, failed: int) -> None:
        """So many spans were sent since the start, and so many could not be."""
        self.spans.labels("exported").set(exported)
        self.spans.labels("failed").set(failed)

    def noted(self, counts: NoteCounts) -> None:
        """So many notes came to pods, and so many did not."""
        for result in ("written", "dropped", "failed"):
            self.pod_notes.labels(result).set(getattr(counts, result))

    def loaded(self, loaded: LoadedScorer) -> None:
        """This scorer is in use from now on."""
        self.policy.clear()
        self.policy.labels(loaded.scorer.name, loaded.model_sha256, str(SCHEMA_VERSION)).set(1)

    def shadowed(self, shadow: Shadow) -> None:
        """So far this shadow has agreed."""
        counts = shadow.counts()
        for result in ("compared", "dropped", "failed", "skipped"):
            self.shadow_requests.labels(result).set(getattr(counts, result))
        self.shadow_same_best.set(counts.same_best)
        mean = counts.rank_correlation_sum / counts.ranked if counts.ranked else float("nan")
        self.shadow_rank_correlation.set(mean)
        self.shadow_priorities.labels("true").set(counts.priorities_far)
        self.shadow_priorities.labels("false").set(counts.priorities - counts.priorities_far)
        self.shadow_seconds.set(counts.seconds)

    def experimented(self, result: Mapping[str, Any]) -> None:
        """So far the experiment came to this; see `extender.trials.comparison.compared`."""
        for arm, part in result["arms"].items():
            self.experiment_workloads.labels(arm).set(part["workloads"])
            self.experiment_pods.labels(arm).set(part["decisions"])
        for name, measure in result["measures"].items():
            for arm in result["arms"]:
                self.experiment_mean.labels(arm, name).set(_known(measure[arm]["mean"]))
            for bound, value in measure["difference"].items():
                self.experiment_difference.labels(name, bound).set(_known(value))
        for verdict in VERDICTS:
            self.experiment_verdict.labels(verdict).set(result["verdict"] == verdict)

    def judged(self, judgement: Judgement) -> None:
        """This is what an autoscaler should know now."""
        for rated in RATED:
            pending = judgement.pending[rated]
            self.pending_pods.labels(rated).set(pending.pods)
            for resource, unit in RESOURCES.items():
                self.pending_requests.labels(resource, unit, rated).set(getattr(pending, resource))
        for at_risk, count in judgement.placements.items():
            self.placements.labels(at_risk).inc(count)
        for (resource, of), value in judgement.headroom.items():
            self.headroom.labels(resource, RESOURCES[resource], of).set(value)
        for resource, ratio in judgement.headroom_ratio.items():
            self.headroom_ratio.labels(resource).set(ratio)
        self.node_headroom_ratio.clear()
        self.node_expected_rate.clear()
        for node, signals in judgement.nodes.items():
            self.node_expected_rate.labels(node).set(signals.expected_rate)
            for resource, ratio in signals.headroom.items():
                self.node_headroom_ratio.labels(node, resource).set(ratio)

    def guarded(self, breaker: Breaker | None) -> None:
        """This breaker stands before the scorer; None while there is no scorer."""
        for state in BreakerState:
            self.breaker_state.labels(state.value).set(breaker is not None and breaker.state is state)
        self.breaker_opened.set(0 if breaker is None else breaker.opened)

    def certificates_loaded(self, validity: Mapping[str, tuple[float, float]]) -> None:
        """These certificates are in use from now on: file to begin and end, in seconds since the epoch."""
        self.certificate_loads.labels("loaded").inc()
        self.certificate_expiry.clear()
        self.certificate_issue.clear()
        for name, (begin, end) in validity.items():
            self.certificate_issue.labels(name).set(begin)
            self.certificate_expiry.labels(name).set(end)

    def refresh(self, table: ClusterTable, source: ClusterSource, ledger: Ledger, store: DecisionStore | None) -> None:
        """Bring every gauge up to date, and count what was left for later."""
        self._count()
        ages: Mapping[str, float | None] = source.staleness()
        for name in INPUTS:
            age = ages.get(name)
            self.staleness.labels(name).set(float("nan") if age is None else age)
        for (name, event), count in source.counts().items():
            self.source_events.labels(name, event).set(count)
        self.synced.set(source.synced)
        self.nodes.labels("true").set(table.ready_count)
        self.nodes.labels("false").set(table.node_count - table.ready_count)
        self.pods.set(table.pod_count)
        self.assumed.set(table.assumed_count)
        self.ledger_size.set(len(ledger))
        if store is not None:
            for result in ("written", "dropped", "failures", "unreadable"):
                self.ledger_writes.labels(result).set(getattr(store.counts, result))
            self.ledger_waiting.set(store.waiting)
        counts = ledger.counts
        self.outcomes.labels("rated_best").set(counts.bound_among_best)
        self.outcomes.labels("rated_lower").set(counts.bound_rated - counts.bound_among_best)
        self.outcomes.labels("rating_unknown").set(counts.bound - counts.bound_rated)
        self.outcomes.labels("not_asked").set(counts.not_asked)
        for reason, count in list(counts.failures.items()):
            self.failures.labels(reason).set(count)
        for how, count in list(counts.ended.items()):
            self.ended.labels(how).set(count)
        self.late.labels("true").set(counts.late)
        self.late.labels("false").set(counts.on_time)
        self.late.labels("unknown").set(counts.lateness_unknown)
        self.restarts.set(counts.restarts)
        self.oom_killed.set(counts.oom_killed)

    def describe(self) -> list[tuple[str, str, str, str]]:
        """Name, type, labels and meaning of every metric, as the documentation must show them."""
        return [
            (
                family.name + ("_total" if family.type == "counter" else ""),
                family.type,
                ", ".join(self._labels[family.name]),
                family.documentation,
            )
            for family in self.registry.collect()
        ]

    def exposition(self) -> bytes:
        """All metrics in the text format of Prometheus."""
        return generate_latest(self.registry)


def _known(value: float | None) -> float:
    return float("nan") if value is None else value
