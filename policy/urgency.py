"""How urgent a pod is, inferred from its signs. Pure: the extender and the simulator give the signs.

Urgency is one over the slowdown that a pod's SLA allows; 0 allows any. The first sign that a pod shows decides, in the
order of `SOURCES`. What is inferred is rounded to `STEP`: pods of one urgency form one class of demand, whose
preferences are kept, and a number that moved with each run would make every pod a class of its own.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, NamedTuple

STEP: Final = 0.05
"""Steps of an inferred urgency. A step of this size changes no rank between nodes that a pod would notice."""

SOURCES: Final = ("annotation", "priority_class", "deadline", "priority", "owner", "qos")
"""What may say how urgent a pod is, the most trusted first."""

FEWEST_RUNS: Final = 3
"""Runs of a template that its expected duration must rest on before a deadline is compared with it."""

SYSTEM_PRIORITY: Final = 2_000_000_000
"""Least priority of the classes `system-cluster-critical` and `system-node-critical`; users may go up to half of it."""

HIGHEST_USER_PRIORITY: Final = 1_000_000_000

LOWEST_OF_PRIORITY, HIGHEST_OF_PRIORITY = 0.5, 0.9
"""Urgency of priority 1, and of the highest priority that users may give."""

SERVING: Final = "Serving"
"""Key of `UrgencyRules.by_owner_kind` for pods of a `SERVICE_KINDS` owner that wait for traffic."""

SERVICE_KINDS: Final = frozenset({"ReplicaSet", "StatefulSet", "ReplicationController"})
"""Kinds of owners whose pods run on and may stand behind a Service."""

BY_OWNER_KIND: Final[Mapping[str, float]] = {
    SERVING: 0.8, "ReplicaSet": 0.5, "ReplicationController": 0.5, "StatefulSet": 0.7, "DaemonSet": 0.5,
    "Job": 0.5, "CronJob": 0.5,
}  # fmt: skip
"""Urgency by kind of owner. Assumption: a service bears a quarter more time.

