"""Runs what the chart installed as processes on loopback: KWOK only pretends to run the pods.

A process gets what its pod would get: the container's arguments, the files of the mounted ConfigMaps as they stand in
the API server, and a token of the pod's ServiceAccount. Only addresses differ, because all share one machine.
"""

import base64
import json
import re
import ssl
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from tests.chart.helm import NAMESPACE
from tests.control_plane import access
from tests.control_plane.cluster import ControlPlane
from tests.control_plane.processes import Process, answers_ok, free_ports

Configuration = dict[str, Any]


class Extender:
    """A running extender."""

    def __init__(
        self, process: Process, port: int, operations: str, secured: bool, authority: Path | None, reader: Path | None
    ) -> None:
        self.process = process
        self.port = port
        self.url = f"{'https' if secured else 'http'}://127.0.0.1:{port}"
        self.operations = operations
        self._context = ssl.create_default_context(cafile=authority) if authority else None
        if self._context is not None and reader is not None:
            self._context.load_cert_chain(reader / "tls.crt", reader / "tls.key")

    def get(self, path: str) -> tuple[int, Any]:
        """Status and JSON of an operations endpoint."""
        try:
            with urllib.request.urlopen(self.operations + path, timeout=5, context=self._context) as answer:
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as error:
            return error.code, json.load(error)

    def metric(self, name: str) -> float:
        """The value of one series, such as ``maddpg_nodes{ready="true"}``.

        Raises:
            LookupError: it is not exposed.
        """
        with urllib.request.urlopen(f"{self.operations}/metrics", timeout=5, context=self._context) as answer:
            for line in answer.read().decode().splitlines():
                if line.startswith(f"{name} "):
                    return float(line.rsplit(" ", 1)[1])
        raise LookupError(f"no metric {name}")

    def decided(self, uid: str) -> bool:
        """Whether it was asked about that pod."""
        return self.get(f"/v1/decisions/{uid}")[0] == 200


