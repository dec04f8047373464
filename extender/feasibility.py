"""Where a pod could run, as kube-scheduler's filters see it, for observing a cluster that others schedule. Pure.

Modelled after pkg/scheduler/framework/plugins: NodeUnschedulable, TaintToleration, NodeAffinity and NodeResourcesFit
(CPU, memory, the number of pods, and whether a node has enough of an extended resource at all). What else restricts a
pod is not modelled, and named: see `Constraints.unmodelled`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import msgspec

from extender.quantities import NANO, nano_units
from policy.errors import InvalidQuantityError

UNSCHEDULABLE: Final = "node.kubernetes.io/unschedulable"
"""Taint that a cordoned node counts as having."""

KEEPS_OUT: Final = frozenset({"NoSchedule", "NoExecute"})
"""Effects of taints that filter; PreferNoSchedule only scores."""

OWN: Final = frozenset({"cpu", "memory", "pods", "ephemeral-storage"})
"""Resources that are no extended ones."""

_INTEGER: Final = re.compile(r"[+-]?[0-9]{1,63}")
"""As long as a label may be."""

SLACK: Final = 1e-9
"""Cores, or GiB, by which sums of floating-point requests may be off."""


class Taint(msgspec.Struct, frozen=True):
    """A taint of a node."""

    key: str = ""
    value: str | None = None
    effect: str = ""


class Toleration(msgspec.Struct, frozen=True):
    """A toleration of a pod."""

    key: str | None = None
    operator: str | None = None
    value: str | None = None
    effect: str | None = None

    def tolerates(self, taint: Taint) -> bool:
        """Whether it lets the pod onto a node of this taint (`Toleration.ToleratesTaint`)."""
        if self.effect and self.effect != taint.effect:
            return False
        if self.key and self.key != taint.key:
            return False
        if self.operator == "Exists":
            return True
        if not self.key or self.operator not in (None, "", "Equal"):
            return False
        return (self.value or "") == (taint.value or "")


class Expression(msgspec.Struct, frozen=True):
    """One requirement on labels, or on fields."""

    key: str = ""
    operator: str = ""
    values: Sequence[str] | None = None

    def holds(self, labels: Mapping[str, str]) -> bool:
        """Whether these labels meet it; one that does not parse is met by none."""
        values, found = self.values or (), labels.get(self.key)
        match self.operator:
            case "In":
                return found in values
            case "NotIn":
                return found not in values
            case "Exists":
                return found is not None
            case "DoesNotExist":
                return found is None
            case "Gt" | "Lt":
                label, limit = _integer(found), _integer(values[0] if len(values) == 1 else None)
                if label is None or limit is None:
                    return False
                return label > limit if self.operator == "Gt" else label < limit
        return False


def _integer(text: str | None) -> int | None:
    """The number that Go's strconv.ParseInt reads; `int` also takes underscores, blanks and digits of other scripts."""
    if text is None or not _INTEGER.fullmatch(text):
        return None
    value = int(text)
    return value if -(2**63) <= value < 2**63 else None


class Term(msgspec.Struct, frozen=True, rename="camel"):
    """Requirements that all must hold; a term of none selects nothing."""

    match_expressions: Sequence[Expression] | None = None
    match_fields: Sequence[Expression] | None = None

    def selects(self, name: str, labels: Mapping[str, str]) -> bool:
        """Whether it selects the node of this name."""
        expressions, on_fields = self.match_expressions or (), self.match_fields or ()
        if not expressions and not on_fields:
            return False
        fields = {"metadata.name": name}
        return all(each.holds(labels) for each in expressions) and all(each.holds(fields) for each in on_fields)


class NodeSelector(msgspec.Struct, frozen=True, rename="camel"):
    """Terms of which one must select the node."""

    node_selector_terms: Sequence[Term] | None = None


