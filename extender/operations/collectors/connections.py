"""Connections, what their callers make the service hold, and the certificates that are shown to them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from extender.operations.families import Family
from extender.transport.port import Port
from extender.transport.tls import Certificates

Ports = Mapping[str, Port]
"""By name: `verbs` and, where they have a port of their own, `operations`."""

CONNECTIONS: Final[tuple[Family[Ports], ...]] = (
    Family(
        "maddpg_connections",
        "Connections that are open, TLS handshakes among them, by port",
        lambda ports: {name: len(port) for name, port in ports.items()},
        ("port",),
    ),
    Family(
        "maddpg_bytes_in_flight",
        "Bytes of requests that arrive or are answered, and of answers that nobody reads; see the setting "
        "`max_bytes_in_flight`",
        lambda ports: ports["verbs"].budget.held,
    ),
)

CERTIFICATES: Final[tuple[Family[Certificates], ...]] = (
    Family(
        "maddpg_tls_expiry_timestamp_seconds",
        "When the file's certificate ends",
        lambda certificates: {name: validity.end for name, validity in certificates.identity.validity.items()},
        ("file",),
    ),
    Family(
        "maddpg_tls_issue_timestamp_seconds",
        "When the file's certificate began",
        lambda certificates: {name: validity.begin for name, validity in certificates.identity.validity.items()},
        ("file",),
    ),
    Family(
        "maddpg_tls_loads_total",
        "Times that changed certificates were read, by result",
        lambda certificates: certificates.loads,
        ("result",),
    ),
    Family(
        "maddpg_tls_refused",
        "1 while the certificates on disk are refused and the former ones serve on",
        lambda certificates: certificates.refused,
    ),
    Family(
        "maddpg_tls_handshake_failures_total",
        "TLS handshakes that failed, by reason",
        lambda certificates: certificates.failed_handshakes,
        ("reason",),
    ),
)
