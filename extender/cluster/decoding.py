"""Bytes of the Kubernetes API to the few fields that count; everything else is skipped unread. Pure.

Lists and events are split first and their objects decoded one by one, so that one object that does not decode costs
itself and not the page it stands in.
"""

from __future__ import annotations

import re
from typing import Final, TypeVar

import msgspec

from extender import nulls
from extender.errors import UNDECODABLE, SourceError, kind_of
from extender.pods import (
    Condition,
    ContainerStatus,
    Metadata,
    Pod,
    PodCondition,
    Requests,
    Spec,
    Status,
)

T = TypeVar("T")

SUCCEEDED: Final = "Succeeded"
"""Phase of a pod all of whose containers ended well and stay so: never one of `restartPolicy: Always`."""


class UndecodableError(SourceError):
    """The API server sent something that is not what the Kubernetes API promises."""


class ListMetadata(msgspec.Struct, frozen=True, rename="camel"):
    """Of a list: what it is a snapshot of, and where it goes on."""

    resource_version: str = ""
    continue_: str = msgspec.field(default="", name="continue")


class Page(msgspec.Struct, frozen=True):
    """One page of a list; its items are still raw."""

    metadata: ListMetadata
    items: list[msgspec.Raw] | None = None


class Event(msgspec.Struct, frozen=True):
    """One event of a watch; its object is still raw."""

    type: str
    object: msgspec.Raw


class Failure(msgspec.Struct, frozen=True):
    """The metav1.Status in an event of type ERROR; its message is for nobody here."""

    code: int = 0
    reason: str | None = None


class Version(msgspec.Struct, frozen=True, rename="camel"):
    """Metadata of an object of which nothing else is read."""

    resource_version: str


class Bookmark(msgspec.Struct, frozen=True):
    """What an event of type BOOKMARK carries."""

    metadata: Version


class PodMetadata(Metadata, frozen=True):
    """`extender.pods.Metadata` and what only a watch needs: the version, and when the pod came and is to go."""

    resource_version: str = msgspec.field(default="", name="resourceVersion")
    creation_timestamp: str | None = msgspec.field(default=None, name="creationTimestamp")
    deletion_timestamp: str | None = msgspec.field(default=None, name="deletionTimestamp")


class PodSpec(Spec, frozen=True, rename="camel"):
    """`extender.pods.Spec`, who is to place the pod, and as whom it runs."""

    scheduler_name: str | None = None
    service_account_name: str | None = None


class WatchedCondition(PodCondition, frozen=True, rename="camel"):
    """A condition of a pod, and what it says to people."""

    message: str | None = None


class Terminated(msgspec.Struct, frozen=True, rename="camel"):
    """How a container ended."""

    reason: str | None = None
    started_at: str | None = None
    finished_at: str | None = None
    message: str | None = None
    exit_code: int | None = None


class ContainerState(msgspec.Struct, frozen=True):
    """What a container is or was; one that waits or runs says nothing here."""

    terminated: Terminated | None = None


class WatchedContainer(ContainerStatus, frozen=True, rename="camel"):
    """What became of a container, too."""

    restart_count: int = 0
    state: ContainerState | None = None
    last_state: ContainerState | None = None


class PodStatus(Status, frozen=True, rename="camel"):
    """`extender.pods.Status` and what became of the pod."""

    conditions: list[WatchedCondition] | None = None  # type: ignore[assignment]  # a list of more than the base's
    start_time: str | None = None
    nominated_node_name: str | None = None
    container_statuses: list[WatchedContainer] | None = None  # type: ignore[assignment]  # the same
    init_container_statuses: list[WatchedContainer] | None = None  # type: ignore[assignment]  # the same


class WatchedPod(Pod, frozen=True):
    """A pod as lists and watches show it."""

    metadata: PodMetadata
    spec: PodSpec = PodSpec()
    status: PodStatus = PodStatus()


class NodeMetadata(msgspec.Struct, frozen=True, rename="camel"):
    """Identity of a node and what its owners say of it."""

    name: str
    uid: str = ""
    resource_version: str = ""
    labels: dict[str, str] | None = None
    annotations: dict[str, str] | None = None


class NodeSpec(msgspec.Struct, frozen=True):
    """What is read of a node's specification."""

    unschedulable: bool | None = None
    provider_id: str = msgspec.field(default="", name="providerID")


class NodeAddress(msgspec.Struct, frozen=True):
    """One address of a node."""

    type: str = ""
    address: str = ""


class KubeletEndpoint(msgspec.Struct, frozen=True):
    """Where a node's kubelet listens; Kubernetes spells this field with a capital."""

    port: int = msgspec.field(default=0, name="Port")


