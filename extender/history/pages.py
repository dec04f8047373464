"""A sequence that grows at one end, loses items anywhere, and can be read from any thread while it does.

To copy a hundred thousand items in order stops every other thread for the time it takes. Here a reader copies one page
at a time.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final, Generic, TypeVar

T = TypeVar("T")

PAGE: Final = 256
"""Items of a page."""


@dataclass(slots=True, eq=False)
class _Page(Generic[T]):
    items: list[T | None] = field(default_factory=list)
    left: int = 0  # items that are still there
    first: int = 0  # where to look for the first of them


class Pages(Generic[T]):
    """Items in the order in which they were added, each at a place: a number that only grows.

    One thread at a time may change it; any number may read.
    """

    def __init__(self) -> None:
        self._pages: dict[int, _Page[T]] = {}
        self._next = 0

    def add(self, item: T) -> int:
        """Add an item after all others; return its place."""
        place = self._next
        number, index = divmod(place, PAGE)
        page = self._pages.get(number)
        if page is None:
            page = self._pages[number] = _Page()
            page.items.extend([None] * index)  # a page that was emptied meanwhile
        page.items.append(item)
        page.left += 1
        self._next += 1
        return place

    def remove(self, place: int) -> None:
        """Remove the item at a place where there is one."""
        number, index = divmod(place, PAGE)
        page = self._pages[number]
        page.items[index] = None
        page.left -= 1
        if not page.left:
            del self._pages[number]

    def oldest(self) -> T:
        """Return the item that was added before all others. Raises `LookupError` if there is none."""
        for page in self._pages.values():
            for index in range(page.first, len(page.items)):
                item = page.items[index]
                if item is not None:
                    page.first = index
                    return item
        raise LookupError("no item is left")

    def newest_first(self, before: int | None = None) -> Iterator[tuple[int, T]]:
        """Yield place and item, newest first; of those at places below `before` alone, where it is given."""
        for number, page in reversed(list(self._pages.items())):
            begin = number * PAGE
            items = list(page.items if before is None else page.items[: max(before - begin, 0)])
            for index in reversed(range(len(items))):
                item = items[index]
                if item is not None:
                    yield begin + index, item
