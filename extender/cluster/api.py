"""The API server as raw requests, over urllib3. Refuses to know any resource, and to publish what it is answered.

Why neither the official client's models nor its configuration are used: docs/decisions/0003-reflector.md. Messages of
errors say status and reason alone; see `extender.cluster.answers`.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final
from urllib.parse import unquote, urlencode, urlsplit

import msgspec
import structlog
import urllib3

from extender.cluster.access import Access, find_access
from extender.cluster.answers import UNAUTHORIZED, Answer, ApiError, refusal
from extender.cluster.authorities import show, unverifying_context, verifying_context
from extender.cluster.identity import (
    CredentialError,
    Credentials,
    FixedCredentials,
    Identity,
    TokenFile,
    basic,
    bearer,
)
from extender.cluster.lines import Lines
from extender.cluster.plugin import Plugin
from extender.errors import CertificateError, SourceError, kind_of
from extender.proxies import proxy_for
from extender.urls import split_url

CONNECT_TIMEOUT: Final = 5.0
"""Seconds to connect and shake hands."""
READ_TIMEOUT: Final = 30.0
"""Seconds without a byte after which an answer, other than a watch, counts as lost."""
LONGEST_REFUSAL: Final = 64 * 1024
"""Bytes of a refusal that are read."""
CONNECTIONS: Final = 64
"""Idle connections that are kept."""
USER_AGENT: Final = "maddpg-extender"

log = structlog.stdlib.get_logger(__name__)


class _Connection:
    """Connections to one API server by one access, and who the service is on them. Thread safe."""

    def __init__(self, access: Access, environment: Mapping[str, str]) -> None:
        self.access = access
        self._environment = environment
        self.credentials = _credentials(access)
        self._lock = threading.Lock()
        self._pool: urllib3.PoolManager | None = None
        self._shown: tuple[bytes | None, bytes | None] = (None, None)

    def send(
        self,
        identity: Identity,
        method: str,
        path: str,
        headers: Mapping[str, str],
        body: bytes | None,
        read_timeout: float,
    ) -> urllib3.BaseHTTPResponse:
        """One request; the answer's body is unread.

        Raises:
            SourceError: the certificates or the proxy cannot be used.
            urllib3.exceptions.HTTPError, OSError, ValueError: it was not answered.
        """
        every = urllib3.HTTPHeaderDict(headers)
        for name, value in self.access.impersonation:
            every.add(name, value)
        if identity.authorization is not None:
            every["Authorization"] = identity.authorization
        return self._pool_for(identity).request(
            method,
            self.access.server + path,
            body=body,
            headers=every,
            timeout=urllib3.Timeout(connect=CONNECT_TIMEOUT, read=read_timeout),
            # urllib3 would ask four times in a row; who asks us has a back-off of its own.
            retries=False,
            redirect=False,
            preload_content=False,
        )

    def close(self) -> None:
        """Close idle connections."""
        with self._lock:
            if self._pool is not None:
                self._pool.clear()

    def _pool_for(self, identity: Identity) -> urllib3.PoolManager:
        """The pool whose connections show the identity's certificate: a new one where that has changed."""
        shown = identity.certificate, identity.key
        with self._lock:
            if self._pool is None or shown != self._shown:
                fresh = _pool(self.access, identity, self._environment)
                if self._pool is not None:
                    self._pool.clear()
                self._pool, self._shown = fresh, shown
            return self._pool