class NodeAffinity(msgspec.Struct, frozen=True):
    """What is required of the node."""

    required: NodeSelector | None = msgspec.field(default=None, name="requiredDuringSchedulingIgnoredDuringExecution")


class PodAffinity(msgspec.Struct, frozen=True):
    """What is required of other pods on the node: not modelled, only noticed."""

    required: Sequence[msgspec.Raw] | None = msgspec.field(
        default=None, name="requiredDuringSchedulingIgnoredDuringExecution"
    )


class Affinity(msgspec.Struct, frozen=True, rename="camel"):
    """What a pod wants of nodes and of other pods."""

    node_affinity: NodeAffinity | None = None
    pod_affinity: PodAffinity | None = None
    pod_anti_affinity: PodAffinity | None = None


class Spread(msgspec.Struct, frozen=True, rename="camel"):
    """A topology spread constraint."""

    when_unsatisfiable: str = "DoNotSchedule"


class Volume(msgspec.Struct, frozen=True, rename="camel"):
    """A volume, as far as it may tie the pod to nodes."""

    persistent_volume_claim: msgspec.Raw = msgspec.Raw(b"")
    ephemeral: msgspec.Raw = msgspec.Raw(b"")

    @property
    def ties(self) -> bool:
        """Whether its claim may tie the pod to nodes."""
        return any(bytes(each) not in (b"", b"null") for each in (self.persistent_volume_claim, self.ephemeral))


class HostPort(msgspec.Struct, frozen=True, rename="camel"):
    """A port of a container."""

    host_port: int = 0


class Wanted(msgspec.Struct, frozen=True):
    """Requests of all resources."""

    requests: dict[str, str | int | float] | None = None


class Part(msgspec.Struct, frozen=True):
    """A container."""

    ports: Sequence[HostPort] | None = None
    resources: Wanted | None = None


class Constraints(msgspec.Struct, frozen=True, rename="camel"):
    """What of a pod's specification restricts where it can run."""

    node_selector: dict[str, str] | None = None
    affinity: Affinity | None = None
    tolerations: Sequence[Toleration] | None = None
    topology_spread_constraints: Sequence[Spread] | None = None
    volumes: Sequence[Volume] | None = None
    resource_claims: Sequence[msgspec.Raw] | None = None
    containers: Sequence[Part] | None = None
    init_containers: Sequence[Part] | None = None

    def extended(self) -> dict[str, int]:
        """Extended resources that it requests, billionths of a unit: the sum over what runs, or more where it starts.

        Raises:
            InvalidQuantityError: a quantity does not parse.
        """
        sums: dict[str, int] = {}
        for running, parts in ((True, self.containers), (False, self.init_containers)):
            for part in parts or ():
                for name, amount in ((part.resources and part.resources.requests) or {}).items():
                    if name not in OWN:
                        wanted, before = nano_units(str(amount)), sums.get(name, 0)
                        sums[name] = before + wanted if running else max(before, wanted)
        return {name: amount for name, amount in sums.items() if amount > 0}

    def unmodelled(self) -> list[str]:
        """What restricts the pod and is not modelled, by name."""
        affinity = self.affinity or Affinity()
        found = {
            "pod_affinity": affinity.pod_affinity is not None and bool(affinity.pod_affinity.required),
            "pod_anti_affinity": affinity.pod_anti_affinity is not None and bool(affinity.pod_anti_affinity.required),
            "topology_spread": any(
                each.when_unsatisfiable == "DoNotSchedule" for each in self.topology_spread_constraints or ()
            ),
            "volumes": any(each.ties for each in self.volumes or ()),
            "host_ports": any(port.host_port for part in self.containers or () for port in part.ports or ()),
            "resource_claims": bool(self.resource_claims),
            "extended_resources": bool(self.extended()),
        }
        return [name for name, restricts in found.items() if restricts]


UNMODELLED: Final = (
    "pod_affinity", "pod_anti_affinity", "topology_spread", "volumes", "host_ports", "resource_claims",
    "extended_resources",
)  # fmt: skip
"""What `Constraints.unmodelled` may name."""


