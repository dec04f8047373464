"""One kind of object at the API server, who is told of it, and how the time to follow it is divided."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

import msgspec

from policy.errors import InvalidInputError

T = TypeVar("T")
Received = TypeVar("Received", contravariant=True)


@dataclass(frozen=True, slots=True)
class Resource(Generic[T]):
    """One kind of object."""

    name: str  # plural, for messages
    path: str  # of its list
    decode: Callable[[msgspec.Raw], T]  # raw object to typed one; raises `UndecodableError`
    key: Callable[[T], str]  # what tells one object from all others
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
    """How a reflector divides its time; seconds but for `page`."""

    page: int = 500  # objects in a page of a list
    watch: float = 30.0  # how long one watch lasts, give or take a fifth, so that clients spread out
    grace: float = 10.0  # how much longer than that a watch may be silent before it counts as dead
    resync: float = 1800.0  # how often everything is listed again; 0: never

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
