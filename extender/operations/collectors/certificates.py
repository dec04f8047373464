"""Certificates in use, and handshakes that failed."""

from __future__ import annotations

from typing import Final

from extender.operations.families import Family
from extender.transport.tls import Certificates

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