A Job without a deadline says nothing of its haste, so it counts as other pods that say nothing. At 0.35 the shipped
policy gave jobs in haste to slow nodes: 12 % SLA violations where no job of `reference@0.4` shows a deadline, 3 % at
0.5.
"""

BY_QOS: Final[Mapping[str, float]] = {"Guaranteed": 0.8, "Burstable": 0.5, "BestEffort": 0.0}


LONGEST_NAME: Final = 63
"""Characters of a name that a reason tells."""


@dataclass(frozen=True, slots=True)
class UrgencyRules:
    """How urgent a pod is where its annotation does not say.

    Attributes:
        by_priority_class: urgency 0..1 by name of PriorityClass.
        by_qos: urgency 0..1 for each QoS class.
        inferred: whether deadlines, the value of the priority and the kind of the owner count.
        by_owner_kind: urgency 0..1 by kind of the controller that owns the pod; `SERVING` for pods that wait for
            traffic. A kind that is not named says nothing.
    """

    by_priority_class: Mapping[str, float] = field(default_factory=dict)
    by_qos: Mapping[str, float] = field(default_factory=lambda: BY_QOS)
    inferred: bool = True
    by_owner_kind: Mapping[str, float] = field(default_factory=lambda: BY_OWNER_KIND)


class Signs(NamedTuple):
    """What a pod shows of how urgent it is; a number that makes no sense counts as missing.

    Attributes:
        qos: its QoS class.
        annotated: the urgency that its owner declared, 0..1.
        priority_class: name of its PriorityClass.
        priority: value of that class; None or 0 says nothing.
        owner_kind: kind of the controller that owns it, `CronJob` for a Job of one; empty for a pod that none owns.
        owner_name: its name.
        serves: whether it waits for traffic: it has a readiness probe.
        deadline_s: seconds that it may run.
        period_s: seconds between two starts of its CronJob.
        expected_s: seconds that it is expected to run on the reference core.
        runs: how many runs that rests on; None where its owner declared it.
    """

    qos: str
    annotated: float | None = None
    priority_class: str = ""
    priority: int | None = None
    owner_kind: str = ""
    owner_name: str = ""
    serves: bool = False
    deadline_s: float | None = None
    period_s: float | None = None
    expected_s: float | None = None
    runs: int | None = None


class Urgency(NamedTuple):
    """Urgency 0..1, which of `SOURCES` says so, and why, as a phrase."""

    value: float
    source: str
    reason: str


def urgency_of(signs: Signs, rules: UrgencyRules) -> Urgency:
    """Return how urgent a pod is, by the first of its signs in the order of `SOURCES`."""
    if signs.annotated is not None and 0.0 <= signs.annotated <= 1.0:
        return Urgency(signs.annotated, "annotation", "annotated")
    by_class = rules.by_priority_class.get(signs.priority_class)
    if by_class is not None:
        return Urgency(by_class, "priority_class", f"PriorityClass {signs.priority_class}, as set")
    if rules.inferred:
        inferred = _by_deadline(signs) or _by_priority(signs) or _by_owner(signs, rules.by_owner_kind)
        if inferred is not None:
            return inferred
    return Urgency(rules.by_qos[signs.qos], "qos", f"QoS class {signs.qos}")


def urgency_of_priority(priority: int) -> float:
    """Return the urgency of a priority that is not 0: monotone, 0 below 0, 1 for the classes of the system.

    Between 1 and the highest that users may give it grows with the logarithm, because users number classes by powers of
    ten as often as by ones.
    """
    if priority < 0:
        return 0.0
    if priority >= SYSTEM_PRIORITY:
        return 1.0
    share = math.log(max(priority, 1)) / math.log(HIGHEST_USER_PRIORITY)
    return stepped(LOWEST_OF_PRIORITY + (HIGHEST_OF_PRIORITY - LOWEST_OF_PRIORITY) * min(share, 1.0))


def stepped(urgency: float) -> float:
    """Return an urgency rounded to `STEP`, and not to 0: that would allow any slowdown."""
    return round(min(max(round(urgency / STEP), 1) * STEP, 1.0), 2)  # 0.3, and not 0.30000000000000004


def is_counted(expected_s: float | None, runs: int | None) -> bool:
    """Return whether an expected duration may be compared with: it is declared, or rests on `FEWEST_RUNS`."""
    return _sensible(expected_s) and (runs is None or runs >= FEWEST_RUNS)


def _by_deadline(signs: Signs) -> Urgency | None:
    """By the share of the time until its deadline that the pod is expected to run."""
    expected_s = signs.expected_s
    if expected_s is None or not is_counted(expected_s, signs.runs):
        return None
    limits = [limit for limit in (signs.deadline_s, signs.period_s) if limit is not None and _sensible(limit)]
    if not limits:
        return None
    limit = min(limits)
    until = "between starts" if limit == signs.period_s else "until its deadline"
    who = f"{_owner(signs)}, " if signs.owner_kind else ""
    return Urgency(
        stepped(min(expected_s / limit, 1.0)), "deadline", f"{who}expected {expected_s:.3g} s of {limit:.6g} s {until}"
    )


def _by_priority(signs: Signs) -> Urgency | None:
    """By the value of its PriorityClass."""
    if not signs.priority:
        return None
    name = f" of {signs.priority_class}" if signs.priority_class else ""
    return Urgency(urgency_of_priority(signs.priority), "priority", f"priority {signs.priority}{name}")


def _by_owner(signs: Signs, by_kind: Mapping[str, float]) -> Urgency | None:
    """By the kind of the controller that owns it."""
    kind = signs.owner_kind
    if signs.serves and kind in SERVICE_KINDS and SERVING in by_kind:
        return Urgency(by_kind[SERVING], "owner", f"{_owner(signs)} with a readiness probe")
    value = by_kind.get(kind) if kind else None
    return None if value is None else Urgency(value, "owner", _owner(signs))


def _owner(signs: Signs) -> str:
    kind = "Job of CronJob" if signs.owner_kind == "CronJob" else signs.owner_kind[:LONGEST_NAME]
    return f"{kind} {signs.owner_name[:LONGEST_NAME]}"


def _sensible(value: float | None) -> bool:
    return value is not None and 0.0 < value < math.inf
