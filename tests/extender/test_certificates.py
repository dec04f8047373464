"""Certificates are verified as kubectl verifies them, and no less."""

from __future__ import annotations

import datetime as dt
import ssl
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from extender.certificates import pem_text, verify_as_kubectl
from extender.cluster.authorities import verifying_context

HOST = "extender.test"


class Issuer:
    """An authority as clusters had it before about 2021: basicConstraints, and no other extension."""

    def __init__(self, folder: Path, name: str, above: Issuer | None = None) -> None:
        self._folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        issuer = self if above is None else above
        extension = x509.BasicConstraints(ca=True, path_length=None)
        self.file = issuer.signed(name, self._name, self._key, extension)

    def signed(
        self, file: str, subject: x509.Name, key: ec.EllipticCurvePrivateKey, extension: x509.ExtensionType
    ) -> Path:
        """A certificate of this authority with one extension, in a file."""
        now = dt.datetime.now(dt.UTC)
        made = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - dt.timedelta(hours=1))
            .not_valid_after(now + dt.timedelta(days=1))
            .add_extension(extension, critical=False)
            .sign(self._key, hashes.SHA256())
        )
        path = self._folder / f"{file}.crt"
        path.write_bytes(made.public_bytes(serialization.Encoding.PEM))
        return path

    def server(self) -> ssl.SSLContext:
        """A server at `HOST` with a certificate of this authority."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, HOST)])
        certificate = self.signed("server", subject, key, x509.SubjectAlternativeName([x509.DNSName(HOST)]))
        private = self._folder / "server.key"
        encoding = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        private.write_bytes(key.private_bytes(*encoding))
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, private)
        return context


def strict(file: Path) -> ssl.SSLContext:
    """What `ssl.create_default_context` gives in Python 3.13, in every Python."""
    context = ssl.create_default_context(cafile=file)
    context.verify_flags |= ssl.VERIFY_X509_STRICT
    return context


def accepts(client: ssl.SSLContext, server: ssl.SSLContext, host: str = HOST) -> bool:
    """Whether a client accepts what a server shows."""
    there, back = ssl.MemoryBIO(), ssl.MemoryBIO()
    sides = [client.wrap_bio(back, there, server_hostname=host), server.wrap_bio(there, back, server_side=True)]
    for _ in range(10):
        for side in sides:
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                continue
            except ssl.SSLCertVerificationError:
                return False
            if side is sides[0]:
                return True
    raise AssertionError("the handshake never ended")


@pytest.fixture
def issuer(tmp_path: Path) -> Callable[..., Issuer]:
    """Make authorities."""
    return lambda name, above=None: Issuer(tmp_path, name, above)


def test_an_authority_without_key_usage_and_identifiers_is_accepted(issuer: Callable[..., Issuer]) -> None:
    old = issuer("old")
    server = old.server()
    assert not accepts(strict(old.file), server), "the strict rules refuse it, so this test would see them"
    assert accepts(verify_as_kubectl(strict(old.file)), server)


def test_an_intermediate_authority_is_accepted_without_its_root(issuer: Callable[..., Issuer]) -> None:
    between = issuer("between", issuer("root"))
    assert accepts(verify_as_kubectl(strict(between.file)), between.server())


def test_another_authority_and_another_host_are_refused(issuer: Callable[..., Issuer]) -> None:
    old, other = issuer("old"), issuer("other")
    server = old.server()
    assert not accepts(verify_as_kubectl(strict(other.file)), server)
    assert not accepts(verify_as_kubectl(strict(old.file)), server, host="another.test")


@pytest.mark.parametrize("comment", ["# AC Raíz\n".encode(), "# AC Raíz\n".encode("latin-1")], ids=["UTF-8", "Latin-1"])
def test_text_between_authorities_is_skipped_in_any_encoding(issuer: Callable[..., Issuer], comment: bytes) -> None:
    old = issuer("old")
    bundle = comment + old.file.read_bytes() + comment
    assert pem_text(bundle).isascii()
    assert accepts(verifying_context(bundle), old.server())
