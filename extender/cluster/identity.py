"""Who the service is to a server: a bearer token, a password, a certificate; fixed, from a file, or from a plug-in."""

from __future__ import annotations

import base64
import os
import re
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Protocol

import structlog

from extender.errors import SourceError, kind_of

FILE_CACHE_S: Final = 60.0
"""How long a token that was read from a file is used before the file is read again, as in client-go
(transport/token_source.go): kubelets rotate tokens long before they expire."""

LONGEST_FILE: Final = 1024 * 1024
"""Bytes of a file that holds a token or a password."""

_HEADER_VALUE: Final = re.compile(r"[\x21-\x7e]+")
_HEADER_TEXT: Final = re.compile(r"[\x21-\x7e](?:[\t\x20-\x7e]*[\x21-\x7e])?")

log = structlog.stdlib.get_logger(__name__)


class CredentialError(SourceError):
    """There are no usable credentials now; the message names their source and never holds them."""


@dataclass(frozen=True, slots=True)
class Identity:
    """What one request carries. The fields are left out of the representation: it ends up in logs."""

    authorization: str | None = field(default=None, repr=False)  # value of the header Authorization; None: not sent
    # certificate, key: of a client, in PEM; None: none is shown
    certificate: bytes | None = field(default=None, repr=False)
    key: bytes | None = field(default=None, repr=False)


class Credentials(Protocol):
    """Gives an identity for each request. Thread safe."""

    def identity(self) -> Identity:
        """The identity to use now.

        Raises:
            CredentialError: there is none, and a request without would be somebody else's.
        """
        ...

    def refused(self, identity: Identity) -> None:
        """The server refused it: get another before the next request, if that has not happened since."""
        ...


class FixedCredentials:
    """The same identity for ever; also that of nobody."""

    def __init__(self, identity: Identity) -> None:
        self._identity = identity

    def identity(self) -> Identity:
        """See `Credentials`."""
        return self._identity

    def refused(self, identity: Identity) -> None:
        """Nothing: there is no other."""


class TokenFile:
    """A bearer token in a file that changes, read again every `FILE_CACHE_S` and whenever the token is refused.

    While the file cannot be read, or holds no token, the last token that it held stays in use, as in client-go.

    Args:
        otherwise: token to begin with where the file cannot be read at first; None: none.
    """

    def __init__(
        self,
        path: Path,
        otherwise: str | None = None,
        certificate: bytes | None = None,
        key: bytes | None = None,
        timer: Callable[[], float] = time.monotonic,
    ) -> None:
        self._path = path
        self._certificate = certificate
        self._key = key
        self._timer = timer
        self._lock = threading.Lock()
        self._read_at: float | None = None
        self._known = None if otherwise is None else self._with(otherwise)

    def identity(self) -> Identity:
        """See `Credentials`."""
        with self._lock:
            if self._known is not None and self._read_at is not None and self._timer() - self._read_at < FILE_CACHE_S:
                return self._known
            try:
                fresh = self._with(read_token(self._path))
            except CredentialError as error:
                if self._known is None:
                    raise
                log.warning("the token file does not read; the token from before stays in use", error=str(error))
                fresh = self._known
            self._read_at = self._timer()
            self._known = fresh
            return fresh

    def refused(self, identity: Identity) -> None:
        """See `Credentials`."""
        with self._lock:
            if identity is self._known:
                self._read_at = None

    def _with(self, token: str) -> Identity:
        return Identity(bearer(token), self._certificate, self._key)


def bearer(token: str) -> str:
    """The header for a bearer token."""
    return f"Bearer {token}"


def basic(username: str, password: str) -> str:
    """The header for a user and a password (RFC 7617)."""
    return "Basic " + base64.b64encode(f"{username}:{password}".encode()).decode()


def token_of(text: str, source: str) -> str:
    """A token without the blanks, line ends and byte order mark around it.

    Raises:
        CredentialError: it is empty, or holds what no HTTP header may.
    """
    token = text.strip().strip("\ufeff").strip()
    if not token:
        raise CredentialError(f"{source} holds no token")
    if _HEADER_VALUE.fullmatch(token) is None:
        raise CredentialError(
            f"{source} holds more than a token: there are blanks, line ends or characters beyond ASCII in it; write "
            "the token alone, in one line"
        )
    return token


def header_text(text: str, source: str) -> str:
    """A header's value, without blanks around it.

    Raises:
        CredentialError: it is empty, or holds what no HTTP header may.
    """
    value = text.strip()
    if _HEADER_TEXT.fullmatch(value) is None:
        raise CredentialError(f"{source} holds what no HTTP header may: nothing, line ends or characters beyond ASCII")
    return value


def read_token(path: Path) -> str:
    """The token in a file. Raises `CredentialError` if it cannot be read, or holds none."""
    return token_of(read_text(path, "the token file"), f"the token file {path}")


def read_text(path: Path, what: str) -> str:
    """The text of a small file. Raises `CredentialError` if it cannot be read, is too long, or is not UTF-8."""
    try:
        # O_NONBLOCK: nobody may ever write to a pipe that stands where a file should.
        with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
            content = file.read(LONGEST_FILE + 1) or b""
    except (OSError, ValueError) as error:
        raise CredentialError(f"{what} {path} cannot be read: {kind_of(error)}") from error
    if len(content) > LONGEST_FILE:
        raise CredentialError(f"{what} {path} is longer than {LONGEST_FILE} bytes")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise CredentialError(f"{what} {path} is not text in UTF-8 ({kind_of(error)})") from error
