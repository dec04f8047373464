"""Reaches the operations port of a Service in a cluster, through `kubectl port-forward`.

kubectl finds the cluster, proves who asks and passes the proxies on the way, as it does for its user. What it has to
say, a login's prompt included, it writes to our stderr itself.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess  # nosec B404 # kubectl is the user's own
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeVar

import msgspec

from extender.errors import UNDECODABLE, ClientError, kind_of
from extender.operations.client import Client

CHART: Final = "maddpg-scheduler"
SELECTOR: Final = "app.kubernetes.io/component=extender"
PORT: Final = "operations"
"""Name of the port, in the Service."""

TIMEOUT_S: Final = 120.0
"""Longest that kubectl may take to answer; somebody may have to log in meanwhile."""

START_S: Final = 20
"""Longest that `port-forward` waits for a pod that runs."""

END_S: Final = 5.0
_FORWARDING: Final = re.compile(rb"^Forwarding from 127\.0\.0\.1:(\d+) ->", re.MULTILINE)


class Metadata(msgspec.Struct, frozen=True):
    """Of a Service."""

    name: str
    namespace: str
    labels: dict[str, str] = {}


class Port(msgspec.Struct, frozen=True, rename="camel"):
    """Of a Service."""

    port: int
    name: str = ""
    app_protocol: str = ""  # http or https, as our chart says it


class Spec(msgspec.Struct, frozen=True):
    """Of a Service."""

    ports: list[Port] = []


class Service(msgspec.Struct, frozen=True):
    """A Service, as far as it counts here."""

    metadata: Metadata
    spec: Spec

    @property
    def ours(self) -> bool:
        """Whether our chart made it; `nameOverride` changes one of the two labels."""
        labels = self.metadata.labels
        return labels.get("app.kubernetes.io/name") == CHART or labels.get("helm.sh/chart", "").startswith(f"{CHART}-")

    @property
    def path(self) -> str:
        """As `--service` takes it."""
        return f"{self.metadata.namespace}/{self.metadata.name}"

    @property
    def host(self) -> str:
        """Its name in the cluster, for which its certificate is."""
        return f"{self.metadata.name}.{self.metadata.namespace}.svc"

    @property
    def operations(self) -> Port | None:
        """The operations port: of that name, or the only one."""
        ports = self.spec.ports
        return next((each for each in ports if each.name == PORT), ports[0] if len(ports) == 1 else None)


class Services(msgspec.Struct, frozen=True):
    """What lists them."""

    items: list[Service]


Answer = TypeVar("Answer", Service, Services)


@dataclass(frozen=True, slots=True)
class Kubectl:
    """kubectl, for one cluster."""

    kubeconfig: Path | None = None  # None: where kubectl finds it
    context: str | None = None  # of the kubeconfig; None: its current one

    def namespace(self) -> str:
        """Return the namespace of the context. Raises `ClientError`."""
        told = self._told("config", "view", "--minify", "--output=jsonpath={..namespace}")
        return told.decode(errors="replace").strip() or "default"

    @contextmanager
    def client(self, service: str | None, ca_file: Path | None) -> Iterator[Client]:
        """Forward a port of 127.0.0.1 to the operations port of a Service, and ask there, until the end.

        Args:
            service: its namespace and name, with a slash between them; None: the only one that the chart made.
            ca_file: authorities of the certificate that it shows (PEM); None: the system's.

        Raises:
            ClientError: kubectl cannot be run or fails, there is no such Service, or there are several.
        """
        found = self._only() if service is None else self._named(service)
        port = found.operations
        if port is None:
            raise ClientError(f"Service {found.path} has no port named {PORT}; name another with --service")
        where = f"--namespace={found.metadata.namespace}", f"service/{found.metadata.name}", f":{port.port}"
        how = "--address=127.0.0.1", f"--pod-running-timeout={START_S}s"
        command = self._command("port-forward", *how, *where)
        # A file and not a pipe: kubectl says a line for each connection, which nobody reads.
        with tempfile.TemporaryFile() as said, _ending_at_sigterm():
            try:
                process = subprocess.Popen(command, stdout=said)  # noqa: S603 # nosec B603 # no shell
            except OSError as error:
                raise ClientError(f"kubectl cannot be run: {kind_of(error)}") from error
            try:
                local = _port(process, said.fileno(), found.path)
                # a chart from before it said so, and Services of one's own, say nothing
                encrypted = (port.app_protocol or ("https" if ca_file else "")) == "https"
                yield Client(
                    f"{'https' if encrypted else 'http'}://127.0.0.1:{local}",
                    ca_file,
                    host=found.host,
                    name=f"Service {found.path}",
                    hint="has `kubectl port-forward` ended? It says why above",
                    namespace=self.namespace,
                )
            finally:
                process.terminate()
                try:
                    process.wait(END_S)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()

    def _only(self) -> Service:
        """The Service that the chart made."""
        told = self._told(
            "get", "services", "--all-namespaces", f"--selector={SELECTOR}", "--output=json",
            fix="; if you may not list Services of all namespaces, give --service NAMESPACE/NAME",
        )  # fmt: skip
        found = sorted((each for each in _decoded(told, Services).items if each.ours), key=lambda it: it.path)
        if len(found) == 1:
            return found[0]
        if found:
            raise ClientError(
                f"{len(found)} releases of {CHART} are in this cluster; choose a Service with --service: "
                + ", ".join(each.path for each in found)
            )
        raise ClientError(
            f"no Service in this cluster is of the chart {CHART}; choose the cluster with --context or --kubeconfig, "
            "or a Service that carries other labels with --service NAMESPACE/NAME"
        )

    def _named(self, service: str) -> Service:
        namespace, slash, name = service.partition("/")
        if not (namespace and slash and name) or "/" in name:
            raise ClientError(f"--service is {service!a}; give NAMESPACE/NAME")
        return _decoded(
            self._told(
                "get", f"service/{name}", f"--namespace={namespace}", "--output=json",
                fix="; is --service the NAMESPACE/NAME of a Service that you may get?",
            ),
            Service,
        )  # fmt: skip

    def _told(self, *arguments: str, fix: str = "") -> bytes:
        """What kubectl writes to stdout."""
        asked = f"kubectl {' '.join(arguments[:2])}"
        try:
            done = subprocess.run(  # noqa: S603 # nosec B603 # no shell
                self._command(*arguments), stdout=subprocess.PIPE, timeout=TIMEOUT_S, check=False
            )
        except subprocess.TimeoutExpired as error:
            raise ClientError(f"{asked} did not end within {TIMEOUT_S:g} s") from error
        except OSError as error:
            raise ClientError(f"kubectl cannot be run: {kind_of(error)}") from error
        if done.returncode:
            raise ClientError(
                f"{asked} failed with status {done.returncode} and says why above; check --context and "
                f"--kubeconfig{fix}"
            )
        return done.stdout

    def _command(self, *arguments: str) -> list[str]:
        program = shutil.which("kubectl")
        if program is None:
            raise ClientError(
                "kubectl is not on the PATH; install it, or forward the operations port in another way and give --url"
            )
        options = [] if self.kubeconfig is None else [f"--kubeconfig={self.kubeconfig}"]
        if self.context is not None:
            options.append(f"--context={self.context}")
        return [program, *options, *arguments]


def _decoded(told: bytes, kind: type[Answer]) -> Answer:
    try:
        return msgspec.json.decode(told, type=kind)
    except UNDECODABLE as error:
        raise ClientError(f"kubectl answered no Service that this version knows ({kind_of(error)})") from error


def _port(process: subprocess.Popen[bytes], said: int, path: str) -> int:
    """The port that kubectl listens at, once it says so."""
    end = time.monotonic() + TIMEOUT_S
    while (found := _FORWARDING.search(os.pread(said, 4096, 0))) is None:
        status = process.poll()
        if status is not None:
            raise ClientError(
                f"kubectl port-forward to Service {path} ended with status {status} and says why above; does a pod of "
                "it run, and may you create pods/portforward?"
            )
        if time.monotonic() > end:
            raise ClientError(f"kubectl port-forward to Service {path} did not begin within {TIMEOUT_S:g} s")
        time.sleep(0.02)
    return int(found[1])


@contextmanager
def _ending_at_sigterm() -> Iterator[None]:
    """Let SIGTERM end us as an exception does, which ends kubectl too."""
    before = signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
