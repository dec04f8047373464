"""The API server as raw requests: the official client's configuration, credentials and transport, without its models.

The client's typed models are left out on purpose: see docs/decisions/0003-reflector.md. Refuses to know any resource.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self
from urllib.parse import urlencode

import msgspec
import structlog
import urllib3
import yaml
from kubernetes import client, config

from extender.errors import SourceError

UNREACHED: Final = 0
"""Status of a request that got no answer."""
UNAUTHORIZED: Final = 401
GONE: Final = 410
CONNECT_TIMEOUT: Final = 5.0
"""Seconds to connect and shake hands."""
READ_TIMEOUT: Final = 30.0
"""Seconds without a byte after which an answer, other than a watch, counts as lost."""
LONGEST_LINE: Final = 16 * 1024 * 1024
"""Bytes of a watch event; etcd keeps objects below 1.5 MiB."""
LONGEST_REASON: Final = 300
"""Characters of an error's text that are kept."""
USER_AGENT: Final = "maddpg-extender"

log = structlog.stdlib.get_logger(__name__)


class ApiError(SourceError):
    """The API server refused a request or could not be reached.

    Attributes:
        status: HTTP status; `UNREACHED` if there was no answer.
        retry_after: seconds the server asks to wait, or None.
    """

    def __init__(self, message: str, status: int = UNREACHED, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.retry_after = retry_after


class _Status(msgspec.Struct):
    """A metav1.Status, as far as an error needs it."""

    message: str | None = None


class Lines:
    """The lines of an answer that goes on, as they arrive; a context manager. `abort` may come from any thread."""

    def __init__(self, response: urllib3.BaseHTTPResponse) -> None:
        self._response = response

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # What is left of the stream is of no use, so the connection cannot be either.
        self._response.close()

    def __iter__(self) -> Iterator[bytes]:
        """Every line without its end; empty ones are skipped.

        Raises:
            ApiError: the connection was lost or silent for too long, or a line is too long.
        """
        begun = bytearray()
        try:
            for segment in self._response.stream(amt=None, decode_content=False):
                *lines, rest = segment.split(b"\n")
                for line in lines:
                    begun += line
                    if begun:
                        yield bytes(begun)
                    begun.clear()
                begun += rest
                if len(begun) > LONGEST_LINE:
                    raise ApiError(f"the watch sent a line longer than {LONGEST_LINE} bytes")
        except (urllib3.exceptions.HTTPError, OSError, ValueError) as error:
            # ValueError: the response was closed under our hands by `abort`
            raise ApiError(f"the connection was lost: {_reason(error)}") from error

    def abort(self) -> None:
        """End a read that blocks in another thread, and every later one."""
        try:
            self._response.shutdown()
        except (ValueError, RuntimeError, OSError):
            # No socket any more: the answer has ended by itself.
            return


class ApiServer:
    """One API server and who we are to it. Thread safe.

    Tokens are read again when the client says so (a ServiceAccount's each minute) and whenever one is refused.

    Args:
        kubeconfig: file to read; None: the pod's ServiceAccount, or the user's own kubeconfig outside a pod.
        context: context of the kubeconfig; None: its current one.

    Raises:
        SourceError: there is no usable configuration.
    """

    def __init__(self, kubeconfig: Path | None = None, context: str | None = None) -> None:
        self._kubeconfig = kubeconfig
        self._context = context
        self._lock = threading.Lock()
        self._client = self._connect()

    @property
    def url(self) -> str:
        """Where it is."""
        return str(self._client.configuration.host)

    def get(self, path: str, query: Mapping[str, str] | None = None) -> bytes:
        """Body of a GET.

        Raises:
            ApiError: refused, or not reached.
        """
        return self._body("GET", path, query, None)

    def post(self, path: str, body: Mapping[str, Any]) -> bytes:
        """Body of the answer to a POST of JSON.

        Raises:
            ApiError: refused, or not reached.
        """
        return self._body("POST", path, None, dict(body))

    def patch(self, path: str, body: Mapping[str, Any]) -> bytes:
        """Body of the answer to a merge patch (RFC 7386).

        Raises:
            ApiError: refused, or not reached.
        """
        return self._body("PATCH", path, None, dict(body))

    def lines(self, path: str, query: Mapping[str, str], silence: float) -> Lines:
        """Begin a GET whose answer goes on; it counts as lost after `silence` seconds without a byte.

        Raises:
            ApiError: refused, or not reached.
        """
        return Lines(self._send("GET", path, query, None, silence))

    def close(self) -> None:
        """Close idle connections."""
        self._client.close()  # type: ignore[no-untyped-call]

    def _body(self, method: str, path: str, query: Mapping[str, str] | None, body: dict[str, Any] | None) -> bytes:
        response = self._send(method, path, query, body, READ_TIMEOUT)
        try:
            return _read(response)
        finally:
            response.release_conn()

    def _send(
        self, method: str, path: str, query: Mapping[str, str] | None, body: dict[str, Any] | None, read_timeout: float
    ) -> urllib3.BaseHTTPResponse:
        used = self._client
        full_path = f"{path}?{urlencode(query)}" if query else path
        form = "application/merge-patch+json" if method == "PATCH" else "application/json"
        try:
            method, url, headers, content, _ = used.param_serialize(
                method,
                full_path,
                header_params={"Accept": "application/json", "Content-Type": form},
                body=body,
                auth_settings=["BearerToken"],
            )
            answer = used.call_api(method, url, headers, content, _request_timeout=(CONNECT_TIMEOUT, read_timeout))
        except (urllib3.exceptions.HTTPError, OSError, client.ApiException, config.ConfigException) as error:
            raise ApiError(f"cannot reach {self.url}: {_reason(error)}") from error
        response: urllib3.BaseHTTPResponse = answer.response
        if 200 <= response.status < 300:
            return response
        try:
            text = _read(response)
        finally:
            response.release_conn()
        if response.status == UNAUTHORIZED:
            self._renew(used)
        raise ApiError(
            f"{self.url} answered {response.status} to {method} {path}: {_message(text)}",
            response.status,
            _seconds(response.headers.get("Retry-After")),
        )

    def _renew(self, refused: client.ApiClient) -> None:
        """Read the credentials anew, unless another thread just did; where that fails, the old ones stay in use."""
        with self._lock:
            if self._client is refused:
                try:
                    self._client = self._connect()
                except SourceError as error:
                    # The file may be half written; the next refusal brings us here again.
                    log.warning("credentials were refused and cannot be read anew", error=str(error))
                    return
                refused.close()  # type: ignore[no-untyped-call]

    def _connect(self) -> client.ApiClient:
        settings = client.Configuration()
        # urllib3 would ask four times in a row; who asks us has a back-off of its own.
        settings.retries = False
        try:
            self._load(settings)
        except (
            config.ConfigException,
            yaml.YAMLError,
            OSError,
            ValueError,
            LookupError,
            TypeError,
            AttributeError,
        ) as error:
            where = f"kubeconfig {self._kubeconfig}" if self._kubeconfig else "not in a pod, and the user's kubeconfig"
            raise SourceError(
                f"no way to the cluster: {where}: {_reason(error)}; set `kubeconfig` to a file that is one"
            ) from error
        connected = client.ApiClient(settings)
        connected.user_agent = USER_AGENT
        return connected

    def _load(self, settings: client.Configuration) -> None:
        if self._kubeconfig is None and self._context is None:
            try:
                config.load_incluster_config(client_configuration=settings)  # type: ignore[no-untyped-call]
            except config.ConfigException:
                # Not in a pod: the user's own kubeconfig, whose absence is the error to report.
                pass
            else:
                return
        file = str(self._kubeconfig) if self._kubeconfig else None
        config.load_kube_config(  # type: ignore[no-untyped-call]
            config_file=file, context=self._context, client_configuration=settings
        )


def _read(response: urllib3.BaseHTTPResponse) -> bytes:
    try:
        return response.read()
    except (urllib3.exceptions.HTTPError, OSError) as error:
        raise ApiError(f"the connection was lost: {_reason(error)}") from error


def _message(body: bytes) -> str:
    """What a Status says, or the body's beginning: a proxy in between may answer anything."""
    try:
        message = msgspec.json.decode(body, type=_Status).message
    except (msgspec.DecodeError, UnicodeDecodeError):
        message = None
    return (message or body.decode(errors="replace").strip() or "no reason given")[:LONGEST_REASON]


def _reason(error: BaseException) -> str:
    return (str(error) or type(error).__name__)[:LONGEST_REASON]


def _seconds(header: str | None) -> float | None:
    """Retry-After in seconds; dates, which the API server never sends, count as absent."""
    return float(header) if header is not None and header.isdecimal() else None
