"""Asks a running service at its operations port, for the commands that show what it answers."""

from __future__ import annotations

import json
import os
import ssl
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import urllib3

from extender.cluster.authorities import verifying_context
from extender.errors import CertificateError, ClientError, kind_of
from extender.proxies import proxy_for
from extender.urls import split_url

TIMEOUT_S: Final = 10.0

AGAIN: Final = urllib3.Retry(
    5, connect=0, read=0, redirect=0, other=0, status_forcelist=(503,), raise_on_status=False, raise_on_redirect=False
)
"""The service answers 503 with Retry-After while it computes documents for others."""


@dataclass(frozen=True, slots=True)
class Client:
    """A service to ask.

    Raises:
        ClientError: the URL or the file of authorities cannot be used.
    """

    url: str  # of the operations port, such as ``http://127.0.0.1:8888``
    ca_file: Path | None = None  # authorities of its certificate (PEM); None: the system's
    host: str | None = None  # for which its certificate is; None: the URL's
    name: str = ""  # what errors call the service; empty: the URL
    hint: str = "is the service running, and --url its operations port?"
    namespace: Callable[[], str] = lambda: "default"  # that a pod is in where nobody says
    token_file: Path | None = None  # with the bearer token to show; None: none is shown
    cert_file: Path | None = None  # certificate to show (PEM); None: none is shown
    key_file: Path | None = None  # its private key (PEM); None: in the same file
    _context: ssl.SSLContext | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "url", _checked(self.url))
        object.__setattr__(self, "name", self.name or self.url)
        if self.url.startswith("https://"):
            object.__setattr__(self, "_context", _trusting(self.ca_file))
            self._show_certificate()
        elif self.token_file is not None:
            raise ClientError(f"--token-file needs https: {self.name} is asked in plain HTTP, where all can read it")
        else:
            for option, file in {"--ca-file": self.ca_file, "--cert-file": self.cert_file}.items():
                if file is not None:
                    raise ClientError(
                        f"{option} has no use: {self.name} is asked in plain HTTP; leave it out, or give an https URL"
                    )
        if self.key_file is not None and self.cert_file is None:
            raise ClientError("--key-file has no use without --cert-file: give both")

    def _show_certificate(self) -> None:
        if self._context is None or self.cert_file is None:
            return
        try:
            self._context.load_cert_chain(self.cert_file, self.key_file, password=_no_password)
        except OSError as error:  # SSLError is one
            raise ClientError(
                f"--cert-file {self.cert_file} and --key-file {self.key_file or self.cert_file} cannot be used "
                f"({kind_of(error)}); give a certificate and its private key, in PEM"
            ) from error

    def ask(self, path: str) -> dict[str, Any] | None:
        """Return the JSON object at a path; None where the service answers 404.

        A proxy of the environment is asked as Go's tools ask it, so never for loopback.

        Args:
            path: what follows the URL.

        Raises:
            ClientError: nobody answers, or no service of ours does.
        """
        headers = None if self.token_file is None else {"Authorization": f"Bearer {_token(self.token_file)}"}
        try:
            with self._pool() as pool:
                answer = pool.request(
                    "GET", f"{self.url}{path}", headers=headers, timeout=TIMEOUT_S, retries=AGAIN, redirect=False
                )
        except (urllib3.exceptions.HTTPError, OSError) as error:
            why = kind_of(error)
            why = why.partition(": ")[2] or why  # what urllib3 made of it tells nothing
            trust = "certificate verify failed" in why
            hint = "name the authority of its certificate with --ca-file" if trust else self.hint
            raise ClientError(f"cannot ask {self.name}: {why}; {hint}") from error
        if answer.status == 404:
            return None
        if answer.status == 503:
            raise ClientError(f"{self.name} answered 503: it is busy with other requests, or its ledger cannot be read")
        if answer.status in (401, 403):
            raise ClientError(f"{self.name} answered {answer.status}: {_DENIED[answer.status]}")
        if answer.status != 200:
            raise ClientError(f"{self.name} answered {answer.status}; {self.hint}")
        try:
            document = json.loads(answer.data)
        except (ValueError, RecursionError):
            document = None
        if not isinstance(document, dict):
            raise ClientError(f"{self.name} answered no JSON object; {self.hint}")
        return document

    def known(self, path: str) -> dict[str, Any]:
        """Return the JSON object at a path that every such service has. Raises as `ask`, and where it is absent."""
        found = self.ask(path)
        if found is None:
            raise ClientError(f"{self.name} has no {path.partition('?')[0]}; {self.hint}")
        return found

    def _pool(self) -> urllib3.PoolManager:
        tls: dict[str, Any] = {}
        if self._context is not None:
            tls = {"ssl_context": self._context, "server_hostname": self.host}
        proxy = proxy_for(self.url, os.environ)
        if proxy is None:
            return urllib3.PoolManager(**tls)
        user = urllib3.util.parse_url(proxy).auth
        headers = urllib3.make_headers(proxy_basic_auth=user) if user else None
        return urllib3.ProxyManager(proxy, proxy_headers=headers, **tls)


_DENIED: Final = {
    401: "it lets in who shows a token or a certificate; give one with --token-file, such as that of "
    "`kubectl create token`, or with --cert-file and --key-file",
    403: "neither its operations_users nor its operations_client_names has the user of the token or certificate",
}


def plain(value: Any) -> Any:
    """Return a JSON value with a mark for each character that a terminal obeys or hides.

    Whoever makes a pod chooses the names of its owners, and whoever runs a scheduler what it says of pods: kubectl
    does not let them change what a terminal shows either (CVE-2021-25743).
    """
    if isinstance(value, str):
        return value if value.isprintable() else "".join(each if each.isprintable() else "\ufffd" for each in value)
    if isinstance(value, list):
        return [plain(each) for each in value]
    if isinstance(value, dict):
        return {plain(name): plain(each) for name, each in value.items()}
    return value


def _no_password() -> str:
    raise ClientError("--key-file is encrypted; decrypt it: openssl pkey -in KEY -out PLAIN")


def _token(file: Path) -> str:
    try:
        text = file.read_text(encoding="ascii").strip()
    except (OSError, ValueError) as error:
        raise ClientError(f"--token-file {file} cannot be read: {kind_of(error)}") from error
    if not text or not text.isprintable() or " " in text:
        raise ClientError(f"--token-file {file} holds no token; write nothing else into it")
    return text


def _trusting(file: Path | None) -> ssl.SSLContext:
    try:
        return verifying_context(None if file is None else file.read_bytes(), f"--ca-file {file}")
    except OSError as error:
        raise ClientError(f"--ca-file {file} cannot be read: {kind_of(error)}") from error
    except CertificateError as error:
        raise ClientError(str(error)) from error


def _checked(url: str) -> str:
    """The URL without a slash at its end."""
    if "@" in url:
        raise ClientError("--url holds a user or password, which the service does not ask for; leave it out")
    parts = split_url(url)
    if parts is None or not url.startswith(("http://", "https://")):
        raise ClientError(f"{url[:200]!a} is no http or https URL; give --url http://host:port")
    if "?" in url or "#" in url:
        raise ClientError("--url has a query or a fragment, after which no path can follow; leave it out")
    return url.rstrip("/")
