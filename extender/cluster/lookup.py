"""Nodes that somebody names, as rows of the table: each once, unknown ones apart. Refuses to know who names them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from extender.cluster.table import UNKNOWN, ClusterTable

Rows = NDArray[np.intp]


@dataclass(frozen=True, slots=True)
class Named:
    """Nodes that a request names, as the table knew them; nobody may change it."""

    names: Sequence[str]  # as sent, duplicates included
    asked: Rows  # row of each of them, ``[len(names)]``; `UNKNOWN` for nodes that are not known
    rows: Rows  # the known ones, each once, in their order: kube-scheduler adds up duplicates
    unknown: Sequence[str]  # names of the others, each once
    assignments: int  # of the table; while it has the same, the rows mean the same nodes


def find(table: ClusterTable, names: Sequence[str]) -> Named:
    """The rows of these names, as they are now."""
    asked = table.rows_of(names)
    seen = np.zeros(table.capacity + 1, dtype=np.bool_)  # the last one stands for UNKNOWN
    seen[asked] = True
    if np.count_nonzero(seen) == len(asked) and not seen[UNKNOWN]:
        return Named(names, asked, asked, (), table.assignments)
    unknown = list(dict.fromkeys(names[i] for i in np.flatnonzero(asked == UNKNOWN).tolist()))
    rows = asked[asked != UNKNOWN]
    rows = rows[np.sort(np.unique(rows, return_index=True)[1])]
    return Named(names, asked, rows, unknown, table.assignments)