@dataclass(frozen=True, slots=True)
class NodeFacts:
    """What filters read of a node."""

    labels: Mapping[str, str]  # its labels
    taints: tuple[Taint, ...] = ()  # those that keep pods out, the cordon's among them
    pods: int = 0  # how many it may run
    extended: Mapping[str, int] = field(default_factory=dict)  # what it has of extended resources, billionths of a unit


@dataclass(frozen=True, slots=True)
class Room:
    """What is left on a node: cores, GiB and pods."""

    cpu: float
    memory: float
    pods: int


def can_run(
    name: str,
    facts: NodeFacts,
    room: Room,
    constraints: Constraints,
    cpu: float,
    memory: float,
    extended: Mapping[str, int],
) -> bool:
    """Whether a pod could run on a node, as far as that is modelled.

    Args:
        name: of the node.
        facts: of the node.
        room: of the node, without this pod.
        constraints: of the pod.
        cpu: its request, cores.
        memory: its request, GiB.
        extended: `Constraints.extended` of it.
    """
    tolerations = constraints.tolerations or ()
    if any(not any(each.tolerates(taint) for each in tolerations) for taint in facts.taints):
        return False
    if any(facts.labels.get(key) != value for key, value in (constraints.node_selector or {}).items()):
        return False
    affinity = constraints.affinity and constraints.affinity.node_affinity
    if affinity and affinity.required is not None:
        terms = affinity.required.node_selector_terms or ()
        if not any(term.selects(name, facts.labels) for term in terms):
            return False
    if room.pods < 1 or (cpu > 0.0 and cpu > room.cpu + SLACK) or (memory > 0.0 and memory > room.memory + SLACK):
        return False
    return all(facts.extended.get(key, 0) >= amount for key, amount in extended.items())


class _Allocatable(msgspec.Struct, frozen=True):
    allocatable: dict[str, str | int | float] | None = None


class _NodeSpec(msgspec.Struct, frozen=True):
    taints: Sequence[Taint] | None = None
    unschedulable: bool | None = None


class _NodeMetadata(msgspec.Struct, frozen=True):
    labels: dict[str, str] | None = None


class _Node(msgspec.Struct, frozen=True):
    metadata: _NodeMetadata = _NodeMetadata()
    spec: _NodeSpec = _NodeSpec()
    status: _Allocatable = _Allocatable()


class _Pod(msgspec.Struct, frozen=True):
    spec: Constraints = Constraints()


_NODE: Final = msgspec.json.Decoder(_Node)
_POD: Final = msgspec.json.Decoder(_Pod)


def constraints_of(pod: bytes) -> Constraints:
    """The constraints of a pod, as JSON of the Kubernetes API.

    Raises:
        Exception: one of `extender.errors.UNDECODABLE`; it is none.
    """
    return _POD.decode(pod).spec


def facts_of(node: bytes) -> NodeFacts:
    """What filters read of a node, as JSON of the Kubernetes API. Amounts that do not parse count as none.

    Raises:
        Exception: one of `extender.errors.UNDECODABLE`; it is none.
    """
    found = _NODE.decode(node)
    taints = [each for each in found.spec.taints or () if each.effect in KEEPS_OUT]
    if found.spec.unschedulable:
        taints.append(Taint(UNSCHEDULABLE, effect="NoSchedule"))
    amounts = {name: _amount(amount) for name, amount in (found.status.allocatable or {}).items()}
    extended = {name: amount for name, amount in amounts.items() if name not in OWN}
    return NodeFacts(
        found.metadata.labels or {}, tuple(dict.fromkeys(taints)), amounts.get("pods", 0) // NANO, extended
    )


def _amount(text: str | float) -> int:
    try:
        return nano_units(str(text))
    except InvalidQuantityError:
        return 0
