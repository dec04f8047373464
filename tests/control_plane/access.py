"""How tests and components reach the API server: kubeconfigs, ServiceAccount tokens, and manifests applied.

The official Python client does the transport; there is no kubectl.
"""

import base64
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import urllib3
import yaml
from kubernetes import client, config

Manifest = dict[str, Any]


@dataclass(frozen=True)
class Endpoint:
    """Where the API server listens, and the authority that its certificate is checked against."""

    url: str
    authority: Path

    def kubeconfig(self, path: Path, token: str) -> Path:
        """Write a kubeconfig that stands alone (no path in it) for the bearer of that token."""
        authority = base64.b64encode(self.authority.read_bytes()).decode()
        content = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "test", "cluster": {"server": self.url, "certificate-authority-data": authority}}],
            "users": [{"name": "test", "user": {"token": token}}],
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
            "current-context": "test",
        }
        path.touch(mode=0o600)
        path.write_text(yaml.safe_dump(content))
        return path


def connect(kubeconfig: Path) -> client.ApiClient:
    """A client that authenticates as that kubeconfig says; close it."""
    api: client.ApiClient = config.new_client_from_config(str(kubeconfig))  # type: ignore[no-untyped-call]
    return api


def send(
    api: client.ApiClient,
    method: str,
    path: str,
    body: Manifest | None = None,
    content_type: str = "application/json",
) -> bytes:
    """One request on plain JSON, without the client's models.

    Args:
        api: who asks.
        method: GET, POST, PATCH or DELETE.
        path: with the query.
        body: an object, not its text.
        content_type: of the body.

    Raises:
        kubernetes.client.ApiException: the API server refused it.
    """
    answer = _open(api, method, path, body, content_type, 60.0)
    return answer.data


def stream(api: client.ApiClient, path: str) -> urllib3.BaseHTTPResponse:
    """The answer to a GET that goes on, such as a watch: iterate over its lines, and close it.

    Raises:
        kubernetes.client.ApiException: the API server refused it.
    """
    return _open(api, "GET", path, None, "application/json", (10.0, None))


def request(
    api: client.ApiClient,
    method: str,
    path: str,
    body: Manifest | None = None,
    content_type: str = "application/json",
) -> dict[str, Any]:
    """One request and its answer, decoded; see `send`."""
    decoded: dict[str, Any] = json.loads(send(api, method, path, body, content_type))
    return decoded


def service_account_token(api: client.ApiClient, namespace: str, name: str, lifetime_s: int = 24 * 3600) -> str:
    """A token of that ServiceAccount from the TokenRequest API, as the kubelet gets one for a pod."""
    body = {
        "apiVersion": "authentication.k8s.io/v1",
        "kind": "TokenRequest",
        "spec": {"expirationSeconds": lifetime_s},
    }
    answer = request(api, "POST", f"/api/v1/namespaces/{namespace}/serviceaccounts/{name}/token", body)
    return str(answer["status"]["token"])


def read_manifests(path: Path) -> list[Manifest]:
    """The objects of a YAML file."""
    return [document for document in yaml.safe_load_all(path.read_text()) if document]


def apply(api: client.ApiClient, manifests: Iterable[Manifest]) -> None:
    """Server-side apply of each object in turn, as `kubectl apply --server-side` does."""
    for manifest in manifests:
        path = f"{object_path(api, manifest)}?fieldManager=tests&force=true"
        request(api, "PATCH", path, manifest, "application/apply-patch+yaml")


def delete(api: client.ApiClient, manifests: Iterable[Manifest]) -> None:
    """Delete each object, the last first; one that is not there is left so."""
    for manifest in reversed(list(manifests)):
        try:
            request(api, "DELETE", object_path(api, manifest))
        except client.ApiException as error:
            if error.status != 404:
                raise


def object_path(api: client.ApiClient, manifest: Manifest) -> str:
    """The URL path of an object, by what the API server says of its kind.

    Raises:
        LookupError: the API server does not serve that kind.
    """
    version, kind, metadata = manifest["apiVersion"], manifest["kind"], manifest["metadata"]
    prefix = f"/apis/{version}" if "/" in version else f"/api/{version}"
    for resource in request(api, "GET", prefix)["resources"]:
        if resource["kind"] == kind and "/" not in resource["name"]:
            scope = f"/namespaces/{metadata.get('namespace', 'default')}" if resource["namespaced"] else ""
            return f"{prefix}{scope}/{resource['name']}/{metadata['name']}"
    raise LookupError(f"the API server serves no kind {kind} in {version}")


def _open(
    api: client.ApiClient,
    method: str,
    path: str,
    body: Manifest | None,
    content_type: str,
    timeout: float | tuple[float, float | None],
) -> urllib3.BaseHTTPResponse:
    headers = {"Accept": "application/json", "Content-Type": content_type}
    verb, url, headers, serialized, _ = api.param_serialize(
        method, path, header_params=headers, body=body, auth_settings=["BearerToken"]
    )
    answer = api.call_api(verb, url, headers, serialized, _request_timeout=timeout)
    raw: urllib3.BaseHTTPResponse = answer.response
    if not 200 <= raw.status < 300:
        raise client.ApiException.from_response(http_resp=raw, body=raw.data.decode(errors="replace"), data=None)
    return raw
