"""Credential plug-ins of kubeconfigs (`exec`), as client-go runs them (plugin/pkg/client/auth/exec/exec.go).

A plug-in is asked before the first request, when its credentials have expired and after they were refused, and again
for each request as long as it fails: no request goes out without credentials. What it writes to stderr, and the text
of what it answers, is never published.
"""

from __future__ import annotations

import os
import signal
import subprocess  # nosec B404 # the kubeconfig names the program, as kubectl's does
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import msgspec

from extender.cluster.identity import CredentialError, Identity, bearer, token_of
from extender.cluster.status import seconds
from extender.errors import UNDECODABLE, kind_of

VERSIONS: Final = ("client.authentication.k8s.io/v1", "client.authentication.k8s.io/v1beta1")
INFO_VARIABLE: Final = "KUBERNETES_EXEC_INFO"
TIMEOUT_S: Final = 30.0
"""Longest that a plug-in may run; client-go has no limit, and a service that waits for ever never tells."""

PAUSE_S: Final = 1.0
"""Requests this soon after a failure fail like it, without another run."""

LONGEST_ANSWER: Final = 1024 * 1024
"""Bytes of a plug-in's answer."""


@dataclass(frozen=True, slots=True)
class PluginOptions:
    """How to run a plug-in."""

    command: str  # the program: a name on the PATH, or a path
    arguments: tuple[str, ...] = field(default=(), repr=False)  # of the program; may hold secrets
    # variables on top of the service's own; may hold secrets
    environment: Mapping[str, str] = field(default_factory=dict, repr=False)
    version: str = VERSIONS[0]  # API version that it is asked in, and must answer in
    cluster: Mapping[str, Any] | None = field(default=None, repr=False)  # what it is told of the cluster; None: nothing


class _Credential(msgspec.Struct, frozen=True, rename="camel"):
    """Status of an ExecCredential."""

    token: str | None = None
    client_certificate_data: str | None = None
    client_key_data: str | None = None
    expiration_timestamp: str | None = None


class _Answer(msgspec.Struct, frozen=True, rename="camel"):
    """An ExecCredential."""

    api_version: str = ""
    kind: str = ""
    status: _Credential | None = None


_DECODER: Final = msgspec.json.Decoder(_Answer)


class Plugin:
    """Credentials from a plug-in; see `extender.cluster.identity.Credentials`."""

    def __init__(
        self,
        options: PluginOptions,
        clock: Callable[[], float] = time.time,
        timer: Callable[[], float] = time.monotonic,
    ) -> None:
        self._options = options
        self._name = f"the credential plug-in {Path(options.command).name}"
        self._clock = clock
        self._timer = timer
        # Held while the plug-in runs: it is asked once, however many requests wait for it.
        self._lock = threading.Lock()
        self._known: Identity | None = None
        self._expires: float | None = None
        self._failure: tuple[float, CredentialError] | None = None

    def identity(self) -> Identity:
        """What the plug-in gave, or gives now. Raises `CredentialError` if it failed."""
        with self._lock:
            if self._known is not None and (self._expires is None or self._clock() <= self._expires):
                return self._known
            if self._failure is not None and self._timer() - self._failure[0] < PAUSE_S:
                raise CredentialError(str(self._failure[1]))
            try:
                self._known, self._expires = self._asked()
            except CredentialError as error:
                self._failure = self._timer(), error
                raise
            self._failure = None
            return self._known

    def refused(self, identity: Identity) -> None:
        """Ask again before the next request."""
        with self._lock:
            if identity is self._known:
                self._known = None

    def _asked(self) -> tuple[Identity, float | None]:
        answer = self._decoded(self._run())
        if (answer.kind, answer.api_version) != ("ExecCredential", self._options.version):
            raise CredentialError(
                f"{self._name} answered in another version than the kubeconfig's exec.apiVersion, which is "
                f"{self._options.version}"
            )
        given = answer.status
        if given is None or not (given.token or given.client_certificate_data or given.client_key_data):
            raise CredentialError(f"{self._name} gave neither a token nor a certificate")
        if bool(given.client_certificate_data) != bool(given.client_key_data):
            raise CredentialError(f"{self._name} gave a certificate without its key, or the reverse")
        expires = None
        if given.expiration_timestamp is not None:
            expires = seconds(given.expiration_timestamp)
            if expires is None:
                raise CredentialError(f"{self._name} gave an expirationTimestamp that is no time")
        pair = [data.encode() if data else None for data in (given.client_certificate_data, given.client_key_data)]
        token = token_of(given.token, f"the token of {self._name}") if given.token else None
        return Identity(None if token is None else bearer(token), *pair), expires

    def _decoded(self, answer: bytes) -> _Answer:
        try:
            return _DECODER.decode(answer)
        except UNDECODABLE as error:
            raise CredentialError(f"{self._name} answered no ExecCredential ({kind_of(error)})") from error

    def _run(self) -> bytes:
        """What the plug-in writes to stdout."""
        options = self._options
        asked: dict[str, Any] = {"interactive": False}
        if options.cluster is not None:
            asked["cluster"] = dict(options.cluster)
        info = {"apiVersion": options.version, "kind": "ExecCredential", "spec": asked}
        environment = {**os.environ, **options.environment, INFO_VARIABLE: msgspec.json.encode(info).decode()}
        # A file and not a pipe: what the plug-in leaves behind may hold a pipe open for ever.
        with tempfile.TemporaryFile() as stdout:
            try:
                process = subprocess.Popen(  # noqa: S603 # nosec B603 # no shell; the kubeconfig is trusted
                    [options.command, *options.arguments],
                    stdin=subprocess.DEVNULL,
                    stdout=stdout,
                    stderr=subprocess.DEVNULL,
                    env=environment,
                    start_new_session=True,
                )
            except (OSError, ValueError) as error:
                raise CredentialError(f"{self._name} cannot be run: {kind_of(error)}") from error
            try:
                code = process.wait(TIMEOUT_S)
            except subprocess.TimeoutExpired as error:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
                raise CredentialError(f"{self._name} did not end within {TIMEOUT_S:g} s") from error
            if code != 0:
                raise CredentialError(f"{self._name} failed with exit code {code}; run it by hand to see why")
            stdout.seek(0)
            answer = stdout.read(LONGEST_ANSWER + 1)
        if len(answer) > LONGEST_ANSWER:
            raise CredentialError(f"{self._name} answered more than {LONGEST_ANSWER} bytes")
        return answer
