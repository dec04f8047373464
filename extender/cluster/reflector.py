"""Follow one kind of object at the API server: list, watch, list again where a watch cannot go on. In its own thread.

The discipline is that of client-go's Reflector (k8s.io/client-go/tools/cache/reflector.go); why the Python client's own
SharedInformer is not used stands in docs/decisions/0003-reflector.md. Knows nothing of nodes, pods or tables: objects
go to a `Receiver`, in order, each one as the API server last showed it.

- A list comes in pages of one snapshot; its version is where the watch begins.
- What is known counts as current at a list, an event and a bookmark: these prove it. An answer that begins proves
  nothing, since a gateway may send its head and never an event.
- Watches end after `Timing.watch` seconds by our own wish, and the API server sends a bookmark before. So a quiet watch
  is proven at least that often, and one whose end does not come is given up after `Timing.grace` more. If none of some
  watches in a row proves anything, the reflector lists again.
- 410 Gone, from a list, a watch or inside one, means that events were missed: list again. So does an event that does
  not decode, an error inside a watch, and a watch that ends in order within `SHORT_WATCH` seconds without an event
  (client-go's VeryShortWatchError). A lost connection means nothing was missed: watch on from the last version.
- Failures wait `FIRST_WAIT` seconds, longer each time up to `LONGEST_WAIT`, with jitter; those in which the server was
  not reached count apart, up to `LONGEST_UNREACHED`. Lists that succeed do not shorten the wait: it is forgotten after
  `QUIET_TIME` seconds without a failure. One list in `FREE_LIST` seconds that 410 Gone asks for is free: an API server
  that restarts has no history, and can be listed at once.
- A list every `Timing.resync` seconds repairs whatever a bug anywhere may have broken.
"""

from __future__ import annotations

import math
import random
import threading
import time
from collections.abc import Callable
from typing import Final, Generic, TypeVar

import msgspec
import structlog

from extender.backoff import Backoff
from extender.cluster.answers import FORBIDDEN, GONE, TOO_MANY, UNAUTHORIZED, UNREACHED, ApiError
from extender.cluster.api import ApiServer
from extender.cluster.decoding import (
    UndecodableError,
    decode_bookmark,
    decode_event,
    decode_failure,
    decode_page,
    published_reason,
)
from extender.cluster.lines import Lines, gathered
from extender.cluster.resource import Receiver, Resource, Tally, Timing
from extender.errors import SourceError, kind_of
from extender.supervision import Failures

T = TypeVar("T")

SHORT_WATCH: Final = 1.0
"""A watch that is over sooner and without an event counts as a failure, seconds. If it ended in order, all is listed
again. One with events goes on after this time."""
FIRST_WAIT: Final = 1.6
"""Seconds of the first wait after a failure, before jitter cuts it by up to half: 0.8 at least, as in client-go."""
LONGEST_WAIT: Final = 30.0
"""Most seconds of a wait after a failure."""
LONGEST_UNREACHED: Final = 10.0
"""The same where the server was not reached: to try again costs it nothing, and it may be back any moment."""
QUIET_TIME: Final = 120.0
"""Seconds without a failure after which waits begin small again."""
FREE_LIST: Final = 60.0
"""Seconds between two lists that 410 Gone is answered with at once."""
UNPROVEN_WATCHES: Final = 2.0
"""Whole watches that may prove nothing, one after the other, before all is listed again."""
SAME_VERSION: Final = (UNREACHED, UNAUTHORIZED, FORBIDDEN, TOO_MANY)
"""Answers to the request of a watch after which the next one begins at the same version: nothing is wrong with it."""
JOIN_TIMEOUT: Final = 5.0
"""Seconds that `stop` waits for the thread, which may be connecting."""

log = structlog.stdlib.get_logger(__name__)


class _MissedError(SourceError):
    """Events were missed, or may have been: only a list can tell what is true now."""


class _ExpiredError(_MissedError):
    """The version that was asked from is too old."""


