"""Pod groups: kube-scheduler asks for placements that it never makes, and none of them is believed for long.

kube-scheduler 1.37 with GenericWorkload asks for a node for each pod of a gang, and gives all of them up where one has
none; a preemption for a gang asks once more, about a cluster without its victims.

kube-scheduler 1.36 does the same, but is not tried: it watches PodGroups of scheduling.k8s.io/v1alpha2, which an API
server of 1.37, the only one that is built here, serves no more.
"""

import time
from collections.abc import Callable

from tests.control_plane.access import Manifest
from tests.control_plane.cluster import ControlPlane
from tests.control_plane.extender_process import Extender, running_extender
from tests.control_plane.scheduler import PROFILE, kube_scheduler, shipped_configuration
from tests.control_plane.workload import (
    Binds,
    create,
    create_nodes,
    node,
    pending_reason,
    pod,
    pod_group,
    priority_class,
)

GATE = "GenericWorkload=true"
NODES = [f"node-{number}" for number in range(4)]
LIMIT_S = 120
"""assumed_time_limit_s: whatever ends before was ended by a fact."""


def _until(condition: Callable[[], bool], what: str, timeout_s: float) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, f"not within {timeout_s:g} s: {what}"
        time.sleep(0.02)


def _gang(name: str, pods: int, priority: str | None = None) -> list[Manifest]:
    """A gang and its pods, each of which fills a node. A finalizer keeps a group of an earlier test: no name twice."""
    members = [pod(f"{name}-{i}", cpu="3", scheduler=PROFILE, priority_class=priority) for i in range(pods)]
    for each in members:
        each["spec"]["schedulingGroup"] = {"podGroupName": f"{name}-{pods}"}
    return [pod_group(f"{name}-{pods}", pods, priority), *members]


def _asked(extender: Extender) -> int:
    """How often priorities were asked for pods of the gang."""
    return sum(each["attempt"] for name, each in extender.decisions().items() if name.startswith("gang"))


def _nothing_assumed(extender: Extender) -> bool:
    return extender.metric("maddpg_assumed_placements") == 0


def _free(extender: Extender) -> set[str]:
    """Nodes on which nothing is requested, by the explanation of a small pod."""
    probe = pod("probe", cpu="10m", memory="1Mi", scheduler=PROFILE)
    probe["metadata"]["uid"] = "uid-probe"
    extender.post("prioritize", {"Pod": probe, "Nodes": None, "NodeNames": NODES}).raise_for_status()
    told = extender.explanation("uid-probe")
    return {each["node"] for each in told["nodes"] if each["features"]["cpu_requested"] < 0.1}


def test_a_gang_without_room_fills_no_node(cluster: ControlPlane) -> None:
    create_nodes(cluster.api, [node(name, cpu="4", memory="16Gi") for name in NODES])
    with (
        running_extender(cluster, usage_source="none", assumed_time_limit_s=LIMIT_S) as extender,
        kube_scheduler(cluster, shipped_configuration(extender.url, ignorable=False), feature_gates=GATE),
    ):
        create(cluster.api, _gang("gang", 6), threads=1)  # two more than there are nodes
        _until(lambda: _asked(extender) >= 4, "the gang was asked about", 30.0)
        _until(lambda: "pod group" in pending_reason(cluster.api, "gang-0"), "the gang was given up", 30.0)
        _until(lambda: _nothing_assumed(extender), "what the pod's condition says ends the assumption", 5.0)
        _until(lambda: _asked(extender) >= 8, "the gang was tried again", 60.0)
        _until(lambda: _nothing_assumed(extender), "the second time the condition stays as it was", 6.0)
        assert _free(extender) == set(NODES)


def test_a_gang_that_preempts_is_believed_where_it_is_bound(cluster: ControlPlane) -> None:
    create_nodes(cluster.api, [node(name, cpu="4", memory="16Gi") for name in NODES])
    create(cluster.api, [priority_class("low", 10), priority_class("high", 1000)])
    with (
        running_extender(cluster, usage_source="none", assumed_time_limit_s=LIMIT_S) as extender,
        kube_scheduler(cluster, shipped_configuration(extender.url, ignorable=False), feature_gates=GATE),
        Binds(cluster.api) as binds,
    ):
        low = [pod(f"low-{i}", cpu="3", scheduler=PROFILE, priority_class="low") for i in range(len(NODES))]
        create(cluster.api, low)
        binds.wait([each["metadata"]["name"] for each in low])
        create(cluster.api, _gang("gang", 3, "high"), threads=1)
        bound = binds.wait([f"gang-{i}" for i in range(3)])
        assert _asked(extender) > 3, "the preemption asked about a cluster without its victims"
        _until(lambda: _nothing_assumed(extender), "every placement is seen or given up", 6.0)
        assert len({each.node for each in bound.values()}) == 3
        assert _free(extender) == set()
