"""One question to one kubelet at a time, over TLS.

asyncio and httptools, because thousands of kubelets are asked in turn from one thread. No redirect is followed and no
proxy is used: the bearer token goes to the address that the node's status gives, once its certificate is verified.

Verified are the chain, and that the certificate is for the node's address or for its name; metrics-server dials by one
of them and checks that one.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import socket
import ssl
import time
from collections.abc import Callable
from functools import partial
from typing import Any, Final

import httptools

from extender.cluster.identity import Identity
from extender.cluster.kubelet import Endpoint, KubeletError, Trust
from extender.errors import CertificateError, kind_of

PATH: Final = "/stats/summary"
USER_AGENT: Final = "maddpg-extender"
LARGEST_ANSWER: Final = 4 * 1024 * 1024
"""Bytes of an answer, its head included; one of 500 pods with three containers each has about 2 MiB."""
CONNECT_TIMEOUT: Final = 5.0
"""Seconds to connect and shake hands."""
CONNECTION_LIFE_S: Final = 600.0
"""Seconds for which a connection is used: then the kubelet must show its certificate again, which may have rotated."""
RECORD: Final = 16384
"""Bytes that TLS brings at once, at most."""

_STATUSES: Final = {401: "unauthorized", 403: "forbidden", 404: "missing"}
_HINTS: Final = {
    "unauthorized": "the kubelet does not accept the token; it needs --authentication-token-webhook",
    "forbidden": "the identity needs the right to get nodes/stats",
    "missing": "the kubelet does not serve it; is something else listening there?",
}


class Connection:
    """A connection to one kubelet, which is asked one question at a time.

    Its TLS is `ssl.SSLSocket`, which the event loop waits for. A TLS transport of uvloop or asyncio has a buffer of
    256 KiB, too much for connections that are kept by the thousand (docs/decisions/0018-kept-connections.md).

    Attributes:
        reusable: whether the answers so far allow another question.
    """

    def __init__(self, connected: ssl.SSLSocket) -> None:
        self._socket = connected
        self._opened_at = time.monotonic()
        self.reusable = True

    @classmethod
    async def open(cls, endpoint: Endpoint, trust: Trust, identity: Identity) -> Connection:
        """Connect, and make sure who answers. Raises `KubeletError` if it is not reached, or not believed."""
        try:
            context = trust.context(identity)
        except CertificateError as error:
            raise KubeletError("authorities", str(error)) from error
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT):
                connected = await _connect(endpoint, context)
        except TimeoutError as error:
            raise KubeletError("timeout", f"no connection within {CONNECT_TIMEOUT:g} s") from error
        except ssl.SSLCertVerificationError as error:
            raise KubeletError("certificate", kind_of(error)) from error
        except (OSError, ValueError) as error:
            raise KubeletError("connect", kind_of(error)) from error
        if not trust.insecure and not is_for(connected.getpeercert(), endpoint):
            connected.close()
            raise KubeletError("certificate", "the certificate is neither for the node's address nor for its name")
        return cls(connected)

    def usable(self, trust: Trust, identity: Identity) -> bool:
        """Whether another question may be asked now: nothing has changed, and the kubelet has not closed it."""
        if not self.reusable or time.monotonic() - self._opened_at >= CONNECTION_LIFE_S:
            return False
        try:
            if self._socket.context is not trust.context(identity):
                return False
            socket.socket.recv(self._socket, 1, socket.MSG_PEEK)  # below TLS: it costs a tenth
        except BlockingIOError:
            return True
        except (OSError, CertificateError):
            return False
        return False  # it was closed, or something was said that nobody asked for

    async def ask(self, endpoint: Endpoint, identity: Identity) -> bytes:
        """The body of an answer of 200. Raises `KubeletError` if there is none."""
        answer, question, self.reusable = _Answer(), _question(endpoint, identity), False
        try:
            while question:
                question = question[self._socket.send(question) :]
            await _until_done(self._socket, partial(answer.read, self._socket))
        except OSError as error:
            raise answer.broken(kind_of(error)) from error
        status, self.reusable = answer.status, answer.reusable
        if status != 200:
            reason = _STATUSES.get(status or 0, "status")
            raise KubeletError(reason, f"it answered {status}" + (f"; {hint}" if (hint := _HINTS.get(reason)) else ""))
        return b"".join(answer.chunks)

    def close(self) -> None:
        """Close it, whatever it is doing."""
        self.reusable = False
        self._socket.close()


class _Answer:
    """An answer that is being read.

    Attributes:
        status: its status, once it is complete.
        chunks: its body so far.
        reusable: whether another one may follow on the same connection.
    """

    def __init__(self) -> None:
        self.status: int | None = None
        self.chunks: list[bytes] = []
        self.reusable = False
        self._size = 0
        self._parser: Any = httptools.HttpResponseParser(self)

    def read(self, connected: ssl.SSLSocket) -> None:
        """Read what there is, until it is complete. Raises OSError, or `KubeletError` if it is none."""
        while self.status is None:
            data = connected.read(RECORD)
            if not data:
                raise self.broken("it was closed")
            self._size += len(data)
            if self._size > LARGEST_ANSWER:
                raise KubeletError("too_large", f"the answer is larger than {LARGEST_ANSWER} bytes")
            try:
                self._parser.feed_data(data)
            except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
                self.reusable = False  # what follows an answer that is complete is not ours to read
                if self.status is None:
                    raise KubeletError("protocol", f"the answer is no HTTP: {kind_of(error)}") from error

    def broken(self, why: str) -> KubeletError:
        """The error of a connection that did not bring the whole of it."""
        return KubeletError("truncated" if self._size else "lost", f"the connection was lost: {why}")

    def on_body(self, body: bytes) -> None:
        """See httptools."""
        if self.status is None:
            self.chunks.append(body)

    def on_message_complete(self) -> None:
        """See httptools."""
        if self.status is not None:
            self.reusable = False  # nobody asked for a second one
            return
        self.status, self.reusable = self._parser.get_status_code(), self._parser.should_keep_alive()
        self._parser = None  # it refers to this object


def _question(endpoint: Endpoint, identity: Identity) -> bytes:
    host = f"[{endpoint.host}]" if ":" in endpoint.host else endpoint.host
    lines = [
        f"GET {PATH} HTTP/1.1",
        f"Host: {host}:{endpoint.port}",
        f"User-Agent: {USER_AGENT}",
        "Accept: application/json",
    ]
    if identity.authorization is not None:
        lines.append(f"Authorization: {identity.authorization}")
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


async def _connect(endpoint: Endpoint, context: ssl.SSLContext) -> ssl.SSLSocket:
    """Return a socket whose handshake has ended. Raises OSError or ValueError."""
    plain = socket.socket(socket.AF_INET6 if ":" in endpoint.host else socket.AF_INET)
    try:
        plain.setblocking(False)
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        await asyncio.get_running_loop().sock_connect(plain, (endpoint.host, endpoint.port))
        secured = context.wrap_socket(plain, do_handshake_on_connect=False, server_hostname=endpoint.node)
    except BaseException:
        plain.close()
        raise
    try:
        with contextlib.suppress(ssl.SSLWantReadError):
            secured.do_handshake()
        await _until_done(secured, secured.do_handshake)
    except BaseException:
        secured.close()
        raise
    return secured


async def _until_done(connected: ssl.SSLSocket, operation: Callable[[], object]) -> None:
    """Try an operation whenever the socket has something to read, until it wants no more. Raises what it raises.

    It never waits to write: a handshake or a question is short, and nothing else is on its way.
    """
    loop = asyncio.get_running_loop()
    done = loop.create_future()
    loop.add_reader(connected, _try, operation, done)
    try:
        await done
    finally:
        loop.remove_reader(connected)


def _try(operation: Callable[[], object], done: asyncio.Future[None]) -> None:
    if done.done():
        return
    try:
        operation()
    except ssl.SSLWantReadError:
        return
    except Exception as error:
        done.set_exception(error)
    else:
        done.set_result(None)


def is_for(certificate: Any, endpoint: Endpoint) -> bool:
    """Whether a verified certificate (as `SSLObject.getpeercert` gives it) is for the node's address or its name."""
    host = ipaddress.ip_address(endpoint.host)
    for kind, value in (certificate or {}).get("subjectAltName", ()):
        if kind == "DNS" and value.lower() == endpoint.node.lower():
            return True
        if kind == "IP Address":
            try:
                if ipaddress.ip_address(value.strip()) == host:
                    return True
            except ValueError:
                continue
    return False
