"""Which decisions are listed, and how the lists of several replicas become one. Pure."""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import urlencode

from extender.engine import WATCH
from extender.history.ledger import Decision
from extender.operations.peers import ALONE, THIS

_PLACE: Final = rf"({THIS}|[0-9a-fA-F.:]{{2,45}})=[0-9]{{1,18}}"
CURSOR: Final = rf"^([0-9]{{1,18}}|{_PLACE}(,{_PLACE}){{0,15}}|)$"
"""Where a list goes on: a place in one ledger, or one in the ledger of each replica."""

Part = tuple[list[dict[str, Any]], int | None]
"""A replica's decisions, newest first, each with its place, and where its next page begins; None: there is none."""


@dataclass(frozen=True, slots=True)
class Search:
    """Which decisions are wanted."""

    limit: int  # most of them
    before: str = ""  # the `next` of the list that this one goes on from, as `CURSOR`; empty: from the newest
    # namespace, name: of the pods; None: any
    namespace: str | None = None
    name: str | None = None
    search: str = ""  # words that must all stand in the pod, its namespace or UID, its node, scorer or state
    words: list[str] = field(init=False)
    cursor: dict[str, int] = field(init=False)  # places by replica

    def __post_init__(self) -> None:
        object.__setattr__(self, "words", self.search.lower().split())
        pairs = (each.rpartition("=") for each in self.before.split(",") if each)
        object.__setattr__(self, "cursor", {name or THIS: int(place) for name, _, place in pairs})

    def before_of(self, own: str) -> int | None:
        """Return the place in this replica's ledger before which it goes on; None: from the newest.

        Args:
            own: address of this replica, which a list of its own decisions alone does not name.
        """
        return self.cursor.get(own, self.cursor.get(THIS, 0)) if self.cursor else None

    def fits(self, decision: Decision) -> bool:
        """Return whether a decision is wanted."""
        if self.namespace not in (None, decision.namespace) or self.name not in (None, decision.name):
            return False
        if not self.words:
            return True
        outcome = decision.outcome
        node = decision.assumed if outcome is None or outcome.node is None else outcome.node
        state = "waiting" if outcome is None else outcome.state
        text = f"{decision.namespace}\n{decision.name}\n{decision.uid}\n{node}\n{decision.scorer}\n{state}".lower()
        return all(map(text.__contains__, self.words))  # of thousands of decisions: no generator for each

    def path(self, replica: str) -> str | None:
        """Return what to ask another replica; empty: it has no more; None: it did not answer for the page before."""
        before = self.cursor.get(replica)
        if before is None and self.cursor:
            return None
        if before == 0:
            return ""
        told = {"limit": self.limit, "before": before, "namespace": self.namespace, "name": self.name}
        query = {key: value for key, value in told.items() if value is not None} | {"search": self.search}
        return f"/v1/decisions?{ALONE}&{urlencode(query)}"


def merged(parts: Mapping[str, Part], search: Search) -> tuple[list[dict[str, Any]], str | None]:
    """Return the newest decisions of all replicas, newest first, and where to go on; None where there are no more.

    Each says which replica it comes from (``replica``). What a replica noted of a pod about which it was not asked
    (`extender.unasked`) is left out where another was asked.
    """
    asked = {row["pod"]["uid"] for rows, _ in parts.values() for row in rows if row["verb"] != WATCH}
    lists = ([(row, name) for row in rows] for name, (rows, _) in parts.items())
    chosen, taken = list[dict[str, Any]](), Counter[str]()
    for row, name in heapq.merge(*lists, key=lambda it: -float(it[0]["at"])):
        if len(chosen) == search.limit:
            break
        taken[name] += 1
        if row["verb"] != WATCH or row["pod"]["uid"] not in asked:
            chosen.append({key: value for key, value in row.items() if key != "place"} | {"replica": name})
    cursor = {name: place for name, place in search.cursor.items() if name != THIS}  # of silent replicas too
    for name, (rows, following) in parts.items():
        if taken[name] == len(rows):
            cursor[name] = following or 0
        else:
            cursor[name] = rows[taken[name] - 1]["place"] if taken[name] else rows[0]["place"] + 1
    more = any(cursor[name] for name in parts)
    return chosen, ",".join(f"{name}={place}" for name, place in cursor.items()) if more else None
