"""What a pod asks for: requests, urgency, identity. Decodes the few fields that count and skips the rest unread.

The types are what msgspec decodes pod JSON into, from requests of kube-scheduler and from the API server alike. The sum
over containers is that of k8s.io/component-helpers/resource/helpers.go (`PodRequests`): the larger of what runs
(containers and restartable init containers) and what starts (each init container with the restartable ones before it);
requests of the pod as a whole replace it; overhead comes on top.

Beside it stands the non-zero request, which scores count: a container that does not say how much of a resource it
requests counts as 100m and 200 MiB (kubernetes pkg/scheduler/util/pod_resources.go). A request of zero is a request.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, NamedTuple

import msgspec

from extender.errors import UrgencyError
from extender.quantities import NANO, nano_units
from policy.cluster import NONZERO_CPU, NONZERO_MEMORY, PodDemand
from policy.errors import InvalidQuantityError

GIB: Final = 1 << 30
URGENCY_ANNOTATION: Final = "maddpg-scheduler.io/urgency"
EXPECTED_ANNOTATION: Final = "maddpg-scheduler.io/expected-seconds"
"""How long the pod's owner expects it to run on an idle reference core; with the urgency it says what is late."""
RESTARTABLE: Final = "Always"
"""restartPolicy of an init container that keeps running beside the containers: a sidecar."""


class Requests(msgspec.Struct, frozen=True):
    """The two resources of a resource list that count; text or bare numbers, as Go takes both."""

    cpu: str | int | float | None = None
    memory: str | int | float | None = None


class Resources(msgspec.Struct, frozen=True):
    """ResourceRequirements; limits never matter: the API server copies them to missing requests."""

    requests: Requests | None = None


class Container(msgspec.Struct, frozen=True, rename="camel"):
    """A container or an init container."""

    resources: Resources | None = None
    restart_policy: str | None = None


class Annotations(msgspec.Struct, frozen=True):
    """The annotation that is read for a decision."""

    urgency: str | None = msgspec.field(default=None, name=URGENCY_ANNOTATION)


class Metadata(msgspec.Struct, frozen=True):
    """Identity of the pod."""

    name: str = ""
    namespace: str = ""
    uid: str = ""
    annotations: Annotations | None = None
    owner_references: msgspec.Raw = msgspec.field(default=msgspec.Raw(b""), name="ownerReferences")
    """As they came: only an experiment reads them, and to skip them costs every pod less than to decode them."""


class Spec(msgspec.Struct, frozen=True, rename="camel"):
    """What is read of a pod's specification."""

    containers: list[Container] | None = None
    init_containers: list[Container] | None = None
    overhead: Requests | None = None
    resources: Resources | None = None
    priority_class_name: str | None = None
    node_name: str | None = None


class Condition(msgspec.Struct, frozen=True, rename="camel"):
    """One condition of the pod's status."""

    type: str = ""
    status: str = ""
    last_transition_time: str | None = None


class Status(msgspec.Struct, frozen=True, rename="camel"):
    """What is read of a pod's status."""

    phase: str | None = None
    qos_class: str | None = None
    reason: str | None = None
    conditions: list[Condition] | None = None


class Pod(msgspec.Struct, frozen=True):
    """A pod, as far as scheduling it is concerned."""

    metadata: Metadata
    spec: Spec = Spec()
    status: Status = Status()


@dataclass(frozen=True, slots=True)
class UrgencyRules:
    """How urgent a pod is where its annotation does not say.

    Attributes:
        by_priority_class: urgency 0..1 by name of PriorityClass; wins over the QoS class.
        by_qos: urgency 0..1 for each QoS class.
    """

    by_priority_class: Mapping[str, float]
    by_qos: Mapping[str, float]


class PodRequests(NamedTuple):
    """What a pod requests as a whole: CPU in cores, memory in GiB; `nonzero`: what scores count."""

    cpu: float
    memory: float
    cpu_nonzero: float
    memory_nonzero: float


def pod_requests(pod: Pod) -> PodRequests:
    """What the pod requests as a whole.

    Raises:
        InvalidQuantityError: a quantity does not parse or is negative; the message names its JSON path.
    """
    cpu, cpu_nonzero = _total(pod.spec, "cpu", _NANO_CPU)
    memory, memory_nonzero = _total(pod.spec, "memory", _NANO_MEMORY)
    return PodRequests(cpu / NANO, memory / NANO / GIB, cpu_nonzero / NANO, memory_nonzero / NANO / GIB)


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
    return PodDemand(cpu, memory, urgency, cpu_nonzero, memory_nonzero), warning


_NANO_CPU: Final = round(NONZERO_CPU * NANO)
_NANO_MEMORY: Final = round(NONZERO_MEMORY * GIB) * NANO


def _total(spec: Spec, resource: str, missing: int) -> tuple[int, int]:
    """Requests and non-zero requests in billionths of a core or byte; `missing` counts for who does not say."""
    running = running_nonzero = 0
    for i, container in enumerate(spec.containers or ()):
        asked = _asked(container.resources, resource, "spec.containers[{}].resources.requests", i)
        running += asked or 0
        running_nonzero += missing if asked is None else asked
    total, nonzero = running, running_nonzero
    if spec.init_containers:
        sidecars = sidecars_nonzero = starting = starting_nonzero = 0
        for i, container in enumerate(spec.init_containers):
            found = _asked(container.resources, resource, "spec.initContainers[{}].resources.requests", i)
            asked, asked_nonzero = found or 0, missing if found is None else found
            starting = max(starting, sidecars + asked)
            starting_nonzero = max(starting_nonzero, sidecars_nonzero + asked_nonzero)
            if container.restart_policy == RESTARTABLE:
                sidecars += asked
                sidecars_nonzero += asked_nonzero
        total = max(running + sidecars, starting)
        nonzero = max(running_nonzero + sidecars_nonzero, starting_nonzero)
    whole = _asked(spec.resources, resource, "spec.resources.requests")
    if whole is not None:
        total = nonzero = whole
    if spec.overhead:
        over = _nano(getattr(spec.overhead, resource), resource, "spec.overhead") or 0
        total, nonzero = total + over, nonzero + over
    return total, nonzero


def _asked(resources: Resources | None, resource: str, path: str, position: int = 0) -> int | None:
    if resources is None or resources.requests is None:
        return None
    return _nano(getattr(resources.requests, resource), resource, path, position)


def _nano(value: str | float | None, resource: str, path: str, position: int = 0) -> int | None:
    """The quantity in billionths; `path`, with the position put in, is where it stands: told only where it is wrong."""
    if value is None:
        return None
    try:
        nano = nano_units(value if isinstance(value, str) else repr(value))
    except InvalidQuantityError as error:
        raise InvalidQuantityError(f"Pod.{path.format(position)}.{resource}: {error}") from error
    if nano < 0:
        where = f"Pod.{path.format(position)}.{resource}"
        raise InvalidQuantityError(f"{where}: {value!r} is negative; a request must be >= 0")
    return nano


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
