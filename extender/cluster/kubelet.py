"""One kubelet as a server of HTTPS: where it is, how it proves itself, and one question to it. Knows no summary.

asyncio and httptools, because thousands of kubelets are asked in turn from one thread. No redirect is followed and no
proxy is used: the bearer token goes to the address that the node's status gives, once its certificate is verified.

Verified are the chain, and that the certificate is for the node's address or for its name; metrics-server dials by one
of them and checks that one.
"""

from __future__ import annotations

import asyncio
import ipaddress
import math
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, NamedTuple

import httptools

from extender.cluster.authorities import show, unverifying_context, verifying_context
from extender.cluster.decoding import Node
from extender.cluster.identity import Identity
from extender.errors import CertificateError, SourceError, kind_of
from policy.errors import InvalidInputError

PORT: Final = 10250
"""Where a kubelet listens unless its node's status says otherwise."""
PATH: Final = "/stats/summary"
USER_AGENT: Final = "maddpg-extender"
LARGEST_ANSWER: Final = 4 * 1024 * 1024
"""Bytes of an answer, its head included; one of 500 pods with three containers each has about 2 MiB."""
CONNECT_TIMEOUT: Final = 5.0
"""Seconds to connect and shake hands."""
ANSWER_TIMEOUT: Final = 10.0
"""Seconds for the whole of one question."""
AUTHORITIES_CACHE_S: Final = 60.0
"""Seconds after which the file of authorities is read again: authorities rotate."""

RESULTS: Final = (
    "measured", "connect", "timeout", "certificate", "authorities", "credentials", "unauthorized", "forbidden",
    "missing", "status", "lost", "truncated", "too_large", "protocol", "undecodable", "incomplete", "time", "value",
    "other_node", "unexpected",
)  # fmt: skip
"""How a question to a kubelet may end."""

_STATUSES: Final = {401: "unauthorized", 403: "forbidden", 404: "missing"}
_HINTS: Final = {
    "unauthorized": "the kubelet does not accept the token; it needs --authentication-token-webhook",
    "forbidden": "the identity needs the right to get nodes/stats",
    "missing": "the kubelet does not serve it; is something else listening there?",
}


class KubeletError(SourceError):
    """A kubelet was not reached, not believed, or did not answer.

    Attributes:
        reason: why, in one word; one of `RESULTS`.
    """

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class Endpoint(NamedTuple):
    """Where a node's kubelet is."""

    node: str
    host: str
    port: int


def endpoint_of(node: Node, *, loopback: bool = False) -> Endpoint | None:
    """Where the kubelet of a node is; None where its status gives no address that a kubelet may have.

    A kubelet refuses addresses that are loopback, link-local, multicast or unspecified (validateNodeIP in
    pkg/kubelet/kubelet_node_status.go). Whoever may write a node's status must not make us send a token there.
    """
    daemons = node.status.daemon_endpoints
    port = (daemons.kubelet.port if daemons is not None and daemons.kubelet is not None else 0) or PORT
    if not 0 < port < 65536:
        return None
    for each in node.status.addresses or ():
        if each.type != "InternalIP":
            continue
        try:
            address = ipaddress.ip_address(each.address)
        except ValueError:
            continue
        # an IPv4 address that is written as an IPv6 one is what it is, as in Go's net.IP
        address = getattr(address, "ipv4_mapped", None) or address
        if address.is_multicast or address.is_link_local or address.is_unspecified:
            continue
        if address.is_loopback and not loopback:
            continue
        return Endpoint(node.metadata.name, str(address), port)
    return None


@dataclass(frozen=True, slots=True)
class KubeletOptions:
    """How to ask kubelets."""

    interval: float = 15.0  # seconds between two questions to the same one
    connections: int = 32
    ca_file: Path | None = None  # authorities of their certificates; None: those of the cluster
    insecure: bool = False
    loopback: bool = False  # whether a kubelet may be at a loopback address

    def __post_init__(self) -> None:
        if not self.interval > 0.0:
            raise InvalidInputError(f"KubeletOptions.interval is {self.interval}; give seconds > 0")
        if self.connections < 1:
            raise InvalidInputError(f"KubeletOptions.connections is {self.connections}; give at least 1")


