"""What the endpoints under `/v1/` answer, as schemas of the API's description. Answers are not checked by them.

The module is long because it is a list: one class per object in an answer.
"""

from __future__ import annotations

import inspect
from typing import Any, Final, Literal

import msgspec
from msgspec import UNSET, UnsetType

from extender.case import Case
from extender.operations.shapes import Count, Explanation, Summary
from extender.scorer.reload import Refusal
from policy.speeds import SpeedEstimate

Counted = dict[str, Count]
Shares = dict[str, float]


class Identity(msgspec.Struct):
    """A scorer and the hashes of its bundle, which are empty for a heuristic."""

    scorer: str
    model_sha256: str
    manifest_sha256: str


class Serving(Identity):
    """What decides, and the temperature with which its preferences become priorities."""

    temperature: float


class Breaker(msgspec.Struct):
    """The circuit breaker of what decides, and how often it opened."""

    state: Literal["closed", "open", "half_open"]
    opened: Count


class Bundle(msgspec.Struct):
    """The folder of the policy bundle, and what became of the bundles there since the start."""

    path: str
    serving_since: float
    checked_at: float | None
    swaps: Count
    refusals: Count
    last_refusal: Refusal | None


class Policy(msgspec.Struct):
    """What decides; `serving` is null while only the fallback does, and `bundle` where a heuristic decides."""

    fallback: str
    serving: Serving | None
    breaker: Breaker | None
    bundle: Bundle | None


class NoTrial(msgspec.Struct):
    """There is no candidate; `refused` says why, where one was wanted."""

    candidate: None
    refused: str | None


class ShadowRequests(msgspec.Struct):
    """Requests by what became of them in the shadow."""

    compared: Count
    dropped: Count
    failed: Count
    skipped: Count


class Shadow(msgspec.Struct):
    """How far the shadow's candidate agrees with what decides."""

    candidate: Identity
    requests: ShadowRequests
    waiting: Count
    same_best_share: float | None
    rank_correlation: float | None
    ranked: Count
    priorities_far_share: float | None
    mean_ms: float | None
    last_error: str | None
    refused: None


class Performance(msgspec.Struct):
    """How well deciding went in some decisions."""

    decisions: Count
    begin: float | None = msgspec.field(name="from")
    end: float | None = msgspec.field(name="to")
    scorers: Counted
    fallback_reasons: Counted
    states: Counted
    failures: Counted
    bound: Count
    rated: Count
    rated_best_share: float | None
    latency_ms: Shares | None
    bind_s: Shares | None
    restarts: Count
    oom_killed: Count
    late: Count
    on_time: Count
    lateness_unknown: Count
    lateness_inferred: Count
    late_share: float | None
    slowdown: Shares | None


class Arm(Performance):
    """What one arm of an experiment came to."""

    workloads: Count


class Mean(msgspec.Struct):
    """Mean over the workloads of an arm, with its 95 % interval and standard deviation."""

    workloads: Count
    mean: float | None
    low: float | None
    high: float | None
    deviation: float | None


class Interval(msgspec.Struct):
    """A value with its 95 % interval."""

    value: float | None
    low: float | None
    high: float | None


class Measure(msgspec.Struct):
    """One measure of both arms, the candidate's mean less the control's, and which arm it is better in."""

    meaning: str
    judged: bool
    control: Mean
    candidate: Mean
    difference: Interval
    better: Literal["control", "candidate"] | None
    more_workloads: Count | None


class Experiment(msgspec.Struct):
    """What the experiment came to."""

    experiment: str
    candidate: Identity
    share: float
    salt: str
    refused: None
    verdict: Literal["control", "candidate", "mixed", "undecided"]
    reason: str
    more_workloads: Count | None
    confidence: float
    judged_at: float
    arms: dict[str, Arm]
    measures: dict[str, Measure]


class NothingObserved(msgspec.Struct):
    """Pods of others are not observed."""

    pods: None


class Taken(msgspec.Struct):
    """Mean over the nodes taken, and over those that we would have taken."""

    taken: float
    ours: float


class Observed(msgspec.Struct):
    """What we would have chosen for the pods that others placed."""

    since: float
    pods: Count
    results: Counted
    same_share: float | None
    not_foreseen: Count
    unmodelled: Counted
    where_other: dict[str, Taken | None]


class Amounts(msgspec.Struct):
    """Cores and GiB."""

    cpu: float
    memory: float


class NodeSpeed(msgspec.Struct):
    """A node's speed, its interval and source, what completed pods show of it, and why it is not learned."""

    value: float
    low: float | None
    high: float | None
    source: str
    node_class: str | None = msgspec.field(name="class")
    learned: SpeedEstimate | None
    not_learned: str | None
    slowdown: float | None
    share_left: float
    full_at: float


