"""The kubectl plug-in reaches a service through a real API server, with KWOK as the kubelet that forwards."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.control_plane.access import Manifest, apply, delete, request
from tests.control_plane.cluster import ControlPlane
from tests.control_plane.extender_process import asking, running_extender
from tests.control_plane.workload import create, create_nodes, node, pod
from tests.extender.cluster.following import eventually
from tests.extender.operations.test_tunnel import LABELS

PROGRAM = "from extender.cli import kubectl_plugin; kubectl_plugin()"
SERVICE: Manifest = {
    "apiVersion": "v1",
    "kind": "Service",
    "metadata": {"name": "m-extender", "namespace": "default", "labels": LABELS},
    "spec": {
        "selector": {"app": "extender"},
        "ports": [{"name": "operations", "port": 8889, "targetPort": "operations", "appProtocol": "http"}],
    },
}
Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def plugin() -> Run:
    """Run the plug-in with a kubeconfig; needs the kubectl of this machine."""
    if shutil.which("kubectl") is None:
        if os.environ.get("CI", "").lower() in {"1", "true", "yes"}:
            pytest.fail("no kubectl on the PATH")
        pytest.skip("no kubectl on the PATH")

    def run(kubeconfig: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", PROGRAM, *arguments, "--kubeconfig", str(kubeconfig)]
        return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)

    return run


def completed(tmp_path: Path, *words: str) -> list[str]:
    """What kubectl completes, and the directive to the shell; its own script is like those that pip makes."""
    for name, function in (("kubectl-maddpg", "kubectl_plugin"), ("kubectl_complete-maddpg", "kubectl_completion")):
        script = tmp_path / name
        script.write_text(f"#!{sys.executable}\nfrom extender.cli import {function}\n{function}()\n")
        script.chmod(0o755)
    places = {"PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}", "PYTHONPATH": str(Path.cwd())}
    command = ["kubectl", "__complete", "maddpg", *words]
    done = subprocess.run(command, env={**os.environ, **places}, capture_output=True, text=True, check=True, timeout=60)
    return [line.split("\t")[0] for line in done.stdout.splitlines()]


@pytest.mark.usefixtures("plugin")
def test_kubectl_completes_commands_options_and_files(tmp_path: Path) -> None:
    assert completed(tmp_path, "n") == ["nodes", ":4"]
    assert completed(tmp_path, "why", "web", "--n") == ["--namespace", "--not", ":4"]
    assert completed(tmp_path, "replay", "") == [":0"]


@pytest.mark.timeout(240, func_only=True)
def test_plug_in_finds_the_service_and_asks_it(cluster: ControlPlane, plugin: Run) -> None:
    kubeconfig = cluster.kubeconfig("admin")
    create_nodes(cluster.api, [node("node-0"), node("node-1")])
    host = pod("extender", labels={"app": "extender"})
    host["spec"]["nodeName"] = "node-0"
    host["spec"]["containers"][0]["ports"] = [{"name": "operations", "containerPort": 8889}]
    path = "/api/v1/namespaces/default/pods/extender"
    missing = plugin(kubeconfig, "report")
    assert (missing.returncode, missing.stdout) == (1, "")
    assert "no Service in this cluster is of the chart" in missing.stderr
    with running_extender(cluster, usage_source="none", port=cluster.forwarded) as extender:
        assert extender.post("prioritize", asking(pod("web"), ["node-0", "node-1"])).status_code == 200
        apply(cluster.api, [SERVICE])
        try:
            create(cluster.api, [host])
            eventually(lambda: request(cluster.api, "GET", path)["status"]["phase"] == "Running", "it runs", 60.0)
            told = plugin(kubeconfig, "why", "web")
            assert "default/web" in told.stdout, told.stderr
            assert "node-1" in plugin(kubeconfig, "nodes").stdout
            forbidden = plugin(cluster.extender_kubeconfig(), "report")
            assert "cannot list resource" in forbidden.stderr, "kubectl's own words"
            assert "give --service NAMESPACE/NAME" in forbidden.stderr
            assert "(NotFound)" in plugin(kubeconfig, "report", "--service", "default/nobody").stderr
        finally:
            delete(cluster.api, [SERVICE])
