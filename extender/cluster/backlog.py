"""Pods that wait for this scheduler, as the watch shows them. Pure bookkeeping; refuses to rate them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Hashable, Set

from policy.cluster import PodDemand


class WaitingPods:
    """What unbound pods ask for, by UID, how many ask for the same, and which of them kube-scheduler gave up."""

    def __init__(self) -> None:
        self._demands: dict[str, PodDemand] = {}
        self._classes: Counter[PodDemand] = Counter()
        self._given_up: dict[str, int] = {}
        """Hash of what kube-scheduler said last, by UID: its messages may be long."""

    def __len__(self) -> int:
        """How many wait."""
        return len(self._demands)

    def __contains__(self, uid: str) -> bool:
        """Whether the pod waits."""
        return uid in self._demands

    def demand_of(self, uid: str) -> PodDemand | None:
        """Return what a pod asks for; None where it does not wait."""
        return self._demands.get(uid)

    def add(self, uid: str, demand: PodDemand) -> None:
        """The pod waits; replaces what was known of it."""
        self._forget(uid)
        self._demands[uid] = demand
        self._classes[demand] += 1

    def give_up(self, uid: str, said: Hashable) -> bool:
        """kube-scheduler says that it could not place the pod, and why; returns whether that is news."""
        before, now = self._given_up.get(uid), hash(said)
        self._given_up[uid] = now
        return now != before

    def was_given_up(self, uid: str) -> bool:
        """Whether kube-scheduler said of the pod that it could not place it."""
        return uid in self._given_up

    def end(self, uid: str) -> bool:
        """The pod waits no more: it is bound, or gone. Returns whether it did."""
        self._given_up.pop(uid, None)
        return self._forget(uid)

    def _forget(self, uid: str) -> bool:
        demand = self._demands.pop(uid, None)
        if demand is None:
            return False
        self._classes[demand] -= 1
        if not self._classes[demand]:
            del self._classes[demand]
        return True

    def beyond(self, uids: Collection[str]) -> set[str]:
        """Return every pod that is not in `uids` (pass a set)."""
        return {uid for uid in (*self._demands, *self._given_up) if uid not in uids}

    def classes(self, without: Set[str] = frozenset()) -> Counter[PodDemand]:
        """How many pods ask for the same, those in `without` left out; a copy. Goes through the smaller of both."""
        found = self._classes.copy()
        for uid in self._demands.keys() & without:
            found[self._demands[uid]] -= 1
        return +found
