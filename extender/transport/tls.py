"""The service's certificates: read, proven by a handshake with itself, and exchanged while it serves.

Refuses what cannot serve: a key of another certificate, a certificate or an authority out of date, a file that does
not read. At the start that ends the service; later the old ones stay in use, and it is counted and logged. Every
reading gives new TLS contexts instead of changing the old: an authority that was taken out of the file is gone with
them, and so is every session that a caller of its could resume without showing a certificate again.

Only the standard library: it parses no certificate by itself, but one that was shown in a handshake.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import ssl
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, NamedTuple

from extender.certificates import host_of, names_of, pem_text, verify_as_kubectl
from extender.errors import CertificateError, kind_of
from extender.settings import Settings

WARN_BELOW: Final = 0.2
"""Share of a lifetime left below which a warning is logged. cert-manager renews at a third by default, so below a
fifth nothing renews; a share, because lifetimes lie between an hour and ten years."""

_VERSIONS: Final = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}
_IGNORE_TIME: Final = 0x200000
"""OpenSSL's X509_V_FLAG_NO_CHECK_TIME, which Python does not name: we compare with our own clock, to say the date."""

HANDSHAKE_FAILURES: Final = (
    "no_certificate", "bad_certificate", "version", "plain_http", "refused_by_caller", "other"
)  # fmt: skip
"""What a TLS handshake can fail of."""

_FAILURES: Final = {
    "PEER_DID_NOT_RETURN_A_CERTIFICATE": "no_certificate",
    "CERTIFICATE_VERIFY_FAILED": "bad_certificate",
    "UNSUPPORTED_PROTOCOL": "version",
    "WRONG_VERSION_NUMBER": "version",
    "VERSION_TOO_LOW": "version",
    "HTTP_REQUEST": "plain_http",
}


class Validity(NamedTuple):
    """When a certificate holds, in seconds since the epoch."""

    begin: float
    end: float


@dataclass(frozen=True, slots=True)
class Identity:
    """What one reading of the files gave."""

    # TLS of the verbs' port; asks for client certificates where there is an authority for them
    verbs: ssl.SSLContext = field(repr=False)
    # the same of the operations port, where a caller may show none
    operations: ssl.SSLContext = field(repr=False)
    # TLS towards other replicas, which show this certificate, or during its renewal another of the same authority
    peers: ssl.SSLContext = field(repr=False)
    name: str  # that the certificates of all replicas are for
    names: frozenset[str]  # all names in the certificate
    # of `certificate` and of the authorities of clients (the one that lasts longest of each file)
    validity: Mapping[str, Validity]
    digest: str  # of the files' content


