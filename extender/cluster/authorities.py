"""TLS contexts for the servers that this service asks: the API server and Prometheus."""

from __future__ import annotations

import os
import ssl
import tempfile
from pathlib import Path

import urllib3

from extender.certificates import pem_text, verify_as_kubectl
from extender.errors import CertificateError, kind_of


def verifying_context(authorities: bytes | None = None, what: str = "the authorities") -> ssl.SSLContext:
    """Return a context for clients that verifies chain and host name.

    Args:
        authorities: certificates (PEM) to trust; None: the system's. One of them may be any link of the server's
            chain, as in Go.
        what: where they come from, for the error.

    Raises:
        CertificateError: there is no certificate among them.
    """
    context = verify_as_kubectl(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT))
    context.hostname_checks_common_name = False  # as Go and urllib3: alternative names alone count
    if authorities is None:
        context.load_default_certs()
        return context
    try:
        context.load_verify_locations(cadata=pem_text(authorities))
    except (ssl.SSLError, ValueError) as error:
        raise CertificateError(f"{what}: no certificate in PEM ({kind_of(error)})") from error
    return context


def unverifying_context() -> ssl.SSLContext:
    """Return a context for clients that takes any certificate: what `insecure-skip-tls-verify` asks for."""
    urllib3.disable_warnings(urllib3.exceptions.InsecureRequestWarning)  # it was asked for
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def show(context: ssl.SSLContext, certificate: bytes, key: bytes, what: str) -> None:
    """Make a context show this certificate (PEM, its issuers behind it) with this private key (PEM, not encrypted).

    Raises:
        CertificateError: they cannot be used.
    """
    # `ssl` reads both from a file alone. It is the owner's only, and gone before this returns.
    descriptor, name = tempfile.mkstemp(prefix="maddpg-client-", suffix=".pem")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(certificate.rstrip() + b"\n" + key)
        # The password of an encrypted key would be asked for on the terminal.
        context.load_cert_chain(name, password=lambda: b"")
    except (OSError, ValueError) as error:
        raise CertificateError(
            f"{what}: certificate and key cannot be used ({kind_of(error)}); give a certificate in PEM with its own "
            "key, not encrypted"
        ) from error
    finally:
        Path(name).unlink()
