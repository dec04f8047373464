"""Who may read the operations endpoints, where that is limited: by a client certificate, a proxy's header or a token.

TLS verifies certificates; here their names are looked at. The API server checks tokens of the cluster (TokenReview), in
threads, a few at a time; what it said counts for a while. Tokens are kept as keyed digests alone. Probes are open: a
kubelet has no user. So are metrics, unless client certificates are demanded, which every Prometheus can show.
"""

from __future__ import annotations

import asyncio
import hashlib
import ipaddress
import secrets
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final, Protocol, runtime_checkable

from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from extender import logs
from extender.cluster.source import Reviewed
from extender.errors import SourceError
from extender.settings import Settings
from extender.supervision import detached
from extender.transport.limits import CERTIFIED
from extender.transport.port import PROBES

KNOWN_S: Final = 60.0
"""How long a token counts that was accepted; it may be revoked meanwhile."""

UNKNOWN_S: Final = 10.0
"""How long a token is refused without asking again."""

AWAY_S: Final = 1.0
"""How long nobody is asked after the API server did not answer."""

PATIENCE_S: Final = 3.0
"""How long a request waits for the API server."""

MOST_KEPT: Final = 1024
"""Tokens accepted that are remembered, and as many refused ones."""

MOST_ASKED: Final = 4
"""Tokens that are checked at the same time."""

LONGEST_TOKEN: Final = 16384

_log = logs.get(__name__)

RESULTS: Final = ("admitted", "unauthenticated", "forbidden", "unchecked")
_STATUS: Final = dict(zip(RESULTS, (200, 401, 403, 503), strict=True))
FORBIDDEN: Final = "neither operations_users nor operations_client_names has this user, a group or a name of theirs"
UNCHECKED: Final = "the API server has not said in time whose token this is; ask again"


@runtime_checkable
class ReviewsTokens(Protocol):
    """A source whose API server says whose a token is."""

    def review(self, token: str) -> Reviewed:
        """Return whose it is; may block. Raises `SourceError` if nobody can say."""
        ...

    def authorization(self) -> str | None:
        """Return the header that says who we are; None where no token does. May block; raises `SourceError`."""
        ...


