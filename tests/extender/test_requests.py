"""What a pod requests is summed as kube-scheduler sums it: requests as they are, and what scores count."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from extender.demand import UrgencyRules, pod_demand
from extender.pods import Pod
from extender.requests import pod_requests
from policy.errors import InvalidQuantityError

RULES = UrgencyRules({}, {"Guaranteed": 0.8, "Burstable": 0.5, "BestEffort": 0.0})


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
    demand, _ = pod_demand(parsed(spec), RULES)
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
