"""What the service finds around it: the API server, its rights, measured use, the collector of traces, replicas."""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Final, cast
from urllib.parse import urlsplit

import msgspec

from extender.cluster.access import HOME_FILE, exists
from extender.cluster.answers import UNAUTHORIZED, UNREACHED, ApiError
from extender.cluster.api import ApiServer
from extender.cluster.decoding import UndecodableError, decode_page
from extender.cluster.kubernetes import NODES, PODS, usage_reader
from extender.cluster.rights import Right, allowed, rights
from extender.errors import UNDECODABLE, SourceError, kind_of
from extender.inspection.finding import Finding, Verdict
from extender.operations.peers import addresses
from extender.proxies import PORTS, proxy_for
from extender.settings import Settings, separated
from policy.heuristics import KUBERNETES_VERSIONS

FORBIDDEN: Final = 403
NOT_FOUND: Final = 404
MINORS: Final = [int(version.partition(".")[2]) for version in KUBERNETES_VERSIONS]
"""Of the Kubernetes versions that the extender was tested with."""
CONNECT_TIMEOUT_S: Final = 5.0
GRANT: Final = "deploy/rbac.yaml and the chart grant it"


class _Version(msgspec.Struct):
    git_version: str = msgspec.field(name="gitVersion")
    minor: str


class _Name(msgspec.Struct):
    name: str


class _Named(msgspec.Struct):
    metadata: _Name


class _Names(msgspec.Struct):
    items: list[_Named]


class _Identity(msgspec.Struct):
    username: str


class _Who(msgspec.Struct):
    user_info: _Identity = msgspec.field(name="userInfo")


class _Review(msgspec.Struct):
    status: _Who


def inspect(settings: Settings) -> Iterator[Finding]:
    """Ask everybody whom the service would ask."""
    api: ApiServer | None = None
    if _leads_to_a_cluster(settings):
        try:
            api = ApiServer(settings.kubeconfig, settings.kube_context)
        except SourceError as error:
            yield Finding("API server", "failed", str(error))
    else:
        told = "this is no pod, and neither `kubeconfig` nor KUBECONFIG names a file: the service would not start here"
        yield Finding("API server", "skipped", told, "give --kubeconfig to try its rights")
    names: list[str] = []
    if api is not None:
        reached, minor = _reached(api)
        yield reached
        if minor is not None:
            yield _version(settings, minor)
        unlisted = None if reached.verdict == "failed" else _unlisted(api)
        if unlisted is not None:
            yield unlisted
        elif reached.verdict != "failed":
            for right in rights(settings):
                yield _right(api, right)
            names = _node_names(api)
    yield from _use(settings, api, names)
    if settings.tracing_endpoint is not None:
        yield _collector(settings.tracing_endpoint)
    for host in () if settings.peers is None else separated(settings.peers):
        yield _peers(host)


def _leads_to_a_cluster(settings: Settings) -> bool:
    """Whether anything says where the API server is: settings, a pod's environment, or the user's kubeconfig."""
    if settings.kubeconfig is not None or settings.kube_context is not None:
        return True
    if "KUBERNETES_SERVICE_HOST" in os.environ or os.environ.get("KUBECONFIG"):
        return True
    return exists(Path(os.environ.get("HOME") or "/") / HOME_FILE)


def _reached(api: ApiServer) -> tuple[Finding, int | None]:
    """Whether the API server answers, and its minor version, where it says it."""
    name = "API server"
    try:
        version = msgspec.json.decode(api.get("/version"), type=_Version)
    except ApiError as error:
        if error.status in (UNREACHED, UNAUTHORIZED):
            fix = "look at the address, the authority and the credentials of the kubeconfig or the ServiceAccount"
            return Finding(name, "failed", str(error), fix), None
        return Finding(name, "ok", f"{api.url} answers{_as_whom(api)}"), None
    except UNDECODABLE:
        told, fix = f"{api.url} answers its version, but not as an API server", "look at the address in the kubeconfig"
        return Finding(name, "warning", told, fix), None
    told = f"{api.url} answers, {version.git_version}{_as_whom(api)}"
    found = re.match(r"\d+", version.minor)  # "36+" with some providers
    if found is None:
        return Finding(name, "ok", told), None
    minor = int(found[0])
    if minor < min(MINORS):
        fix = f"the extender was tested with Kubernetes 1.{min(MINORS)} and newer"
        return Finding(name, "warning", told, fix), minor
    return Finding(name, "ok", told), minor


def _unlisted(api: ApiServer) -> Finding | None:
    """Why nodes or pods cannot be listed; None where they can, or where rights say why."""
    name = "API server"
    for resource in (NODES, PODS):
        try:
            decode_page(api.get(resource.path, {"limit": "1"}))
        except ApiError as error:
            if error.status != FORBIDDEN:
                fix = "without these lists the service is never ready: look at the address in the kubeconfig"
                return Finding(name, "failed", str(error), fix)
        except UndecodableError:
            told = f"{api.url} answers a list of {resource.name}, but not as an API server"
            return Finding(name, "failed", told, "look at the address in the kubeconfig")
    return None