class ApiServer:
    """One API server and who we are to it. Thread safe.

    Configuration and credentials are read again when the server refuses them, and when its certificate does not match:
    tokens, certificates and authorities rotate. No request is sent without the credentials that the configuration
    names.

    Raises:
        SourceError: there is no usable configuration.
    """

    def __init__(
        self, kubeconfig: Path | None = None, context: str | None = None, environment: Mapping[str, str] | None = None
    ) -> None:
        self._kubeconfig = kubeconfig
        self._context = context
        self._environment = os.environ if environment is None else environment
        self._lock = threading.Lock()
        self._connection = self._connect()

    @property
    def url(self) -> str:
        """Where it is."""
        return self._connection.access.server

    @property
    def authorities(self) -> bytes | None:
        """Certificates (PEM) that the API server's own is checked against; None: the system's."""
        return self._connection.access.authorities

    def identity(self) -> Identity:
        """Who the service is now, for servers that ask the API server who somebody is: kubelets. May run a program.

        Raises:
            CredentialError: there are no credentials now, or they count with the API server alone.
        """
        used = self._connection
        if used.access.impersonation:
            raise CredentialError("impersonation (`as`) counts with the API server alone; use an identity of your own")
        return used.credentials.identity()

    def refused(self, identity: Identity) -> None:
        """One of these servers did not accept the identity: get another before the next question."""
        self._connection.credentials.refused(identity)

    def get(self, path: str, query: Mapping[str, str] | None = None) -> bytes:
        """Body of a GET. Raises `ApiError` if refused, or not reached."""
        return self._body("GET", path, query, None)

    def post(self, path: str, body: Mapping[str, Any]) -> bytes:
        """Body of the answer to a POST of JSON. Raises `ApiError` if refused, or not reached."""
        return self._body("POST", path, None, msgspec.json.encode(body))

    def patch(self, path: str, body: Mapping[str, Any]) -> bytes:
        """Body of the answer to a merge patch (RFC 7386). Raises `ApiError` if refused, or not reached."""
        return self._body("PATCH", path, None, msgspec.json.encode(body))

    def lines(self, path: str, query: Mapping[str, str], silence: float) -> Lines:
        """Begin a GET whose answer goes on; it counts as lost after `silence` seconds without a byte.

        Raises:
            ApiError: refused, or not reached.
        """
        return Lines(self._send("GET", path, query, None, silence))

    def close(self) -> None:
        """Close idle connections."""
        self._connection.close()

    def _body(self, method: str, path: str, query: Mapping[str, str] | None, body: bytes | None) -> bytes:
        response = self._send(method, path, query, body, READ_TIMEOUT)
        try:
            return response.read()
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise ApiError(f"the connection was lost: {kind_of(error)}") from error
        finally:
            response.release_conn()

    def _send(
        self, method: str, path: str, query: Mapping[str, str] | None, body: bytes | None, read_timeout: float
    ) -> urllib3.BaseHTTPResponse:
        used = self._connection
        form = "application/merge-patch+json" if method == "PATCH" else "application/json"
        headers = {"Accept": "application/json", "Content-Type": form, "User-Agent": USER_AGENT}
        asked = f"{path}?{urlencode(query)}" if query else path
        try:
            identity = used.credentials.identity()
            response = used.send(identity, method, asked, headers, body, read_timeout)
        except CredentialError as error:
            raise ApiError(f"nothing is asked of {self.url} without credentials: {error}") from error
        except (SourceError, CertificateError) as error:
            raise ApiError(f"cannot reach {self.url}: {error}") from error
        except (urllib3.exceptions.HTTPError, OSError, ValueError) as error:
            if isinstance(error, urllib3.exceptions.SSLError):
                self._renew(used)  # the authority may have rotated
            raise ApiError(f"cannot reach {self.url}: {kind_of(error)}") from error
        if 200 <= response.status < 300:
            return response
        raise self._refusal(used, identity, response, f"{method} {path}")

    def _refusal(
        self, used: _Connection, identity: Identity, response: urllib3.BaseHTTPResponse, asked: str
    ) -> ApiError:
        """The error that an answer is; what it does not accept is renewed."""
        try:
            body = response.read(LONGEST_REFUSAL)
        except (urllib3.exceptions.HTTPError, OSError):
            body = b""  # the status says enough
        if 0 < len(body) < LONGEST_REFUSAL:
            response.release_conn()
        else:
            response.close()
        access = used.access
        secrets = access.password, access.token, (identity.authorization or "").partition(" ")[2]
        answer = Answer(response.status, body, response.headers.get("Retry-After"))
        error = refusal(asked, access.server, answer, secrets)
        if error.status == UNAUTHORIZED or error.anonymous:
            used.credentials.refused(identity)
            self._renew(used)
        return error

    def _renew(self, refused: _Connection) -> None:
        """Read the configuration anew, unless another thread just did; where that fails, the old one stays in use."""
        with self._lock:
            if self._connection is not refused:
                return
            try:
                access = find_access(self._kubeconfig, self._context, self._environment)
            except SourceError as error:
                # The file may be half written; the next refusal brings us here again.
                log.warning("the kubeconfig cannot be read anew; the old one stays in use", error=str(error))
                return
            if access != refused.access:
                self._connection = _Connection(access, self._environment)
                refused.close()

    def _connect(self) -> _Connection:
        access = find_access(self._kubeconfig, self._context, self._environment)
        try:
            # Certificates and proxy are tried now: one that cannot be used is a reason not to start.
            _pool(access, Identity(None, access.certificate, access.key), self._environment)
        except CertificateError as error:
            raise SourceError(f"no way to the cluster: {error}") from error
        if access.insecure:
            log.warning("the API server's certificate is not verified: insecure-skip-tls-verify", server=access.server)
        return _Connection(access, self._environment)


def _credentials(access: Access) -> Credentials:
    """What the access says of who we are; precedence as in client-go's transport.HTTPWrappersForConfig."""
    if access.plugin is not None:
        return Plugin(access.plugin)
    pair = access.certificate, access.key
    if access.token_file is not None:
        return TokenFile(access.token_file, access.token, *pair)
    if access.token is not None:
        return FixedCredentials(Identity(bearer(access.token), *pair))
    if access.username is not None and access.password is not None:
        return FixedCredentials(Identity(basic(access.username, access.password), *pair))
    return FixedCredentials(Identity(None, *pair))


def _pool(access: Access, identity: Identity, environment: Mapping[str, str]) -> urllib3.PoolManager:
    """Connections by an access that show an identity's certificate, through the environment's proxy if any.

    Raises:
        CertificateError: the certificates cannot be used.
        SourceError: the proxy cannot.
    """
    target = urlsplit(access.server)
    options: dict[str, Any] = {"maxsize": CONNECTIONS}
    if target.scheme == "https":
        context = unverifying_context() if access.insecure else verifying_context(access.authorities, access.server)
        if identity.certificate is not None and identity.key is not None:
            show(context, identity.certificate, identity.key, f"the client certificate for {access.server}")
        options.update(ssl_context=context, server_hostname=access.server_name)
    # An API server on loopback is a tunnel or a test, and whoever names a proxy for it means it.
    proxy = access.proxy or proxy_for(access.server, environment, loopback=True)
    if proxy is None:
        return urllib3.PoolManager(**options)
    parts = split_url(proxy)
    if parts is None:
        raise SourceError(
            f"{target.scheme.upper()}_PROXY is no URL of an HTTP or HTTPS proxy; SOCKS proxies are not supported"
        )
    headers = None
    if parts.username is not None:
        user = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        headers = urllib3.make_headers(proxy_basic_auth=user)
    address = parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
    return urllib3.ProxyManager(
        address,
        proxy_headers=headers,
        proxy_ssl_context=verifying_context() if parts.scheme == "https" else None,
        **options,
    )
