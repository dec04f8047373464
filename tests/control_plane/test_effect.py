"""The shipped policy matters in a real cluster: the same pods in the same order, by kube-default and by us."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import pytest

from policy import criteria
from policy.cluster import ClusterState, FloatArray, PodDemand
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
from tests.control_plane.workload import Binds, create, create_nodes, node, pod, wipe

SLOW, FAST = 0.7, 1.5
NODES = {f"{kind}-{number}": speed for number in range(8) for kind, speed in (("slow", SLOW), ("fast", FAST))}
"""Node -> speed per core; each has CORES."""

CORES = 8
MEMORY_GIB = 32
PODS = 64
"""Of one core each, every other one urgent: half of all cores."""

USE = 0.8
"""Cores that each pod really uses: 0.36 of what these nodes do in units of the reference core."""

URGENCY = 0.9
"""Of the urgent pods: the share of the reference core's speed that their SLA asks for."""


@dataclass(frozen=True)
class Effect:
    """Where the pods of one run stand; speeds are relative to the reference core and averaged."""

    node_speed: float
    """Of the nodes of urgent pods."""
    landing: float
    """Speed per core that urgent pods can expect as they land: their node's, less what is busy there."""
    rate: float
    """The same at the end, when every pod runs."""
    met: float
    """Share of urgent pods whose SLA is met at the end."""


def _pods() -> list[Manifest]:
    """Urgent and patient pods in turns."""
    made = []
    for number in range(PODS):
        kind, urgency = ("urgent", str(URGENCY)) if number % 2 else ("patient", "0.1")
        uses = {"kwok.x-k8s.io/usage-cpu": f"{int(USE * 1000)}m", "kwok.x-k8s.io/usage-memory": "1Gi"}
        annotations = {"maddpg-scheduler.io/urgency": urgency, **uses}
        made.append(pod(f"{kind}-{number}", cpu="1", memory="2Gi", scheduler=PROFILE, annotations=annotations))
    return made


def _placed(cluster: ControlPlane, configuration: Configuration) -> dict[str, str]:
    """Pod -> node; each pod is created once the one before is bound, so both runs see the same order."""
    where = {}
    with kube_scheduler(cluster, configuration) as _, Binds(cluster.api) as binds:
        for each in _pods():
            create(cluster.api, [each], threads=1)
            name = each["metadata"]["name"]
            where[name] = binds.wait([name])[name].node
    return where


def _nodes() -> list[Manifest]:
    return [
        node(name, cpu=str(CORES), memory=f"{MEMORY_GIB}Gi", labels={"maddpg-scheduler.io/speed": str(speed)})
        for name, speed in NODES.items()
    ]


def _effect(where: Mapping[str, str]) -> Effect:
    """What the urgent pods get on those nodes by the model of contention that policy.criteria documents.

    Args:
        where: pod -> node, in the order of their arrival.
    """
    rows = {name: row for row, name in enumerate(NODES)}
    speeds = np.array(list(NODES.values()))
    state = ClusterState.idle(np.full(len(rows), CORES), np.full(len(rows), MEMORY_GIB), speeds)

    def rates() -> FloatArray:
        """Speed per core on every node as it is now, ``[n]``."""
        return criteria.FASTEST_SPEED * criteria.expected_speed(state, PodDemand(cpu=0.0, memory=0.0, urgency=0.0))

    urgent, landing = [], []
    for name, node_name in where.items():
        state.cpu_used[rows[node_name]] += USE
        if name.startswith("urgent"):
            urgent.append(rows[node_name])
            landing.append(rates()[rows[node_name]])
    rate = rates()[urgent]
    return Effect(
        node_speed=float(speeds[urgent].mean()),
        landing=float(np.mean(landing)),
        rate=float(rate.mean()),
        met=float((rate >= URGENCY).mean()),
    )


@pytest.mark.timeout(150, func_only=True)
def test_urgent_pods_run_faster_than_kube_default_lets_them(
    cluster: ControlPlane, record: Callable[[Result], None]
) -> None:
    create_nodes(cluster.api, _nodes())
    usual = _effect(_placed(cluster, plain_configuration(PROFILE)))
    wipe(cluster.api)
    create_nodes(cluster.api, _nodes())
    with running_extender(cluster, usage_interval_s=5) as extender:
        where = _placed(cluster, shipped_configuration(extender.url, ignorable=False))
        decisions = extender.decisions()
        fallen_back = sum(each["fallback_reason"] is not None for each in decisions.values())
    ours = _effect(where)

    assert decisions.keys() == where.keys(), "a pod that we were not asked about"
    unit = "x reference"
    for what, theirs, mine in (
        ("mean speed of their nodes", usual.node_speed, ours.node_speed),
        ("mean expected speed as they land", usual.landing, ours.landing),
    ):
        record(Result(f"urgent pods, {what}: kube-default", theirs, unit))
        record(Result(f"urgent pods, {what}: ours", mine, unit, at_least=theirs))
    record(Result("urgent pods, mean expected speed at the end: kube-default", usual.rate, unit))
    record(Result("urgent pods, mean expected speed at the end: ours", ours.rate, unit))
    record(Result("urgent pods whose SLA is met at the end: kube-default", 100 * usual.met, "%"))
    record(Result("urgent pods whose SLA is met at the end: ours", 100 * ours.met, "%", at_least=100 * usual.met))
    record(Result("answered by the fallback in that run", fallen_back, "decisions"))
    assert ours.node_speed > usual.node_speed
    assert ours.landing > usual.landing
    assert ours.met > usual.met
