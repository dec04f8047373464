"""What became of a decision: bound where and how soon, ended how, restarted, late. Pure; refuses to remember anything.

Everything comes from what Kubernetes records of the pod, seen by the watch. What it does not record is unknown here and
says so: whether a pod was throttled, and whether it was late unless its owner declared how long it should run, or
former runs of its template tell it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from extender.cluster.status import PodReport
from extender.pods import EXPECTED_ANNOTATION


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of the pod.

    Attributes:
        node: where it was bound.
        bound_at: when the watch showed it, seconds since the epoch.
        priority: the priority we gave that node; None if it was not asked about or is forgotten.
        among_best: whether no node had a higher priority; None with `priority`.
        removed_at: when it was deleted or ended; None while it lives.
        removed_reason: one of `extender.cluster.status.ENDINGS`; None while it lives.
        bind_s: from the first decision about the pod to `bound_at`, seconds: kube-scheduler's work after our answer,
            its repeated attempts, and the watch. None until bound.
        failure: why it is not bound although it was decided upon, as far as is known; None once it is bound.
        message: what kube-scheduler or the API server said with it.
        created_at, started_at, finished_at: as the API server, the kubelet and the last container's end say.
        restarts: of its containers together.
        oom_killed: whether a container was killed for its memory.
        past_deadline: whether it was ended for outlasting `spec.activeDeadlineSeconds`.
        expected_s, expected_error: the duration its owner declared, seconds; or what is wrong with the declaration.
        inferred: whether `slowdown` is against what former runs of its template took, for want of a declaration.
        slowdown: time from creation to the end over the declared or inferred duration, where both are known.
        late: whether `slowdown` is more than the pod's SLA allows, or it was ended for outlasting its deadline; None
            where that is not known.
        late_unknown: why that is not known of a pod that has ended; None where it is.
    """

    node: str | None = None
    bound_at: float | None = None
    priority: int | None = None
    among_best: bool | None = None
    removed_at: float | None = None
    removed_reason: str | None = None
    bind_s: float | None = None
    failure: str | None = None
    message: str | None = None
    created_at: float | None = None
    started_at: float | None = None
    finished_at: float | None = None
    restarts: int = 0
    oom_killed: bool = False
    past_deadline: bool = False
    expected_s: float | None = None
    expected_error: str | None = None
    slowdown: float | None = None
    late: bool | None = None
    late_unknown: str | None = None
    inferred: bool = False

    @property
    def state(self) -> str:
        """One word for where the pod stands: how it ended, else `bound`, else why it is not, else `waiting`."""
        if self.removed_reason is not None:
            return self.removed_reason
        return "bound" if self.bound_at is not None else self.failure or "waiting"


def bound(
    before: Outcome, node: str, at: float, bind_s: float, priority: int | None, among_best: bool | None
) -> Outcome:
    """The pod is on this node; what had kept it from that no longer counts."""
    return replace(
        before,
        node=node,
        bound_at=at,
        bind_s=bind_s,
        priority=priority,
        among_best=among_best,
        failure=None,
        message=None,
    )


def failed(before: Outcome, reason: str, message: str | None = None) -> Outcome:
    """An attempt to place the pod is known to have failed; nothing changes for a pod that is bound."""
    return before if before.bound_at is not None else replace(before, failure=reason, message=message)


def reported(before: Outcome, report: PodReport) -> Outcome:
    """Its status said this."""
    known = replace(
        before,
        created_at=report.created_at or before.created_at,
        started_at=report.started_at or before.started_at,
        finished_at=report.finished_at or before.finished_at,
        restarts=max(report.restarts, before.restarts),
        oom_killed=report.oom_killed or before.oom_killed,
        past_deadline=report.past_deadline or before.past_deadline,
        expected_s=report.expected_s,
        expected_error=report.expected_error,
    )
    return known if report.unplaced is None else failed(known, worded(report.unplaced), report.message)


def removed(before: Outcome, reason: str, at: float, urgency: float, usual_s: float | None = None) -> Outcome:
    """It ended or is gone. A pod that ended is deleted some time later, which changes nothing.

    Its SLA allows a slowdown of 1 / `urgency` against the declared duration, else against what former runs of its
    template took (`usual_s`), counted from its creation: waiting to be placed counts, as in the simulator. The times
    are whole seconds, so is what follows from them. They are stamped by other machines: a pod was not created after it
    was first decided upon, and ended between its creation and now.
    """
    if before.removed_at is not None:
        return before
    after = replace(before, removed_at=at, removed_reason=reason)
    if after.past_deadline:
        return replace(after, late=True)
    expected_s = usual_s if after.expected_s is None else after.expected_s
    if expected_s is None:
        unknown = after.expected_error or f"the pod declares no {EXPECTED_ANNOTATION}, and too few like it have run"
    elif reason != "succeeded":
        unknown = "it did not finish"
    elif after.created_at is None:
        unknown = "the pod does not say when it was created"
    else:
        slowdown = _lived(after, after.created_at, at) / expected_s
        after = replace(after, slowdown=slowdown, inferred=after.expected_s is None)
        if urgency > 0.0:
            return replace(after, late=slowdown * urgency > 1.0)
        unknown = "its urgency is 0: any slowdown is allowed"
    return replace(after, late_unknown=unknown)


def _lived(outcome: Outcome, created_at: float, at: float) -> float:
    """Seconds from the pod's creation to its end, which was seen at `at`."""
    begin = min(created_at, at)
    if outcome.bound_at is not None and outcome.bind_s is not None:
        begin = min(begin, outcome.bound_at - outcome.bind_s)
    end = outcome.finished_at
    return max((end if end is not None and begin <= end <= at else at) - begin, 0.0)


def worded(reason: str) -> str:
    """A reason of Kubernetes, such as ``SchedulerError``, as one of ours: ``scheduler_error``."""
    return "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in reason).lstrip("_")
