"""Nodes and pods as the API server shows them, to changes of a `ClusterTable`. Refuses to know how they arrive.

Runs on the threads that watch; what it makes of an object is a call of the table, handed over to the event loop.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import structlog

from extender.cluster.benchmarks import Benchmarks
from extender.cluster.completed import CompletedPods, Completion
from extender.cluster.decoding import SUCCEEDED, Node, ObservedNode, WatchedCondition, WatchedPod
from extender.cluster.estimation import NodeSpeeds
from extender.cluster.machines import Machine, SpeedRules, amounts_of, machine_of
from extender.cluster.resource import Receiver
from extender.cluster.stats import Amounts
from extender.cluster.status import ENDED, ReadReport, ending, given_up, is_gated, report_of, seconds
from extender.cluster.table import UNKNOWN, ClusterTable
from extender.demand import pod_demand
from extender.errors import UNDECODABLE, kind_of
from extender.feasibility import NodeFacts, facts_of
from extender.requests import NEWEST, PodRequests, RequestRules, pod_requests
from extender.workloads import cron_run
from policy.cluster import REFERENCE_SPEED
from policy.errors import InvalidQuantityError
from policy.urgency import UrgencyRules

Put = Callable[[Callable[[], object]], object]
"""Hands one change over to the event loop: `Handover.put`."""

log = structlog.stdlib.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class WaitingRules:
    """Which unbound pods wait for us, and how urgent they are.

    Attributes:
        scheduler_name: their `spec.schedulerName`; None: any.
        urgency: see there.
    """

    scheduler_name: str | None
    urgency: UrgencyRules

    def include(self, pod: WatchedPod) -> bool:
        """Whether the pod is one of them."""
        return self.scheduler_name in (None, pod.spec.scheduler_name)


def is_ready(node: Node) -> bool:
    """Whether the node takes pods: its Ready condition is True and nobody cordoned it."""
    ready = any(it.type == "Ready" and it.status == "True" for it in node.status.conditions or ())
    return ready and not node.spec.unschedulable


def bound_since(pod: WatchedPod) -> float | None:
    """When the pod was bound, seconds since the epoch; None if it does not say.

    The condition PodScheduled says it. Pods created with a node, such as static ones, may have none: they are bound
    since they were created.
    """
    texts = [
        condition.last_transition_time
        for condition in pod.status.conditions or ()
        if condition.type == "PodScheduled" and condition.status == "True"
    ]
    for text in (*texts, pod.metadata.creation_timestamp):
        if (at := seconds(text)) is not None:
            return at
    return None


class NodeChanges:
    """Receives nodes.

    Args:
        table: whom to tell.
        put: see there.
        rules: where their speed comes from.
        speeds: what is learned of their speed; default: nothing is.

    Attributes:
        ignored: nodes, counted each time they are seen, of which something had to be ignored.
        synced: whether the table has seen all of a list.
    """

    def __init__(self, table: ClusterTable, put: Put, rules: SpeedRules, speeds: NodeSpeeds | None = None) -> None:
        self._table = table
        self._put = put
        self._rules = rules
        self._speeds = NodeSpeeds(table, refused="nobody asked for it") if speeds is None else speeds
        self.ignored = 0
        self.synced = False

    def present(self, received: Node) -> None:
        """The node exists. One that does not say what it can allocate is forgotten, as the table prescribes."""
        name = received.metadata.name
        machine, warning = machine_of(received, self._rules)
        try:
            allocatable = amounts_of(received.status.allocatable)
        except InvalidQuantityError as error:
            allocatable, warning = Amounts(), f"status.allocatable: {error}"
        if warning is not None:
            self.ignored += 1
            log.warning("ignored what a node says", node=name, reason=warning)
        self._put(partial(self._upsert, name, *allocatable, machine, is_ready(received)))

    def _upsert(self, name: str, cpu: float, memory: float, machine: Machine, ready: bool) -> None:
        speed, basis = self._speeds.present(name, machine)
        self._table.upsert_node(name, cpu, memory, speed, ready, basis)

    def absent(self, received: Node) -> None:
        """The node was deleted."""
        self._put(partial(self._remove, received.metadata.name))

    def _remove(self, name: str) -> None:
        self._speeds.absent(name)
        self._table.remove_node(name)

    def complete(self, keys: set[str]) -> None:
        """These are all."""
        self._put(partial(self._settle, keys))

    def _settle(self, keys: set[str]) -> None:
        self._speeds.keep_only(keys)
        self._table.keep_only_nodes(keys)
        self.synced = True


class FactChanges:
    """Receives what filters read of nodes, where a cluster is observed.

    Attributes:
        facts: by name of the node; changed on the event loop alone.
    """

    def __init__(self, put: Put) -> None:
        self._put = put
        self.facts: dict[str, NodeFacts] = {}

    def present(self, received: Node) -> None:
        """The node exists."""
        if isinstance(received, ObservedNode):
            name = received.metadata.name
            try:
                facts = facts_of(received.source)
            except UNDECODABLE as error:
                log.warning("a node's labels or taints do not decode", node=name, reason=kind_of(error))
                self.absent(received)
                return
            self._put(partial(self.facts.__setitem__, name, facts))

    def absent(self, received: Node) -> None:
        """The node was deleted."""
        self._put(partial(self.facts.pop, received.metadata.name, None))

    def complete(self, keys: set[str]) -> None:
        """These are all."""
        self._put(partial(self._settle, keys))

    def _settle(self, keys: set[str]) -> None:
        for name in self.facts.keys() - keys:
            del self.facts[name]


class NodesForBoth:
    """Receives nodes for two receivers: the first one is told first."""

    def __init__(self, first: Receiver[Node], second: Receiver[Node]) -> None:
        self._both = first, second

    def present(self, received: Node) -> None:
        """The node exists."""
        for each in self._both:
            each.present(received)

    def absent(self, received: Node) -> None:
        """The node was deleted."""
        for each in self._both:
            each.absent(received)

    def complete(self, keys: set[str]) -> None:
        """These are all."""
        for each in self._both:
            each.complete(keys)


class PodChanges:
    """Receives pods.

    Args:
        table: whom to tell.
        put: see there.
        waiting: which unbound pods to tell of; None: none.
        requests: what counts of a pod's status for its requests.
        completed: takes those that succeeded; None: nobody wants them.
        benchmarks: takes those that measure nodes; None: nobody wants them.

    Attributes:
        ignored: pods, counted each time they are seen, whose requests do not parse.
        synced: whether the table has seen all of a list.
    """

    def __init__(
        self,
        table: ClusterTable,
        put: Put,
        waiting: WaitingRules | None = None,
        requests: RequestRules = NEWEST,
        completed: CompletedPods | None = None,
        benchmarks: Benchmarks | None = None,
    ) -> None:
        self._table = table
        self._put = put
        self._rules = waiting
        self._requests = requests
        self._completed = completed
        self._benchmarks = benchmarks
        self.ignored = 0
        self.synced = False

    def present(self, received: WatchedPod) -> None:
        """The pod exists. It counts once it is bound, until it has ended."""
        uid, node = received.metadata.uid, received.spec.node_name
        metadata = received.metadata
        if (run := cron_run(metadata.namespace, metadata.controller, time.time())) is not None:
            self._put(partial(self._table.workloads.started, run))
        if self._benchmarks is not None:
            self._benchmarks.take(received)
        if received.status.phase in ENDED:
            if self._completed is not None and received.status.phase == SUCCEEDED:
                self._completed.take(received)
            self.absent(received)
            return
        if not node:
            self._unbound(received)
            return
        try:
            requests = pod_requests(received, self._requests, bound=True)
        except InvalidQuantityError as error:
            self.ignored += 1
            log.warning(
                "ignored a pod", pod=f"{received.metadata.namespace}/{received.metadata.name}", reason=str(error)
            )
            return
        # One text for the thousands of pods that name the same node.
        report = partial(report_of, received)
        placed = received if self._rules is not None and self._rules.include(received) else None
        self._put(partial(self._bound, uid, sys.intern(node), requests, bound_since(received), report, placed))

    def _bound(
        self,
        uid: str,
        node: str,
        requests: PodRequests,
        since: float | None,
        report: ReadReport,
        placed: WatchedPod | None,
    ) -> None:
        if placed is not None and self._table.is_waiting(uid):
            self._table.listeners.pod_placed(placed, node)
        cpu, memory, cpu_nonzero, memory_nonzero = requests
        self._table.pod_bound(uid, node, cpu, memory, since, cpu_nonzero, memory_nonzero)
        self._table.listeners.pod_reported(uid, report)

    def _unbound(self, received: WatchedPod) -> None:
        """Nobody has placed the pod yet."""
        uid, conditions, rules = received.metadata.uid, received.status.conditions, self._rules
        if (condition := given_up(conditions)) is not None:
            self._put(partial(self._given_up, uid, condition, partial(report_of, received)))
        if nominated := received.status.nominated_node_name:
            self._put(partial(self._table.pod_nominated, uid, sys.intern(nominated)))
        if received.metadata.deletion_timestamp is not None:
            self._put(partial(self._table.withdraw, uid))  # kube-scheduler leaves such pods alone
        if rules is None or not rules.include(received) or is_gated(conditions):
            return
        try:
            demand = pod_demand(received, rules.urgency, self._table.workloads).demand
        except InvalidQuantityError:
            return  # kube-scheduler will ask about it, and be told what is wrong
        self._put(partial(self._table.pod_waiting, uid, demand))
        if condition is not None:
            self._put(partial(self._table.listeners.pod_unplaced, received, partial(report_of, received)))

    def _given_up(self, uid: str, condition: WatchedCondition, report: ReadReport) -> None:
        self._table.pod_given_up(uid, condition)
        self._table.listeners.pod_reported(uid, report)

    def absent(self, received: WatchedPod) -> None:
        """The pod was deleted, or has ended."""
        self._put(partial(self._removed, received.metadata.uid, ending(received), partial(report_of, received)))

    def _removed(self, uid: str, reason: str, report: ReadReport) -> None:
        self._table.listeners.pod_reported(uid, report)  # first: how a pod ended stands in its last status
        self._table.pod_removed(uid, reason)

    def complete(self, keys: set[str]) -> None:
        """These are all."""
        self._put(partial(self._settle, keys))

    def _settle(self, keys: set[str]) -> None:
        self._table.keep_only_pods(keys)
        self.synced = True


class Findings:
    """What pods that ended show of nodes and workloads, handed over to those who learn from it.

    Args:
        table: whose workloads learn how long pods run.
        put: see there.
        speeds: of the nodes.
    """

    def __init__(self, table: ClusterTable, put: Put, speeds: NodeSpeeds) -> None:
        self._table = table
        self._put = put
        self._speeds = speeds

    def completed(self, completion: Completion) -> None:
        """A pod succeeded."""
        self._speeds.completed(completion)
        self._put(partial(self._ran, completion))

    def probed(self, node: str, speed: float) -> None:
        """A benchmark measured this speed on a node."""
        self._put(partial(self._speeds.probed, node, speed))

    def _ran(self, completion: Completion) -> None:
        row = self._table.row_of(completion.node)
        # a node that is gone, or not listed yet, counts as the reference
        speed = REFERENCE_SPEED if row == UNKNOWN else float(self._table.state.node_speed[row])
        self._table.workloads.ran(completion.template, completion.run_s, speed)