class Deployed:
    """The chart as it is installed in a control plane, in the namespace NAMESPACE."""

    def __init__(self, control_plane: ControlPlane, directory: Path, fullname: str) -> None:
        self._plane = control_plane
        self._directory = directory
        self._fullname = fullname
        self._started = 0

    def deployment(self, name: str) -> access.Manifest:
        """A Deployment of the chart."""
        return access.request(self._plane.api, "GET", f"/apis/apps/v1/namespaces/{NAMESPACE}/deployments/{name}")

    def file(self, configmap: str, key: str) -> Configuration:
        """A file of a mounted ConfigMap, decoded."""
        found = access.request(self._plane.api, "GET", f"/api/v1/namespaces/{NAMESPACE}/configmaps/{configmap}")
        return dict(yaml.safe_load(found["data"][key]))

    @contextmanager
    def extender(self, account: str, *, wait: bool = True) -> Iterator[Extender]:
        """Run the extender with that ServiceAccount until the block ends.

        Args:
            account: the ServiceAccount's name.
            wait: until it is ready; else only until it is alive.
        """
        directory = self._fresh("extender")
        settings = directory / "settings.yaml"
        given = self.file(f"{self._fullname}-extender", "settings.yaml")
        secured, demanding = "tls_cert_file" in given, "operations_client_ca_file" in given
        if secured:
            folder = self.certificates("extender", directory)
            given |= {
                name: str(folder / Path(given[name]).name)
                for name in given
                if re.match("(tls|operations_client)_.*_file", name)
            }
        settings.write_text(yaml.safe_dump(given))
        port, operations = free_ports(2)
        container = self._container("extender")
        arguments = [str(settings) if each == "/etc/maddpg/settings.yaml" else each for each in container["args"]]
        flags = {
            "host": "127.0.0.1",
            "port": port,
            "operations-port": operations,
            "operations-host": "127.0.0.1",
            "kubeconfig": self._kubeconfig(directory, account),
        }
        command = [sys.executable, "-m", "extender", *arguments]
        command += [part for name, value in flags.items() for part in (f"--{name}", str(value))]
        probe = container["readinessProbe" if wait else "livenessProbe"]["httpGet"]
        authority = self._authority(directory) if probe["scheme"] == "HTTPS" else None
        # the certificate is for names alone
        url = f"https://localhost:{operations}" if authority else f"http://127.0.0.1:{operations}"
        process = Process("extender", command, directory, answers_ok(url + probe["path"], authority))
        try:
            self._plane.launch(process)
            reader = self.secret(f"{self._fullname}-reader-tls", directory) if demanding else None
            yield Extender(process, port, url, secured, authority, reader)
        finally:
            process.stop()

    @contextmanager
    def scheduler(
        self, account: str, extender_url: str, *, wait: bool = True, version: str = "1.37.2"
    ) -> Iterator[Process]:
        """Run kube-scheduler with that ServiceAccount and the chart's configuration until the block ends.

        Args:
            account: the ServiceAccount's name.
            extender_url: where the extender listens here; whether over TLS is as the chart says.
            wait: until it is ready.
            version: one of the control plane's.
        """
        directory = self._fresh("kube-scheduler")
        kubeconfig = self._kubeconfig(directory, account)
        configuration = self.file(self._fullname, "config.yaml")
        configuration["clientConnection"]["kubeconfig"] = str(kubeconfig)
        for each in configuration["extenders"]:
            scheme, _, _ = each["urlPrefix"].partition("://")
            each["urlPrefix"] = f"{scheme}://{extender_url.partition('://')[2]}"
            if "tlsConfig" in each:
                folder = self.certificates("kube-scheduler", directory)
                for name in ("caFile", "certFile", "keyFile"):
                    each["tlsConfig"][name] = str(folder / Path(each["tlsConfig"][name]).name)
        path = directory / "config.yaml"
        path.write_text(yaml.safe_dump(configuration))
        (port,) = free_ports(1)
        here = {
            "--config": f"--config={path}",
            "--bind-address": "--bind-address=127.0.0.1",
            "--secure-port": f"--secure-port={port}",
        }
        _, *flags = self._container("kube-scheduler")["command"]
        certificate = self._plane.server_certificate
        command = [
            str(self._plane.binaries.schedulers[version]),
            *(here.get(flag.partition("=")[0], flag) for flag in flags),
            # in a pod these are the ServiceAccount's as well, and the certificate is made in memory
            f"--authentication-kubeconfig={kubeconfig}",
            f"--authorization-kubeconfig={kubeconfig}",
            f"--tls-cert-file={certificate.certificate}",
            f"--tls-private-key-file={certificate.key}",
        ]
        authority = self._plane.endpoint.authority
        self.scheduler_url = f"https://127.0.0.1:{port}"
        probe = "readyz" if wait else "livez"
        process = Process("kube-scheduler", command, directory, answers_ok(f"{self.scheduler_url}/{probe}", authority))
        try:
            self._plane.launch(process)
            yield process
        finally:
            process.stop()

    def certificates(self, container: str, directory: Path) -> Path:
        """A folder with the files of the Secret of certificates that this container has mounted."""
        volumes = {each["name"]: each for each in self._pod(container)["volumes"]}
        (mount,) = [each for each in self._container(container)["volumeMounts"] if each["name"].endswith("tls")]
        return self.secret(volumes[mount["name"]]["secret"]["secretName"], directory)

    def secret(self, name: str, directory: Path) -> Path:
        """A folder with the files of that Secret."""
        folder = directory / name
        folder.mkdir()
        for file, content in self._secret(name).items():
            (folder / file).write_bytes(content)
        return folder

    def _authority(self, directory: Path) -> Path:
        """What a ServiceMonitor of the chart tells Prometheus to trust."""
        path = directory / "authority.crt"
        path.write_bytes(self._secret(f"{self._fullname}-client-tls")["ca.crt"])
        return path

    def _secret(self, name: str) -> dict[str, bytes]:
        found = access.request(self._plane.api, "GET", f"/api/v1/namespaces/{NAMESPACE}/secrets/{name}")
        return {key: base64.b64decode(content) for key, content in found["data"].items()}

    def _container(self, name: str) -> access.Manifest:
        """The container of that name, wherever the chart put it."""
        return next(dict(each) for each in self._pod(name)["containers"] if each["name"] == name)

    def _pod(self, container: str) -> access.Manifest:
        """The pod's specification that has that container."""
        listed = access.request(self._plane.api, "GET", f"/apis/apps/v1/namespaces/{NAMESPACE}/deployments")
        for each in listed["items"]:
            specification = each["spec"]["template"]["spec"]
            if container in {found["name"] for found in specification["containers"]}:
                return dict(specification)
        raise LookupError(f"no container {container} is installed")

    def _kubeconfig(self, directory: Path, account: str) -> Path:
        token = access.service_account_token(self._plane.api, NAMESPACE, account)
        return self._plane.endpoint.kubeconfig(directory / "kubeconfig", token)

    def _fresh(self, name: str) -> Path:
        self._started += 1
        directory = self._directory / f"{name}-{self._started}"
        directory.mkdir()
        return directory