class Guard:
    """Decides who is let in. Owned by the event loop's thread.

    Args:
        settings: see `operations_client_ca_file`, `operations_bearer`, `operations_proxies` and what belongs to them.
        source: may review tokens.
        timer: monotonic seconds.

    Attributes:
        open: paths that everybody may read.
        results: requests by what came of them, see `RESULTS`; requests to `open` are not counted.
        own_names: names in this service's certificate, which the other replicas' have too.
    """

    def __init__(self, settings: Settings, source: object, timer: Callable[[], float] = time.monotonic) -> None:
        self._certificates = settings.operations_client_ca_file is not None
        self._names = frozenset(settings.operations_client_names)
        self._bearer = settings.operations_bearer
        self._users = frozenset(settings.operations_users)
        self._header = (settings.operations_user_header or "").lower().encode("latin-1")
        self._proxies = [ipaddress.ip_network(each) for each in settings.operations_proxies]
        self._source = source
        self._timer = timer
        self._key = secrets.token_bytes(32)
        self._kept: dict[bool, OrderedDict[bytes, tuple[float, str]]] = {True: OrderedDict(), False: OrderedDict()}
        self._asked: dict[bytes, asyncio.Future[Reviewed]] = {}
        self._away_until = float("-inf")
        self._told = ""
        self.open = PROBES if self._certificates else PROBES | {"/metrics"}
        self.results = Counter(dict.fromkeys(RESULTS, 0))
        self.own_names: Callable[[], frozenset[str]] = frozenset

    @classmethod
    def of(cls, settings: Settings, source: object) -> Guard | None:
        """Return who guards by these settings; None where everybody may read."""
        limited = settings.operations_client_ca_file, settings.operations_bearer, settings.operations_proxies
        return cls(settings, source) if any(limited) else None

    async def judged(
        self, address: str, headers: Sequence[tuple[bytes, bytes]], names: frozenset[str] | None = None
    ) -> str:
        """Return one of `RESULTS` for a request.

        Args:
            address: where it comes from.
            headers: its own, names in lower case.
            names: of the client certificate that was verified; None: none was shown.
        """
        certified = names if self._certificates else None
        if certified is not None and not (self._names and certified.isdisjoint(self._names | self.own_names())):
            return "admitted"
        if self._proxies and self._is_proxy(address):
            users = [value.strip() for name, value in headers if name == self._header]
            if len(users) == 1 and users[0]:  # two: one may be the caller's own
                return "admitted"
        given = [value for name, value in headers if name == b"authorization"]
        kind, _, token = given[0].partition(b" ") if len(given) == 1 else (b"", b"", b"")
        token = token.strip()
        if not self._bearer or kind.lower() != b"bearer" or not token or len(token) > LONGEST_TOKEN:
            return "unauthenticated" if certified is None else "forbidden"
        return await self._reviewed(token)

    def why(self, result: str) -> str:
        """Return what to do about a result other than `admitted`."""
        if result != "unauthenticated":
            return FORBIDDEN if result == "forbidden" else UNCHECKED
        ways = {
            "show a client certificate of an authority in operations_client_ca_file": self._certificates,
            "give a bearer token of the cluster (Authorization: Bearer ...)": self._bearer,
            "come through the proxy": bool(self._proxies),
        }
        return ", or ".join(way for way, known in ways.items() if known)

    async def _reviewed(self, token: bytes) -> str:
        digest = hashlib.blake2b(token, key=self._key, digest_size=32).digest()
        for kept in self._kept.values():
            until, result = kept.get(digest, (0.0, ""))
            if result and self._timer() < until:
                return result
        future = self._asked.get(digest)
        if future is None:
            if self._timer() < self._away_until or len(self._asked) >= MOST_ASKED:
                return "unchecked"
            if not isinstance(self._source, ReviewsTokens):
                return "unchecked"
            future = detached(partial(self._source.review, token.decode("latin-1")), "review")
            self._asked[digest] = future
            future.add_done_callback(partial(self._settle, digest))
        await asyncio.wait((future,), timeout=PATIENCE_S)
        if not future.done() or isinstance(future.exception(), SourceError):
            return "unchecked"
        return self._result(future.result())

    def _settle(self, digest: bytes, future: asyncio.Future[Reviewed]) -> None:
        """Keep what the API server said."""
        del self._asked[digest]
        if future.cancelled() or (error := future.exception()) is not None:
            self._away_until = self._timer() + AWAY_S
            if not future.cancelled() and isinstance(error, SourceError) and str(error) != self._told:
                self._told = str(error)
                _log.warning("cannot check tokens of readers", error=self._told)
            return
        self._told = ""
        result = self._result(future.result())
        kept = self._kept[result == "admitted"]
        kept[digest] = self._timer() + (KNOWN_S if result == "admitted" else UNKNOWN_S), result
        kept.move_to_end(digest)
        self._kept[result != "admitted"].pop(digest, None)
        while len(kept) > MOST_KEPT:
            kept.popitem(last=False)

    def _result(self, reviewed: Reviewed) -> str:
        if not reviewed.names:
            return "unauthenticated"
        return "forbidden" if not reviewed.own and self._users.isdisjoint(reviewed.names) else "admitted"

    def _is_proxy(self, address: str) -> bool:
        try:
            found = ipaddress.ip_address(address.partition("%")[0])
        except ValueError:
            return False
        if isinstance(found, ipaddress.IPv6Address) and found.ipv4_mapped is not None:
            found = found.ipv4_mapped
        return any(found in proxies for proxies in self._proxies)


class Guarded:
    """Lets requests in that a guard admits, and answers the others.

    Args:
        app: answers those let in.
        guard: decides.
    """

    def __init__(self, app: ASGIApp, guard: Guard) -> None:
        self._app = app
        self._guard = guard

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http" or scope["path"] in self._guard.open:
            await self._app(scope, receive, send)
            return
        client = scope.get("client")
        names = scope.get("state", {}).get(CERTIFIED)
        result = await self._guard.judged(client[0] if client else "", scope["headers"], names)
        self._guard.results[result] += 1
        if result == "admitted":
            await self._app(scope, receive, send)
            return
        headers = {"Cache-Control": "no-store"}
        headers |= {"WWW-Authenticate": "Bearer"} if result == "unauthenticated" else {}
        headers |= {"Retry-After": "1"} if result == "unchecked" else {}
        await JSONResponse({"detail": self._guard.why(result)}, _STATUS[result], headers)(scope, receive, send)
