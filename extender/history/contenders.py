"""Every node that a decision was about, with its preference, its priority and its row as it was; in bounded memory.

A contender takes 7 bytes with a policy and 11 with a heuristic, whose preferences are float64. `Recollection` bounds
the sum over all decisions, the rows' past included (`extender.history.timeline`): the oldest are forgotten first.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

import numpy as np
from numpy.typing import NDArray

from extender.history.timeline import Moment
from policy.cluster import ClusterState

OVERHEAD: Final = 700
"""Bytes of a decision's contenders that do not grow with their number: the objects around the arrays."""


@dataclass(frozen=True, slots=True)
class Recalled:
    """Contenders with their rows as they were, best first."""

    names: tuple[str, ...]  # of the nodes, ``[n]``
    state: ClusterState  # their rows, ``[n]``
    # preferences, priorities: theirs, ``[n]``
    preferences: NDArray[np.floating[Any]]
    priorities: NDArray[np.int64]
    unknown: tuple[str, ...] = ()  # names of the nodes that the table did not know


class Contenders:
    """The nodes of one decision.

    Args:
        moment: when it was made.
        rows: distinct known nodes by row, ``[n]``.
        preferences: theirs, ``[n]``; kept as given, so nobody may change it.
        priorities: theirs, ``[n]``, 0..10.
        unknown: names of all other nodes.
        temperature: with which the preferences became priorities.
    """

    __slots__ = ("moment", "preferences", "priorities", "rows", "temperature", "unknown")

    def __init__(
        self,
        moment: Moment,
        rows: NDArray[np.intp],
        preferences: NDArray[np.floating[Any]],
        priorities: NDArray[np.int64],
        unknown: Sequence[str],
        temperature: float,
    ) -> None:
        self.moment = moment
        self.rows: NDArray[np.unsignedinteger[Any]] = rows.astype(
            np.uint16 if moment.epoch.rows <= 1 << 16 else np.uint32
        )
        self.preferences = preferences
        self.priorities = priorities.astype(np.int8)
        self.unknown = tuple(unknown)
        self.temperature = temperature

    @property
    def nbytes(self) -> int:
        """Memory in use without the epoch's, bytes."""
        arrays = self.rows.nbytes + self.preferences.nbytes + self.priorities.nbytes
        return OVERHEAD + arrays + sum(64 + len(name) for name in self.unknown)

    def priority(self, row: int) -> tuple[int, bool] | None:
        """The priority of the node in this row, and whether none was higher; None if it is not among them."""
        found = np.flatnonzero(self.rows == row).tolist() if row >= 0 else []
        if not found:
            return None
        priority = int(self.priorities[found[0]])
        return priority, priority == int(self.priorities.max())

    def recall(self) -> Recalled:
        """All known nodes with their rows as they were, best first: the highest priority, then the preferences."""
        order = np.lexsort((-self.preferences.astype(np.float64), self.priorities != self.priorities.max(initial=0)))
        names, state = self.moment.recall(self.rows.take(order))
        priorities = self.priorities.take(order).astype(np.int64)
        return Recalled(tuple(names), state, self.preferences.take(order), priorities, self.unknown)


class Remembers(Protocol):
    """A decision, as far as this module is concerned."""

    number: int
    contenders: Contenders | None


class Recollection:
    """Bounds what all decisions' contenders take. Not thread safe: the ledger holds its lock.

    Args:
        limit: most bytes.

    Attributes:
        nbytes: bytes in use.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.nbytes = 0
        self._order: OrderedDict[int, Remembers] = OrderedDict()

    def __len__(self) -> int:
        """Decisions whose contenders are remembered."""
        return len(self._order)

    def add(self, decision: Remembers) -> None:
        """Count a new decision's contenders, and forget the oldest ones while all take more than the limit."""
        contenders = decision.contenders
        if contenders is None:
            return
        epoch = contenders.moment.epoch
        self._order[decision.number] = decision
        epoch.users += 1
        charge = epoch.nbytes
        self.nbytes += contenders.nbytes + charge - epoch.charged
        epoch.charged = charge
        while self.nbytes > self.limit and self._order:
            self.forget(next(iter(self._order.values())))

    def forget(self, decision: Remembers) -> None:
        """Drop a decision's contenders."""
        contenders, decision.contenders = decision.contenders, None
        if contenders is None or self._order.pop(decision.number, None) is None:
            return
        epoch = contenders.moment.epoch
        self.nbytes -= contenders.nbytes
        epoch.users -= 1
        if not epoch.users:
            self.nbytes -= epoch.charged
            epoch.charged = 0
