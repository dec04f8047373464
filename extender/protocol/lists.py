"""The lists of names that came last, and which rows they mean. Refuses to answer anything.

kube-scheduler asks about the same nodes twice, in the same words: /filter answers with the names that were sent, and
/prioritize sends these. So the text of a list is decoded and looked up once, between the two answers where possible.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

from extender.cluster.named import Named, find
from extender.cluster.table import ClusterTable
from extender.protocol.wire import NULL, SchedulingRequest, decode_names

REMEMBERED: Final = 8
"""Lists kept: one for each scheduler that asks at once, with some to spare. One of 5,000 names takes 0.5 MB."""


class NameLists:
    """Remembers the last lists.

    Args:
        table: whose rows they mean.
    """

    def __init__(self, table: ClusterTable) -> None:
        self._table = table
        self._names: OrderedDict[bytes, list[str]] = OrderedDict()
        self._named: dict[bytes, Named] = {}

    def decode(self, text: bytes) -> list[str]:
        """The names in a JSON list; raises `WireError` if it is none."""
        names = self._names.get(text)
        if names is None:
            names = self._names[text] = decode_names(text)
            if len(self._names) > REMEMBERED:
                oldest, _ = self._names.popitem(last=False)
                self._named.pop(oldest, None)
        return names

    def named(self, request: SchedulingRequest) -> Named:
        """The nodes of a request, as the table knows them now."""
        text = request.names_json
        if text == NULL or text not in self._names:
            return find(self._table, request.names)
        named = self._named.get(text)
        if named is None or named.assignments != self._table.assignments:
            named = self._named[text] = find(self._table, request.names)
        return named
