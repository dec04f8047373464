"""Placements the watch has not confirmed yet. Pure bookkeeping; refuses to touch the columns of the table.

kube-scheduler decides one pod after the other and binds in the background. The answer to `/prioritize` names no node,
and the watch shows `spec.nodeName` some milliseconds later: long enough for a burst of pods to be scored on the same
outdated rows and to herd onto one node. So each answer assumes a placement at once:

- After `/bind` the node is known.
- After `/prioritize` it is where we rated one node above all others and no in-tree score outweighs that. So one node is
  rated above all others: of those that would share the highest priority, the one of the highest preference keeps it (of
  equals, one that is drawn), and the others get one less. If they all kept it, kube-scheduler would draw, not we:
  measured with a burst of 100 equal pods on 20 equal nodes, at most 26 of our own draws hit its node, the watch took
  0.1 to 0.2 s to correct the others, and nodes got 1 to 12 pods. With one node singled out each got 5.
  The price is one level: an in-tree score decides between nodes that we rate alike only if it is worth more than that.

An assumption ends with the first fact that contradicts it:

- The watch shows where the pod really went, or that it is deleted or being deleted.
- kube-scheduler says in the pod's condition PodScheduled that it could not place the pod. A cycle for a pod group asks
  for a node for each of its pods, and gives all of them up if one finds none; a preemption for such a group asks about
  a cluster without its victims (GenericWorkload, 1.36 and later). The same failure again changes no condition, and
  nobody hears of it: so the placement of a pod that was given up before is believed for `RETRIED_LIMIT` at most, or
  for `GANG_LIMIT` if it belongs to a group.
- `status.nominatedNodeName` names another node: the pod is expected there.
- The pod is asked about again, by any verb but /bind: the attempt before has failed.
- A time limit passes (the attempt failed and nobody told us).
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import KeysView
from dataclasses import dataclass, replace
from typing import Final

from policy.errors import InvalidInputError

RETRIED_LIMIT: Final = 5.0
"""Seconds for which the placement of a pod is believed that kube-scheduler gave up before. Assumption: a bind that
takes longer, because of its volumes, is announced as a nomination."""

GANG_LIMIT: Final = 1.0
"""The same where the pod belongs to a group. A group without room is tried again every few seconds, for as long as that
lasts, and asks for placements each time."""


@dataclass(frozen=True, slots=True)
class Assumption:
    """One placement that is believed but not seen."""

    uid: str
    node: str
    at: float  # when it was assumed, seconds of the table's clock
    limit: float  # seconds for which it is believed


class AssumedPlacements:
    """The assumptions in force, oldest first.

    Args:
        time_limit: seconds after which an unconfirmed assumption ends, > 0.
    """

    def __init__(self, time_limit: float) -> None:
        if not time_limit > 0.0:
            raise InvalidInputError(f"time limit of assumed placements is {time_limit}; give seconds > 0")
        self.time_limit = time_limit
        self._by_uid: OrderedDict[str, Assumption] = OrderedDict()

    def __len__(self) -> int:
        """How many placements are assumed."""
        return len(self._by_uid)

    def __contains__(self, uid: str) -> bool:
        """Whether the pod's placement is assumed."""
        return uid in self._by_uid

    def uids(self) -> KeysView[str]:
        """The pods whose placement is assumed, oldest first; a view."""
        return self._by_uid.keys()

    def add(self, uid: str, node: str, now: float, longest: float = math.inf) -> None:
        """Believe it; replaces what was believed of the same pod.

        Args:
            uid: UID of the pod.
            node: name of the node it is believed to go to.
            now: seconds of the table's clock.
            longest: seconds for which it is believed, if that is less than the time limit.
        """
        self._by_uid[uid] = Assumption(uid, node, now, min(self.time_limit, longest))
        self._by_uid.move_to_end(uid)

    def get(self, uid: str) -> Assumption | None:
        """What is believed of the pod, or None."""
        return self._by_uid.get(uid)

    def end(self, uid: str) -> Assumption | None:
        """Stop believing; returns what was believed, or None."""
        return self._by_uid.pop(uid, None)

    def expired(self, now: float) -> list[Assumption]:
        """Remove and return every assumption older than its limit.

        Where the clock was set back, those from its future begin anew: they would outlive their limit by the jump.
        """
        for uid, assumption in self._by_uid.items():
            if assumption.at > now:
                self._by_uid[uid] = replace(assumption, at=now)
        ended = [each for each in self._by_uid.values() if now - each.at >= each.limit]
        for each in ended:
            del self._by_uid[each.uid]
        return ended
