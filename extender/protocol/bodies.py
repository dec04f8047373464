"""The requests that came last, and which rows their names mean. Refuses to answer anything.

kube-scheduler asks about one pod twice, in the same words: /filter answers with the names that were sent, and
/prioritize sends these. So a body is decoded once for both, and so is a list of names that two pods share, which small
clusters send with every pod. Bytes are compared, not hashed: that ends at the first letter that differs.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Final

from extender.cluster.lookup import Named, find
from extender.cluster.table import ClusterTable
from extender.protocol.wire import NULL, SchedulingRequest, decode_names, decode_scheduling

REMEMBERED: Final = 8
"""Bodies kept, and lists: one for each scheduler that asks at once, with some to spare. Of 5,000 names 0.6 MB each."""

LONGEST_POD: Final = 64 * 1024
"""Longest pod, in bytes, of a body that is kept; pods of kube-scheduler have some thousand."""

LONGEST_LIST: Final = 2 * 1024 * 1024
"""Longest list of names that is kept: 20,000 names take 1.2 MB, and 1 MB more once they are decoded."""

MOST_NAMES: Final = 50_000
"""Names in a list that is kept: short ones take ten times their bytes once they are decoded."""


@dataclass(slots=True)
class _List:
    """A list of names: its JSON, the names, and the nodes they meant when that was looked up last."""

    text: bytes
    names: list[str]
    named: Named | None = None


class RecentRequests:
    """Decodes ExtenderArgs; remembers the last that name nodes, not those that bring them, nor large ones."""

    def __init__(self, table: ClusterTable) -> None:
        self._table = table
        self._requests: deque[tuple[bytes, SchedulingRequest]] = deque(maxlen=REMEMBERED)
        self._lists: deque[_List] = deque(maxlen=REMEMBERED)

    def decode(self, body: bytes) -> SchedulingRequest:
        """Body of `/filter` or `/prioritize`.

        Raises:
            WireError: it is not ExtenderArgs; the message names the JSON path.
        """
        for known, request in self._requests:
            if known == body:
                return request
        request = decode_scheduling(body, self._names)
        names = request.names_json
        if names != NULL and len(body) - len(names) <= LONGEST_POD and _small(names, request.names):
            self._requests.appendleft((body, request))
        return request

    def named(self, request: SchedulingRequest) -> Named:
        """The nodes of a request, as the table knows them now."""
        for each in self._lists:
            if each.names is request.names:
                if each.named is None or each.named.assignments != self._table.assignments:
                    each.named = find(self._table, each.names)
                return each.named
        return find(self._table, request.names)

    def _names(self, text: bytes) -> list[str]:
        for each in self._lists:
            if each.text == text:
                return each.names
        names = decode_names(text)
        if _small(text, names):
            self._lists.appendleft(_List(text, names))
        return names


def _small(text: bytes, names: list[str]) -> bool:
    return len(text) <= LONGEST_LIST and len(names) <= MOST_NAMES
