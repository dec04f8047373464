"""Nodes of equal sum have equal chances, whatever raised them to the top: with each kube-scheduler that draws by name.

From 1.35 on kube-scheduler gives the number that breaks ties only to nodes that an extender's answer names
(https://github.com/kubernetes/kubernetes/blob/v1.37.2/pkg/scheduler/schedule_one.go, prioritizeNodes).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Final

import pytest
from scipy.stats import chisquare

from tests.bench.report import Result
from tests.control_plane.access import Manifest
from tests.control_plane.cluster import ControlPlane
from tests.control_plane.extender_process import running_extender
from tests.control_plane.scheduler import PROFILE, kube_scheduler, shipped_configuration
from tests.control_plane.workload import Binds, create, create_nodes, node, pod, remove_pods

ZONE: Final = "topology.kubernetes.io/zone"
NODES: Final = 20
PODS: Final = 2000
LEAST_P: Final = 1e-4
"""Chance below which a spread is taken for uneven: one of ten thousand runs fails by bad luck."""

Record = Callable[[Result], None]


def _nodes() -> list[Manifest]:
    """Nodes alike, in two zones, with room for every pod."""
    made = [node(f"tie-{i:02}", cpu="64", labels={ZONE: f"zone-{i % 2}"}) for i in range(NODES)]
    for each in made:
        each["status"]["allocatable"]["pods"] = each["status"]["capacity"]["pods"] = str(PODS)
    return made


def _preferring(pods: list[Manifest]) -> list[Manifest]:
    """The pods, each with a preference for zone 1: worth 200 points in kube-scheduler's sum, two of our levels."""
    term = {"matchExpressions": [{"key": ZONE, "operator": "In", "values": ["zone-1"]}]}
    for each in pods:
        preferred = [{"weight": 100, "preference": term}]
        each["spec"]["affinity"] = {"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": preferred}}
    return pods


def _pods(prefix: str, count: int = PODS) -> list[Manifest]:
    """Small pods; each test has names of its own, since KWOK may still be deleting those of the last one."""
    return [pod(f"{prefix}-{i}", cpu="10m", memory="16Mi", scheduler=PROFILE) for i in range(count)]


def _spread(cluster: ControlPlane, pods: list[Manifest], version: str, **settings: object) -> Counter[str]:
    """How many of the pods each node got."""
    create_nodes(cluster.api, _nodes())
    create(cluster.api, pods)
    with running_extender(cluster, usage_source="none", **settings) as extender:
        configuration = shipped_configuration(extender.url, ignorable=False)
        with Binds(cluster.api) as binds, kube_scheduler(cluster, configuration, version):
            bound = binds.wait([each["metadata"]["name"] for each in pods], timeout_s=200)
    remove_pods(cluster.api)
    return Counter(bind.node for bind in bound.values())


@pytest.mark.timeout(300, func_only=True)
@pytest.mark.parametrize("version", ["1.35.4", "1.36.3", "1.37.2"])
def test_nodes_that_an_in_tree_preference_raises_to_the_top_share_the_pods(
    cluster: ControlPlane, record: Record, version: str
) -> None:
    # for expected-speed these pods change nothing: every answer singles out one of 20 equal nodes, in either zone.
    # Where it is in zone 0, the ten of zone 1 are a level below it and two levels of preference above
    found = _spread(cluster, _preferring(_pods(version)), version, scorer="expected-speed")
    preferred = [found[f"tie-{i:02}"] for i in range(1, NODES, 2)]
    p = float(chisquare(preferred).pvalue)
    record(Result(f"{PODS} pods on 10 preferred nodes of 20, {version}: most on one", max(preferred), "pods"))
    record(Result(f"{PODS} pods on 10 preferred nodes of 20, {version}: chi-square, p", p, "", at_least=LEAST_P))
    assert sum(preferred) == PODS
    assert p >= LEAST_P, f"uneven: {preferred}"


@pytest.mark.timeout(300, func_only=True)
def test_nodes_that_are_not_scored_share_the_pods(cluster: ControlPlane, record: Record) -> None:
    found = _spread(cluster, _pods("neutral", PODS // 2), "1.37.2", max_nodes=NODES - 1)
    spread = [found[f"tie-{i:02}"] for i in range(NODES)]
    p = float(chisquare(spread).pvalue)
    record(Result(f"{PODS // 2} pods on {NODES} nodes that are not scored: chi-square, p", p, "", at_least=LEAST_P))
    assert p >= LEAST_P, f"uneven: {spread}"