class NodeUse(Amounts):
    """What is used as it is believed, what was measured, when and by what, and how the node's kubelet answered."""

    measured: Amounts | None
    age_s: float | None
    source: str | None
    kubelet: str | None


class NodePressure(msgspec.Struct):
    """Shares of time that something waited for CPU, memory and I/O."""

    cpu: float
    memory: float | None
    io: float | None
    source: str
    age_s: float | None


class Node(msgspec.Struct):
    """What is known of a node."""

    node: str
    ready: bool
    speed: NodeSpeed
    allocatable: Amounts
    requested: Amounts
    used: NodeUse
    pressure: NodePressure


class Learning(msgspec.Struct):
    """What is learned of speeds altogether; `refused` says why nothing is."""

    refused: str | None
    completions: Counted
    evidence: Counted
    sources: Counted
    estimated: Count
    unconnected: Count
    fit_s: float
    fit_age_s: float | None


class Nodes(msgspec.Struct):
    """Some nodes; `next` is `after` of the following page."""

    learning: Learning | None
    nodes: list[Node]
    next: Count | None


class Sums(msgspec.Struct):
    """Sums since the start of this replica."""

    decisions: Count
    fallbacks: Count
    urgency_sources: Counted
    bound: Count
    bound_rated: Count
    bound_among_best: Count
    not_asked: Count
    failures: Counted
    ended: Counted
    restarts: Count
    oom_killed: Count
    late: Count
    on_time: Count
    lateness_unknown: Count
    late_inferred: Count
    on_time_inferred: Count


class Listed(Summary):
    """One decision of a list: of which replica, or its place in the ledger of the only one that was asked."""

    place: Count | UnsetType = UNSET
    replica: str | UnsetType = UNSET


class Decisions(msgspec.Struct):
    """Decisions, newest first; `next` is `before` of the following page, and `silent` says why a replica is missing."""

    counts: Sums
    decisions: list[Listed]
    next: Count | str | None
    replicas: list[str] | UnsetType = UNSET
    silent: dict[str, str] | UnsetType = UNSET


class Explained(Explanation):
    """A decision with its reasons; `replica` remembers it where others were asked, and `silent` did not answer."""

    replica: str | UnsetType = UNSET
    silent: dict[str, str] | UnsetType = UNSET


class ExportedCase(Case, frozen=True):
    """A decision with all its nodes, to be decided again."""

    decision: Summary  # type: ignore[assignment]  # what it is when it is written; a file of others may hold anything


class Avoided(msgspec.Struct):
    """Late placements avoided against kube-default, their 95 % interval, and how they were estimated; null: `why`."""

    value: float | None
    low: float | None
    high: float | None
    confidence: float
    method: Literal["experiment", "model"] | None
    why: str | None
    at: float
    hours: float
    ended: Counted
    sentence: str


class Report(msgspec.Struct):
    """How well deciding has gone, over the decisions remembered."""

    late_avoided: Avoided | None
    since_start: Sums
    remembered: Performance
    by_scorer: dict[str, Performance]


ANSWERS: Final[dict[str, tuple[type, ...]]] = {
    "/v1/policy": (Policy,),
    "/v1/shadow": (Shadow, NoTrial),
    "/v1/experiment": (Experiment, NoTrial),
    "/v1/observed": (Observed, NothingObserved),
    "/v1/nodes": (Nodes,),
    "/v1/nodes/{name}": (Node,),
    "/v1/decisions": (Decisions,),
    "/v1/decisions/{uid}": (Explained,),
    "/v1/decisions/{uid}/case": (ExportedCase,),
    "/v1/report": (Report,),
}
"""What each path answers with 200: one of these."""


def describe(document: dict[str, Any]) -> None:
    """Add the schemas of all answers to an OpenAPI document."""
    kinds = [kind for kinds in ANSWERS.values() for kind in kinds]
    found, components = msgspec.json.schema_components(kinds, ref_template="#/components/schemas/{name}")
    for schema in components.values():
        schema["description"] = inspect.cleandoc(schema["description"])
    document.setdefault("components", {}).setdefault("schemas", {}).update(components)
    told = iter(found)
    for path, kinds_of in ANSWERS.items():
        schemas = [next(told) for _ in kinds_of]
        answer = document["paths"][path]["get"]["responses"]["200"]
        answer["description"] = "the document"
        answer["content"]["application/json"]["schema"] = schemas[0] if len(schemas) == 1 else {"anyOf": schemas}
