"""What a pod requests is summed as kube-scheduler sums it: requests as they are, and what scores count."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from extender.demand import pod_demand
from extender.pods import Pod
from extender.requests import RULES, pod_requests
from policy.errors import InvalidQuantityError
from policy.urgency import UrgencyRules

URGENCY = UrgencyRules({}, {"Guaranteed": 0.8, "Burstable": 0.5, "BestEffort": 0.0})


UPSTREAM = json.loads((Path(__file__).parent / "upstream" / "requests.json").read_text(encoding="utf-8"))


def parsed(spec: dict[str, Any], **status: Any) -> Pod:
    return msgspec.json.decode(json.dumps({"metadata": {"uid": "u"}, "spec": spec, "status": status}), type=Pod)


def ask(cpu: str | float | None = None, memory: str | None = None, **more: Any) -> dict[str, Any]:
    return {"resources": {"requests": {"cpu": cpu, "memory": memory, "nvidia.com/gpu": "1"}}, **more}


@pytest.mark.parametrize(
    ("spec", "cpu", "memory"),
    [
        pytest.param({"containers": [ask("100m", "1Gi"), ask("0.4", "512Mi")]}, 0.5, 1.5, id="containers_add_up"),
        pytest.param({"containers": [{"name": "c"}]}, 0, 0, id="no_requests"),
        pytest.param({"containers": [{"resources": {"limits": {"cpu": "1"}}}]}, 0, 0, id="limits_do_not_count"),
        pytest.param({}, 0, 0, id="no_containers"),
        pytest.param({"containers": [ask(2)]}, 2, 0, id="bare_numbers_count"),
        pytest.param(
            {"initContainers": [ask("2"), ask("3")], "containers": [ask("1"), ask("1")]}, 3, 0, id="largest_init"
        ),
        pytest.param({"initContainers": [ask("1")], "containers": [ask("2")]}, 2, 0, id="containers_exceed_init"),
        pytest.param(
            {"initContainers": [ask("1", restartPolicy="Always")], "containers": [ask("2")]}, 3, 0, id="sidecar_adds"
        ),
        pytest.param(
            {"initContainers": [ask("1", restartPolicy="Always"), ask("5")], "containers": [ask("2")]},
            6,
            0,
            id="init_after_sidecar_runs_beside_it",
        ),
        pytest.param(
            {"initContainers": [ask("5"), ask("1", restartPolicy="Always")], "containers": [ask("2")]},
            5,
            0,
            id="init_before_sidecar_runs_alone",
        ),
        pytest.param(
            {"containers": [ask("1", "1Gi")], "overhead": {"cpu": "250m", "memory": "1Gi"}}, 1.25, 2, id="overhead"
        ),
        pytest.param(
            {"containers": [ask("1", "1Gi")], "resources": {"requests": {"cpu": "4"}}}, 4, 1, id="pod_level_replaces"
        ),
        pytest.param(
            {"containers": [ask("1")], "resources": {"requests": {"cpu": "4"}}, "overhead": {"cpu": "1"}},
            5,
            0,
            id="overhead_on_top_of_pod_level",
        ),
    ],
)
def test_requests_of_a_pod(spec: dict[str, Any], cpu: float, memory: float) -> None:
    assert pod_requests(parsed(spec))[:2] == (cpu, memory)


MISSING = 200 / 1024


@pytest.mark.parametrize(
    ("spec", "cpu", "memory"),
    [
        pytest.param({"containers": [ask("1", "1Gi")]}, 1, 1, id="says_both"),
        pytest.param({"containers": [{"name": "c"}]}, 0.1, MISSING, id="says_nothing"),
        pytest.param({"containers": [{"resources": {"requests": None}}]}, 0.1, MISSING, id="requests_null"),
        pytest.param({"containers": [ask("2")]}, 2, MISSING, id="cpu_alone"),
        pytest.param({"containers": [ask(None, "1Gi")]}, 0.1, 1, id="memory_alone"),
        pytest.param({"containers": [ask("0", "0")]}, 0, 0, id="zero_is_a_request"),
        pytest.param({"containers": [ask("1m", "1Mi"), {}]}, 0.101, 201 / 1024, id="one_of_two"),
        pytest.param({"containers": [{}, {}, {}]}, 0.3, 3 * MISSING, id="each_container_counts"),
        pytest.param({"containers": [ask("50m", "1Mi")], "initContainers": [{}]}, 0.1, MISSING, id="init_container"),
        pytest.param(
            {"containers": [ask("50m", "1Mi")], "initContainers": [{"restartPolicy": "Always"}]},
            0.15,
            201 / 1024,
            id="sidecar",
        ),
        pytest.param(
            {"containers": [ask("50m", "1Mi")], "initContainers": [{"restartPolicy": "Always"}, {}]},
            0.2,
            2 * MISSING,
            id="init_container_beside_a_sidecar",
        ),
        pytest.param({"containers": [{}], "overhead": {"cpu": "250m"}}, 0.35, MISSING, id="overhead_on_top"),
        pytest.param({"containers": [{}], "resources": {"requests": {"cpu": "3"}}}, 3, MISSING, id="pod_level_cpu"),
        pytest.param({}, 0, 0, id="no_containers"),
    ],
)
def test_nonzero_requests_of_a_pod(spec: dict[str, Any], cpu: float, memory: float) -> None:
    assert pod_requests(parsed(spec))[2:] == (cpu, memory)
    demand = pod_demand(parsed(spec), URGENCY).demand
    assert (demand.cpu_nonzero, demand.memory_nonzero) == (cpu, memory)


@pytest.mark.parametrize(
    ("spec", "path"),
    [
        ({"containers": [ask("1"), ask("x")]}, r"Pod.spec.containers\[1\].resources.requests.cpu"),
        ({"initContainers": [ask("1", "y")]}, r"Pod.spec.initContainers\[0\].resources.requests.memory"),
        ({"overhead": {"cpu": "z"}}, r"Pod.spec.overhead.cpu"),
        ({"resources": {"requests": {"cpu": "-1"}}}, r"Pod.spec.resources.requests.cpu.*negative"),
    ],
    ids=["container", "init", "overhead", "negative"],
)
def test_a_broken_quantity_is_named_by_its_path(spec: dict[str, Any], path: str) -> None:
    with pytest.raises(InvalidQuantityError, match=path):
        pod_requests(parsed(spec))


@pytest.mark.parametrize("version", sorted(RULES))
def test_odd_pods_come_to_what_that_versions_own_helpers_sum(version: str) -> None:
    """Recorded by `python -m tests.control_plane.record_requests` from component-helpers of each minor version."""
    for entry in UPSTREAM:
        pod = msgspec.json.decode(json.dumps(entry["pod"]), type=Pod)
        bound, scored = pod_requests(pod, RULES[version], bound=True), pod_requests(pod, RULES[version])
        assert bound[:2] == scored[:2]
        amounts = [*bound, *scored[2:]]
        found = [round(amount * (2**30 if i % 2 else 1000)) for i, amount in enumerate(amounts)]
        assert found == entry[version], entry["pod"]


def resized(wanted: str, allocated: str | None, actual: str | None, reason: str | None = None) -> dict[str, Any]:
    """A pod of one container of 1 GiB, with its CPU as the spec wants it and as its status tells."""
    told: dict[str, Any] = {"name": "c", "restartCount": 0}
    if allocated is not None:
        told["allocatedResources"] = {"cpu": allocated, "memory": "1Gi"}
    if actual is not None:
        told["resources"] = {"requests": {"cpu": actual, "memory": "1Gi"}}
    conditions = [{"type": "PodResizePending", "status": "True", "reason": reason}] if reason else []
    return {
        "metadata": {"uid": "u"},
        "spec": {"containers": [ask(wanted, "1Gi", name="c")]},
        "status": {"containerStatuses": [told], "conditions": conditions},
    }


@pytest.mark.parametrize("version", sorted(RULES))
@pytest.mark.parametrize(
    ("pod", "cpu"),
    [
        pytest.param(resized("1", "1", "1"), 1.0, id="steady"),
        pytest.param(resized("1", "6", "6"), 6.0, id="shrinks_not_allocated"),
        pytest.param(resized("1", "1", "6"), 6.0, id="shrinks_not_actuated"),
        pytest.param(resized("6", "1", "1", "Deferred"), 6.0, id="grows_deferred"),
        pytest.param(resized("6", "6", "1"), 6.0, id="grows_not_actuated"),
        pytest.param(resized("1000000", "1", "1", "Infeasible"), 1.0, id="infeasible"),
        pytest.param(resized("1000000", "1", "2", "Infeasible"), 2.0, id="infeasible_while_another_shrinks"),
    ],
)
def test_a_resize_counts_the_largest_of_what_can_be(pod: dict[str, Any], cpu: float, version: str) -> None:
    """Whoever owns a pod may ask for a resize of any size; one that no node can do counts for nothing."""
    found = pod_requests(msgspec.json.decode(json.dumps(pod), type=Pod), RULES[version], bound=True)
    assert found == (cpu, 1.0, cpu, 1.0)


def test_a_broken_quantity_in_a_status_is_named_by_its_path() -> None:
    broken = msgspec.json.decode(json.dumps(resized("1", "1", "x")), type=Pod)
    with pytest.raises(InvalidQuantityError, match=r"Pod\.status\.containerStatuses\[0\]\.resources\.requests\.cpu"):
        pod_requests(broken)
