"""Runs helm on the chart, and reads what it renders."""

import json
import os
import subprocess
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from tests.control_plane import binaries
from tests.control_plane.toolchain import REPOSITORY

CHART = REPOSITORY / "helm" / "maddpg-scheduler"
CI_VALUES = sorted((CHART / "ci").glob("*-values.yaml"))
RELEASE, NAMESPACE = "maddpg-scheduler", "maddpg-scheduler"
CLUSTER_NAME = f"{NAMESPACE}:{RELEASE}"
"""Beginning of the names of the cluster's objects."""
KUBE_VERSION = "v1.37.2"
ALL_APIS = ("monitoring.coreos.com/v1", "metrics.k8s.io/v1beta1")

Manifest = dict[str, Any]


class HelmError(RuntimeError):
    """helm refused; the message is what it said."""


@cache
def helm_binary() -> Path:
    """The pinned helm, built first where the cache lacks it."""
    return binaries.build(binaries.HELM) / "helm"


def helm(*arguments: str, home: Path, kubeconfig: Path | None = None) -> str:
    """Run helm and return what it wrote on stdout.

    Args:
        arguments: of helm.
        home: where it may keep caches; nothing of the user's own configuration is read.
        kubeconfig: the cluster; none where it only renders.

    Raises:
        HelmError: it ended with an error.
    """
    places = {f"HELM_{name}_HOME": str(home / name.lower()) for name in ("CACHE", "CONFIG", "DATA")}
    environment = {"PATH": os.environ["PATH"], "HOME": str(home), **places}
    environment["KUBECONFIG"] = str(kubeconfig) if kubeconfig else os.devnull
    done = subprocess.run([helm_binary(), *arguments], env=environment, capture_output=True, text=True)
    if done.returncode != 0:
        raise HelmError(done.stderr + done.stdout)
    return done.stdout


@dataclass(frozen=True)
class Rendering:
    """What `helm template` wrote."""

    text: str
    objects: list[Manifest] = field(repr=False)

    def one(self, kind: str, name: str | None = None) -> Manifest:
        """The only object of that kind, or of that kind and name.

        Raises:
            LookupError: there is none, or more than one.
        """
        found = self.all(kind, name)
        if len(found) != 1:
            names = [f"{each['kind']}/{each['metadata']['name']}" for each in self.objects]
            raise LookupError(f"{len(found)} objects {kind} {name or ''} among {names}")
        return found[0]

    def all(self, kind: str, name: str | None = None) -> list[Manifest]:
        """Every object of that kind."""
        return [
            each for each in self.objects if each["kind"] == kind and (name is None or each["metadata"]["name"] == name)
        ]

    def container(self, name: str) -> Manifest:
        """The container of that name in any Deployment."""
        found = [
            container
            for deployment in self.all("Deployment")
            for container in deployment["spec"]["template"]["spec"]["containers"]
            if container["name"] == name
        ]
        if len(found) != 1:
            raise LookupError(f"{len(found)} containers {name}")
        return dict(found[0])

    def settings(self, fullname: str = RELEASE) -> dict[str, Any]:
        """The extender's settings file."""
        content = self.one("ConfigMap", f"{fullname}-extender")["data"]["settings.yaml"]
        return dict(yaml.safe_load(content))

    def scheduler_configuration(self, fullname: str = RELEASE) -> dict[str, Any]:
        """kube-scheduler's configuration file."""
        return dict(yaml.safe_load(self.one("ConfigMap", fullname)["data"]["config.yaml"]))


def template(
    home: Path,
    values: Mapping[str, Any] | None = None,
    *,
    files: Iterable[Path] = (),
    kube_version: str = KUBE_VERSION,
    release: str = RELEASE,
    namespace: str = NAMESPACE,
    chart: Path = CHART,
    apis: Iterable[str] = (),
) -> Rendering:
    """Render the chart, or one that holds it, without a cluster.

    Raises:
        HelmError: it refused the values.
    """
    arguments = [release, str(chart), "--namespace", namespace, "--kube-version", kube_version]
    arguments += [part for api in apis for part in ("--api-versions", api)]
    for file in files:
        arguments += ["--values", str(file)]
    if values:
        given = home / "given.yaml"
        given.write_text(json.dumps(values))
        arguments += ["--values", str(given)]
    text = helm("template", *arguments, home=home)
    return Rendering(text, [document for document in yaml.safe_load_all(text) if document])


def notes(home: Path, values: Mapping[str, Any] | None = None) -> str:
    """What `helm install` would say to the user; `helm template` leaves it out.

    Raises:
        HelmError: it refused the values.
    """
    given = home / "given.yaml"
    given.write_text(json.dumps(values or {}))
    arguments = [RELEASE, str(CHART), "--namespace", NAMESPACE, "--values", str(given), "--dry-run=client"]
    return helm("install", *arguments, home=home).partition("NOTES:\n")[2]


def nested(path: Iterable[str], value: Any) -> dict[str, Any]:
    """``(a, b), 1`` to ``{a: {b: 1}}``."""
    for key in reversed(list(path)):
        value = {key: value}
    return dict(value)


def merged(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """As helm merges values: maps deeply, everything else replaced."""
    result = dict(base)
    for key, value in over.items():
        both = isinstance(value, Mapping) and isinstance(result.get(key), Mapping)
        result[key] = merged(result[key], value) if both else value
    return result