class Certificates:
    """The identity in use, read from the files that the settings name.

    Args:
        settings: with `tls_cert_file` and `tls_key_file`.

    Attributes:
        identity: in use.
        loads: times that files were put to use (`loaded`) or refused (`refused`).
        failed_handshakes: since the start, by reason, one of `HANDSHAKE_FAILURES`.

    Raises:
        CertificateError: the files cannot serve; the message names the setting and what to do.
    """

    def __init__(self, settings: Settings, clock: Callable[[], float] = time.time) -> None:
        if settings.tls_cert_file is None or settings.tls_key_file is None:
            raise CertificateError("tls_cert_file and tls_key_file are not set")
        self._certificate, self._key = settings.tls_cert_file, settings.tls_key_file
        self._client_ca = settings.tls_client_ca_file
        self._operations_ca = settings.operations_client_ca_file
        given = {"tls_client_ca_file": self._client_ca, "operations_client_ca_file": self._operations_ca}
        self._authority_files = {setting: file for setting, file in given.items() if file is not None}
        self._has_peers = settings.peers is not None
        self._minimum = _VERSIONS[settings.tls_minimum_version]
        self._clock = clock
        self.loads = Counter({"loaded": 1, "refused": 0})
        self.failed_handshakes = Counter(dict.fromkeys(HANDSHAKE_FAILURES, 0))
        self._suspect = self._refused = ""
        self.identity = self._load()

    def poll(self) -> Identity | None:
        """Look at the files; the new identity, in use from now on, or None where there is nothing new.

        Bad content is refused when it is found twice: between the two, the second of two files may have been replaced.

        Raises:
            CertificateError: the content cannot serve; raised once for each content.
        """
        digest = ""
        try:
            digest = self._digest()
            if digest == self.identity.digest:
                self._suspect = self._refused = ""
                return None
            self.identity = self._load()
        except CertificateError as error:
            found = digest or str(error)
            if found == self._refused:
                return None
            if found != self._suspect:
                self._suspect = found
                return None
            self._refused = found
            self.loads["refused"] += 1
            raise
        self._suspect = self._refused = ""
        return self.identity

    @property
    def refused(self) -> bool:
        """Whether what lies on disk now was refused, so that what was read before is in use."""
        return bool(self._refused)

    def expiring(self) -> dict[str, float]:
        """File to seconds left, of what has less than `WARN_BELOW` of its lifetime left."""
        now = self._clock()
        return {
            name: validity.end - now
            for name, validity in self.identity.validity.items()
            if validity.end - now < WARN_BELOW * (validity.end - validity.begin)
        }

    def _digest(self) -> str:
        parts = [_read("tls_cert_file", self._certificate), _read("tls_key_file", self._key)]
        parts += [_read(setting, file) for setting, file in self._authority_files.items()]
        return hashlib.sha256(b"\0".join(hashlib.sha256(part).digest() for part in parts)).hexdigest()

    def _load(self) -> Identity:
        """One consistent reading: OpenSSL reads the files itself, so they must be the same before and after."""
        before = self._digest()
        while True:
            try:
                identity = self._read_identity(before)
            except CertificateError:
                if self._digest() == before:
                    raise
            else:
                if self._digest() == before:
                    return identity
            before = self._digest()

    def _read_identity(self, digest: str) -> Identity:
        operations = self._context()
        shown = self._shown(operations)
        validity = {"certificate": self._valid("tls_cert_file", self._certificate, [shown])}
        verbs = self._context()
        if self._client_ca is not None:
            validity["client_ca"] = self._trust(verbs, "tls_client_ca_file", self._client_ca)
            verbs.verify_mode = ssl.CERT_REQUIRED
        peers = self._peers()
        if self._operations_ca is not None:
            validity["operations_client_ca"] = self._trust(operations, "operations_client_ca_file", self._operations_ca)
            operations.verify_mode = ssl.CERT_OPTIONAL  # a kubelet's probe shows none; `extender.operations.guard` asks
            peers.load_cert_chain(self._certificate, self._key)
            if self._has_peers and host_of(shown):
                self._prove_to_peers(peers, operations, host_of(shown))
        for context in (verbs, operations):
            context.sslobject_class = _counted(self.failed_handshakes)
        return Identity(verbs, operations, peers, host_of(shown), names_of(shown), validity, digest)

    def _shown(self, server: ssl.SSLContext) -> dict[str, Any]:
        """The certificate that a server shows, as `ssl` decodes it, after a whole handshake in memory."""
        client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        client.check_hostname = False
        client.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN | _IGNORE_TIME
        client.load_verify_locations(cadata=_text("tls_cert_file", self._certificate))
        try:
            return _handshake(client, server)
        except ssl.SSLError as error:
            raise CertificateError(
                f"tls_cert_file {self._certificate}: no client could accept it ({_why(error)}); give the server's own "
                "certificate first, with serverAuth if it limits its use"
            ) from error

    def _prove_to_peers(self, peers: ssl.SSLContext, operations: ssl.SSLContext, name: str) -> None:
        try:
            _handshake(peers, operations, name)
        except (ssl.SSLError, ValueError) as error:  # ValueError: the name is none that TLS can ask for
            raise CertificateError(
                f"tls_cert_file {self._certificate}: another replica would not accept it ({_why(error)}); let it have "
                f"clientAuth if it limits its use, and add its authority to operations_client_ca_file "
                f"{self._operations_ca}"
            ) from error

    def _trust(self, context: ssl.SSLContext, setting: str, file: Path) -> Validity:
        """Make a context trust the authorities in a file; returns until when they hold."""
        found = _authorities(verify_as_kubectl(context), setting, file)
        return self._valid(setting, file, found)

    def _peers(self) -> ssl.SSLContext:
        context = verify_as_kubectl(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT))
        context.minimum_version = self._minimum
        context.load_verify_locations(cadata=_text("tls_cert_file", self._certificate))
        for setting, file in self._authority_files.items():
            context.load_verify_locations(cadata=_text(setting, file))
        return context

    def _context(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = self._minimum
        context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_TICKET
        context.num_tickets = 0  # one connection lasts for hours: nobody needs to resume a session
        # Go's client prefers HTTP/2 where it is offered
        context.set_alpn_protocols(["http/1.1"])
        try:
            context.load_cert_chain(self._certificate, self._key, password=self._no_password)
        except ssl.SSLError as error:
            if error.reason == "KEY_VALUES_MISMATCH":
                raise CertificateError(
                    f"tls_key_file {self._key}: is not the key of the certificate in tls_cert_file "
                    f"{self._certificate}; give the pair that was issued together"
                ) from error
            raise CertificateError(
                f"tls_cert_file {self._certificate}, tls_key_file {self._key}: do not read as PEM "
                f"({kind_of(error)}); give a certificate and its private key"
            ) from error
        except OSError as error:
            raise CertificateError(
                f"tls_cert_file {self._certificate}, tls_key_file {self._key}: cannot read them ({error.strerror})"
            ) from error
        return context

    def _no_password(self) -> str:
        raise CertificateError(
            f"tls_key_file {self._key}: is encrypted, and nobody is there to type the password; decrypt it: "
            "openssl pkey -in KEY -out PLAIN"
        )

    def _valid(self, setting: str, file: Path, certificates: list[dict[str, Any]]) -> Validity:
        """Of the certificate that lasts longest; raises `CertificateError` where it does not hold now."""
        best = max((_validity(each) for each in certificates), key=lambda validity: validity.end)
        now = self._clock()
        if now >= best.end:
            raise CertificateError(f"{setting} {file}: expired on {date_of(best.end)}; renew it")
        if now < best.begin:
            raise CertificateError(f"{setting} {file}: is not valid before {date_of(best.begin)}; look at the clock")
        return best


def _counted(failures: Counter[str]) -> type[ssl.SSLObject]:
    """TLS connections whose failed handshakes are counted; asyncio drops them without a word."""

    class Counted(ssl.SSLObject):
        def do_handshake(self) -> None:
            try:
                super().do_handshake()
            except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
                raise
            except ssl.SSLError as error:
                reason = error.reason or ""
                failures["refused_by_caller" if "_ALERT_" in reason else _FAILURES.get(reason, "other")] += 1
                raise

    return Counted


def _handshake(client: ssl.SSLContext, server: ssl.SSLContext, name: str | None = None) -> dict[str, Any]:
    """The certificate that a server shows, as `ssl` decodes it, after a whole handshake in memory, to that name."""
    there, back = ssl.MemoryBIO(), ssl.MemoryBIO()
    sides = [client.wrap_bio(back, there, server_hostname=name), server.wrap_bio(there, back, server_side=True)]
    waiting = sides
    while waiting:
        waiting = [side for side in waiting if not _advanced(side)]
    return sides[0].getpeercert() or {}


def _why(error: Exception) -> str:
    """What a handshake failed of."""
    return getattr(error, "verify_message", "") or kind_of(error)


def _advanced(side: ssl.SSLObject) -> bool:
    """Whether this side's handshake is done, as far as what has arrived allows."""
    try:
        side.do_handshake()
    except ssl.SSLWantReadError:
        return False
    return True


def _authorities(context: ssl.SSLContext, setting: str, file: Path) -> list[dict[str, Any]]:
    """Make a context trust the authorities in a file; returns them."""
    try:
        context.load_verify_locations(cadata=_text(setting, file))
    except (ssl.SSLError, ValueError) as error:
        raise CertificateError(
            f"{setting} {file}: holds no certificate in PEM ({kind_of(error)}); convert DER by openssl x509 -inform der"
        ) from error
    found = context.get_ca_certs()
    if not found:
        raise CertificateError(
            f"{setting} {file}: none of its certificates is an authority (CA:TRUE); give the one that issued "
            "the clients' certificates"
        )
    return found


def _read(setting: str, file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise CertificateError(f"{setting} {file}: cannot read it ({error.strerror})") from error


def _text(setting: str, file: Path) -> str:
    return pem_text(_read(setting, file))


def _validity(certificate: Mapping[str, Any]) -> Validity:
    return Validity(
        ssl.cert_time_to_seconds(certificate["notBefore"]), ssl.cert_time_to_seconds(certificate["notAfter"])
    )


def date_of(seconds: float) -> str:
    """Return a date of a certificate as it is told."""
    return dt.datetime.fromtimestamp(seconds, dt.UTC).isoformat()
