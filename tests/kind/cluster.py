"""A kind cluster of the shape that deploy/kind/cluster.yaml gives its users: one control plane, two workers."""

import json
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from tests.chart.helm import helm_binary
from tests.control_plane.binaries import build
from tests.control_plane.toolchain import REPOSITORY, BuildError
from tests.kind.engine import Engine
from tests.kind.node_image import binaries

CONFIGURATION = REPOSITORY / "deploy" / "kind" / "cluster.yaml"
READY_S = 180
OLD_CGROUPS = not Path("/sys/fs/cgroup/cgroup.controllers").exists()


@dataclass(frozen=True)
class Cluster:
    """A cluster and the tools that reach it."""

    kubeconfig: Path
    directory: Path
    engine: Engine | None = None
    """Where its nodes are containers; None for a cluster that was there before."""
    name: str = ""

    @cached_property
    def _tools(self) -> dict[str, str]:
        """kubectl and helm: the user's beside a cluster or an engine of theirs, else those built here."""
        theirs = self.engine is None or not self.engine.own
        found = {name: shutil.which(name) if theirs else None for name in ("kubectl", "helm")}
        kubectl = found["kubectl"] or str(build(binaries.KUBE_NODE) / "kubectl")
        return {"kubectl": kubectl, "helm": found["helm"] or str(helm_binary())}

    def kubectl(self, *arguments: str, stdin: str | None = None, timeout_s: float = 300.0) -> str:
        """Run kubectl and return what it wrote on stdout.

        Raises:
            ClusterError: it failed; with what it said.
        """
        return self._run([self._tools["kubectl"], *arguments], stdin, timeout_s)

    def helm(self, *arguments: str, timeout_s: float = 300.0) -> str:
        """Run helm and return what it wrote on stdout.

        Raises:
            ClusterError: it failed; with what it said.
        """
        return self._run([self._tools["helm"], *arguments], None, timeout_s)

    def get(self, *arguments: str) -> dict[str, Any]:
        """`kubectl get` as JSON."""
        return dict(json.loads(self.kubectl("get", *arguments, "--output=json")))

    def raw(self, path: str) -> Any:
        """What the API server answers at that path."""
        return json.loads(self.kubectl("get", "--raw", path))

    def apply(self, *documents: dict[str, Any]) -> None:
        """`kubectl apply` of these objects."""
        self.kubectl("apply", "--filename=-", stdin=yaml.safe_dump_all(documents))

    @property
    def nodes(self) -> list[str]:
        """The names of all nodes."""
        return [each["metadata"]["name"] for each in self.get("nodes")["items"]]

    @property
    def workers(self) -> list[str]:
        """The names of the nodes that take ordinary pods."""
        role = "node-role.kubernetes.io/control-plane"
        return [
            each["metadata"]["name"] for each in self.get("nodes")["items"] if role not in each["metadata"]["labels"]
        ]

    def kill(self, pod: dict[str, Any]) -> None:
        """End the first container of a pod by SIGKILL, from outside; needs the engine that runs the nodes."""
        assert self.engine is not None
        identity = pod["status"]["containerStatuses"][0]["containerID"].removeprefix("containerd://")
        command = ["ctr", "--namespace=k8s.io", "task", "kill", "--signal=SIGKILL", identity]
        self.engine.docker("exec", pod["spec"]["nodeName"], *command)

    def _run(self, command: Sequence[str], stdin: str | None, timeout_s: float) -> str:
        # no configuration of the user's is read or written
        private = {"HOME": str(self.directory), "KUBECONFIG": str(self.kubeconfig)}
        done = subprocess.run(
            command, env=os.environ | private, input=stdin, capture_output=True, text=True, timeout=timeout_s
        )
        if done.returncode != 0:
            raise ClusterError(f"{' '.join(command)} ended with {done.returncode}:\n{done.stderr}{done.stdout}"[-4000:])
        return done.stdout


class ClusterError(RuntimeError):
    """A tool that talks to the cluster failed; the message is what it said."""


