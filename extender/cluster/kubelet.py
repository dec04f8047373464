"""One kubelet as a server of HTTPS: where it is, and who is believed to be it. Knows no summary and asks nothing."""

from __future__ import annotations

import ipaddress
import math
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, NamedTuple

from extender.cluster.authorities import show, unverifying_context, verifying_context
from extender.cluster.decoding import Node
from extender.cluster.identity import Identity
from extender.errors import CertificateError, SourceError, kind_of
from policy.errors import InvalidInputError

PORT: Final = 10250
"""Where a kubelet listens unless its node's status says otherwise."""
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
    connections: int = 32  # asked at once
    kept: int = 1024  # connections kept for the next question
    ca_file: Path | None = None  # authorities of their certificates; None: those of the cluster
    insecure: bool = False
    loopback: bool = False  # whether a kubelet may be at a loopback address

    def __post_init__(self) -> None:
        if not self.interval > 0.0:
            raise InvalidInputError(f"KubeletOptions.interval is {self.interval}; give seconds > 0")
        if self.connections < 1:
            raise InvalidInputError(f"KubeletOptions.connections is {self.connections}; give at least 1")
        if self.kept < 0:
            raise InvalidInputError(f"KubeletOptions.kept is {self.kept}; give at least 0")


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
                context.check_hostname = False  # two names count, and `ssl` checks one
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
