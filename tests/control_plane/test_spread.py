"""Where pods without requests go, by kube-scheduler alone and by us: they change no sum of requests, and must spread.

A real kube-scheduler with the shipped configuration once put 60 of 60 such pods on one of five nodes.
"""

from collections import Counter
from collections.abc import Callable, Sequence

import pytest

from tests.bench.report import Result
from tests.control_plane.access import Manifest
from tests.control_plane.cluster import ControlPlane
from tests.control_plane.extender_process import running_extender
from tests.control_plane.scheduler import (
    PROFILE,
    Configuration,
    kube_scheduler,
    plain_configuration,
    shipped_configuration,
)
from tests.control_plane.workload import Binds, create, create_nodes, node, pod, remove_pods

Requests = dict[str, str]


def _pod(name: str, *containers: Requests) -> Manifest:
    """A pod of containers that request this much."""
    made = pod(name, scheduler=PROFILE)
    made["spec"]["containers"] = [
        {"name": f"c{i}", "image": "fake", "resources": {"requests": each} if each else {}}
        for i, each in enumerate(containers)
    ]
    return made


def _silent() -> list[Manifest]:
    return [_pod(f"silent-{i}", {}) for i in range(60)]


MIX: Sequence[tuple[Requests, ...]] = (
    ({},),
    ({"cpu": "100m"},),
    ({"memory": "200Mi"},),
    ({"cpu": "100m", "memory": "200Mi"}, {}),
    ({"cpu": "250m", "memory": "512Mi"},),
    ({}, {}),
    ({"cpu": "0", "memory": "0"},),
    ({"cpu": "500m", "memory": "1Gi"},),
    ({"memory": "64Mi"}, {"cpu": "50m"}),
)
"""Containers of each pod: some say nothing, some say one of two."""


def _mixed() -> list[Manifest]:
    return [_pod(f"mixed-{i}", *MIX[i % len(MIX)]) for i in range(27)]


def _where(cluster: ControlPlane, configuration: Configuration, pods: list[Manifest], nodes: int) -> list[int]:
    """Pods on each of so many nodes, most first."""
    with kube_scheduler(cluster, configuration), Binds(cluster.api) as binds:
        create(cluster.api, pods)
        bound = binds.wait([each["metadata"]["name"] for each in pods])
    remove_pods(cluster.api)
    counts = Counter(each.node for each in bound.values())
    return sorted([*counts.values(), *[0] * (nodes - len(counts))], reverse=True)


@pytest.mark.timeout(180, func_only=True)
@pytest.mark.parametrize("nodes", [5, 9])
def test_pods_without_requests_spread(cluster: ControlPlane, record: Callable[[Result], None], nodes: int) -> None:
    create_nodes(cluster.api, [node(f"node-{i}", cpu="8", memory="32Gi") for i in range(nodes)])
    for title, pods in (("60 pods without requests", _silent), ("27 mixed pods", _mixed)):
        alone = _where(cluster, plain_configuration(PROFILE), pods(), nodes)
        with running_extender(cluster, usage_source="none") as extender:
            ours = _where(cluster, shipped_configuration(extender.url, ignorable=False), pods(), nodes)
            reasons = {each["fallback_reason"] for each in extender.decisions().values()}
        even = -(-sum(ours) // nodes)
        most = max(alone[0], even) + 3
        for who, found, limit in (("kube-scheduler alone", alone, None), ("ours", ours, most)):
            spread = "/".join(map(str, found))
            record(Result(f"{title} on {nodes} nodes: {who}", found[0], f"pods on one node ({spread})", at_most=limit))
        assert reasons == {None}
        assert ours[0] <= most, f"{title}: {ours}; by kube-scheduler alone {alone}"
