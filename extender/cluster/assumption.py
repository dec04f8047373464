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

An assumption ends when the watch shows where the pod really went, when the pod is deleted, when the same pod is scored
again (the first attempt failed), or after a time limit (the attempt failed and nobody told us).
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

from policy.errors import InvalidInputError


@dataclass(frozen=True, slots=True)
class Assumption:
    """One placement that is believed but not seen.

    Attributes:
        uid: UID of the pod.
        node: name of the node it is believed to go to.
        at: when it was assumed, seconds of the table's clock.
    """

    uid: str
    node: str
    at: float


class AssumedPlacements:
    """The assumptions in force, oldest first.

    Args:
        time_limit: seconds after which an unconfirmed assumption ends, > 0.

    Raises:
        InvalidInputError: the time limit is not positive.
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

    def uids(self) -> list[str]:
        """The pods whose placement is assumed, oldest first."""
        return list(self._by_uid)

    def add(self, assumption: Assumption) -> None:
        """Believe it; replaces what was believed of the same pod."""
        self._by_uid[assumption.uid] = assumption
        self._by_uid.move_to_end(assumption.uid)

    def end(self, uid: str) -> Assumption | None:
        """Stop believing; returns what was believed, or None."""
        return self._by_uid.pop(uid, None)

    def expired(self, now: float) -> list[Assumption]:
        """Remove and return every assumption older than the time limit.

        Where the clock was set back, those from its future begin anew: they would outlive their limit by the jump.
        """
        for uid, assumption in self._by_uid.items():
            if assumption.at > now:
                self._by_uid[uid] = Assumption(uid, assumption.node, now)
        ended = []
        while self._by_uid:
            oldest = next(iter(self._by_uid.values()))
            if now - oldest.at < self.time_limit:
                break
            ended.append(oldest)
            del self._by_uid[oldest.uid]
        return ended