@dataclass(eq=False, repr=False)
class Trust:
    """TLS contexts for kubelets: which authorities are believed, and which certificate is shown. For one thread."""

    authorities: Callable[[], bytes | None]  # those of the cluster (PEM); None: the system's
    file: Path | None = None  # authorities to believe instead, read again every `AUTHORITIES_CACHE_S`
    insecure: bool = False  # whether any certificate is believed
    timer: Callable[[], float] = time.monotonic
    _read_at: float = field(default=-math.inf, init=False)
    _read: bytes | None = field(default=None, init=False)
    _made: tuple[bytes | None, bytes | None, bytes | None] | None = field(default=None, init=False)
    _context: ssl.SSLContext | None = field(default=None, init=False)

    def context(self, identity: Identity) -> ssl.SSLContext:
        """Return the context to connect with: the same one until authorities or certificate change.

        Raises:
            CertificateError: they cannot be used.
        """
        wanted = self._believed(), identity.certificate, identity.key
        if self._context is None or wanted != self._made:
            if self.insecure:
                context = unverifying_context()
            else:
                where = "the cluster's authorities" if self.file is None else f"kubelet_ca_file {self.file}"
                context = verifying_context(wanted[0], where)
                context.check_hostname = False  # two names count, and `ssl` checks one: see `Connection.open`
            if identity.certificate is not None and identity.key is not None:
                show(context, identity.certificate, identity.key, "the client certificate for kubelets")
            self._context, self._made = context, wanted
        return self._context

    def _believed(self) -> bytes | None:
        if self.insecure:
            return None
        if self.file is None:
            return self.authorities()
        now = self.timer()
        if now - self._read_at >= AUTHORITIES_CACHE_S:
            try:
                self._read = self.file.read_bytes()
            except OSError as error:
                if self._read is None:
                    raise CertificateError(f"kubelet_ca_file {self.file} cannot be read: {kind_of(error)}") from error
            self._read_at = now
        return self._read


