"""What a pod asks for, as a scheduling decision takes it: its requests and how urgent it is."""

from __future__ import annotations

import math
import time
from typing import NamedTuple

import msgspec
from msgspec.structs import replace

from extender.errors import UrgencyError
from extender.pods import LONGEST_S, NULL, SHORTEST_S, URGENCY_ANNOTATION, Container, Pod
from extender.quantities import number, within
from extender.requests import pod_requests
from extender.settings import Settings
from extender.workloads import Workloads, cron_run
from policy.cluster import PodDemand
from policy.urgency import Signs, Urgency, UrgencyRules, urgency_of


class Asked(NamedTuple):
    """What a pod asks for, a warning if its urgency annotation had to be ignored, and why it is so urgent."""

    demand: PodDemand
    warning: str | None
    urgency: Urgency


def urgency_rules(settings: Settings) -> UrgencyRules:
    """Return how urgent pods are, as the settings say."""
    return UrgencyRules(
        settings.urgency_by_priority_class,
        settings.urgency_by_qos,
        settings.urgency_inferred,
        settings.urgency_by_owner_kind,
    )


def pod_demand(pod: Pod, rules: UrgencyRules, workloads: Workloads | None = None) -> Asked:
    """Return what a pod asks for.

    Users write annotations, and no error of ours reaches them: a pod with a broken one is as urgent as its other signs
    say.

    Args:
        pod: as kube-scheduler or the API server shows it.
        rules: how urgent pods are.
        workloads: what is known of its kind; None: nothing.

    Raises:
        InvalidQuantityError: a quantity does not parse; the message names its JSON path.
    """
    cpu, memory, cpu_nonzero, memory_nonzero = pod_requests(pod)
    warning: str | None = None
    annotated: float | None = None
    try:
        annotated = _annotated(pod)
    except UrgencyError as error:
        warning = str(error)
    urgency = urgency_of(signs_of(pod, annotated, workloads), rules)
    if pod.spec.resources is None:
        demand = PodDemand(cpu, memory, urgency.value, cpu_nonzero, memory_nonzero, cpu_nonzero, memory_nonzero)
        return Asked(demand, warning, urgency)
    contained = pod_requests(replace(pod, spec=replace(pod.spec, resources=None)))
    demand = PodDemand(
        cpu, memory, urgency.value, cpu_nonzero, memory_nonzero, contained.cpu_nonzero, contained.memory_nonzero
    )
    return Asked(demand, warning, urgency)


def asks_alike(pod: Pod, other: Pod) -> bool:
    """Whether `pod_demand` says of both the same, whenever it is asked: so it is for the replicas of one workload.

    Never for pods that are as urgent as runs of their kind, or the time, make them. Comparing takes a tenth of asking.
    """
    mine, others, spec = pod.metadata, other.metadata, pod.spec
    return (
        mine.owner_references == others.owner_references
        and spec == other.spec
        and mine.annotations == others.annotations
        and pod.status == other.status
        and not spec.active_deadline_seconds
        and mine.controller.kind != "Job"
    )


def signs_of(pod: Pod, annotated: float | None, workloads: Workloads | None = None) -> Signs:
    """Return what a pod shows of its urgency.

    Args:
        pod: as kube-scheduler or the API server shows it.
        annotated: the urgency that it declares, 0..1; the other signs do not count then, and are not looked for.
        workloads: what is known of its kind; None: nothing.
    """
    if annotated is not None:
        return Signs("", annotated)
    spec, owner = pod.spec, pod.metadata.controller
    kind, name = owner.kind, owner.name
    period_s: float | None = None
    run = cron_run(pod.metadata.namespace, owner, time.time()) if kind == "Job" else None
    if run is not None:
        kind, name = "CronJob", run.name
        period_s = None if workloads is None else workloads.period_s(run)
    deadline_s = _number(spec.active_deadline_seconds)
    expected_s: float | None = None
    runs: int | None = None
    if deadline_s is not None or period_s is not None:
        annotations = pod.metadata.annotations
        declared = None if annotations is None else annotations.expected_seconds
        expected_s = None if declared is None else within(declared, SHORTEST_S, LONGEST_S)
        if expected_s is None and workloads is not None and (known := workloads.expected_s(pod)) is not None:
            expected_s, runs = known.seconds, known.runs
    priority = _number(spec.priority)
    return Signs(
        qos_class(pod),
        None,
        spec.priority_class_name or "",
        None if priority is None else int(priority),
        kind,
        name,
        _serves(spec.containers),
        deadline_s,
        period_s,
        expected_s,
        runs,
    )


def qos_class(pod: Pod) -> str:
    """The QoS class the API server computed; for a pod without one, BestEffort or Burstable by whether it asks."""
    given = pod.status.qos_class
    if given in ("Guaranteed", "Burstable", "BestEffort"):
        return str(given)
    requests = pod_requests(pod)
    return "Burstable" if requests.cpu or requests.memory else "BestEffort"


def _annotated(pod: Pod) -> float | None:
    """Urgency that the pod declares, 0..1; None if it declares none.

    Raises:
        UrgencyError: the annotation is no number in 0..1.
    """
    text = pod.metadata.annotations.urgency if pod.metadata.annotations else None
    if text is None:
        return None
    value = number(text)
    if not 0.0 <= value <= 1.0:
        raise UrgencyError(
            f"Pod.metadata.annotations[{URGENCY_ANNOTATION}] is {text[:40]!r}; "
            "give a number from 0 (can wait) to 1 (cannot)"
        )
    return value


def _serves(containers: list[Container] | None) -> bool:
    """Whether a container waits for traffic; most have no probe, and are told by that at once."""
    for container in containers or ():  # noqa: SIM110 # a generator costs as much as all the rest of it
        if container.readiness_probe and bytes(container.readiness_probe) != NULL:
            return True
    return False


def _number(raw: msgspec.Raw) -> float | None:
    """A finite number as it came in JSON; None for anything else."""
    if not raw:
        return None
    try:
        value = float(bytes(raw))
    except ValueError:
        return None
    return value if math.isfinite(value) else None