class DaemonEndpoints(msgspec.Struct, frozen=True):
    """Where a node's daemons listen."""

    kubelet: KubeletEndpoint | None = msgspec.field(default=None, name="kubeletEndpoint")


class NodeInfo(msgspec.Struct, frozen=True):
    """What a kubelet says of its machine."""

    system_uuid: str = msgspec.field(default="", name="systemUUID")
    architecture: str = ""


class NodeStatus(msgspec.Struct, frozen=True):
    """What is read of a node's status."""

    allocatable: Requests | None = None
    capacity: Requests | None = None
    conditions: list[Condition] | None = None
    addresses: list[NodeAddress] | None = None
    daemon_endpoints: DaemonEndpoints | None = msgspec.field(default=None, name="daemonEndpoints")
    node_info: NodeInfo | None = msgspec.field(default=None, name="nodeInfo")


class Node(msgspec.Struct, frozen=True):
    """A node as lists and watches show it."""

    metadata: NodeMetadata
    spec: NodeSpec = NodeSpec()
    status: NodeStatus = NodeStatus()


class ObservedPod(WatchedPod, frozen=True):
    """A pod, and the JSON that it was read from: only where a cluster is observed does more of it matter."""

    source: bytes = b""


class ObservedNode(Node, frozen=True):
    """The same of a node."""

    source: bytes = b""


_REASON: Final = re.compile(r"[A-Za-z]{1,64}")
"""A reason as Kubernetes enumerates them (metav1.StatusReason): one word."""

_PAGE: Final = msgspec.json.Decoder(Page)
_EVENT: Final = msgspec.json.Decoder(Event)
_BOOKMARK: Final = msgspec.json.Decoder(Bookmark)
_FAILURE: Final = msgspec.json.Decoder(Failure)
_POD: Final = msgspec.json.Decoder(WatchedPod)
_NODE: Final = msgspec.json.Decoder(Node)


def published_reason(reason: str | None) -> str:
    """Return the reason of a Status if it is one word, as all of Kubernetes' are; else "": it could hold anything."""
    return reason if reason is not None and _REASON.fullmatch(reason) else ""


def decode_page(body: bytes) -> Page:
    """One page of a list.

    Raises:
        UndecodableError: it is none. Anything that lacks a version could else pass for a list of nothing.
    """
    page = _decode(_PAGE, body, "a list")
    if not page.metadata.resource_version:
        raise UndecodableError("the API server sent a list without metadata.resourceVersion")
    return page


def decode_event(line: bytes) -> Event:
    """One line of a watch. Raises `UndecodableError` if it is no event."""
    return _decode(_EVENT, line, "a watch event")


def decode_bookmark(raw: msgspec.Raw) -> str:
    """The version in the object of a BOOKMARK.

    Raises:
        UndecodableError: there is none. A watch from "" would begin anywhere, and never tell what was deleted before.
    """
    version = _decode(_BOOKMARK, raw, "a bookmark").metadata.resource_version
    if not version:
        raise UndecodableError("the API server sent a bookmark without a version")
    return version


def decode_failure(raw: msgspec.Raw) -> Failure:
    """The object of an ERROR. Raises `UndecodableError` if it is no Status."""
    return _decode(_FAILURE, raw, "an error event")


def decode_pod(raw: msgspec.Raw) -> WatchedPod:
    """A pod. Raises `UndecodableError` if it is none, or has no UID."""
    pod = _decode(_POD, raw, "a pod")
    if not pod.metadata.uid:
        raise UndecodableError(f"a pod without metadata.uid ({pod.metadata.namespace}/{pod.metadata.name})")
    return pod


def decode_node(raw: msgspec.Raw) -> Node:
    """A node. Raises `UndecodableError` if it is none, or has no name."""
    node = _decode(_NODE, raw, "a node")
    if not node.metadata.name:
        raise UndecodableError("a node without metadata.name")
    return node


def observed_pod(raw: msgspec.Raw) -> ObservedPod:
    """As `decode_pod`, with the JSON."""
    pod = decode_pod(raw)
    return ObservedPod(pod.metadata, pod.spec, pod.status, bytes(raw))


def observed_node(raw: msgspec.Raw) -> ObservedNode:
    """As `decode_node`, with the JSON."""
    node = decode_node(raw)
    return ObservedNode(node.metadata, node.spec, node.status, bytes(raw))


def _decode(decoder: msgspec.json.Decoder[T], raw: bytes | msgspec.Raw, what: str) -> T:
    try:
        return nulls.decode(decoder, raw)
    except UNDECODABLE as error:
        raise UndecodableError(f"the API server sent {what} that does not decode: {kind_of(error)}") from error
