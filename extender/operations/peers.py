"""Other replicas of this service: found by name, and asked over HTTP. Knows nothing of what it is asked for.

Threads find and ask them, so the event loop only waits, and a question has one time limit for all of it. A peer that
does not answer is named, with the reason, and spoils no other's answer. docs/decisions/0015-replicas.md says why peers
are found by DNS.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final, Generic, TypeVar

import httptools

from extender.errors import UNDECODABLE, CertificateError, PeerError, SourceError, kind_of
from extender.settings import Settings, separated
from extender.supervision import detached
from extender.transport.tls import Identity

LIMIT_S: Final = 1.0
"""Longest that a question takes: names, connections and answers."""

MOST: Final = 8
"""Peers that are asked; any others are named as not asked."""

LARGEST_ANSWER: Final = 4 * 1024 * 1024
"""Bytes of an answer, its head included: twice what 1,000 decisions take, or one decision about 20,000 nodes."""

ROUNDS: Final = 2
"""Questions that are asked at the same time."""

THIS: Final = "this"
"""What this replica is called while it does not know its own address."""

ALONE: Final = "replicas=this"
"""Query of each question: who gets it answers from its own memory, so no question goes round in circles."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Heard(Generic[T]):
    """What came of a question."""

    own: str = THIS  # address of this replica
    answers: Mapping[str, T] = field(default_factory=dict)  # by address; of those that know something
    silent: Mapping[str, str] = field(default_factory=dict)  # why there is no answer, by address or name

    @property
    def told(self) -> str:
        """Who did not answer, as the end of a sentence; empty where everybody did."""
        told = ", ".join(f"{who} ({why})" for who, why in self.silent.items())
        return f"; no answer from the replica {told}" if told else ""


@dataclass(frozen=True, slots=True)
class _Found:
    own: str
    others: list[str]
    silent: dict[str, str]


