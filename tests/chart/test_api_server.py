"""A real API server accepts everything that the chart renders, down to the last field."""

import json
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from kubernetes import client

from tests.chart.definitions import definitions
from tests.chart.helm import CI_VALUES, NAMESPACE, Rendering, template
from tests.chart.schemas import LOCATION, write_schemas
from tests.control_plane import access, binaries
from tests.control_plane.access import Manifest
from tests.control_plane.cluster import ControlPlane
from tests.control_plane.toolchain import REPOSITORY

OPTIONAL_KINDS = {"ServiceMonitor", "PrometheusRule"}


@pytest.fixture(scope="module")
def api(control_plane: ControlPlane) -> Iterator[client.ApiClient]:
    """The API server with the CRDs of optional objects, and the namespace, which enforces the restricted standard."""
    api, made = control_plane.api, definitions()
    namespace = {
        "apiVersion": "v1",
        "kind": "Namespace",
        "metadata": {"name": NAMESPACE, "labels": {"pod-security.kubernetes.io/enforce": "restricted"}},
    }
    access.apply(api, [*made, namespace])
    wanted = {each["spec"]["names"]["kind"] for each in made}
    deadline = time.monotonic() + 30.0
    # the aggregated description lags behind the CRD by a second or two
    while wanted - _described_kinds(api):
        assert time.monotonic() < deadline, f"{wanted} are not served"
        time.sleep(0.2)
    yield api
    access.delete(api, made)


def _described_kinds(api: client.ApiClient) -> set[str]:
    described = access.request(api, "GET", "/openapi/v2")["definitions"].values()
    return {kind["kind"] for schema in described for kind in schema.get("x-kubernetes-group-version-kind", ())}


@pytest.fixture(scope="module")
def schemas(api: client.ApiClient, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of JSON schemas of what this API server serves."""
    folder = tmp_path_factory.mktemp("schemas")
    assert write_schemas(api, folder) > 100
    return folder


def _dry_run(api: client.ApiClient, manifest: Manifest) -> Manifest:
    """What the API server would make of it."""
    query = "dryRun=All&fieldManager=tests&fieldValidation=Strict&force=true"
    path = f"{access.object_path(api, manifest)}?{query}"
    return access.request(api, "PATCH", path, manifest, "application/apply-patch+yaml")


def _kubeconform(schemas: Path, text: str) -> "subprocess.CompletedProcess[str]":
    command = [
        str(binaries.build(binaries.KUBECONFORM) / "kubeconform"),
        *("-strict", "-summary", "-output", "json"),
        *("-schema-location", f"{schemas}/{LOCATION}"),
    ]
    return subprocess.run(command, input=text, capture_output=True, text=True)


@pytest.mark.parametrize("values", CI_VALUES, ids=lambda path: path.stem)
def test_server_side_dry_run_accepts_every_object(api: client.ApiClient, home: Path, values: Path) -> None:
    rendered = template(home, files=[values])
    for each in rendered.objects:
        accepted = _dry_run(api, each)
        assert accepted["kind"] == each["kind"]


@pytest.mark.parametrize("values", CI_VALUES, ids=lambda path: path.stem)
def test_kubeconform_accepts_every_object(schemas: Path, home: Path, values: Path) -> None:
    rendered = template(home, files=[values])
    done = _kubeconform(schemas, rendered.text)
    summary = json.loads(done.stdout)["summary"]
    assert summary == {"valid": len(rendered.objects), "invalid": 0, "errors": 0, "skipped": 0}, done.stdout


def test_every_optional_kind_is_among_what_is_validated(home: Path) -> None:
    kinds = {each["kind"] for values in CI_VALUES for each in template(home, files=[values]).objects}
    assert kinds >= OPTIONAL_KINDS | {"HorizontalPodAutoscaler", "NetworkPolicy", "PodDisruptionBudget"}


MISTAKES = [
    ("Deployment", ("spec", "replica"), 2),
    ("Deployment", ("spec", "replicas"), "two"),
    ("PodDisruptionBudget", ("spec", "maxUnavailabl"), 1),
    ("ServiceMonitor", ("spec", "endpoint"), []),
]


@pytest.mark.parametrize(("kind", "path", "value"), MISTAKES, ids=[f"{k} {'.'.join(p)}" for k, p, _ in MISTAKES])
def test_both_validators_see_a_mistake(
    api: client.ApiClient, schemas: Path, home: Path, kind: str, path: tuple[str, str], value: object
) -> None:
    rendered: Rendering = template(home, files=[each for each in CI_VALUES if each.stem == "service-values"])
    mistaken = rendered.all(kind)[0]
    mistaken[path[0]][path[1]] = value
    with pytest.raises(client.ApiException):
        _dry_run(api, mistaken)
    assert _kubeconform(schemas, yaml.safe_dump(mistaken)).returncode != 0


@pytest.mark.parametrize("values", CI_VALUES, ids=lambda path: path.stem)
def test_pods_keep_to_the_restricted_standard(api: client.ApiClient, home: Path, values: Path) -> None:
    """A Deployment is only warned about; its pods are refused where the namespace enforces the standard."""
    rendered = template(home, files=[values])
    made = [*rendered.all("Deployment"), *rendered.all("DaemonSet")]
    pods = [each["spec"]["template"] for each in made] + rendered.all("Pod")
    for number, each in enumerate(pods):
        spec = {**each["spec"], "automountServiceAccountToken": False}
        for absent in ("serviceAccountName", "priorityClassName"):  # they are not there in a dry run
            spec.pop(absent, None)
        pod = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": f"standard-{number}", "namespace": NAMESPACE},
            "spec": spec,
        }
        _dry_run(api, pod)
        for container in (*spec.get("initContainers", ()), *spec["containers"]):
            assert container["securityContext"]["readOnlyRootFilesystem"] is True


def test_restricted_standard_is_enforced_here(api: client.ApiClient, home: Path) -> None:
    spec = template(home).one("Deployment")["spec"]["template"]["spec"]
    spec["containers"][0]["securityContext"]["allowPrivilegeEscalation"] = True
    spec.pop("serviceAccountName")
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "bad", "namespace": NAMESPACE}, "spec": spec}
    with pytest.raises(client.ApiException, match="violates PodSecurity"):
        _dry_run(api, pod)


EXAMPLES = ("placeholder", "hpa", "keda")


@pytest.mark.parametrize("name", EXAMPLES)
def test_examples_of_autoscaling_are_accepted(api: client.ApiClient, schemas: Path, name: str) -> None:
    path = REPOSITORY / "deploy" / "autoscaling" / f"{name}.yaml"
    manifests = access.read_manifests(path)
    for each in manifests:
        _dry_run(api, each)
        if each["kind"] == "Deployment":  # it runs where the restricted standard is enforced
            spec = each["spec"]["template"]["spec"]
            spec.pop("priorityClassName")  # which a dry run has not made
            pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": NAMESPACE}, "spec": spec}
            _dry_run(api, pod)
    done = _kubeconform(schemas, path.read_text())
    summary = json.loads(done.stdout)["summary"]
    assert summary == {"valid": len(manifests), "invalid": 0, "errors": 0, "skipped": 0}, done.stdout


def test_example_workload_is_accepted_and_asks_for_the_policy(api: client.ApiClient, home: Path) -> None:
    (workload,) = access.read_manifests(REPOSITORY / "deploy" / "kind" / "workload.yaml")
    _dry_run(api, workload)
    (profile,) = template(home).scheduler_configuration()["profiles"]
    assert workload["spec"]["template"]["spec"]["schedulerName"] == profile["schedulerName"]
