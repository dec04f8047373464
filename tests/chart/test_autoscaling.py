"""The examples of deploy/autoscaling fit each other, and the placeholders do to a scheduler what the page says."""

import time
from collections.abc import Iterator

import pytest
import yaml

from tests.chart.audit import AuditedControlPlane
from tests.chart.helm import CHART, NAMESPACE
from tests.control_plane import access
from tests.control_plane.access import Manifest
from tests.control_plane.toolchain import REPOSITORY
from tests.control_plane.workload import create_nodes, node

EXAMPLES = REPOSITORY / "deploy" / "autoscaling"
PLACEHOLDER = access.read_manifests(EXAMPLES / "placeholder.yaml")
(DEPLOYMENT,) = [each for each in PLACEHOLDER if each["kind"] == "Deployment"]


def _example(name: str) -> Manifest:
    (found,) = access.read_manifests(EXAMPLES / f"{name}.yaml")
    return found


@pytest.mark.parametrize("name", ["keda", "hpa"])
def test_both_scale_the_placeholders_in_their_namespace(name: str) -> None:
    scaler = _example(name)
    target = {"apiVersion": "apps/v1", "kind": "Deployment", **scaler["spec"]["scaleTargetRef"]}
    assert (target["apiVersion"], target["kind"]) == (DEPLOYMENT["apiVersion"], DEPLOYMENT["kind"])
    assert target["name"] == DEPLOYMENT["metadata"]["name"]
    assert scaler["metadata"]["namespace"] == DEPLOYMENT["metadata"]["namespace"] == NAMESPACE


def test_hpa_reads_the_metric_that_the_adapter_makes_of_a_recorded_series() -> None:
    (metric,) = _example("hpa")["spec"]["metrics"]
    adapter = yaml.safe_load((EXAMPLES / "prometheus-adapter.yaml").read_text())
    (rule,) = adapter["rules"]["external"]
    assert metric["external"]["metric"]["name"] == rule["name"]["as"]
    recorded = {
        each.get("record")
        for group in yaml.safe_load((CHART / "files" / "rules.yaml").read_text())["groups"]
        for each in group["rules"]
    }
    assert rule["metricsQuery"] in {f"max({name})" for name in recorded}


def test_placeholders_are_no_less_important_than_cluster_autoscaler_asks() -> None:
    (importance,) = [each for each in PLACEHOLDER if each["kind"] == "PriorityClass"]
    assert importance["value"] >= -10, "--expendable-pods-priority-cutoff"
    assert DEPLOYMENT["spec"]["template"]["spec"]["priorityClassName"] == importance["metadata"]["name"]


@pytest.fixture
def floor(control_plane: AuditedControlPlane, nodes: None) -> Iterator[AuditedControlPlane]:
    """The placeholders, as many as nodes and one more, beside three nodes and the cluster's own scheduler."""
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE, "labels": labels}}
    access.apply(control_plane.api, [namespace, *PLACEHOLDER])
    path = access.object_path(control_plane.api, DEPLOYMENT)
    access.request(control_plane.api, "PATCH", path, {"spec": {"replicas": 4}}, "application/merge-patch+json")
    yield control_plane
    access.delete(control_plane.api, PLACEHOLDER)


def _placeholders(plane: AuditedControlPlane) -> dict[str, str | None]:
    """Name of each placeholder, and its node."""
    query = "labelSelector=app.kubernetes.io/name=maddpg-placeholder"
    listed = access.request(plane.api, "GET", f"/api/v1/namespaces/{NAMESPACE}/pods?{query}")["items"]
    return {each["metadata"]["name"]: each["spec"].get("nodeName") for each in listed}


def _unplaced(plane: AuditedControlPlane, name: str) -> Manifest | None:
    """The condition by which kube-scheduler says that it could not place the pod."""
    found = access.request(plane.api, "GET", f"/api/v1/namespaces/{NAMESPACE}/pods/{name}")
    conditions = found["status"].get("conditions", ())
    return next((each for each in conditions if (each["type"], each["status"]) == ("PodScheduled", "False")), None)


def test_one_placeholder_more_than_nodes_fits_nowhere_until_a_node_is_added(floor: AuditedControlPlane) -> None:
    def eventually(placed: int) -> dict[str, str | None]:
        deadline = time.monotonic() + 20.0
        while True:
            found = _placeholders(floor)
            places = [place for place in found.values() if place]
            if len(found) == 4 and len(places) == placed:
                assert len(set(places)) == placed, "no two on a node"
                return found
            assert time.monotonic() < deadline, found
            time.sleep(0.1)

    (left,) = [name for name, place in eventually(3).items() if place is None]
    deadline = time.monotonic() + 10.0
    while (unplaced := _unplaced(floor, left)) is None:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert unplaced["reason"] == "Unschedulable", "what cluster autoscalers act upon"
    assert "anti-affinity" in unplaced["message"]
    create_nodes(floor.api, [node("added")])
    assert eventually(4)[left] == "added"
