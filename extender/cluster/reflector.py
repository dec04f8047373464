"""Follow one kind of object at the API server: list, watch, list again where a watch cannot go on. In its own thread.

The discipline is that of client-go's Reflector (k8s.io/client-go/tools/cache/reflector.go); why the Python client's own
SharedInformer is not used stands in docs/decisions/0003-reflector.md. Knows nothing of nodes, pods or tables: objects
go to a `Receiver`, in order, each one as the API server last showed it.

- A list comes in pages of one snapshot; its version is where the watch begins.
- Watches end after `Timing.watch` seconds by our own wish. A quiet watch would else tell nothing, alive or dead; so it
  is known to be alive at least that often, and one whose end does not come is given up after `Timing.grace` more.
- 410 Gone, from a list, a watch or inside one, means that events were missed: list again. So does an event that does
  not decode, and an error inside a watch. A lost connection means nothing was missed: watch on from the last version.
- Every failure waits, longer each time, with jitter; also a watch that the server ends at once.
- A list every `Timing.resync` seconds repairs whatever a bug anywhere may have broken.

The module is long because listing and watching share one state: the version, the age, and what went wrong last.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Final, Generic, Protocol, TypeVar

import msgspec
import structlog

from extender.backoff import Backoff
from extender.cluster.api import GONE, ApiError, ApiServer, Lines
from extender.cluster.decoding import (
    UndecodableError,
    decode_bookmark,
    decode_event,
    decode_failure,
    decode_page,
)
from extender.errors import SourceError
from policy.errors import InvalidInputError

T = TypeVar("T")
Received = TypeVar("Received", contravariant=True)

SHORT_WATCH: Final = 1.0
"""A watch that ends sooner without an event counts as a failure, seconds."""
QUIET: Final = 0.0005
"""A watch is quiet if its next event takes longer than this to come, seconds; what has arrived already takes less."""
GATHER: Final = 0.01
"""How long events may gather after one that broke the quiet, seconds; see `gathered`."""
JOIN_TIMEOUT: Final = 10.0
"""Seconds that `stop` waits for the thread, which may be connecting."""

log = structlog.stdlib.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Resource(Generic[T]):
    """One kind of object.

    Attributes:
        name: plural, for messages.
        path: of its list.
        decode: raw object to typed one; raises `UndecodableError`.
        key: what tells one object from all others.
        version: its resourceVersion.
    """

    name: str
    path: str
    decode: Callable[[msgspec.Raw], T]
    key: Callable[[T], str]
    version: Callable[[T], str]


class Receiver(Protocol[Received]):
    """Is told of objects, on the reflector's thread."""

    def present(self, received: Received) -> None:
        """The object exists and looks like this."""
        ...

    def absent(self, received: Received) -> None:
        """The object is gone; this is how it looked last."""
        ...

    def complete(self, keys: set[str]) -> None:
        """A list has ended: whatever is not in `keys` does not exist."""
        ...


@dataclass(frozen=True, slots=True)
class Timing:
    """How a reflector divides its time; seconds but for `page`.

    Attributes:
        page: objects in a page of a list.
        watch: how long one watch lasts, give or take a fifth, so that clients spread out.
        grace: how much longer than that a watch may be silent before it counts as dead.
        resync: how often everything is listed again; 0: never.

    Raises:
        InvalidInputError: a value is out of range.
    """

    page: int = 500
    watch: float = 30.0
    grace: float = 10.0
    resync: float = 1800.0

    def __post_init__(self) -> None:
        for name, low in (("page", 1), ("watch", 1.0), ("grace", 0.1), ("resync", 0.0)):
            if not getattr(self, name) >= low:
                raise InvalidInputError(f"Timing.{name} is {getattr(self, name)}; give at least {low}")


@dataclass(slots=True)
class Tally:
    """What happened so far: lists that ended, re-lists forced by the server, failures, objects that do not decode."""

    lists: int = 0
    expired: int = 0
    failures: int = 0
    undecodable: int = 0


class _MissedError(SourceError):
    """Events were missed, or may have been: only a list can tell what is true now."""


def gathered(
    lines: Iterable[bytes], wait: Callable[[float], object], timer: Callable[[], float] = time.perf_counter
) -> Iterator[bytes]:
    """The lines; those that come one by one in quick succession are left to gather, and then come together.

    A line after a quiet moment comes at once. The reader then waits a little before it asks for more: each time it is
    woken, this thread, the event loop after it and whoever had the core before lose their caches, which costs more than
    what the event tells. Lines that are there already are never waited for: a full stream is read as fast as it comes.

    Args:
        lines: to read.
        wait: called with the seconds to wait, when what has arrived so far is dealt with.
        timer: seconds.
    """
    asked = timer()
    for line in lines:
        quiet = timer() - asked > QUIET
        yield line
        if quiet:
            wait(GATHER)
        asked = timer()