class Connection(asyncio.Protocol):
    """A connection to one kubelet, which is asked one question at a time.

    Attributes:
        context: the TLS context that it was opened with.
        reusable: whether another question may be asked.
        answered: questions that were answered.
    """

    def __init__(self, context: ssl.SSLContext) -> None:
        self.context = context
        self.reusable = False
        self.answered = 0
        self._transport: asyncio.Transport | None = None
        self._waiter: asyncio.Future[bytes] | None = None
        self._parser: Any = None
        self._chunks: list[bytes] = []
        self._size = 0

    @classmethod
    async def open(cls, endpoint: Endpoint, trust: Trust, identity: Identity) -> Connection:
        """Connect, and make sure who answers. Raises `KubeletError` if it is not reached, or not believed."""
        try:
            context = trust.context(identity)
        except CertificateError as error:
            raise KubeletError("authorities", str(error)) from error
        loop = asyncio.get_running_loop()
        try:
            # Cancelled as the handshake ends, uvloop closes the connection under its own TLS, which then reports "Fatal
            # error on SSL protocol" to the loop's exception handler: nothing is left open, and nothing was sent.
            async with asyncio.timeout(CONNECT_TIMEOUT):
                transport, connection = await loop.create_connection(
                    lambda: cls(context), endpoint.host, endpoint.port, ssl=context, server_hostname=endpoint.node
                )
        except TimeoutError as error:
            raise KubeletError("timeout", f"no connection within {CONNECT_TIMEOUT:g} s") from error
        except ssl.SSLCertVerificationError as error:
            raise KubeletError("certificate", kind_of(error)) from error
        except (ssl.SSLError, OSError, ValueError) as error:
            raise KubeletError("connect", kind_of(error)) from error
        if not trust.insecure and not is_for(transport.get_extra_info("peercert"), endpoint):
            transport.abort()
            raise KubeletError("certificate", "the certificate is neither for the node's address nor for its name")
        return connection

    async def ask(self, endpoint: Endpoint, identity: Identity) -> bytes:
        """The body of an answer of 200. Raises `KubeletError` if there is none."""
        transport = self._transport
        if transport is None or self._waiter is not None:
            raise KubeletError("lost", "the connection was lost")
        host = f"[{endpoint.host}]" if ":" in endpoint.host else endpoint.host
        lines = [
            f"GET {PATH} HTTP/1.1",
            f"Host: {host}:{endpoint.port}",
            f"User-Agent: {USER_AGENT}",
            "Accept: application/json",
        ]
        if identity.authorization is not None:
            lines.append(f"Authorization: {identity.authorization}")
        self._parser = httptools.HttpResponseParser(self)
        self._chunks, self._size, self.reusable = [], 0, False
        self._waiter = asyncio.get_running_loop().create_future()
        transport.write(("\r\n".join(lines) + "\r\n\r\n").encode("latin-1"))
        try:
            body = await self._waiter
        finally:
            self._waiter, self._chunks = None, []
        status = self._parser.get_status_code()
        self._parser = None
        self.answered += 1
        if status != 200:
            reason = _STATUSES.get(status, "status")
            raise KubeletError(reason, f"it answered {status}" + (f"; {hint}" if (hint := _HINTS.get(reason)) else ""))
        return body

    def close(self) -> None:
        """Close it, whatever it is doing."""
        self.reusable = False
        if self._transport is not None:
            self._transport.abort()

    # ---- asyncio.Protocol ----------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See asyncio."""
        self._transport = transport  # type: ignore[assignment]  # of a stream

    def data_received(self, data: bytes) -> None:
        """See asyncio."""
        self._size += len(data)
        if self._waiter is None or self._waiter.done():
            self.reusable = False  # nothing was asked, or enough was answered
            # Not at once: event loops do not expect it in here.
            asyncio.get_running_loop().call_soon(self.close)
        elif self._size > LARGEST_ANSWER:
            self._fail(KubeletError("too_large", f"the answer is larger than {LARGEST_ANSWER} bytes"))
        else:
            try:
                self._parser.feed_data(data)
            except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
                self.reusable = False  # the answer may have been whole, and what follows it is not ours to read
                self._fail(KubeletError("protocol", f"the answer is no HTTP: {kind_of(error)}"))

    def connection_lost(self, exc: Exception | None) -> None:
        """See asyncio."""
        self._transport, self.reusable = None, False
        begun = self._size > 0
        self._fail(
            KubeletError("truncated", "the answer ends too soon")
            if begun
            else KubeletError("lost", "the connection was closed before an answer")
        )

    # ---- httptools -----------------------------------------------------------------------------------------------

    def on_body(self, body: bytes) -> None:
        """See httptools."""
        self._chunks.append(body)

    def on_message_complete(self) -> None:
        """See httptools."""
        self.reusable = self._parser.should_keep_alive() and self._transport is not None
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(b"".join(self._chunks))

    def _fail(self, error: KubeletError) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_exception(error)


def is_for(certificate: Any, endpoint: Endpoint) -> bool:
    """Whether a verified certificate (as `SSLObject.getpeercert` gives it) is for the node's address or its name."""
    host = ipaddress.ip_address(endpoint.host)
    for kind, value in (certificate or {}).get("subjectAltName", ()):
        if kind == "DNS" and value.lower() == endpoint.node.lower():
            return True
        if kind == "IP Address":
            try:
                if ipaddress.ip_address(value.strip()) == host:
                    return True
            except ValueError:
                continue
    return False
