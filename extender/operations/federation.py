"""What this replica asks the others about decisions that it does not remember itself."""

from __future__ import annotations

from typing import Any, Final
from urllib.parse import quote, urlencode

from extender.engine import WATCH
from extender.operations.peers import ALONE, Heard, Peers
from extender.operations.search import Part, Search
from extender.operations.shapes import cased, explained, listed


class Replicas:
    """The other replicas.

    Args:
        peers: who they are; None: there are none.
    """

    def __init__(self, peers: Peers | None) -> None:
        self._peers = peers

    @property
    def any(self) -> bool:
        """Whether there may be other replicas."""
        return self._peers is not None

    def asked_for(self, own: dict[str, Any] | None) -> bool:
        """Return whether others may have a better explanation than this replica's own."""
        return self.any and (own is None or own["verb"] == WATCH)

    async def listing(self, search: Search) -> Heard[Part] | None:
        """Return the decisions that each remembers; None where there are no other replicas."""
        if self._peers is None:
            return None
        return await self._peers.ask(search.path, listed, "no answer for the page before")

    async def best(
        self, own: dict[str, Any] | None, uid: str, why_not: str | None, ranking: int | None
    ) -> tuple[dict[str, Any] | None, str]:
        """Return the best explanation that any replica has, and who did not answer where there is none.

        A replica that was not asked about a pod takes it for one with a single feasible node, once it sees it bound. So
        one that was asked goes before it; of several, the one that decided last.

        Args:
            own: this replica's.
            uid: of the pod.
            why_not: node of which to tell why it was not preferred; None: of none.
            ranking: page of the ranking of all nodes to tell with it, from 1; None: none.

        Returns:
            The explanation; where others were asked, with ``replica``, which remembers it, and ``silent``, which did
            not answer.
        """
        if self._peers is None or not self.asked_for(own):
            return own, ""
        told = {"why_not": why_not, "ranking": ranking}
        query = urlencode({name: value for name, value in told.items() if value is not None})
        path = f"{_path(uid)}?{ALONE}&{query}"
        heard = await self._peers.ask(lambda _: path, explained)
        known = heard.answers if own is None else {heard.own: own, **heard.answers}
        if not known:
            return None, heard.told
        replica, best = max(known.items(), key=lambda it: (it[1]["verb"] != WATCH, float(it[1]["at"])))
        return {**best, "replica": replica, "silent": dict(heard.silent)}, ""

    async def case(self, own: bytes, asked: bool, uid: str) -> tuple[bytes, str]:
        """Return the best exported decision that any replica has, and who did not answer where there is none.

        Args:
            own: this replica's; empty: none.
            asked: whether this replica was asked about the pod.
            uid: of the pod.
        """
        if self._peers is None or (own and asked):
            return own, ""
        path = f"{_path(uid)}/case?{ALONE}"
        heard = await self._peers.ask(lambda _: path, cased)
        best = max(heard.answers.values(), default=None)
        if best is None or (own and not best[0]):
            return own, heard.told
        return best[2], ""


def _path(uid: str) -> str:
    return f"/v1/decisions/{quote(uid, safe='')}"


ONE: Final = Replicas(None)
"""Where there are no others, or none may be asked."""
