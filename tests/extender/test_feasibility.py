"""Where a pod could run, as kube-scheduler's filters see it: values as its own documentation and tests have them."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from extender.feasibility import UNMODELLED, Room, can_run, constraints_of, facts_of

LABELS = {"zone": "a", "cores": "8", "underscored": "1_0", "huge": "9223372036854775808", "kubernetes.io/arch": "amd64"}
GPU = "nvidia.com/gpu"


def node(taints: list[dict[str, str]] | None = None, unschedulable: bool = False, **allocatable: str) -> bytes:
    """A node as the API server shows it."""
    spec = {"taints": taints, "unschedulable": unschedulable}
    document = {"metadata": {"name": "n", "labels": LABELS}, "spec": spec}
    return json.dumps({**document, "status": {"allocatable": {"pods": "110", "cpu": "8", **allocatable}}}).encode()


def runs(spec: dict[str, Any], on: bytes | None = None, cpu: float = 1.0, memory: float = 1.0, **room: Any) -> bool:
    """Whether a pod of this specification can run on a node."""
    constraints = constraints_of(json.dumps({"spec": spec}).encode())
    left = Room(**{"cpu": 8.0, "memory": 8.0, "pods": 10, **room})
    return can_run("n", facts_of(on or node()), left, constraints, cpu, memory, constraints.extended())


def required(*terms: dict[str, Any]) -> dict[str, Any]:
    """Required node affinity of these terms."""
    key = "requiredDuringSchedulingIgnoredDuringExecution"
    return {"affinity": {"nodeAffinity": {key: {"nodeSelectorTerms": list(terms)}}}}


def expression(key: str, operator: str, *values: str) -> dict[str, Any]:
    """A term of one requirement on labels."""
    return {"matchExpressions": [{"key": key, "operator": operator, "values": list(values)}]}


@pytest.mark.parametrize(
    ("taint", "tolerations", "expected"),
    [
        ({"key": "a", "value": "b", "effect": "NoSchedule"}, [], False),
        ({"key": "a", "value": "b", "effect": "NoExecute"}, [], False),
        ({"key": "a", "value": "b", "effect": "PreferNoSchedule"}, [], True),
        ({"key": "a", "value": "b", "effect": "NoSchedule"}, [{"key": "a", "value": "b"}], True),
        ({"key": "a", "value": "b", "effect": "NoSchedule"}, [{"key": "a", "value": "c"}], False),
        ({"key": "a", "effect": "NoSchedule"}, [{"key": "a", "operator": "Equal"}], True),
        ({"key": "a", "value": "b", "effect": "NoSchedule"}, [{"key": "a", "operator": "Exists"}], True),
        ({"key": "a", "value": "b", "effect": "NoSchedule"}, [{"operator": "Exists"}], True),
        ({"key": "a", "value": "b", "effect": "NoExecute"}, [{"operator": "Exists", "effect": "NoSchedule"}], False),
        ({"key": "a", "value": "b", "effect": "NoSchedule"}, [{"key": "c", "operator": "Exists"}], False),
    ],
)
def test_taints_keep_out_whoever_does_not_tolerate_them(
    taint: dict[str, str], tolerations: list[dict[str, str]], expected: bool
) -> None:
    assert runs({"tolerations": tolerations}, node([taint])) is expected


def test_a_cordoned_node_takes_only_pods_that_tolerate_it() -> None:
    assert not runs({}, node(unschedulable=True))
    tolerated = {"key": "node.kubernetes.io/unschedulable", "operator": "Exists"}
    assert runs({"tolerations": [tolerated]}, node(unschedulable=True))


@pytest.mark.parametrize(
    ("term", "expected"),
    [
        (expression("zone", "In", "a", "b"), True),
        (expression("zone", "In", "b"), False),
        (expression("zone", "NotIn", "b"), True),
        (expression("absent", "NotIn", "b"), True),
        (expression("zone", "Exists"), True),
        (expression("absent", "Exists"), False),
        (expression("absent", "DoesNotExist"), True),
        (expression("cores", "Gt", "7"), True),
        (expression("cores", "Gt", "8"), False),
        (expression("cores", "Lt", "9"), True),
        (expression("zone", "Gt", "1"), False),
        (expression("underscored", "Gt", "1"), False),
        (expression("huge", "Gt", "1"), False),
        (expression("cores", "Gt", "-1"), True),
        (expression("cores", "Gt", "1", "2"), False),
        (expression("zone", "Unheard"), False),
        ({"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["n"]}]}, True),
        ({"matchFields": [{"key": "metadata.name", "operator": "NotIn", "values": ["n"]}]}, False),
        ({}, False),
    ],
)
def test_required_node_affinity(term: dict[str, Any], expected: bool) -> None:
    assert runs(required(term)) is expected
    assert runs(required(term, expression("zone", "In", "a"))), "one of the terms is enough"


def test_required_affinity_of_no_term_selects_nothing() -> None:
    assert not runs(required())


def test_all_of_a_node_selector_must_match() -> None:
    assert runs({"nodeSelector": {"zone": "a", "cores": "8"}})
    assert not runs({"nodeSelector": {"zone": "a", "cores": "9"}})


def test_requests_must_fit_and_nothing_fits_always() -> None:
    assert runs({}, cpu=8.0, memory=8.0)
    assert not runs({}, cpu=8.001)
    assert not runs({}, memory=8.001)
    assert not runs({}, pods=0)
    assert runs({}, cpu=0.0, memory=0.0, pods=1), "a pod that requests nothing fits an overfull node"
    constraints = constraints_of(b"{}")
    assert can_run("n", facts_of(node()), Room(-1.0, -1.0, 1), constraints, 0.0, 0.0, {})


def test_extended_resources_must_be_there() -> None:
    def wants(amount: str) -> dict[str, Any]:
        return {"containers": [{"resources": {"requests": {GPU: amount, "cpu": "1"}}}]}

    assert not runs(wants("1"))
    assert runs(wants("2"), node(**{GPU: "2"}))
    assert not runs(wants("3"), node(**{GPU: "2"}))
    assert runs(wants("0"))


def test_what_is_not_modelled_is_named() -> None:
    key = "requiredDuringSchedulingIgnoredDuringExecution"
    spec = {
        "affinity": {"podAffinity": {key: [{}]}, "podAntiAffinity": {key: [{"topologyKey": "zone"}]}},
        "topologySpreadConstraints": [{"whenUnsatisfiable": "DoNotSchedule"}],
        "volumes": [{"persistentVolumeClaim": {"claimName": "x"}}],
        "containers": [{"ports": [{"hostPort": 80}], "resources": {"requests": {GPU: "1"}}}],
        "resourceClaims": [{"name": "x"}],
    }
    assert tuple(constraints_of(json.dumps({"spec": spec}).encode()).unmodelled()) == UNMODELLED
    harmless = {
        "affinity": {"podAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [{}]}},
        "topologySpreadConstraints": [{"whenUnsatisfiable": "ScheduleAnyway"}],
        "volumes": [{"emptyDir": {}}, {"configMap": {"name": "x"}}],
        "containers": [{"ports": [{"containerPort": 80}], "resources": {"requests": {"cpu": "1"}}}],
    }
    assert constraints_of(json.dumps({"spec": harmless}).encode()).unmodelled() == []


def test_amounts_of_a_node_that_do_not_parse_count_as_none() -> None:
    facts = facts_of(node(**{GPU: "many", "pods": "x"}))
    assert (facts.extended, facts.pods) == ({GPU: 0}, 0)


def test_a_specification_of_other_types_is_refused() -> None:
    with pytest.raises(msgspec.DecodeError):
        constraints_of(b'{"spec": {"tolerations": "all"}}')