class Reflector(Generic[T]):
    """Keeps a receiver informed of every object of one resource.

    Attributes:
        tally: see there; written by the thread, read by anyone.
        trouble: the failure that keeps it from being current; None while all is well.
        current_at: when the receiver was last known to be told everything, on `clock`; None before the first list.
    """

    def __init__(
        self,
        resource: Resource[T],
        receiver: Receiver[T],
        api: ApiServer,
        timing: Timing,
        failures: Failures,
        clock: Callable[[], float] = time.monotonic,
        rng: random.Random | None = None,
    ) -> None:
        self._resource = resource
        self._receiver = receiver
        self._api = api
        self._timing = timing
        self._failures = failures
        self._clock = clock
        self._rng = rng if rng is not None else random.Random()  # noqa: S311 # nosec B311 # jitter
        self._backoff = Backoff(self._rng, FIRST_WAIT, LONGEST_WAIT, QUIET_TIME, clock)
        self._away = Backoff(self._rng, FIRST_WAIT, LONGEST_UNREACHED, QUIET_TIME, clock)
        self._version: str | None = None
        self._listed_at = self._free_at = -math.inf
        self._stopping = threading.Event()
        self._lines: Lines | None = None
        self._thread = threading.Thread(target=self._run, name=f"watch-{resource.name}", daemon=True)
        self.tally = Tally()
        self.trouble: str | None = None
        self.current_at: float | None = None

    @property
    def name(self) -> str:
        """Name of the resource."""
        return self._resource.name

    def staleness(self) -> float | None:
        """Seconds since the receiver was last known to be told everything; None before the first list."""
        at = self.current_at
        return None if at is None else max(0.0, self._clock() - at)

    def start(self) -> None:
        """Begin, in a thread of its own."""
        self._failures.expect(self._thread.name)
        self._thread.start()

    def stop(self) -> None:
        """Tell the thread to end, and end what it waits for; returns at once."""
        self._stopping.set()
        if (lines := self._lines) is not None:
            lines.abort()

    def join(self) -> None:
        """Wait for the end of the thread, after `stop`."""
        if self._thread.ident is not None:
            self._thread.join(JOIN_TIMEOUT)

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                self._follow()
            except BaseException as error:  # whatever happens, the thread goes on: without it the picture only ages
                if not self._stopping.is_set():
                    self._failures.record(self._thread.name, error)
                self._version = None
                self._failed(kind_of(error), self._backoff.delay())

    def _follow(self) -> None:
        """List where that is needed, and watch once."""
        try:
            if self._version is None:
                self._list()
            elif self._resync_due():
                self._resync()
            if not self._stopping.is_set():
                self._watch()
        except _MissedError as error:
            self.tally.expired += 1
            self._version = None
            free = isinstance(error, _ExpiredError) and self._may_list_at_once()
            self._failed(str(error), 0.0 if free else self._backoff.delay())
        except ApiError as error:
            backoff = self._away if error.status == UNREACHED else self._backoff
            self._failed(str(error), max(backoff.delay(), error.retry_after or 0.0))

    def _may_list_at_once(self) -> bool:
        """Whether the last list that was free is long ago; the next one is then."""
        now = self._clock()
        if now - self._free_at < FREE_LIST:
            return False
        self._free_at = now
        return True

    def _resync_due(self) -> bool:
        return 0.0 < self._timing.resync <= self._clock() - self._listed_at

    def _failed(self, trouble: str, delay: float) -> None:
        """Count and tell a failure, and wait so many seconds."""
        if self._stopping.is_set():
            return
        self.tally.failures += 1
        report = log.warning if self.trouble is None else log.debug
        self.trouble = trouble
        report("watch interrupted", resource=self._resource.name, error=trouble, retry_in_s=round(delay, 2))
        self._stopping.wait(delay)

    def _proven(self, at: float) -> None:
        """The server proved that the receiver was told everything until then."""
        self.current_at = at
        if self.trouble is not None:
            log.info("watch recovered", resource=self._resource.name)
            self.trouble = None

    def _resync(self) -> None:
        """List though nothing is known to be wrong. A failure is no reason to give up a watch that works."""
        try:
            self._list()
        except (ApiError, _MissedError) as error:
            self.tally.failures += 1
            # Sooner than a whole period, later than at once.
            self._listed_at = self._clock() - 0.9 * self._timing.resync
            log.warning("resync postponed", resource=self._resource.name, error=str(error))

    # ---- listing -------------------------------------------------------------------------------------------------

    def _list(self) -> None:
        resource, asked_at = self._resource, self._clock()
        query = {"limit": str(self._timing.page)}
        keys: set[str] = set()
        while True:
            try:
                page = decode_page(self._api.get(resource.path, query))
            except UndecodableError as error:
                raise _MissedError(str(error)) from error
            except ApiError as error:
                if error.status == GONE:
                    raise _ExpiredError(str(error)) from error
                raise
            for raw in page.items or ():
                if (listed := self._decoded(raw)) is not None:
                    keys.add(resource.key(listed))
                    self._listed(listed)
            if self._stopping.is_set():
                return
            if not page.metadata.continue_:
                break
            query["continue"] = page.metadata.continue_
        self._receiver.complete(keys)
        self._version = page.metadata.resource_version
        self._listed_at = self._clock()
        self.tally.lists += 1
        self._proven(asked_at)
        log.info("listed", resource=resource.name, objects=len(keys), seconds=round(self._listed_at - asked_at, 3))

    def _listed(self, listed: T) -> None:
        """Tell the receiver of one object of a list. One that it fails on must not keep the others from being seen."""
        try:
            self._receiver.present(listed)
        except Exception as error:
            self.tally.undecodable += 1
            self._failures.record(self._thread.name, error)

    # ---- watching ------------------------------------------------------------------------------------------------

    def _watch(self) -> None:
        began, events = self._clock(), 0
        lasting = max(1, round(self._timing.watch * self._rng.uniform(0.8, 1.2)))
        query = {
            "watch": "true",
            "allowWatchBookmarks": "true",
            "resourceVersion": self._version or "",
            "timeoutSeconds": str(lasting),
        }
        lost: ApiError | None = None
        with self._begun(query, lasting + self._timing.grace) as lines:
            self._lines = lines
            try:
                # `stop` may have looked for lines to end just before there were any.
                if self._stopping.is_set():
                    return
                for line in gathered(lines, self._stopping.wait):
                    # A TLS connection that `stop` shut down under its reader may yield anything.
                    if self._stopping.is_set():
                        return
                    self._event(line)
                    events += 1
            except ApiError as error:
                lost = error
            finally:
                self._lines = None
        self._ended(self._clock() - began, events, lost)

    def _begun(self, query: dict[str, str], silence: float) -> Lines:
        try:
            return self._api.lines(self._resource.path, query, silence)
        except ApiError as error:
            if error.status == GONE:
                raise _ExpiredError(str(error)) from error
            if error.status not in SAME_VERSION:
                raise _MissedError(str(error)) from error
            raise

    def _ended(self, lasted: float, events: int, lost: ApiError | None) -> None:
        """Judge a watch that is over; returns when the next one may begin."""
        name = self._resource.name
        unproven = UNPROVEN_WATCHES * (1.2 * self._timing.watch + self._timing.grace)
        if self.current_at is not None and self._clock() - self.current_at > unproven:
            raise _MissedError(f"watches of {name} bring neither events nor bookmarks")
        short = lasted < SHORT_WATCH
        if short and not events:
            raise lost or _MissedError(f"the API server ends watches of {name} at once")
        if lost is not None and not self._stopping.is_set():
            self.tally.failures += 1
            self.trouble = str(lost)
            log.info("watch lost; it goes on from the last version", resource=name, error=self.trouble)
        if short:
            self._stopping.wait(SHORT_WATCH)

    def _event(self, line: bytes) -> None:
        try:
            event = decode_event(line)
            if event.type == "BOOKMARK":
                self._version = decode_bookmark(event.object)
                self._proven(self._clock())
                return
            if event.type == "ERROR":
                failure = decode_failure(event.object)
                raised = _ExpiredError if failure.code == GONE else _MissedError
                raise raised(f"the watch ended with {failure.code} {published_reason(failure.reason)}".rstrip())
        except UndecodableError as error:
            self.tally.undecodable += 1
            raise _MissedError(str(error)) from error
        if event.type not in ("ADDED", "MODIFIED", "DELETED"):
            self.tally.undecodable += 1
            raise _MissedError("the watch sent an event of an unknown type")
        if (seen := self._decoded(event.object)) is not None:
            if event.type == "DELETED":
                self._receiver.absent(seen)
            else:
                self._receiver.present(seen)
            self._version = self._resource.version(seen) or self._version
        elif event.type == "DELETED":
            # what went cannot be told: only a list shows what is left
            raise _MissedError(f"the watch deleted one of {self._resource.name} that does not decode")
        self._proven(self._clock())

    def _decoded(self, raw: msgspec.Raw) -> T | None:
        """The object, or None, counted and logged, if it does not decode: the rest of the cluster must go on."""
        try:
            return self._resource.decode(raw)
        except UndecodableError as error:
            self.tally.undecodable += 1
            log.warning("object skipped", resource=self._resource.name, error=str(error))
            return None
