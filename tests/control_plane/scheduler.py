"""A kube-scheduler of a chosen version and configuration, run by one test.

`shipped_configuration` is deploy/scheduler-config.yaml with the extender's address filled in: tests run what users
start from. Only what a test machine differs in is changed: the kubeconfig and the requests per second.
"""

import copy
import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from tests.control_plane.cluster import ControlPlane
from tests.control_plane.processes import Process, answers_ok, free_ports
from tests.control_plane.toolchain import REPOSITORY

SHIPPED = REPOSITORY / "deploy" / "scheduler-config.yaml"
PROFILE = "maddpg-scheduler"

Configuration = dict[str, Any]

_numbers = itertools.count(1)


def plain_configuration(name: str = "default-scheduler") -> Configuration:
    """kube-scheduler's defaults under that profile name, no extender."""
    return {
        "apiVersion": "kubescheduler.config.k8s.io/v1",
        "kind": "KubeSchedulerConfiguration",
        "leaderElection": {"leaderElect": False},
        "profiles": [{"schedulerName": name}],
    }


def shipped_configuration(extender_url: str, *, leader_election: bool = False, **extender: object) -> Configuration:
    """deploy/scheduler-config.yaml for an extender at that URL.

    Args:
        extender_url: http://127.0.0.1:PORT.
        leader_election: as shipped; off saves the seconds in which the next test waits for this one's lease.
        extender: fields of the extender that differ, such as nodeCacheCapable=False; None drops a field.
    """
    configuration: Configuration = yaml.safe_load(SHIPPED.read_text())
    if not leader_election:
        configuration["leaderElection"] = {"leaderElect": False}
    changed = {**configuration["extenders"][0], "urlPrefix": extender_url, **extender}
    configuration["extenders"] = [{name: value for name, value in changed.items() if value is not None}]
    return configuration


class Scheduler:
    """A running kube-scheduler."""

    def __init__(self, process: Process, version: str, configuration: Configuration) -> None:
        self.process = process
        self.version = version
        self.configuration = configuration

    def restart(self) -> None:
        """End it and start it again with the same configuration."""
        self.process.stop()
        self.process.start()
        self.process.wait()


@contextmanager
def kube_scheduler(
    control_plane: ControlPlane,
    configuration: Configuration,
    version: str = "1.37.2",
    verbosity: int = 2,
    feature_gates: str = "",
) -> Iterator[Scheduler]:
    """Run a kube-scheduler until the block ends.

    Args:
        control_plane: whose pods it schedules.
        configuration: a KubeSchedulerConfiguration; its kubeconfig is replaced by one of system:kube-scheduler.
        version: one of `control_plane.binaries.schedulers`.
        verbosity: 5 logs errors of extenders in prioritize, 10 every score.
        feature_gates: such as GenericWorkload=true.

    Raises:
        StartError: it did not come up, for example because it refuses the configuration.
    """
    configuration = copy.deepcopy(configuration)
    connection = configuration.setdefault("clientConnection", {})
    connection["kubeconfig"] = str(control_plane.kubeconfig("scheduler"))
    connection |= {"qps": 2000, "burst": 4000}  # pods bound per second must not be what limits a test
    name = f"kube-scheduler-{version}-{next(_numbers)}"
    path = control_plane.directory / f"{name}.yaml"
    path.write_text(yaml.safe_dump(configuration))
    process = _process(control_plane, name, path, version, verbosity, feature_gates)
    try:
        control_plane.launch(process)
        yield Scheduler(process, version, configuration)
    finally:
        process.stop()


def _process(
    control_plane: ControlPlane, name: str, configuration: Path, version: str, verbosity: int, feature_gates: str
) -> Process:
    (port,) = free_ports(1)
    certificate = control_plane.server_certificate
    command = [
        str(control_plane.binaries.schedulers[version]),
        f"--config={configuration}",
        "--bind-address=127.0.0.1",
        f"--secure-port={port}",
        f"--tls-cert-file={certificate.certificate}",
        f"--tls-private-key-file={certificate.key}",
        "--authorization-always-allow-paths=/healthz,/readyz,/livez,/metrics",
        f"-v={verbosity}",
        *([f"--feature-gates={feature_gates}"] if feature_gates else []),
    ]
    ready = answers_ok(f"https://127.0.0.1:{port}/readyz", control_plane.endpoint.authority)
    return Process(name, command, control_plane.directory, ready)
