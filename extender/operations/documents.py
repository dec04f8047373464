"""What the endpoints under `/v1/` answer. What grows with the decisions remembered is written at a thread's pace."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Any, Final

import msgspec

from extender.case import written
from extender.engine import WATCH, Engine
from extender.history.aggregate import performance
from extender.history.explain import Hindsight, explained, summary
from extender.history.ledger import Decision, Ledger
from extender.history.ranking import ranking as ranking_of
from extender.observer import Observer
from extender.operations.inventory import Inventory, Page
from extender.operations.peers import THIS, Heard
from extender.operations.search import Part, Search, merged
from extender.pace import unhurried
from extender.scorer.reload import BundleReloader
from extender.trials.avoidance import Avoidance
from extender.trials.candidates import Trials

if TYPE_CHECKING:
    from extender.history.store import DecisionStore  # imported only where it is used

encode = msgspec.json.Encoder().encode

LONGEST_SEARCH: Final = 200_000
"""Decisions that are looked through for words."""


class Documents:
    """Describes what decides, what it decided and what is tried.

    Args:
        engine: decides.
        ledger: what it decided.
        store: the ledger's file; None where there is none.
        reloader: follows the bundle; None where a heuristic decides.
        trials: candidates.
        avoidance: estimates the late placements avoided; None where others place the pods.
        observer: rates nodes for the pods that others place; None where nothing is observed.
        inventory: nodes.
        kubernetes: minor version of Kubernetes whose kube-default explanations tell.
    """

    def __init__(
        self,
        *,
        engine: Engine,
        ledger: Ledger,
        store: DecisionStore | None,
        reloader: BundleReloader | None,
        trials: Trials,
        avoidance: Avoidance | None,
        observer: Observer | None,
        inventory: Inventory,
        kubernetes: str,
    ) -> None:
        self._engine = engine
        self._ledger = ledger
        self._store = store
        self._reloader = reloader
        self._trials = trials
        self._avoidance = avoidance
        self._observer = observer
        self.inventory = inventory
        self._kubernetes = kubernetes

    def policy(self) -> dict[str, Any]:
        """Return what decides, and what became of the bundles seen since the start."""
        scoring, serving, breaker = self._engine.scoring, None, None
        if scoring is not None:
            loaded = scoring.loaded
            serving = {"scorer": loaded.scorer.name, "temperature": loaded.temperature, **loaded.identity()}
            breaker = {"state": scoring.breaker.state.value, "opened": scoring.breaker.opened}
        return {
            "fallback": self._engine.fallback.name,
            "serving": serving,
            "breaker": breaker,
            "bundle": None if self._reloader is None else self._reloader.status(),
        }

    def shadow(self) -> dict[str, Any]:
        """Return how far the shadow's candidate agrees; why there is none, where one was wanted."""
        if (shadow := self._trials.shadow) is None:
            return {"candidate": None, "refused": self._trials.refused["shadow"]}
        return {**shadow.status(), "refused": None}

    def experiment(self) -> dict[str, Any]:
        """Compare the experiment's arms and return the result; why there is none, where one was wanted. Slow."""
        if (comparison := self._trials.comparison) is None:
            return {"candidate": None, "refused": self._trials.refused["experiment"]}
        experiment = comparison.experiment
        return {
            "experiment": experiment.key,
            "candidate": experiment.candidate.identity(),
            "share": experiment.share,
            "salt": experiment.salt,
            "refused": None,
            **comparison.update(),
        }

    def observed(self) -> dict[str, Any]:
        """Return what came of the pods that others placed; `pods` is null where nothing is observed."""
        return {"pods": None} if self._observer is None else self._observer.document()

    def nodes(self, page: Page) -> bytes:
        """Write what is known of these nodes. In a thread."""
        return encode(self.inventory.document(page))

    def node(self, page: Page) -> bytes:
        """Write what is known of the one node of a page. In a thread."""
        return encode(self.inventory.node(page, 0))

    def decisions(self, search: Search, heard: Heard[Part] | None = None, *, places: bool = False) -> bytes:
        """Write what `listing` returns. In a thread; raises as it does."""
        told = self.listing(search, heard, places=places)
        rows = b",".join(encode(row) for row in unhurried(told.pop("decisions")))
        return b'{"decisions":[%b],%b' % (rows, encode(told)[1:])

    def listing(self, search: Search, heard: Heard[Part] | None = None, *, places: bool = False) -> dict[str, Any]:
        """Return the latest decisions, newest first, and counts since the start. In a thread.

        Args:
            search: which.
            heard: what other replicas say of the same search; None where there are none.
            places: whether each decision is told with its place in the ledger: for another replica.

        Raises:
            LedgerError: the ledger's file cannot be read.
        """
        counts = self._ledger.counts.document()
        rows, following = self._remembered(search, THIS if heard is None else heard.own)
        if heard is None:
            if not places:
                for row in rows:
                    del row["place"]
            return {"counts": counts, "decisions": rows, "next": following}
        rows, token = merged({heard.own: (rows, following), **heard.answers}, search)
        ended = [name for name, place in search.cursor.items() if place == 0]
        replicas = sorted({heard.own, *heard.answers, *ended})
        return {"counts": counts, "decisions": rows, "next": token, "replicas": replicas, "silent": heard.silent}

    def _remembered(self, search: Search, own: str) -> Part:
        before = search.before_of(own)
        found: list[dict[str, Any]] = []
        following: int | None = None
        newest = self._ledger.newest_first(before)
        for place, decision in unhurried(islice(newest, LONGEST_SEARCH) if search.words else newest):
            if search.fits(decision):
                if len(found) == search.limit:
                    break
                found.append({**summary(decision), "place": place})
                following = place
        else:
            following = None
        if not found and before is None and self._store is not None and search.namespace and search.name:
            past = self._store.find(search.namespace, search.name)
            found.extend([] if past is None else [{**summary(past), "place": 0}])
        return found, following

    def explained(self, uid: str, other: str | None = None, ranking: int | None = None) -> dict[str, Any] | None:
        """Return why the pod of this UID was rated as it was; None where nothing is remembered. In a thread.

        Args:
            uid: of the pod.
            other: a node of which to tell why it was not preferred; None: of none.
            ranking: page of the ranking of all nodes to tell with it, from 1; None: none.

        Raises:
            LedgerError: the ledger's file cannot be read.
        """
        found = self.remembered(uid)
        if found is None:
            return None
        past = Hindsight(found, self._engine.judge_of(found), self._kubernetes)
        told = explained(past, other)
        if ranking is not None:
            exportable = found.contenders is not None
            told["ranking"] = {**ranking_of(past.field, past.usual, ranking), "exportable": exportable}
        return told

    def case(self, uid: str) -> bytes:
        """Write the decision about this pod as a file that can be decided again; empty where it is forgotten."""
        found = self._ledger.get(uid)
        return b"" if found is None else written(found, self._engine.settings.range_tolerance, self._kubernetes)

    def asked(self, uid: str) -> bool:
        """Return whether kube-scheduler asked this replica about the pod of this UID, as far as it remembers."""
        found = self._ledger.get(uid)
        return found is not None and found.verb != WATCH

    def remembered(self, uid: str) -> Decision | None:
        """Return the latest decision about the pod of this UID, from the ledger or its file; raises as `decision`."""
        found = self._ledger.get(uid)
        return self._store.get(uid) if found is None and self._store is not None else found

    def report(self) -> dict[str, Any]:
        """Return how well deciding has gone, over the decisions remembered. In a thread."""
        return {"late_avoided": self.late_avoided(), **performance(self._ledger.latest(), self._ledger.counts)}

    def late_avoided(self) -> dict[str, Any] | None:
        """Return the late placements avoided, as `extender.trials.avoidance` tells; None where others place pods."""
        return None if self._avoidance is None else self._avoidance.latest