class Peers:
    """The other replicas.

    Args:
        hosts: names or addresses of all replicas; a name stands for all of its addresses.
        port: where each answers.
        listening: addresses that this replica listens on.
        resolve: addresses of a name; may block.

    Attributes:
        identity: certificates in use, where the peers answer over TLS; else None.
        authorization: the header that says who asks, for peers that want to know; None: nobody asks. It is sent over
            TLS alone. Called in threads; raises `SourceError`.
    """

    def __init__(
        self,
        hosts: list[str],
        port: int,
        listening: list[str],
        resolve: Callable[[str], list[str]] | None = None,
    ) -> None:
        self.identity: Callable[[], Identity] | None = None
        self.authorization: Callable[[], str | None] | None = None
        self._hosts = hosts
        self._port = port
        self._listening = listening
        self._resolve = resolve or addresses
        self._rounds = asyncio.Semaphore(ROUNDS)
        self._finding: asyncio.Future[_Found] | None = None
        self._decoding = threading.Lock()

    @classmethod
    def of(cls, settings: Settings) -> Peers | None:
        """Return the peers that the settings name; None where they name none."""
        if settings.peers is None or settings.operations_port is None:
            return None
        return cls(separated(settings.peers), settings.operations_port, separated(settings.operations_host))

    async def ask(
        self, path: Callable[[str], str | None], decode: Callable[[bytes], T], skipped: str = "not asked"
    ) -> Heard[T]:
        """Ask every other replica the same; never raises.

        Args:
            path: path and query for the peer at an address; empty: it has nothing to say; None: it is not asked, and
                named as such.
            decode: an answer to what it means; in a thread. Raises one of `extender.errors.UNDECODABLE` if it means
                nothing.
            skipped: why one that is not asked is not.
        """
        end = time.monotonic() + LIMIT_S
        everybody = ", ".join(self._hosts)
        try:
            async with asyncio.timeout(LIMIT_S):
                await self._rounds.acquire()
        except TimeoutError:
            return Heard(silent={everybody: "others are being answered"})
        try:
            async with asyncio.timeout(end - time.monotonic()):
                found = await self._found()
            return await self._heard(found, path, decode, skipped, end)
        except TimeoutError:
            return Heard(silent={everybody: "its name was not resolved in time"})
        finally:
            self._rounds.release()

    async def _heard(
        self,
        found: _Found,
        path: Callable[[str], str | None],
        decode: Callable[[bytes], T],
        skipped: str,
        end: float,
    ) -> Heard[T]:
        answers, silent = dict[str, T](), dict(found.silent)
        asked: dict[str, asyncio.Future[T | PeerError | None]] = {}
        for address in found.others:
            wanted = path(address)
            if wanted is None:
                silent[address] = skipped
            elif wanted:
                asked[address] = detached(partial(self._told, address, wanted, decode, end), "peer")
        if asked:
            await asyncio.wait(asked.values(), timeout=max(end - time.monotonic(), 0.0))
        for address, future in asked.items():
            told = future.result() if future.done() else PeerError(f"no answer within {LIMIT_S:g} s")
            if isinstance(told, PeerError):
                silent[address] = str(told)
            elif told is not None:
                answers[address] = told
        return Heard(found.own, answers, silent)

    async def _found(self) -> _Found:
        """Find the peers; questions at the same time share one search, so that a slow DNS holds one thread."""
        if self._finding is None or self._finding.done():
            self._finding = detached(self._find, "peers")
        return await asyncio.shield(self._finding)

    # ---- in threads ----------------------------------------------------------------------------------------------

    def _find(self) -> _Found:
        own, others, silent = THIS, dict[str, None](), dict[str, str]()
        for host in self._hosts:
            try:
                resolved = self._resolve(host)
            except OSError as error:
                silent[host] = kind_of(error)
                continue
            for address in resolved:
                if self._is_own(address):
                    own = address
                else:
                    others[address] = None
        chosen = sorted(others)
        silent |= dict.fromkeys(chosen[MOST:], f"not asked: only {MOST} are")
        return _Found(own, chosen[:MOST], silent)

    def _is_own(self, address: str) -> bool:
        """Whether this replica answers there: where it listens on all addresses, whether the machine has this one."""
        given = [each for each in self._listening if _is_address(each)]
        if given and not any(ipaddress.ip_address(each).is_unspecified for each in given):
            return address in given
        try:
            with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_DGRAM) as probe:
                probe.connect((address, self._port))  # sends nothing: the system chooses where it would send from
                return str(probe.getsockname()[0]) == address
        except OSError:
            return False

    def _told(self, address: str, path: str, decode: Callable[[bytes], T], end: float) -> T | PeerError | None:
        """What a peer answers; None where it knows nothing; why, where it does not answer."""
        try:
            status, body = self._get(address, path, end)
            if status == 404:
                return None
            if status != 200:
                return PeerError("it is busy (503)" if status == 503 else f"it answered {status}")
            with self._decoding:  # one at a time: what a short answer decodes to may be large
                return decode(body)
        except PeerError as error:
            return error
        except TimeoutError:
            return PeerError(f"no answer within {LIMIT_S:g} s")
        except UNDECODABLE:
            return PeerError("it answered what this version does not know")
        except (OSError, ValueError, CertificateError, SourceError) as error:
            return PeerError(kind_of(error))

    def _get(self, address: str, path: str, end: float) -> tuple[int, bytes]:
        """Status and body of a GET. Raises `PeerError`, `TimeoutError`, `OSError`, `ValueError`."""
        host = f"[{address}]" if ":" in address else address
        request = f"GET {path} HTTP/1.1\r\nHost: {host}:{self._port}\r\nConnection: close\r\n"
        if self.identity is not None and self.authorization is not None and (known := self.authorization()) is not None:
            request += f"Authorization: {known}\r\n"
        with socket.create_connection((address, self._port), _left(end)) as plain:
            connection = plain
            if self.identity is not None:
                identity = self.identity()
                if not identity.name:
                    raise PeerError("the certificate in tls_cert_file is for no name, so no peer's can be verified")
                plain.settimeout(_left(end))
                connection = identity.peers.wrap_socket(plain, server_hostname=identity.name)
            with connection:
                connection.settimeout(_left(end))
                connection.sendall(f"{request}\r\n".encode("latin-1"))
                return _read(connection, end)


class _Answer:
    """What httptools finds in an answer."""

    def __init__(self) -> None:
        self.body = bytearray()
        self.whole = False

    def on_body(self, body: bytes) -> None:
        """See httptools."""
        self.body += body

    def on_message_complete(self) -> None:
        """See httptools."""
        self.whole = True


def _read(connection: socket.socket, end: float) -> tuple[int, bytes]:
    answer, size = _Answer(), 0
    parser: Any = httptools.HttpResponseParser(answer)
    while not answer.whole:
        connection.settimeout(_left(end))
        data = connection.recv(65536)
        size += len(data)
        if not data:
            raise PeerError("its answer ends too soon")
        if size > LARGEST_ANSWER:
            raise PeerError(f"its answer is larger than {LARGEST_ANSWER >> 20} MiB")
        try:
            parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            raise PeerError("its answer is no HTTP") from error
    return parser.get_status_code(), bytes(answer.body)


def _left(end: float) -> float:
    left = end - time.monotonic()
    if left <= 0.0:
        raise TimeoutError
    return left


def addresses(host: str) -> list[str]:
    """Addresses that a name leads to, some of them perhaps twice; raises `OSError` where it leads nowhere."""
    return [str(found[4][0]) for found in socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)]


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
