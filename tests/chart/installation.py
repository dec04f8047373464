"""The chart installed by helm in a control plane, and what it made there."""

import json
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.chart.audit import AuditedControlPlane, Right
from tests.chart.deployed import Deployed
from tests.chart.helm import CHART, NAMESPACE, RELEASE, helm, merged
from tests.control_plane import access

RBAC = "/apis/rbac.authorization.k8s.io/v1"
LEASES = f"/apis/coordination.k8s.io/v1/namespaces/{NAMESPACE}/leases"
SIDECAR, SERVICE = "sidecar", "service"


class Installation:
    """The chart, installed by helm in a namespace that enforces the restricted Pod Security Standard."""

    def __init__(self, plane: AuditedControlPlane, home: Path, directory: Path, mode: str) -> None:
        self.plane = plane
        self.api = plane.api
        self.mode = mode
        self.deployed = Deployed(plane, directory, RELEASE)
        self.scheduler_account = RELEASE
        self.extender_account = RELEASE if mode == SIDECAR else f"{RELEASE}-extender"
        self._home = home

    def helm(self, *arguments: str) -> str:
        """helm as the cluster's administrator, in the chart's namespace."""
        kubeconfig = self.plane.kubeconfig("admin")
        return helm(*arguments, "--namespace", NAMESPACE, home=self._home, kubeconfig=kubeconfig)

    def own_objects(self) -> set[str]:
        """kind/name of everything in the cluster that carries the release's label."""
        found = set()
        for group, kinds in {
            "/api/v1": ["configmaps", "services", "serviceaccounts", "pods", "secrets", "resourcequotas"],
            "/apis/apps/v1": ["deployments", "replicasets"],
            "/apis/policy/v1": ["poddisruptionbudgets"],
            "/apis/networking.k8s.io/v1": ["networkpolicies"],
            RBAC: ["clusterroles", "clusterrolebindings", "roles", "rolebindings"],
        }.items():
            for kind in kinds:
                path = f"{group}/{kind}?labelSelector=app.kubernetes.io/instance={RELEASE}"
                found |= {
                    f"{kind}/{each['metadata']['name']}" for each in access.request(self.api, "GET", path)["items"]
                }
        return found

    def may(self, account: str, right: Right, namespace: str = "", name: str = "") -> bool:
        """Whether RBAC lets that ServiceAccount of the chart's namespace do it."""
        resource, _, subresource = right.resource.partition("/")
        body = {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SubjectAccessReview",
            "spec": {
                "user": f"system:serviceaccount:{NAMESPACE}:{account}",
                "groups": ["system:serviceaccounts", f"system:serviceaccounts:{NAMESPACE}", "system:authenticated"],
                "resourceAttributes": {
                    "group": right.group,
                    "resource": resource,
                    "subresource": subresource,
                    "verb": right.verb,
                    "namespace": namespace,
                    "name": name,
                },
            },
        }
        answer = access.request(self.api, "POST", "/apis/authorization.k8s.io/v1/subjectaccessreviews", body)
        return bool(answer["status"]["allowed"])

    def forget_lease(self) -> None:
        """Delete kube-scheduler's lease, which it made, not helm."""
        for lease in access.request(self.api, "GET", LEASES)["items"]:
            access.request(self.api, "DELETE", f"{LEASES}/{lease['metadata']['name']}")


@contextmanager
def installed(
    plane: AuditedControlPlane,
    home: Path,
    directory: Path,
    mode: str,
    more: Mapping[str, Any] | None = None,
    chart: Path = CHART,
) -> Iterator[Installation]:
    """Install the chart and wait until its pods are ready; remove it at the end, if it is still there.

    Args:
        plane: where.
        home: of helm.
        directory: for what the processes keep.
        mode: of the extender.
        more: values beside it.
        chart: this one, or an earlier one in a package.
    """
    namespace = {
        "apiVersion": "v1",
        "kind": "Namespace",
        "metadata": {"name": NAMESPACE, "labels": {"pod-security.kubernetes.io/enforce": "restricted"}},
    }
    access.apply(plane.api, [namespace])
    _wait_for_account(plane)
    installation = Installation(plane, home, directory, mode)
    # quick leases: who takes over waits for them
    election = {"leaseDuration": "4s", "renewDeadline": "3s", "retryPeriod": "1s"}
    values = directory / "values.json"
    given = merged({"extender": {"mode": mode}, "scheduler": {"leaderElection": election}}, more or {})
    values.write_text(json.dumps(given))
    installation.helm("install", RELEASE, str(chart), "--wait", "--timeout", "60s", "--values", str(values))
    try:
        yield installation
    finally:
        if RELEASE in installation.helm("list", "--short"):
            installation.helm("uninstall", RELEASE, "--wait", "--timeout", "60s")
        installation.forget_lease()


def _wait_for_account(plane: AuditedControlPlane, timeout_s: float = 30.0) -> None:
    """The namespace's default ServiceAccount, which the controller manager makes."""
    deadline = time.monotonic() + timeout_s
    path = f"/api/v1/namespaces/{NAMESPACE}/serviceaccounts"
    while not access.request(plane.api, "GET", path)["items"]:
        if time.monotonic() > deadline:
            raise TimeoutError(f"no ServiceAccount in {NAMESPACE} after {timeout_s:.0f} s")
        time.sleep(0.1)
