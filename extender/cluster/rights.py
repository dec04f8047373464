"""What the service may have to do in a cluster, by its settings, and whether the API server lets it.

deploy/rbac.yaml and the chart grant exactly these; tests compare them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import msgspec

from extender.cluster.answers import ApiError
from extender.cluster.api import ApiServer
from extender.errors import UNDECODABLE
from extender.settings import Settings

REVIEWS: Final = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"


@dataclass(frozen=True, slots=True)
class Right:
    """One verb on one kind of object, in all namespaces."""

    verb: str  # such as ``list``
    group: str  # API group; empty for the core one
    resource: str  # plural name, with a subresource behind a slash
    needed_for: str  # what does not work without it
    lost: str | None = None  # what is lost without it where the service works all the same; None: it does not

    def __str__(self) -> str:
        """As `kubectl auth can-i` takes it: ``list nodes.metrics.k8s.io``."""
        resource, slash, subresource = self.resource.partition("/")
        return f"{self.verb} {resource}{f'.{self.group}' if self.group else ''}{slash}{subresource}"


class _Verdict(msgspec.Struct):
    allowed: bool


class _Review(msgspec.Struct):
    status: _Verdict


def rights(settings: Settings) -> list[Right]:
    """Return what these settings need."""
    needed = [
        Right(verb, "", resource, "the state of the cluster")
        for resource in ("nodes", "pods")
        for verb in ("list", "watch")
    ]
    source, auto = f"usage_source: {settings.usage_source}", settings.usage_source == "auto"
    if settings.asks_metrics_server:
        lost = "use of nodes whose kubelet does not answer is expected from requests" if auto else None
        needed.append(Right("list", "metrics.k8s.io", "nodes", source, lost))
    if settings.asks_kubelets:
        lost = "metrics-server is asked instead, so no speed is learned and pressure is estimated" if auto else None
        needed.append(Right("get", "", "nodes/stats", source, lost))
    if settings.enable_bind:
        needed.append(Right("create", "", "pods/binding", "enable_bind: true"))
    if settings.explain_on_pod == "event":
        needed.append(Right("create", "events.k8s.io", "events", "explain_on_pod: event"))
    if settings.explain_on_pod == "annotation":
        needed.append(Right("patch", "", "pods", "explain_on_pod: annotation"))
    if settings.operations_bearer:
        needed.append(Right("create", "authentication.k8s.io", "tokenreviews", "operations_bearer: true"))
    return needed


def allowed(api: ApiServer, right: Right) -> bool | None:
    """Return whether the API server lets us; None where it does not say.

    Source: authorization.k8s.io/v1, SelfSubjectAccessReview, which every authenticated user may make.
    """
    resource, _, subresource = right.resource.partition("/")
    attributes = {"verb": right.verb, "group": right.group, "resource": resource, "subresource": subresource}
    body = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SelfSubjectAccessReview",
        "spec": {"resourceAttributes": attributes},
    }
    try:
        return msgspec.json.decode(api.post(REVIEWS, body), type=_Review).status.allowed
    except (ApiError, *UNDECODABLE):
        return None