class Reflector(Generic[T]):
    """Keeps a receiver informed of every object of one resource.

    Args:
        resource: what to follow.
        receiver: whom to tell.
        api: where from.
        timing: see there.
        clock: monotonic seconds.
        rng: jitter; seed it to repeat a run.

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
        clock: Callable[[], float] = time.monotonic,
        rng: random.Random | None = None,
    ) -> None:
        self._resource = resource
        self._receiver = receiver
        self._api = api
        self._timing = timing
        self._clock = clock
        self._rng = rng if rng is not None else random.Random()  # noqa: S311 # nosec B311 # jitter
        self._backoff = Backoff(self._rng)
        self._version: str | None = None
        self._listed_at = 0.0
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
                if self._version is None:
                    self._list()
                elif self._resync_due():
                    self._resync()
                self._watch()
            except _MissedError as error:
                self.tally.expired += 1
                self._version = None
                if self.trouble is None:
                    self._backoff.reset()  # the server answers again: what the wait grew for is over
                self._failed(error)
            except ApiError as error:
                if error.status == GONE:
                    self.tally.expired += 1
                    self._version = None
                self._failed(error)
            except Exception as error:
                # A bug must not end the watch for good and leave scores on a picture that ages: list again.
                if not self._stopping.is_set():
                    log.exception("watching failed in an unexpected way", resource=self._resource.name)
                self._version = None
                self._failed(error)

    def _resync_due(self) -> bool:
        return 0.0 < self._timing.resync <= self._clock() - self._listed_at

    def _failed(self, error: Exception) -> None:
        if self._stopping.is_set():
            return
        self.tally.failures += 1
        report = log.warning if self.trouble is None else log.debug
        self.trouble = str(error)
        delay = max(self._backoff.delay(), getattr(error, "retry_after", None) or 0.0)
        report("watch interrupted", resource=self._resource.name, error=self.trouble, retry_in_s=round(delay, 2))
        self._stopping.wait(delay)

    def _working(self, at: float | None = None) -> None:
        """The server proved that we are up to date."""
        self.current_at = self._clock() if at is None else at
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
            for raw in page.items or ():
                if (listed := self._decoded(raw)) is not None:
                    keys.add(resource.key(listed))
                    self._receiver.present(listed)
            if self._stopping.is_set():
                return
            if not page.metadata.continue_:
                break
            query["continue"] = page.metadata.continue_
        self._receiver.complete(keys)
        self._version = page.metadata.resource_version
        self._listed_at = self._clock()
        self.tally.lists += 1
        self._backoff.reset()
        self._working(asked_at)
        log.info("listed", resource=resource.name, objects=len(keys), seconds=round(self._listed_at - asked_at, 3))

    # ---- watching ------------------------------------------------------------------------------------------------

    def _watch(self) -> None:
        resource, began, events = self._resource, self._clock(), 0
        lasting = max(1, round(self._timing.watch * self._rng.uniform(0.8, 1.2)))
        query = {
            "watch": "true",
            "allowWatchBookmarks": "true",
            "resourceVersion": self._version or "",
            "timeoutSeconds": str(lasting),
        }
        with self._api.lines(resource.path, query, lasting + self._timing.grace) as lines:
            self._lines = lines
            try:
                # `stop` may have looked for lines to end just before there were any.
                if self._stopping.is_set():
                    return
                self._working()
                for line in gathered(lines, self._stopping.wait):
                    # A TLS connection that `stop` shut down under its reader may yield anything.
                    if self._stopping.is_set():
                        return
                    self._event(line)
                    events += 1
                    self._backoff.reset()
            finally:
                self._lines = None
        if not events and self._clock() - began < SHORT_WATCH:
            raise ApiError(f"the API server ends watches of {resource.name} at once")
        self._backoff.reset()
        self._working()

    def _event(self, line: bytes) -> None:
        try:
            event = decode_event(line)
            if event.type == "BOOKMARK":
                self._version = decode_bookmark(event.object)
                self._working()
                return
            if event.type == "ERROR":
                failure = decode_failure(event.object)
                raise _MissedError(f"the watch ended with {failure.code} {failure.reason or ''}: {failure.message}")
        except UndecodableError as error:
            self.tally.undecodable += 1
            raise _MissedError(str(error)) from error
        if event.type not in ("ADDED", "MODIFIED", "DELETED"):
            self.tally.undecodable += 1
            raise _MissedError(f"the watch sent an event of the unknown type {event.type[:40]!r}")
        if (seen := self._decoded(event.object)) is not None:
            if event.type == "DELETED":
                self._receiver.absent(seen)
            else:
                self._receiver.present(seen)
            self._version = self._resource.version(seen) or self._version
        self._working()

    def _decoded(self, raw: msgspec.Raw) -> T | None:
        """The object, or None, counted and logged, if it does not decode: the rest of the cluster must go on."""
        try:
            return self._resource.decode(raw)
        except UndecodableError as error:
            self.tally.undecodable += 1
            log.warning("object skipped", resource=self._resource.name, error=str(error))
            return None