def wait_until(holds: Callable[[], bool], what: str, timeout_s: float = 120.0, every_s: float = 0.5) -> None:
    """Ask again and again until it holds.

    Raises:
        TimeoutError: it did not in time.
    """
    deadline = time.monotonic() + timeout_s
    while not holds():
        if time.monotonic() > deadline:
            raise TimeoutError(f"not within {timeout_s:.0f} s: {what}")
        time.sleep(every_s)


@contextmanager
def created(
    engine: Engine, node_image: str | None, name: str = "maddpg-test", given: Mapping[str, Any] | None = None
) -> Iterator[Cluster]:
    """Create the cluster, wait until its nodes and its DNS are ready, and delete it at the end.

    Args:
        engine: where its nodes run.
        node_image: what they are made of; None for the image that kind publishes.
        name: the cluster's.
        given: kind's configuration; default: that of deploy/kind/cluster.yaml.

    Raises:
        BuildError: kind failed; with what it and the nodes said.
    """
    with tempfile.TemporaryDirectory(prefix="kind-cluster-") as scratch:
        directory = Path(scratch)
        kubeconfig = directory / "kubeconfig"
        (directory / "cluster.yaml").write_text(yaml.safe_dump(configuration(node_image, given)))
        files = ["--config", str(directory / "cluster.yaml"), "--kubeconfig", str(kubeconfig)]
        try:
            # --retain: the nodes' logs say why
            kind(engine, "create", "cluster", "--name", name, *files, "--wait", f"{READY_S}s", "--retain")
            cluster = Cluster(kubeconfig, directory, engine, name)
            for what in ("nodes", "pods --namespace=kube-system"):
                cluster.kubectl("wait", *what.split(), "--all", "--for=condition=Ready", f"--timeout={READY_S}s")
            yield cluster
        except (BuildError, ClusterError) as error:
            raise BuildError(f"{error}\n{_logs(engine, name)}") from error
        finally:
            kind(engine, "delete", "cluster", "--name", name, "--kubeconfig", str(kubeconfig))


def kind(engine: Engine, *arguments: str, timeout_s: float = 600.0) -> str:
    """Run kind and return what it said.

    Raises:
        BuildError: it failed; with what it said.
    """
    program = build(binaries.KIND) / "kind"
    done = subprocess.run(
        [program, *arguments], env=os.environ | engine.environment, capture_output=True, text=True, timeout=timeout_s
    )
    if done.returncode != 0:
        raise BuildError(f"kind {' '.join(arguments)} ended with {done.returncode}:\n{done.stderr[-3000:]}")
    return done.stdout + done.stderr


def configuration(node_image: str | None, given: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """What is given, else what users are, with the node image, and with what this machine and that image need."""
    given = dict(given or yaml.safe_load(CONFIGURATION.read_text()))
    # a right that is taken away would be there for five more minutes
    kubelet: dict[str, Any] = {"authorization": {"webhook": {"cacheAuthorizedTTL": "5s"}}}
    if OLD_CGROUPS:
        kubelet["failCgroupV1"] = False
    given["kubeadmConfigPatches"] = [yaml.safe_dump({"kind": "KubeletConfiguration", **kubelet})]
    if node_image:
        for node in given["nodes"]:
            node["image"] = node_image
        # kube-proxy's image made here has nft alone
        given["networking"] = {"kubeProxyMode": "nftables"}
    return given


def load(cluster: Cluster, image: str, nodes: Sequence[str] = ()) -> None:
    """Bring an image of the engine to nodes of the cluster; default: the workers.

    Raises:
        BuildError: kind failed.
    """
    assert cluster.engine is not None
    kind(
        cluster.engine,
        "load",
        "docker-image",
        image,
        "--name",
        cluster.name,
        "--nodes",
        ",".join(nodes or cluster.workers),
    )


def _logs(engine: Engine, name: str) -> str:
    """The end of what each node logged."""
    said = []
    for node in engine.docker(
        "ps", "--all", "--filter", f"label=io.x-k8s.kind.cluster={name}", "--format", "{{.Names}}"
    ).split():
        for command in (["logs", "--tail", "20", node], ["exec", node, "journalctl", "--no-pager", "-n", "40"]):
            try:
                said.append(f"--- {' '.join(command)}\n{engine.docker(*command)}")
            except BuildError as error:
                said.append(str(error))
    return "\n".join(said)[-12000:]
