"""What a Node object says of its machine: which one it is, which are like it, how fast it is, what it keeps. Pure."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from extender.cluster.decoding import Node, NodeInfo
from extender.cluster.instances import published_speed
from extender.cluster.stats import Amounts
from extender.pods import GIB, Requests
from extender.quantities import NANO, nano_units, within
from policy.cluster import REFERENCE_SPEED
from policy.errors import InvalidQuantityError

INSTANCE_TYPE_LABEL: Final = "node.kubernetes.io/instance-type"

NO_INSTANCE_TYPES: Final = ("k3s", "rke2")
"""What distributions write into `INSTANCE_TYPE_LABEL` of every node, whatever the machine is."""

CPU_MODEL_LABELS: Final = tuple(
    f"feature.node.kubernetes.io/cpu-model.{part}" for part in ("vendor_id", "family", "id")
)
"""Labels in which Node Feature Discovery names the CPU's model."""

SLOWEST, FASTEST = 0.05, 10.0
"""Speeds that a node may be labelled or annotated with. Assumption: whatever lies outside is a mistake, or a wish."""

RESTRICTED: Final = "node-restriction.kubernetes.io/"
"""Prefix of labels that a kubelet may not set on its own node; annotations of that prefix it may."""

TOLD: Final = ("annotation", "label", "setting")
"""Sources of speeds that an operator gave: no estimate overrides them."""

SOURCES: Final = (*TOLD, "completions", "probe", "published", "default")
"""Where a node's speed may come from, in order of trust."""


@dataclass(frozen=True, slots=True)
class SpeedRules:
    """Where a node's speed per core comes from (1.0 = the reference core).

    Attributes:
        key: annotation or label that gives it; the annotation wins. Below `RESTRICTED` the label alone counts.
        by_instance_type: speed by the label `INSTANCE_TYPE_LABEL`, for nodes without that key.
        published: whether nodes whose speed nothing else gives have the one that their provider published.
    """

    key: str = "maddpg-scheduler.io/speed"
    by_instance_type: Mapping[str, float] = field(default_factory=dict)
    published: bool = False


@dataclass(frozen=True, slots=True)
class Machine:
    """What is known of a node's machine.

    Attributes:
        identity: differs between machines that bear the same name one after the other. The machine's UUID, and what a
            provider may keep while it exchanges the machine: Google's providerID is made of names. Of the same machine
            it may change, where its Node object is made anew: then what was learned of it is lost, and no harm is done.
            A reboot changes nothing here: its cores stay what they are.
        node_class: names the machines that should be alike: instance type, else CPU model (Node Feature Discovery),
            each with the architecture; empty where neither is known. Kernel and OS image say nothing of the cores: in a
            data centre of mixed machines they are the same everywhere.
        speed: per core relative to the reference core.
        source: where it comes from: one of `SOURCES`.
    """

    identity: str
    node_class: str
    speed: float
    source: str


def machine_of(node: Node, rules: SpeedRules) -> tuple[Machine, str | None]:
    """The node's machine, and a warning if what its owner wrote had to be ignored."""
    speed, source, warning = declared_speed(node, rules)
    labels, info = node.metadata.labels or {}, node.status.node_info or NodeInfo()
    kind = labels.get(INSTANCE_TYPE_LABEL, "")
    if kind in NO_INSTANCE_TYPES:
        kind = ""
    identity = "/".join((node.metadata.uid, info.system_uuid, node.spec.provider_id, kind))
    model = [labels.get(label, "") for label in CPU_MODEL_LABELS]
    name = kind or (" ".join(model) if all(model) else "")
    return Machine(identity, sys.intern(f"{name} {info.architecture}") if name else "", speed, source), warning


def declared_speed(node: Node, rules: SpeedRules) -> tuple[float, str, str | None]:
    """Speed per core as the Node object and the settings have it, its source, and a warning about what is ignored."""
    labels, annotations = node.metadata.labels or {}, node.metadata.annotations or {}
    warning: str | None = None
    given = {"label": labels.get(rules.key)}
    if RESTRICTED not in rules.key:
        given = {"annotation": annotations.get(rules.key), **given}
    source, text = next(((source, text) for source, text in given.items() if text is not None), ("", None))
    if text is not None:
        speed = within(text, SLOWEST, FASTEST)
        if speed is not None:
            return speed, source, None
        wanted = f"a number from {SLOWEST:g} to {FASTEST:g}, 1.0 for the reference core"
        warning = f"{rules.key} is {text[:40]!r}; give {wanted}"
    kind = labels.get(INSTANCE_TYPE_LABEL, "")
    if (of_type := rules.by_instance_type.get(kind)) is not None:
        return of_type, "setting", warning
    if rules.published and (found := published_speed(kind)) is not None:
        return found.speed, "published", warning
    return REFERENCE_SPEED, "default", warning


def amounts_of(listed: Requests | None) -> Amounts:
    """What a resource list says; 0 where it says nothing. Raises `InvalidQuantityError` if it makes no sense."""
    if listed is None:
        return Amounts()
    return Amounts(nano_units(str(listed.cpu or 0)) / NANO, nano_units(str(listed.memory or 0)) / NANO / GIB)


def reserved_of(node: Node) -> Amounts:
    """What a node keeps from its pods: capacity less allocatable; none where it does not say both."""
    if node.status.capacity is None or node.status.allocatable is None:
        return Amounts()
    try:
        whole, left = amounts_of(node.status.capacity), amounts_of(node.status.allocatable)
    except InvalidQuantityError:
        return Amounts()
    return Amounts(max(whole.cpu - left.cpu, 0.0), max(whole.memory - left.memory, 0.0))
