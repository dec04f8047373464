"""The shapes of what replicas tell each other of decisions: what does not have them is refused.

The texts are data from the network, and are escaped where they are shown. Numbers are held to what can be shown.
"""

from __future__ import annotations

from typing import Annotated, Any, Final

import msgspec
from msgspec import UNSET, UnsetType

from extender.case import Case
from extender.engine import WATCH
from extender.history.outcomes import Outcome
from extender.pace import unhurried
from extender.protocol.wire import LARGEST
from policy.cluster import PodDemand

LATEST: Final = 253402300799.0
"""The end of the year 9999, beyond which no date can be shown."""

Count = Annotated[int, msgspec.Meta(ge=0, le=LARGEST)]
Moment = Annotated[float, msgspec.Meta(ge=0.0, le=LATEST)]
Values = dict[str, float]


class Pod(msgspec.Struct):
    """The pod that a decision is about."""

    uid: str
    namespace: str
    name: str


class Urgency(msgspec.Struct):
    """How urgent the pod is, and what says so."""

    value: float
    source: str | None
    reason: str | None


class Expected(msgspec.Struct):
    """How long the pod takes, by how many former runs."""

    seconds: float
    runs: Count


class Odd(msgspec.Struct):
    """Nodes that were judged apart."""

    count: Count
    some: dict[str, str]


class Basis(msgspec.Struct, kw_only=True):
    """What a speed rests on, and which share of it and of the CPU counts where that is not all."""

    source: str
    low: float | None
    high: float | None
    completions: Count
    share_left: float | UnsetType = UNSET
    full_at: float | UnsetType = UNSET


class Rated(msgspec.Struct):
    """One of the nodes rated best."""

    node: str
    preference: float
    priority: Count
    speed: Basis | None


class Summary(msgspec.Struct):
    """A decision without its reasons."""

    number: Count
    pod: Pod
    at: Moment
    verb: str
    scorer: str
    model_sha256: str
    arm: str | None
    workload: str | None
    fallback_reason: str | None
    warning: str | None
    demand: PodDemand
    urgency: Urgency
    expected: Expected | None
    odd_nodes: Odd
    candidates: Count
    unknown_nodes: Count
    rated_best: Count
    assumed: str | None
    top: list[Rated]
    latency_ms: float
    attempt: Count
    first_at: Moment
    former_failure: str | None
    state: str
    outcome: Outcome | None


class Row(Summary):
    """One decision of a list, with its place in the ledger of the replica that remembers it."""

    place: Count


class Listing(msgspec.Struct):
    """A list of decisions, newest first; ``next`` is None where there are no more."""

    decisions: list[msgspec.Raw]
    next: Count | None


class Speed(Basis):
    """A node's speed."""

    value: float
    templates: Count
    anchored: bool


class Usual(msgspec.Struct):
    """What kube-default says of a node."""

    preference: float
    rank: Count | None


class Change(msgspec.Struct):
    """What one feature would have to be."""

    feature: str
    before: float
    after: float


class Changes(msgspec.Struct):
    """What would have made a node win."""

    behind_by: float
    changes: list[Change]
    not_by: list[str]


class Second(Changes):
    """What would have made the second best node win."""

    node: str


class Reasons(msgspec.Struct):
    """What there is to say of one of the best nodes."""

    node: str
    preference: float
    priority: Count
    speed: Speed
    features: Values
    criteria: Values
    bids: Values | None
    contributions: Values | None
    memory_shortage_chance: float
    kube_default: Usual


class WhyNot(msgspec.Struct):
    """The same of the node that was asked about; without a rank, `why` is all that is known."""

    node: str
    rank: Count | None
    why: str | None
    preference: float | UnsetType = UNSET
    priority: Count | UnsetType = UNSET
    speed: Speed | UnsetType = UNSET
    features: Values | UnsetType = UNSET
    criteria: Values | UnsetType = UNSET
    bids: Values | UnsetType | None = UNSET
    contributions: Values | UnsetType | None = UNSET
    memory_shortage_chance: float | UnsetType = UNSET
    kube_default: Usual | UnsetType = UNSET
    odd: bool | UnsetType = UNSET
    lost_by: Values | UnsetType | None = UNSET
    counterfactual: Changes | UnsetType | None = UNSET

    def __post_init__(self) -> None:
        if self.rank is not None and UNSET in msgspec.structs.astuple(self):
            raise ValueError("a node with a rank and without reasons")


class Ranked(msgspec.Struct):
    """A node in the ranking of all."""

    rank: Count
    node: str
    preference: float
    priority: Count
    usual: float
    usual_rank: Count
    share: float


class Ranking(msgspec.Struct):
    """One page of the nodes of a decision, best first."""

    rows: list[Ranked]
    page: Count
    pages: Count
    count: Count
    exportable: bool


class Explanation(Summary):
    """A decision with its reasons."""

    kube_default_version: str
    all_nodes: bool
    nodes: list[Reasons]
    kube_default_choice: list[str] | None
    kube_default_alike: Count | None
    counterfactual: Second | None
    unexplained: str | None
    why_not: WhyNot | None
    ranking: Ranking | UnsetType = UNSET

    def __post_init__(self) -> None:
        ranked: list[Any] = [self.why_not] if self.why_not is not None and self.why_not.rank is not None else []
        if (self.kube_default_choice or ranked) and not self.nodes:
            raise ValueError("a choice without nodes")
        if (self.kube_default_choice is None) != (self.kube_default_alike is None):
            raise ValueError("a choice, or how many are alike, without the other")
        for name in ("features", "criteria", "bids", "contributions"):
            if len({_keys(getattr(each, name)) for each in (*self.nodes, *ranked)} - {None}) > 1:
                raise ValueError(f"nodes with different {name}")


class CaseSummary(msgspec.Struct):
    """What counts of the decision in a case."""

    at: Moment
    verb: str


def explained(body: bytes) -> dict[str, Any]:
    """Return an explanation; raises what `extender.errors.UNDECODABLE` names."""
    told: dict[str, Any] = msgspec.to_builtins(_EXPLANATION.decode(body))
    return told


def listed(body: bytes) -> tuple[list[dict[str, Any]], int | None]:
    """Return the decisions of a list, and its ``next``; raises as `explained`. At a thread's pace."""
    found = _LISTING.decode(body)
    return [msgspec.to_builtins(_ROW.decode(raw)) for raw in unhurried(found.decisions)], found.next


def cased(body: bytes) -> tuple[bool, float, bytes]:
    """Return whether the replica was asked for an exported decision, when it was made, and its file.

    Raises as `explained`.
    """
    case = _CASE.decode(body)
    told = msgspec.convert(case.decision, CaseSummary)
    return told.verb != WATCH, told.at, msgspec.json.encode(case)


_EXPLANATION: Final = msgspec.json.Decoder(Explanation)
_LISTING: Final = msgspec.json.Decoder(Listing)
_ROW: Final = msgspec.json.Decoder(Row)
_CASE: Final = msgspec.json.Decoder(Case)


def _keys(values: Values | None) -> tuple[str, ...] | None:
    return None if values is None else tuple(values)
