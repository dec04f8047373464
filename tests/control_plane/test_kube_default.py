"""kube-default gives every node exactly the scores that a real kube-scheduler of the same minor version logs.

Each state is a handful of nodes with pods bound to them, and one probe that may go to these nodes alone, so that many
states stand side by side in one cluster. The probe's scores are read off the log (level 10, "Plugin scored node for
pod"); ours are computed from the same objects by the way they take in the service: decoding, table, rule.
"""

from __future__ import annotations

import random
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import msgspec
import numpy as np
import pytest

from extender.cluster.decoding import WatchedPod, decode_node, decode_page, decode_pod
from extender.cluster.machines import SpeedRules
from extender.cluster.receivers import NodeChanges, PodChanges
from extender.cluster.status import given_up
from extender.cluster.table import ClusterTable
from extender.demand import pod_demand
from extender.requests import RULES
from policy import heuristics
from policy.urgency import UrgencyRules
from tests.control_plane.access import Manifest, apply, send
from tests.control_plane.cluster import ControlPlane
from tests.control_plane.scheduler import kube_scheduler, plain_configuration
from tests.control_plane.workload import create, create_nodes, node, pod, remove_pods, wipe

STATES: Final = 200
NODES: Final = 3
"""Of each state."""

LOGGED: Final = re.compile(
    r'"Plugin scored node for pod" pod="default/([^"]+)" plugin="(NodeResources\w+)" node="([^"]+)" score=(\d+)'
)
"""https://github.com/kubernetes/kubernetes/blob/v1.37.2/pkg/scheduler/schedule_one.go (prioritizeNodes)."""

MACHINES: Final = (
    ("2", "8Gi"),
    ("1930m", "7307256Ki"),
    ("4", "15842Mi"),
    ("8", "32Gi"),
    ("7910m", "29161292Ki"),
    ("16", "64Gi"),
    ("96", "755Gi"),
    ("3", "7000000000"),
)
CPU: Final = ("100m", "250m", "1", "0.5", "1500m", "33m", "0")
MEMORY: Final = ("64Mi", "128974848", "1Gi", "1.5Gi", "129M", "0.7Gi", "0")
PODS: Final = "/api/v1/namespaces/default/pods"
PROBE: Final = "probe"
"""Label of the pods to be scored."""

GPU: Final = "example.com/gpu"
RUNTIME: Final = {
    "apiVersion": "node.k8s.io/v1",
    "kind": "RuntimeClass",
    "metadata": {"name": "boxed"},
    "handler": "boxed",
    "overhead": {"podFixed": {"cpu": "130m", "memory": "120Mi"}},
}


@dataclass(frozen=True)
class State:
    """Nodes with pods on them, and what is asked for.

    Attributes:
        nodes: names.
        number: its own.
        probe: specification of the pod that is scored.
    """

    nodes: tuple[str, ...]
    number: int
    probe: dict[str, Any]

    def pod(self, version: str) -> Manifest:
        """The probe for one version; no name is used twice, since KWOK may still be deleting the last one."""
        made = _pod(f"probe-{version}-{self.number}", self.probe, affinity=_only_on(self.nodes))
        made["metadata"]["labels"] = {PROBE: "true"}
        return made


def _requests(draw: random.Random) -> dict[str, str]:
    """Both resources, one, or none; zero now and then, which is not the same as none."""
    asked = {}
    if draw.random() < 0.75:
        asked["cpu"] = draw.choice(CPU)
    if draw.random() < 0.75:
        asked["memory"] = draw.choice(MEMORY)
    return asked


def _container(draw: random.Random, name: str, **more: Any) -> dict[str, Any]:
    return {"name": name, "image": "fake", "resources": {"requests": _requests(draw)}, **more}


def _spec(draw: random.Random) -> dict[str, Any]:
    """Containers, init containers, sidecars, overhead, requests of the pod as a whole, an extended resource."""
    spec: dict[str, Any] = {"containers": [_container(draw, f"c{i}") for i in range(draw.choice((1, 1, 1, 2, 3)))]}
    if draw.random() < 0.2:
        sidecar = {"restartPolicy": "Always"}
        spec["initContainers"] = [
            _container(draw, f"i{i}", **(sidecar if draw.random() < 0.5 else {})) for i in range(draw.choice((1, 2)))
        ]
    if draw.random() < 0.1:
        spec["runtimeClassName"] = RUNTIME["metadata"]["name"]  # type: ignore[index]
    if draw.random() < 0.1:
        whole = {"cpu": "6", "memory": "8Gi"}
        spec["resources"] = {"requests": {name: whole[name] for name in draw.choice((["cpu"], ["memory"], [*whole]))}}
    if draw.random() < 0.1:
        resources = spec["containers"][0]["resources"]
        resources["requests"][GPU] = "1"
        resources["limits"] = {GPU: "1"}
    return spec


def _pod(name: str, spec: dict[str, Any], **more: Any) -> Manifest:
    made = pod(name)
    made["spec"] = {**spec, **more}
    return made


