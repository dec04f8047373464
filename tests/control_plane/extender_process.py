"""`maddpg-extender serve` as a process of its own, with the ServiceAccount and the rights of deploy/rbac.yaml.

It keeps its port over restarts, so that a kube-scheduler finds it again. All it is asked, it is asked over HTTP.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import httpx
from prometheus_client.parser import text_string_to_metric_families

from extender.configuration import flag_name
from tests.control_plane.access import Manifest
from tests.control_plane.cluster import ControlPlane
from tests.control_plane.processes import Process, answers_ok, free_ports

Decision = dict[str, Any]

PAGE = 1000
"""The most decisions that one request may ask for."""


class Extender:
    """A service that runs; `process` kills, pauses and restarts it."""

    def __init__(self, process: Process, url: str, operations_url: str | None = None) -> None:
        """Wrap a process that listens at that URL, and for operators at the other one or there too."""
        self.process = process
        self.url = url
        self._http = httpx.Client(base_url=operations_url or url, timeout=5.0, trust_env=False)

    def close(self) -> None:
        """Close idle connections."""
        self._http.close()

    def ready(self) -> bool:
        """Whether /readyz says so."""
        return self._http.get("/readyz").status_code == 200

    def post(self, verb: str, body: dict[str, Any]) -> httpx.Response:
        """Ask as kube-scheduler does."""
        return self._http.post(f"/{verb}", json=body)

    def decisions(self) -> dict[str, Decision]:
        """All decisions remembered, by the pod's name."""
        document = self._decisions()
        found = list(document["decisions"])
        while document["next"] is not None:
            document = self._decisions(before=document["next"])
            found += document["decisions"]
        return {each["pod"]["name"]: each for each in found}

    def explanation(self, uid: str) -> Decision:
        """The decision about this pod, with its reasons."""
        return dict(self._http.get(f"/v1/decisions/{uid}").raise_for_status().json())

    def case(self, uid: str) -> dict[str, Any]:
        """The decision about this pod with all its nodes, as `explain --export` writes it."""
        return dict(self._http.get(f"/v1/decisions/{uid}/case").raise_for_status().json())

    def counts(self) -> dict[str, int]:
        """Sums since the start of the process."""
        return dict(self._decisions()["counts"])

    def metric(self, name: str, **labels: str) -> float:
        """One sample of /metrics; 0 where there is none (yet)."""
        return sum(value for found, value in self._samples(name) if labels.items() <= found.items())

    def nodes(self) -> list[dict[str, Any]]:
        """What /v1/nodes says of the first of them."""
        return list(self._http.get("/v1/nodes").raise_for_status().json()["nodes"])

    def _decisions(self, **query: int) -> dict[str, Any]:
        answer = self._http.get("/v1/decisions", params={"limit": PAGE, **query})
        answer.raise_for_status()
        return dict(answer.json())

    def _samples(self, name: str) -> Iterator[tuple[dict[str, str], float]]:
        for family in text_string_to_metric_families(self._http.get("/metrics").raise_for_status().text):
            for sample in family.samples:
                if sample.name == name:
                    yield sample.labels, sample.value


@contextmanager
def running_extender(
    cluster: ControlPlane, program: Sequence[str] = ("extender",), python: str = sys.executable, **settings: object
) -> Iterator[Extender]:
    """Serve until the block ends; returns once it is ready.

    Args:
        cluster: the cluster it watches.
        program: module, and arguments before `serve`, of the process.
        python: interpreter that has the project installed.
        settings: as flags, beside the kubeconfig and the port; with certificates, operations have a port of their own.

    Raises:
        StartError: it ended, or never got ready.
    """
    port, operations_port = free_ports(2)
    flags = {"kubeconfig": cluster.extender_kubeconfig(), "port": port, **settings}
    url = operations_url = f"http://127.0.0.1:{flags['port']}"
    if "tls_cert_file" in settings:
        flags |= {"operations_port": operations_port, "operations_host": "127.0.0.1"}
        url, operations_url = f"https://127.0.0.1:{port}", f"http://127.0.0.1:{operations_port}"
    command = [python, "-m", *program, "serve"]
    for name, value in flags.items():
        command += [f"--{flag_name(name)}", str(value)]
    number = sum(process.name.startswith("extender") for process in cluster.others) + 1
    process = Process(f"extender-{number}", command, cluster.directory, answers_ok(f"{operations_url}/readyz"))
    extender = Extender(process, url, operations_url)
    try:
        cluster.launch(process)
        yield extender
    finally:
        extender.close()
        process.stop()


def asking(pod: Manifest, nodes: Sequence[str]) -> dict[str, Any]:
    """ExtenderArgs of a nodeCacheCapable extender."""
    name = pod["metadata"]["name"]
    metadata = {**pod["metadata"], "uid": f"uid-{name}"}
    return {"Pod": {**pod, "metadata": metadata}, "Nodes": None, "NodeNames": list(nodes)}
