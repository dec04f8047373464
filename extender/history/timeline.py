"""The table's rows as they were when decisions were made. Refuses to know what was decided.

A decision may be about thousands of nodes, and few rows change between two decisions. So an epoch copies all rows once
and then each row that changed; a moment is an epoch and how many of its changes count. An epoch ends when its changes
take as much memory as the first copy, and is freed with the last decision that was made during it.
"""

from __future__ import annotations

from bisect import bisect_left
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from extender.cluster.table import ClusterTable, state_of
from policy.cluster import ClusterState

LEAST_CHANGES: Final = 256
"""Changes that an epoch has room for where the table is small."""

REFERENCE: Final = 8
"""Bytes of a reference to a row's name."""


class Epoch:
    """All rows of the table at one moment, and their changes for a while. Written by one thread, read by any.

    Args:
        table: as it stands now.

    Attributes:
        users: decisions remembered that were made during it; kept by the ledger.
        charged: bytes that the ledger counts for it.
    """

    __slots__ = (
        "_base",
        "_changed",
        "_marks",
        "_names",
        "_renamed",
        "_used",
        "_values",
        "_versions",
        "charged",
        "users",
    )

    def __init__(self, table: ClusterTable) -> None:
        self._base = table.lines()
        self._names = table.names()
        limit = max(len(self._names), LEAST_CHANGES)
        self._changed = np.empty(limit, dtype=np.int32)
        self._values = np.empty((limit, len(self._base)))
        self._renamed: list[str | None] = []
        self._used = 0
        self._versions = [table.version]
        self._marks = [0]
        self.users = 0
        self.charged = 0

    @property
    def rows(self) -> int:
        """Rows of the table, free ones included."""
        return len(self._names)

    @property
    def nbytes(self) -> int:
        """Memory in use, bytes."""
        return (self._values.strides[0] + REFERENCE) * (len(self._names) + self._used)

    def mark(self, table: ClusterTable) -> bool:
        """Add the rows that changed since the last mark; returns whether there was room."""
        if table.version == self._versions[-1]:
            return True
        rows = table.changed_since(self._versions[-1])
        begin, end = self._used, self._used + len(rows)
        if end > len(self._changed) or table.capacity != len(self._names):
            return False
        self._values[begin:end] = table.lines(rows).T
        self._changed[begin:end] = rows
        self._renamed += map(table.name_of, rows)
        self._used = end
        self._versions.append(table.version)
        self._marks.append(end)
        return True

    def at(self, version: int) -> Moment | None:
        """The moment at which the table had this version; None if it was not marked then."""
        if version == self._versions[-1]:
            return Moment(self, self._used)
        place = bisect_left(self._versions, version)
        if place == len(self._versions) or self._versions[place] != version:
            return None
        return Moment(self, self._marks[place])

    def recall(self, rows: NDArray[np.integer], changes: int) -> tuple[list[str], ClusterState]:
        """Names and columns ``[n]`` of these rows, once so many of the changes were made."""
        latest = np.full(len(self._names), -1)
        np.maximum.at(latest, self._changed[:changes], np.arange(changes))
        latest = latest.take(rows)
        moved = latest >= 0
        block = self._base.take(rows, axis=1)
        block[:, moved] = self._values[latest[moved]].T
        names, renamed = self._names, self._renamed
        told = [
            (names[row] if change < 0 else renamed[change]) or ""
            for row, change in zip(rows.tolist(), latest.tolist(), strict=True)
        ]
        return told, state_of(block, np.zeros(len(rows), dtype=np.int64))


class Moment(NamedTuple):
    """When a decision was made: an epoch, and how many of its changes had been made."""

    epoch: Epoch
    changes: int

    def recall(self, rows: NDArray[np.integer]) -> tuple[list[str], ClusterState]:
        """Names and columns ``[n]`` of these rows at that moment."""
        return self.epoch.recall(rows, self.changes)


class Timeline:
    """Notes how the table changes from decision to decision. Owned by the table's thread.

    Args:
        table: whose rows are kept.
    """

    def __init__(self, table: ClusterTable) -> None:
        self._table = table
        self._epoch: Epoch | None = None
        self._former: Epoch | None = None

    def mark(self) -> None:
        """Keep the columns as they stand: what changed since `ClusterTable.state` was last read is not in them."""
        if self._epoch is None or not self._epoch.mark(self._table):
            self._former, self._epoch = self._epoch, Epoch(self._table)

    def at(self, version: int) -> Moment | None:
        """The moment, among the latest, at which the table had this version; None if it was not marked then."""
        if self._table.version == version:
            self.mark()
        found = None if self._epoch is None else self._epoch.at(version)
        return self._former.at(version) if found is None and self._former is not None else found
