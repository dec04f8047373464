"""What a pod's status says became of it: restarts, out of memory, ended how and when, why it is not placed. Pure.

Only what Kubernetes records is told, with its precision: times are whole seconds. That a container was throttled stands
nowhere in a pod; how late a pod may be stands there only if its owner declared it (`EXPECTED_ANNOTATION`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from extender.cluster.decoding import Terminated, WatchedCondition, WatchedContainer, WatchedPod
from extender.pods import EXPECTED_ANNOTATION, LONGEST_S, SHORTEST_S
from extender.quantities import within

ENDED: Final = ("Succeeded", "Failed")
"""Phases in which a pod holds nothing any more."""

LONGEST_MESSAGE: Final = 300
"""Characters of kube-scheduler's message that are kept."""

OOM_KILLED: Final = "OOMKilled"

ENDINGS: Final = ("succeeded", "failed", "evicted", "preempted", "deleted")
"""How a pod can end, in one word; see `ending`."""


@dataclass(frozen=True, slots=True)
class PodReport:
    """What one version of a pod says of its fate.

    Attributes:
        phase: as Kubernetes names it; "" if it does not say.
        created_at, started_at: since when it exists, and since when the kubelet knows it; seconds since the epoch.
        finished_at: when its last container ended; None while one runs, or if that is not recorded.
        restarts: of all its containers together.
        oom_killed: whether a container was killed for its memory, now or before its last restart.
        unplaced: reason of the condition PodScheduled where that is False, such as "Unschedulable"; None otherwise.
        message: what kube-scheduler says with it, at most `LONGEST_MESSAGE` characters.
        past_deadline: whether it was ended for outlasting `spec.activeDeadlineSeconds`.
        expected_s: how long its owner expects it to run on an idle reference core, seconds; None if undeclared.
        expected_error: what is wrong with that declaration; None if it is right, or missing.
    """

    phase: str = ""
    created_at: float | None = None
    started_at: float | None = None
    finished_at: float | None = None
    restarts: int = 0
    oom_killed: bool = False
    unplaced: str | None = None
    message: str | None = None
    past_deadline: bool = False
    expected_s: float | None = None
    expected_error: str | None = None


ReadReport = Callable[[], PodReport]
"""Makes the report when somebody wants it: of most pods nobody does."""


def report_of(pod: WatchedPod) -> PodReport:
    """What the pod says."""
    status, containers = pod.status, pod.status.container_statuses or []
    unplaced = given_up(status.conditions)
    ends = [_end(container) for container in containers]
    finished = [seconds(end.finished_at) for end in ends if end is not None]
    known = [at for at in finished if at is not None]
    expected, error = _expected(pod)
    return PodReport(
        phase=status.phase or "",
        created_at=seconds(pod.metadata.creation_timestamp),
        started_at=seconds(status.start_time),
        finished_at=max(known) if known and len(known) == len(containers) else None,
        restarts=sum(container.restart_count for container in containers),
        oom_killed=any(
            state is not None and state.terminated is not None and state.terminated.reason == OOM_KILLED
            for container in containers
            for state in (container.state, container.last_state)
        ),
        unplaced=None if unplaced is None else unplaced.reason or "Unschedulable",
        message=None if unplaced is None else (unplaced.message or "")[:LONGEST_MESSAGE],
        past_deadline=status.reason == "DeadlineExceeded",
        expected_s=expected,
        expected_error=error,
    )


def ending(pod: WatchedPod) -> str:
    """One word of `ENDINGS` for how a pod ended that ended or is gone.

    Who took a pod away says so in the condition DisruptionTarget (kube-scheduler, the eviction API, the taint manager,
    the kubelet); the kubelet also in `status.reason`. A pod that somebody deletes often reaches Succeeded or Failed on
    its way, because its containers are told to end: it counts as deleted.
    """
    status = pod.status
    disruption = next(
        (it.reason for it in status.conditions or () if it.type == "DisruptionTarget" and it.status == "True"), None
    )
    deleted = pod.metadata.deletion_timestamp is not None
    if status.phase == "Succeeded" and not deleted:
        return "succeeded"
    if disruption == "PreemptionByScheduler" or status.reason == "Preempting":
        return "preempted"
    if disruption is not None or status.reason == "Evicted":
        return "evicted"
    return "failed" if status.phase == "Failed" and not deleted else "deleted"


def given_up(conditions: list[WatchedCondition] | None) -> WatchedCondition | None:
    """The condition in which kube-scheduler says that it could not place the pod; None if it does not say so."""
    return next((it for it in conditions or () if it.type == "PodScheduled" and it.status == "False"), None)


def is_gated(conditions: list[WatchedCondition] | None) -> bool:
    """Whether the pod is kept from being scheduled by a gate (`spec.schedulingGates`)."""
    return any(it.type == "PodScheduled" and it.reason == "SchedulingGated" for it in conditions or ())


def seconds(text: str | None) -> float | None:
    """A time of the API (RFC 3339) to seconds since the epoch; None if there is none, or it does not parse."""
    if not text:
        return None
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        return None
    # Without an offset it would be a time of our own time zone, which is never meant.
    return None if at.tzinfo is None else at.timestamp()


def _end(container: WatchedContainer) -> Terminated | None:
    return None if container.state is None else container.state.terminated


def _expected(pod: WatchedPod) -> tuple[float | None, str | None]:
    text = pod.metadata.annotations.expected_seconds if pod.metadata.annotations else None
    if text is None:
        return None, None
    value = within(text, SHORTEST_S, LONGEST_S)
    if value is not None:
        return value, None
    return (
        None,
        f"the annotation {EXPECTED_ANNOTATION} is {text[:40]!r}; give seconds from {SHORTEST_S:g} to {LONGEST_S:g}",
    )
