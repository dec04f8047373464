"""The chart, installed by helm in the cluster, and what its extenders and its kube-scheduler say of themselves."""

import json
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import yaml

from tests.chart.helm import CHART, NAMESPACE, RELEASE
from tests.control_plane.toolchain import REPOSITORY
from tests.kind.cluster import Cluster, wait_until

WORKLOAD = REPOSITORY / "deploy" / "kind" / "workload.yaml"
COMPONENT = "app.kubernetes.io/component"
Pod = dict[str, Any]


class Release:
    """The release, in a namespace that enforces the restricted Pod Security Standard."""

    def __init__(self, cluster: Cluster, image: str, **extender: Any) -> None:
        self.cluster = cluster
        repository, _, tag = image.rpartition(":")
        images = {"repository": repository, "tag": tag, "pullPolicy": "Never"}
        self.values: dict[str, Any] = {
            "extender": {"mode": "service", "image": images, **extender},
            "scheduler": {"image": {"pullPolicy": "IfNotPresent"}},
        }

    def install(self) -> None:
        """`helm install --wait`."""
        labels = {"pod-security.kubernetes.io/enforce": "restricted"}
        namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE, "labels": labels}}
        self.cluster.apply(namespace)
        values = self.cluster.directory / "values.json"
        values.write_text(json.dumps(self.values))
        self.helm("install", RELEASE, str(CHART), "--values", str(values), "--wait", "--timeout", "180s")

    def helm(self, *arguments: str) -> str:
        """Run helm in the release's namespace."""
        return self.cluster.helm(*arguments, "--namespace", NAMESPACE)

    def pods(self, component: str) -> list[Pod]:
        """The pods of `extender` or `scheduler` that are not on their way out."""
        return [each for each in self._listed(component) if "deletionTimestamp" not in each["metadata"]]

    def settle(self) -> None:
        """Wait until no extender is on its way out: such a one may be asked still, and its decisions go with it."""
        wait_until(
            lambda: all("deletionTimestamp" not in each["metadata"] for each in self._listed("extender")),
            "replaced extenders leave",
            60.0,
        )

    def _listed(self, component: str) -> list[Pod]:
        """The pods of a component, those on their way out too."""
        found = self.cluster.get("pods", f"--namespace={NAMESPACE}", f"--selector={COMPONENT}={component}")
        return list(found["items"])

    def ready(self, component: str) -> list[Pod]:
        """Those of them that are ready."""
        return [
            each
            for each in self.pods(component)
            if any((c["type"], c["status"]) == ("Ready", "True") for c in each["status"].get("conditions", ()))
        ]

    def ask(self, pod: Pod, path: str) -> Any:
        """The JSON that an extender's operations port answers, through the API server."""
        return json.loads(self.text(pod, path))

    def text(self, pod: Pod, path: str) -> str:
        """What an extender's operations port answers, through the API server."""
        ports = {
            port["name"]: port["containerPort"]
            for container in pod["spec"]["containers"]
            for port in container.get("ports", ())
        }
        name = f"{pod['metadata']['name']}:{ports['operations']}"
        return self.cluster.kubectl("get", "--raw", f"/api/v1/namespaces/{NAMESPACE}/pods/{name}/proxy{path}")

    def python(self, pod: Pod, program: str) -> str:
        """Run a program in the extender's container, whose image has no shell."""
        name = f"--namespace={NAMESPACE} {pod['metadata']['name']} --container=extender".split()
        return self.cluster.kubectl("exec", *name, "--", "/usr/bin/python3", "-c", program)

    def decided(self) -> dict[str, dict[str, Any]]:
        """Pod's uid -> the newest decision on it, of every extender that runs."""
        found: dict[str, dict[str, Any]] = {}
        for pod in self.ready("extender"):
            for record in self.ask(pod, "/v1/decisions?limit=1000&replicas=this")["decisions"]:
                found[record["pod"]["uid"]] = record
        return found

    def scheduler_configuration(self) -> dict[str, Any]:
        """What the chart's kube-scheduler is told."""
        found = self.cluster.get("configmap", RELEASE, f"--namespace={NAMESPACE}")
        return dict(yaml.safe_load(found["data"]["config.yaml"]))


def python_container(image: str, program: str, resources: Mapping[str, Any], options: str = "-c") -> dict[str, Any]:
    """A container of the extender's image that runs a Python program, which finds the name of its node in NODE."""
    return {
        "name": "work",
        "image": image,
        "imagePullPolicy": "Never",
        "command": ["/usr/bin/python3", options, program],
        "env": [{"name": "NODE", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}}],
        "resources": resources,
    }


@contextmanager
def workload(cluster: Cluster, name: str, replicas: int, **specification: Any) -> Iterator[list[Pod]]:
    """The Deployment of deploy/kind/workload.yaml under another name, until the end of the block; yields its pods."""
    make_workload(cluster, name, replicas, **specification)
    try:
        yield running(cluster, name, replicas)
    finally:
        cluster.kubectl("delete", "deployment", name, "--wait", "--cascade=foreground", "--timeout=60s")


def make_workload(cluster: Cluster, name: str, replicas: int, **specification: Any) -> None:
    """Create or change that Deployment, with these fields of its pods' specification."""
    document = yaml.safe_load(WORKLOAD.read_text())
    document["metadata"] = {"name": name, "labels": {"app": name}}
    document["spec"]["replicas"] = replicas
    document["spec"]["selector"]["matchLabels"] = {"app": name}
    document["spec"]["template"]["metadata"]["labels"] = {"app": name}
    pods = document["spec"]["template"]["spec"]
    # pause takes the signal to end at once
    pods.update({"terminationGracePeriodSeconds": 1, **specification})
    cluster.apply(document)


def running(cluster: Cluster, name: str, replicas: int, timeout_s: float = 90.0) -> list[Pod]:
    """Wait until that many pods of the Deployment run, and return them.

    Raises:
        TimeoutError: they do not in time.
    """
    found: list[Pod] = []

    def all_run() -> bool:
        found[:] = [
            each
            for each in cluster.get("pods", f"--selector=app={name}")["items"]
            if each["status"]["phase"] == "Running" and "deletionTimestamp" not in each["metadata"]
        ]
        return len(found) == replicas

    wait_until(all_run, f"{replicas} pods of {name} run", timeout_s)
    return found


def waited_s(pod: Mapping[str, Any]) -> float:
    """From the pod's creation until it was given a node, in whole seconds as the API has them."""
    (scheduled,) = (c for c in pod["status"]["conditions"] if c["type"] == "PodScheduled")
    made, given = (
        time.mktime(time.strptime(text, "%Y-%m-%dT%H:%M:%SZ"))
        for text in (pod["metadata"]["creationTimestamp"], scheduled["lastTransitionTime"])
    )
    return given - made