def _only_on(names: tuple[str, ...]) -> dict[str, Any]:
    """Affinity to these nodes by name: kube-scheduler looks at no other."""
    terms = [{"matchFields": [{"key": "metadata.name", "operator": "In", "values": [name]}]} for name in names]
    return {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}}}


def _states(seed: int) -> tuple[list[Manifest], list[Manifest], list[State]]:
    """Nodes, the pods on them, and the states they make."""
    draw = random.Random(seed)
    nodes: list[Manifest] = []
    pods: list[Manifest] = []
    states: list[State] = []
    for number in range(STATES):
        names = tuple(f"s{number}-{i}" for i in range(NODES))
        alike = draw.random() < 0.3  # then truncation decides
        machine = draw.choice(MACHINES)
        for name in names:
            cpu, memory = machine if alike else draw.choice(MACHINES)
            made = node(name, cpu=cpu, memory=memory)
            made["status"]["allocatable"] = made["status"]["capacity"] = {
                **made["status"]["allocatable"],
                GPU: "8",
            }
            nodes.append(made)
            pods += [_pod(f"on-{name}-{i}", _spec(draw), nodeName=name) for i in range(draw.choice((0, 1, 1, 2, 3, 5)))]
        states.append(State(names, number, _spec(draw)))
    return nodes, pods, states


@pytest.fixture(scope="module")
def states(control_plane: ControlPlane) -> Iterator[list[State]]:
    """The states, standing side by side in the control plane until all versions have scored them."""
    wipe(control_plane.api)
    apply(control_plane.api, [RUNTIME])
    nodes, pods, made = _states(seed=13)
    create_nodes(control_plane.api, nodes, timeout_s=300)
    create(control_plane.api, pods)
    yield made
    wipe(control_plane.api, timeout_s=300)


def _table(cluster: ControlPlane, version: str) -> ClusterTable:
    """The cluster as the service knows it."""
    table = ClusterTable()
    node_changes = NodeChanges(table, lambda change: change(), SpeedRules())
    pod_changes = PodChanges(table, lambda change: change(), requests=RULES[version])
    for raw in _items(cluster, "/api/v1/nodes"):
        node_changes.present(decode_node(raw))
    for raw in _items(cluster, "/api/v1/pods"):
        pod_changes.present(decode_pod(raw))
    assert (node_changes.ignored, pod_changes.ignored) == (0, 0)
    return table


def _items(cluster: ControlPlane, path: str) -> list[msgspec.Raw]:
    return decode_page(send(cluster.api, "GET", path)).items or []


def _tried(cluster: ControlPlane, probes: list[Manifest], timeout_s: float = 120.0) -> dict[str, WatchedPod]:
    """Create the probes, wait until each is bound or found not to fit, and remove them; as the API server had them."""
    create(cluster.api, probes)
    deadline = time.monotonic() + timeout_s
    while True:
        found = [decode_pod(raw) for raw in _items(cluster, f"{PODS}?labelSelector={PROBE}")]
        waiting = [
            each.metadata.name for each in found if not (each.spec.node_name or given_up(each.status.conditions))
        ]
        if not waiting:
            break
        assert time.monotonic() < deadline, f"{len(waiting)} pods not tried in {timeout_s:.0f} s, such as {waiting[0]}"
        time.sleep(0.3)
    remove_pods(cluster.api, selector=PROBE)
    return {each.metadata.name: each for each in found}


def _logged(log: str) -> dict[tuple[str, str], dict[str, int]]:
    """(pod, node) -> plugin -> score, the last one where a pod was tried again."""
    found: dict[tuple[str, str], dict[str, int]] = {}
    for name, plugin, where, score in LOGGED.findall(log):
        found.setdefault((name, where), {})[plugin] = int(score)
    return found


@pytest.mark.timeout(240, func_only=True)
@pytest.mark.parametrize("version", ["1.34.4", "1.35.4", "1.36.3", "1.37.2"])
def test_kube_default_is_the_sum_that_a_real_kube_scheduler_logs(
    control_plane: ControlPlane, states: list[State], version: str
) -> None:
    minor = version.rpartition(".")[0]
    table = _table(control_plane, minor)
    with kube_scheduler(control_plane, plain_configuration(), version, verbosity=10) as scheduler:
        asked = _tried(control_plane, [state.pod(version) for state in states])
        theirs = _logged(scheduler.process.log())
    wrong, scored = [], 0
    for state in states:
        name = state.pod(version)["metadata"]["name"]
        demand = pod_demand(asked[name], UrgencyRules()).demand
        rows = table.rows_of(state.nodes)
        ours = heuristics.kube_default(table.state.take(rows), demand, minor)
        for where, score in zip(state.nodes, np.rint(ours * heuristics.MAX_NODE_SCORE).tolist(), strict=True):
            logged = theirs.get((name, where))
            if logged is None:
                continue  # it does not fit there
            scored += 1
            if sum(logged.values()) != score:
                wrong.append(f"{name} on {where}: {score:.0f}, kube-scheduler {version} {logged}; {demand}")
    assert scored >= 2 * STATES, "most probes are to have a choice"
    assert not wrong, f"{len(wrong)} of {scored} scores differ:\n" + "\n".join(wrong[:10])
