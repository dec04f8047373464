"""A pod as msgspec decodes it, from requests of kube-scheduler and from the API server alike.

The few fields that count are decoded, and the rest is skipped unread. What they come to, `extender.requests` and
`extender.demand` say.
"""

from __future__ import annotations

from typing import Final

import msgspec

from extender.errors import UNDECODABLE

GIB: Final = 1 << 30
URGENCY_ANNOTATION: Final = "maddpg-scheduler.io/urgency"
EXPECTED_ANNOTATION: Final = "maddpg-scheduler.io/expected-seconds"
"""How long the pod's owner expects it to run on an idle reference core; with the urgency it says what is late."""
SHORTEST_S: Final = 1e-3
LONGEST_S: Final = 1e9
"""What the owner may say, seconds: beyond it, ratios to what pods took would be none."""
RESTARTABLE: Final = "Always"
"""restartPolicy of an init container that keeps running beside the containers: a sidecar."""


NULL: Final = b"null"
"""What Go writes where there is nothing; a field that is left out altogether is empty."""


class Requests(msgspec.Struct, frozen=True):
    """The two resources of a resource list that count; text or bare numbers, as Go takes both."""

    cpu: str | int | float | None = None
    memory: str | int | float | None = None


class Resources(msgspec.Struct, frozen=True):
    """ResourceRequirements; limits never matter: the API server copies them to missing requests."""

    requests: Requests | None = None


class Container(msgspec.Struct, frozen=True, rename="camel"):
    """A container or an init container."""

    name: str = ""
    resources: Resources | None = None
    restart_policy: str | None = None
    image: msgspec.Raw = msgspec.Raw(b"")
    command: msgspec.Raw = msgspec.Raw(b"")
    args: msgspec.Raw = msgspec.Raw(b"")
    readiness_probe: msgspec.Raw = msgspec.Raw(b"")
    """As they came: most decisions need none of these four, and to skip them costs less than to decode them."""


class ContainerStatus(msgspec.Struct, frozen=True, rename="camel"):
    """What the kubelet set aside for a container, and what it runs with: they differ from its spec during a resize."""

    name: str = ""
    allocated_resources: Requests | None = None
    resources: Resources | None = None


class Annotations(msgspec.Struct, frozen=True):
    """The annotations that are read."""

    urgency: str | None = msgspec.field(default=None, name=URGENCY_ANNOTATION)
    expected_seconds: str | None = msgspec.field(default=None, name=EXPECTED_ANNOTATION)


class Owner(msgspec.Struct, frozen=True):
    """One of `metadata.ownerReferences`."""

    kind: str = ""
    name: str = ""
    uid: str = ""
    controller: bool | None = None


NOBODY: Final = Owner()
_OWNERS: Final = msgspec.json.Decoder(list[Owner] | None)


class Metadata(msgspec.Struct, frozen=True):
    """Identity of the pod."""

    name: str = ""
    namespace: str = ""
    uid: str = ""
    annotations: Annotations | None = None
    owner_references: msgspec.Raw = msgspec.field(default=msgspec.Raw(b""), name="ownerReferences")
    """As they came; see `controller`."""

    @property
    def controller(self) -> Owner:
        """The controller that owns the pod; `NOBODY` where none does, or none that we can read."""
        if self.owner_references:
            try:
                found: list[Owner] | None = _OWNERS.decode(self.owner_references)
            except UNDECODABLE:
                return NOBODY  # whether the pod is valid is for others to say
            for owner in found or ():
                if owner.controller:
                    return owner
        return NOBODY


class Spec(msgspec.Struct, frozen=True, rename="camel"):
    """What is read of a pod's specification."""

    containers: list[Container] | None = None
    init_containers: list[Container] | None = None
    overhead: Requests | None = None
    resources: Resources | None = None
    priority_class_name: str | None = None
    priority: msgspec.Raw = msgspec.Raw(b"")
    active_deadline_seconds: msgspec.Raw = msgspec.Raw(b"")
    """As they came, because a hint that does not decode must not fail a pod."""
    node_name: str | None = None
    scheduling_group: msgspec.Raw = msgspec.Raw(b"")
    """As it came: what counts is that there is one (from 1.36 on)."""
    workload_ref: msgspec.Raw = msgspec.Raw(b"")
    """The same in 1.35."""

    @property
    def in_group(self) -> bool:
        """Whether the pod belongs to a group that is placed as a whole."""
        return any(bytes(each) not in (b"", NULL) for each in (self.scheduling_group, self.workload_ref))


class Condition(msgspec.Struct, frozen=True, rename="camel"):
    """One condition of an object's status."""

    type: str = ""
    status: str = ""
    last_transition_time: str | None = None


class PodCondition(Condition, frozen=True, rename="camel"):
    """A condition of a pod, and why."""

    reason: str | None = None


class Status(msgspec.Struct, frozen=True, rename="camel"):
    """What is read of a pod's status."""

    phase: str | None = None
    qos_class: str | None = None
    reason: str | None = None
    conditions: list[PodCondition] | None = None
    container_statuses: list[ContainerStatus] | None = None
    init_container_statuses: list[ContainerStatus] | None = None
    allocated_resources: Requests | None = None
    resources: Resources | None = None


class Pod(msgspec.Struct, frozen=True):
    """A pod, as far as scheduling it is concerned."""

    metadata: Metadata
    spec: Spec = Spec()
    status: Status = Status()
