"""A real cluster as a `ClusterSource`: nodes and pods watched in threads, use polled, pods bound. Only wires parts.

Above 350 lines because every part of a cluster is wired here.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from functools import partial
from pathlib import Path
from typing import Any, Final, Self
from urllib.parse import quote

from extender.cluster.answers import ApiError
from extender.cluster.api import ApiServer
from extender.cluster.benchmarks import Benchmarks
from extender.cluster.completed import CompletedPods
from extender.cluster.decoding import Node, WatchedPod, decode_node, decode_pod, observed_node, observed_pod
from extender.cluster.estimation import PAUSE_S, NodeSpeeds
from extender.cluster.handover import Handover
from extender.cluster.kubelet import KubeletOptions
from extender.cluster.kubelets import Kubelets
from extender.cluster.machines import SpeedRules
from extender.cluster.metrics_server import MetricsServer
from extender.cluster.prometheus import Prometheus, PrometheusOptions
from extender.cluster.receivers import FactChanges, Findings, NodeChanges, NodesForBoth, PodChanges, WaitingRules
from extender.cluster.recollection import Keeper
from extender.cluster.reflector import Reflector
from extender.cluster.resource import Receiver, Resource, Timing
from extender.cluster.reviews import reviewed
from extender.cluster.source import INPUTS, Binding, PodNote, Reviewed
from extender.cluster.table import ClusterTable
from extender.cluster.usage import UsageFeed, UsagePoller, UsageReader
from extender.cluster.writes import write_note
from extender.demand import urgency_rules
from extender.errors import BindError, NoteError, SourceError
from extender.feasibility import NodeFacts
from extender.requests import NEWEST, RULES, RequestRules
from extender.settings import Settings
from extender.supervision import Supervisor, detached

NODES: Final[Resource[Node]] = Resource(
    name="nodes",
    path="/api/v1/nodes",
    decode=decode_node,
    key=lambda node: node.metadata.name,
    version=lambda node: node.metadata.resource_version,
)
PODS: Final[Resource[WatchedPod]] = Resource(
    name="pods",
    path="/api/v1/pods",
    # All of them. Pods that have ended hold nothing, and kube-scheduler leaves them out by a field selector; but a
    # watch shows a pod that leaves its selection as it was before, so how it ended (succeeded, failed, out of memory,
    # evicted) would never be seen. The cost has a bound: kube-controller-manager's --terminated-pod-gc-threshold.
    decode=decode_pod,
    key=lambda pod: pod.metadata.uid,
    version=lambda pod: pod.metadata.resource_version,
)


@dataclass(frozen=True, slots=True)
class KubernetesOptions:
    """How to reach the cluster and how to follow it."""

    # file to read; None: the pod's ServiceAccount, or the user's own kubeconfig outside a pod
    kubeconfig: Path | None = None
    context: str | None = None  # context of the kubeconfig; None: its current one
    timing: Timing = field(default_factory=Timing)
    speed: SpeedRules = field(default_factory=SpeedRules)
    learn_speeds: bool = True  # whether a node's speed is learned from completions; this needs CPU times from kubelets
    learning_pause: float = PAUSE_S  # least seconds between two fits
    usage_interval: float = 15.0  # seconds between two questions for measured use
    # how to ask kubelets for measured use; None: they are not asked. What else measures use serves the nodes whose
    # kubelet does not answer
    kubelets: KubeletOptions | None = None
    waiting: WaitingRules | None = None  # which unbound pods are told of; None: none
    requests: RequestRules = NEWEST  # what counts of a pod's status for its requests
    observe: bool = False  # whether what filters read of nodes and pods is kept, too
    benchmark: str | None = None  # namespace and name of the DaemonSet that measures nodes; None: there is none

    @property
    def not_learning(self) -> str | None:
        """Why speeds are not learned; None where they are."""
        if not self.learn_speeds:
            return "node_speed_learned is false"
        return "no CPU times: usage_source names no kubelets" if self.kubelets is None else None


@dataclass(slots=True)
class _Work:
    """Everything that runs between `start` and `stop`."""

    api: ApiServer
    handover: Handover
    nodes: Reflector[Node]
    pods: Reflector[WatchedPod]
    node_changes: NodeChanges
    pod_changes: PodChanges
    usage: dict[str, UsageFeed]  # by name of its task
    supervisor: Supervisor


class KubernetesSource:
    """Keeps a table equal to a Kubernetes cluster; see `extender.cluster.source.ClusterSource`.

    Args:
        usage: makes the reader of measured use, given the API server; None: use is expected from requests alone.

    Attributes:
        kubelets: asks them for measured use; None before `start`, and where they are not asked.
        facts: what filters read of each node, by name; empty where the cluster is not observed.
        speeds: of the nodes; None before `start`.
        completed: takes pods that succeeded; None before `start`.
        benchmarks: takes pods that measure nodes; None before `start`, and where nobody wants them.
        keeper: keeps what was learned over restarts; to be set before `start`; None: nothing is kept.
    """

    def __init__(
        self,
        options: KubernetesOptions,
        usage: Callable[[ApiServer], UsageReader] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._options = options
        self._usage = usage
        self._clock = clock
        self._work: _Work | None = None
        self.kubelets: Kubelets | None = None
        self.facts: dict[str, NodeFacts] = {}
        self.speeds: NodeSpeeds | None = None
        self.completed: CompletedPods | None = None
        self.benchmarks: Benchmarks | None = None
        self.keeper: Keeper | None = None

    @classmethod
    def from_settings(cls, settings: Settings) -> Self:
        """The source that the settings describe."""
        speed = SpeedRules(settings.node_speed_key, settings.node_speed_by_instance_type, settings.node_speed_published)
        options = KubernetesOptions(
            kubeconfig=settings.kubeconfig,
            context=settings.kube_context,
            timing=Timing(page=settings.list_page_size),
            speed=speed,
            learn_speeds=settings.node_speed_learned,
            benchmark=settings.node_speed_benchmark,
            usage_interval=settings.usage_interval_s,
            requests=RULES[settings.kubernetes_version],
            kubelets=_kubelets(settings),
            observe=settings.observe,
            waiting=WaitingRules(None if settings.observe else settings.scheduler_name, urgency_rules(settings)),
        )
        return cls(options, usage_reader(settings))

    async def start(self, table: ClusterTable, supervisor: Supervisor) -> None:
        """Begin to watch; nothing more if it has begun.

        Raises:
            SourceError: there is no usable configuration of a cluster.
        """
        if self._work is not None:
            return
        options = self._options
        # In a thread: it reads files.
        api = await asyncio.to_thread(ApiServer, options.kubeconfig, options.context)
        failures = supervisor.failures
        handover = Handover(asyncio.get_running_loop(), failures)
        speeds = self.speeds = NodeSpeeds(table, options.not_learning, options.learning_pause)
        node_changes = NodeChanges(table, handover.put, options.speed, speeds)
        usage: dict[str, UsageFeed] = {}
        node_receiver: Receiver[Node] = node_changes
        if self._usage is not None:
            poller = UsagePoller(self._usage(api), table, options.usage_interval, ready=lambda: self.synced)
            usage["usage"] = poller
        if options.kubelets is not None:
            kubelets = Kubelets(options.kubelets, api, table, handover.put, failures, ready=lambda: self.synced)
            self.kubelets = usage["kubelets"] = kubelets
            node_receiver = NodesForBoth(node_changes, kubelets)
            if self._usage is not None:
                poller.ready = lambda: self.synced and kubelets.rounds.in_vain
                poller.spared = lambda node: node in kubelets.rounds.answering
                kubelets.instead = f"asked from {poller.reader.name}"
        found = Findings(table, handover.put, speeds)
        cpu_times = None if self.kubelets is None else self.kubelets.cpu_times
        self.completed = CompletedPods(cpu_times, found.completed)
        if options.benchmark is not None:
            self.benchmarks = Benchmarks(options.benchmark, found.probed)
        if self.kubelets is not None and speeds.refused is None:
            if self.keeper is not None:
                await asyncio.to_thread(speeds.remember, self.keeper)
            supervisor.start("speeds", speeds.step)
        pod_changes = PodChanges(
            table, handover.put, options.waiting, options.requests, self.completed, self.benchmarks
        )
        of_nodes, of_pods = NODES, PODS
        if options.observe:
            facts = FactChanges(handover.put)
            self.facts, node_receiver = facts.facts, NodesForBoth(node_receiver, facts)
            of_nodes, of_pods = replace(NODES, decode=observed_node), replace(PODS, decode=observed_pod)
        nodes = Reflector(of_nodes, node_receiver, api, options.timing, failures, self._clock)
        pods = Reflector(of_pods, pod_changes, api, options.timing, failures, self._clock)
        self._work = _Work(api, handover, nodes, pods, node_changes, pod_changes, usage, supervisor)
        for name, feed in usage.items():
            supervisor.start(name, feed.run)
        nodes.start()
        pods.start()

    async def stop(self) -> None:
        """End every thread and task; the table keeps what it knows."""
        work, self._work = self._work, None
        if work is None:
            return
        work.nodes.stop()
        work.pods.stop()
        work.handover.close()
        try:
            await work.supervisor.end(*work.usage, "speeds")
            await asyncio.gather(detached(work.nodes.join, "join-nodes"), detached(work.pods.join, "join-pods"))
        finally:
            work.api.close()

    @property
    def synced(self) -> bool:
        """Whether the table has seen every node and pod of a first list."""
        return self._work is not None and self._work.node_changes.synced and self._work.pod_changes.synced

    def waiting_for(self) -> tuple[str, ...]:
        """What keeps `synced` false."""
        work = self._work
        if work is None:
            return ("the watch of the cluster has not been started",)
        return tuple(
            f"{reflector.name}: {reflector.trouble or 'being listed'}"
            for reflector, changes in ((work.nodes, work.node_changes), (work.pods, work.pod_changes))
            if not changes.synced
        )

    def staleness(self) -> Mapping[str, float | None]:
        """Seconds since each input was known to be current; see `extender.cluster.source`."""
        work = self._work
        if work is None:
            return dict.fromkeys(INPUTS)
        return {
            "nodes": work.nodes.staleness(),
            "pods": work.pods.staleness(),
            "usage": min((age for feed in work.usage.values() if (age := feed.staleness()) is not None), default=None),
        }

    def counts(self) -> Mapping[tuple[str, str], int]:
        """What happened since `start`, by input (nodes, pods, usage, and the table they end in) and event."""
        work = self._work
        if work is None:
            return {}
        counted: dict[tuple[str, str], int] = {}
        for reflector, changes in ((work.nodes, work.node_changes), (work.pods, work.pod_changes)):
            for event in fields(reflector.tally):
                counted[reflector.name, event.name] = getattr(reflector.tally, event.name)
            counted[reflector.name, "ignored"] = changes.ignored
        for feed in work.usage.values():
            for name, count in feed.events().items():
                counted["usage", name] = counted.get(("usage", name), 0) + count
        counted["table", "refused"] = work.handover.refused
        return counted

    async def bind(self, binding: Binding) -> None:
        """Bind one pod. Raises `BindError` if it was refused or could not be asked."""
        if self._work is None:
            raise BindError("the connection to the API server has not been started")
        try:
            await detached(partial(_bind, self._work.api, binding), "bind")
        except ApiError as error:
            raise BindError(
                f"cannot bind {binding.namespace}/{binding.name} to {binding.node}: {error.told}"
            ) from error

    async def note(self, note: PodNote) -> None:
        """Say something on a pod. Raises `NoteError` if it was refused or could not be asked."""
        if self._work is None:
            raise NoteError("the connection to the API server has not been started")
        try:
            await detached(partial(write_note, self._work.api, note), "note")
        except ApiError as error:
            raise NoteError(f"cannot say why on {note.namespace}/{note.name}: {error}") from error

    def review(self, token: str) -> Reviewed:
        """Return whose a token is; blocks. Raises `SourceError` if nobody can say."""
        return reviewed(self._api(), token)

    def authorization(self) -> str | None:
        """Return the header that says who we are; None where no token does. May block; raises `SourceError`."""
        header = self._api().identity().authorization
        return header if header is not None and header.startswith("Bearer ") else None

    def _api(self) -> ApiServer:
        if self._work is None:
            raise SourceError("the connection to the API server has not been started")
        return self._work.api


def _kubelets(settings: Settings) -> KubeletOptions | None:
    """How to ask kubelets, if the settings choose them."""
    if not settings.asks_kubelets:
        return None
    return KubeletOptions(
        interval=settings.usage_interval_s,
        connections=settings.kubelet_connections,
        kept=settings.kubelet_kept_connections,
        ca_file=settings.kubelet_ca_file,
        insecure=settings.kubelet_insecure_skip_tls_verify,
    )


def usage_reader(settings: Settings) -> Callable[[ApiServer], UsageReader] | None:
    """Return what makes the reader of measured use that the settings choose; None where there is none."""
    if settings.asks_metrics_server:
        return MetricsServer
    if settings.usage_source != "prometheus" or settings.prometheus_url is None:
        return None
    options = PrometheusOptions(
        url=settings.prometheus_url,
        node_label=settings.prometheus_node_label,
        window=settings.prometheus_window_s,
        ca_file=settings.prometheus_ca_file,
        token_file=settings.prometheus_token_file,
        selector=settings.prometheus_selector,
        username=settings.prometheus_username,
        password_file=settings.prometheus_password_file,
        headers_file=settings.prometheus_headers_file,
    )
    return lambda _: Prometheus(options)


def _bind(api: ApiServer, binding: Binding) -> None:
    """The request that kube-scheduler's own DefaultBinder makes; with the UID, so a replaced pod is refused."""
    path = f"/api/v1/namespaces/{quote(binding.namespace, safe='')}/pods/{quote(binding.name, safe='')}/binding"
    body: dict[str, Any] = {
        "apiVersion": "v1",
        "kind": "Binding",
        "metadata": {"namespace": binding.namespace, "name": binding.name, "uid": binding.uid},
        "target": {"apiVersion": "v1", "kind": "Node", "name": binding.node},
    }
    api.post(path, body)
