"""What the endpoints under `/v1/` answer. What grows with the decisions remembered is written at a thread's pace."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from extender.case import written
from extender.engine import Engine
from extender.history.aggregate import performance
from extender.history.explain import explanation, summary
from extender.history.ledger import Decision, Ledger
from extender.observer import Observer
from extender.operations.inventory import Inventory, Page
from extender.pace import unhurried
from extender.scorer.reload import BundleReloader
from extender.trials.candidates import Trials

if TYPE_CHECKING:
    from extender.history.store import DecisionStore  # imported only where it is used

encode = msgspec.json.Encoder().encode


class Documents:
    """Describes what decides, what it decided and what is tried.

    Args:
        engine: decides.
        ledger: what it decided.
        store: the ledger's file; None where there is none.
        reloader: follows the bundle; None where a heuristic decides.
        trials: candidates.
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
        observer: Observer | None,
        inventory: Inventory,
        kubernetes: str,
    ) -> None:
        self._engine = engine
        self._ledger = ledger
        self._store = store
        self._reloader = reloader
        self._trials = trials
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

    def decisions(self, limit: int, before: int | None, namespace: str | None, name: str | None) -> bytes:
        """Write the latest decisions, newest first, and counts since the start. In a thread.

        Args:
            limit: most of them.
            before: the `next` of the answer that this one goes on from; None: from the newest.
            namespace: of the pods; None: any.
            name: of the pods; None: any.

        Raises:
            LedgerError: the ledger's file cannot be read.
        """
        found: list[bytes] = []
        following: int | None = None
        for place, decision in unhurried(self._ledger.newest_first(before)):
            if namespace in (None, decision.namespace) and name in (None, decision.name):
                if len(found) == limit:
                    break
                found.append(encode(summary(decision)))
                following = place
        else:
            following = None
        if not found and before is None and self._store is not None and namespace is not None and name is not None:
            past = self._store.find(namespace, name)
            found.extend([] if past is None else [encode(summary(past))])
        counts = encode(self._ledger.counts.document())
        return b'{"counts":%b,"decisions":[%b],"next":%b}' % (counts, b",".join(found), encode(following))

    def decision(self, uid: str, other: str | None = None) -> bytes:
        """Write why the pod of this UID was rated as it was; empty where nothing is remembered. In a thread.

        Args:
            uid: of the pod.
            other: a node of which to tell why it was not preferred; None: of none.

        Raises:
            LedgerError: the ledger's file cannot be read.
        """
        found = self.remembered(uid)
        if found is None:
            return b""
        return encode(explanation(found, self._engine.judge_of(found), self._kubernetes, other))

    def case(self, uid: str) -> bytes:
        """Write the decision about this pod as a file that can be decided again; empty where it is forgotten."""
        found = self._ledger.get(uid)
        return b"" if found is None else written(found, self._engine.settings.range_tolerance, self._kubernetes)

    def remembered(self, uid: str) -> Decision | None:
        """Return the latest decision about the pod of this UID, from the ledger or its file; raises as `decision`."""
        found = self._ledger.get(uid)
        return self._store.get(uid) if found is None and self._store is not None else found

    def report(self) -> dict[str, Any]:
        """Return how well deciding has gone, over the decisions remembered. In a thread."""
        return performance(self._ledger.latest(), self._ledger.counts)