def _version(settings: Settings, minor: int) -> Finding:
    """Whether the setting suits the cluster, whose kube-scheduler is of its version or one behind."""
    name, version = "kubernetes_version", settings.kubernetes_version
    ours, theirs = int(version.partition(".")[2]), min(max(minor, min(MINORS)), max(MINORS))
    if ours in (theirs, theirs - 1):
        return Finding(name, "ok", f"{version} suits the API server")
    told = f"is {version}, and the API server's is 1.{minor}"
    return Finding(name, "warning", told, "set it to the version of the kube-scheduler that calls")


def _as_whom(api: ApiServer) -> str:
    """Who we are to it, where it says (authentication.k8s.io/v1, SelfSubjectReview)."""
    body = {"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"}
    try:
        answer = api.post("/apis/authentication.k8s.io/v1/selfsubjectreviews", body)
        return f", to {msgspec.json.decode(answer, type=_Review).status.user_info.username}"
    except (ApiError, *UNDECODABLE):
        return ""


def _right(api: ApiServer, right: Right) -> Finding:
    name = f"right to {right}"
    answer = allowed(api, right)
    if answer is None and right.verb == "list":
        answer = _listed(api, right)
    if answer is None:
        return Finding(name, "skipped", "the API server does not say", f"kubectl auth can-i {right} --all-namespaces")
    if answer:
        return Finding(name, "ok", f"granted, for {right.needed_for}")
    if right.lost is not None:
        return Finding(name, "warning", f"refused; {right.lost}", GRANT)
    return Finding(name, "failed", f"refused, and needed for {right.needed_for}", GRANT)


def _listed(api: ApiServer, right: Right) -> bool | None:
    """Whether a list of one object is answered; None where there is no such thing to list."""
    path = f"/apis/{right.group}/v1beta1/{right.resource}" if right.group else f"/api/v1/{right.resource}"
    try:
        api.get(path, {"limit": "1"})
    except ApiError as error:
        return False if error.status == FORBIDDEN else None
    return True


def _node_names(api: ApiServer) -> list[str]:
    """Names of the first nodes; none where they cannot be listed, which their right says."""
    try:
        answer = msgspec.json.decode(api.get(NODES.path, {"limit": "500"}), type=_Names)
    except (ApiError, *UNDECODABLE):
        return []
    return [item.metadata.name for item in answer.items]


def _use(settings: Settings, api: ApiServer | None, names: list[str]) -> Iterator[Finding]:
    """Whether use is measured, of nodes that are called as those of the cluster. Kubelets are not asked."""
    make = usage_reader(settings)
    if make is None:
        return
    source = "metrics-server" if settings.asks_metrics_server else settings.usage_source
    broken: Verdict = "failed"
    if api is None and settings.asks_metrics_server:
        yield Finding(source, "skipped", "it is asked through the API server")
        return
    otherwise = "or set usage_source: none, and use is expected from requests"
    if settings.asks_kubelets:
        broken, otherwise = "warning", "or leave it: nodes whose kubelet does not answer need it alone"
    fix = "install metrics-server" if settings.asks_metrics_server else "look at the settings prometheus_..."
    try:
        reader = make(cast("ApiServer", api))  # Prometheus is not asked through it, and needs none
        try:
            readings = reader.read().uses
        finally:
            reader.close()
    except SourceError as error:
        absent = isinstance(error.__cause__, ApiError) and error.__cause__.status == NOT_FOUND
        yield Finding(source, "warning" if absent else broken, str(error), f"{fix}, {otherwise}")
        return
    except (OSError, ValueError) as error:
        yield Finding(source, broken, f"cannot be asked ({kind_of(error)})", f"{fix}, {otherwise}")
        return
    measured = {reading.node for reading in readings}
    if not measured:
        yield Finding(source, broken, "answers, and measures no node", f"look at what it scrapes, {otherwise}")
    elif names and measured.isdisjoint(names):
        fix = "set prometheus_node_label" if source == "prometheus" else "is it another cluster's?"
        yield Finding(source, broken, f"measures {min(measured)!r}, and nodes are called {min(names)!r}", fix)
    else:
        yield Finding(source, "ok", f"measures {len(measured)} nodes")


def _peers(host: str) -> Finding:
    """Whether replicas are found by a name; they need not answer for the service to start."""
    try:
        found = set(addresses(host))
    except OSError as error:
        told = f"{host} leads to no replica ({kind_of(error)})"
        return Finding("peers", "warning", told, "name the headless Service; outside the cluster it has no name")
    return Finding("peers", "ok", f"{host} leads to {len(found)} replicas")


def _collector(endpoint: str) -> Finding:
    """Whether somebody listens where traces go; the service does not wait for them."""
    parts = urlsplit(endpoint)
    host, port = parts.hostname or "", parts.port or PORTS.get(parts.scheme) or 0
    name = "tracing_endpoint"
    if proxy_for(endpoint, os.environ) is not None:
        return Finding(name, "skipped", "it is asked through a proxy")
    try:
        socket.create_connection((host, port), CONNECT_TIMEOUT_S).close()
    except OSError as error:
        told = f"nobody listens at {host} port {port} ({error.strerror or type(error).__name__})"
        return Finding(name, "warning", told, "spans are dropped until somebody does")
    return Finding(name, "ok", f"{host} port {port} listens")
