"""What names certificates have, and how they are verified: as kubectl and kube-scheduler do (Go's crypto/x509).

Python 3.13 turns on RFC 5280's strict rules (`ssl.VERIFY_X509_STRICT`) in `ssl.create_default_context`. They refuse
authorities of older clusters, which have no key usage and no key identifiers; Go accepts these. Everything else stays
verified: signatures, validity, basic constraints, purposes and host names.
"""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from typing import Any


def verify_as_kubectl(context: ssl.SSLContext) -> ssl.SSLContext:
    """Return `context`, changed to accept the certificate chains that Go accepts.

    Without the strict rules, and with every certificate that is given as an authority trusted by itself: an
    intermediate authority needs no root beside it.
    """
    context.verify_flags = (context.verify_flags | ssl.VERIFY_X509_PARTIAL_CHAIN) & ~ssl.VERIFY_X509_STRICT
    return context


def pem_text(content: bytes) -> str:
    """Return certificates in PEM as `ssl` takes them. Text around them may be in any encoding, as for Go."""
    return content.decode("ascii", errors="replace").replace("\ufffd", "?")


def names_of(certificate: Mapping[str, Any] | None) -> frozenset[str]:
    """Common name and alternative names (DNS, URI, address, e-mail) of a certificate as `ssl` shows it."""
    if not certificate:
        return frozenset()
    subject = (pair for attributes in certificate.get("subject", ()) for pair in attributes)
    common = {value for name, value in subject if name == "commonName"}
    return frozenset(common | {str(value) for _, value in certificate.get("subjectAltName", ())})


def host_of(certificate: Mapping[str, Any]) -> str:
    """Return a host name that a certificate as `ssl` shows it is for, else an address; empty where it has neither."""
    names = sorted(certificate.get("subjectAltName", ()), key=lambda it: str(it[0]) != "DNS")
    return next((str(value).replace("*", "replica", 1) for _, value in names), "")
