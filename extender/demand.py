"""What a pod asks for, as a scheduling decision takes it: its requests and how urgent it is."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from msgspec.structs import replace

from extender.errors import UrgencyError
from extender.pods import URGENCY_ANNOTATION, Pod
from extender.requests import pod_requests
from policy.cluster import PodDemand


@dataclass(frozen=True, slots=True)
class UrgencyRules:
    """How urgent a pod is where its annotation does not say.

    Attributes:
        by_priority_class: urgency 0..1 by name of PriorityClass; wins over the QoS class.
        by_qos: urgency 0..1 for each QoS class.
    """

    by_priority_class: Mapping[str, float]
    by_qos: Mapping[str, float]


def pod_urgency(pod: Pod, rules: UrgencyRules) -> float:
    """Urgency of the pod, 0..1: its annotation, else its PriorityClass, else its QoS class.

    Raises:
        UrgencyError: the annotation is no number in 0..1.
    """
    text = pod.metadata.annotations.urgency if pod.metadata.annotations else None
    return urgency_of_class(pod, rules) if text is None else _annotated(text)


def urgency_of_class(pod: Pod, rules: UrgencyRules) -> float:
    """Urgency of the pod's PriorityClass, else of its QoS class, 0..1."""
    by_class = rules.by_priority_class.get(pod.spec.priority_class_name or "")
    return rules.by_qos[qos_class(pod)] if by_class is None else by_class


def qos_class(pod: Pod) -> str:
    """The QoS class the API server computed; for a pod without one, BestEffort or Burstable by whether it asks."""
    given = pod.status.qos_class
    if given in ("Guaranteed", "Burstable", "BestEffort"):
        return str(given)
    requests = pod_requests(pod)
    return "Burstable" if requests.cpu or requests.memory else "BestEffort"


def pod_demand(pod: Pod, rules: UrgencyRules) -> tuple[PodDemand, str | None]:
    """The demand of the pod, and a warning if its urgency annotation had to be ignored.

    Users write annotations, and no error of ours reaches them: a pod with a broken one is as urgent as its class.

    Raises:
        InvalidQuantityError: a quantity does not parse; the message names its JSON path.
    """
    cpu, memory, cpu_nonzero, memory_nonzero = pod_requests(pod)
    warning: str | None = None
    try:
        urgency = pod_urgency(pod, rules)
    except UrgencyError as error:
        urgency, warning = urgency_of_class(pod, rules), str(error)
    if pod.spec.resources is None:
        return PodDemand(cpu, memory, urgency, cpu_nonzero, memory_nonzero, cpu_nonzero, memory_nonzero), warning
    contained = pod_requests(replace(pod, spec=replace(pod.spec, resources=None)))
    demand = PodDemand(
        cpu, memory, urgency, cpu_nonzero, memory_nonzero, contained.cpu_nonzero, contained.memory_nonzero
    )
    return demand, warning


def _annotated(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0.0 <= value <= 1.0:
        raise UrgencyError(
            f"Pod.metadata.annotations[{URGENCY_ANNOTATION}] is {text[:40]!r}; "
            "give a number from 0 (can wait) to 1 (cannot)"
        )
    return value
