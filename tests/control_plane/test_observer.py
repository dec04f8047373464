"""A cluster that others schedule is observed, and nothing in it changes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from extender.observer import as_text
from tests.bench.report import Result
from tests.control_plane.access import Manifest, request
from tests.control_plane.cluster import ControlPlane
from tests.control_plane.extender_process import Extender, running_extender
from tests.control_plane.scheduler import PROFILE, kube_scheduler, plain_configuration, shipped_configuration
from tests.control_plane.workload import Binds, create, create_nodes, node, pod
from tests.extender.cluster.following import eventually

PODS = 500
SPEEDS = ("0.7", "1.0", "1.25", "1.5")


def observed(extender: Extender) -> dict[str, Any]:
    """What the service says it saw."""
    return dict(httpx.get(f"{extender.url}/v1/observed", trust_env=False).raise_for_status().json())


def nodes(count: int) -> list[Manifest]:
    """Nodes of four speeds."""
    made = [node(f"node-{i}", cpu="32", memory="128Gi") for i in range(count)]
    for index, each in enumerate(made):
        each["metadata"].setdefault("labels", {})["maddpg-scheduler.io/speed"] = SPEEDS[index % len(SPEEDS)]
    return made


def requested(case: dict[str, Any]) -> dict[str, tuple[float, float]]:
    """Cores and GiB requested on each node when it was decided."""
    columns = (case["columns"][name] for name in ("cpu_requested", "memory_requested"))
    return dict(zip(case["names"], zip(*columns, strict=True), strict=True))


def best(case: dict[str, Any]) -> set[str]:
    """The nodes with the highest priority."""
    return {
        name for name, each in zip(case["names"], case["priorities"], strict=True) if each == max(case["priorities"])
    }


@pytest.mark.timeout(240, func_only=True)
def test_it_would_have_chosen_what_the_extender_really_chose(
    cluster: ControlPlane, record: Callable[[Result], None]
) -> None:
    create_nodes(cluster.api, nodes(20))
    pods = [pod(f"pod-{i}", scheduler=PROFILE, cpu=f"{100 + 50 * (i % 6)}m") for i in range(PODS)]
    with (
        running_extender(cluster, usage_source="none", observe=True) as observer,
        running_extender(cluster, usage_source="none") as extender,
        kube_scheduler(cluster, shipped_configuration(extender.url, ignorable=False)),
        Binds(cluster.api) as binds,
    ):
        create(cluster.api, pods)
        binds.wait([each["metadata"]["name"] for each in pods], timeout_s=120.0)
        eventually(lambda: observed(observer)["pods"] == PODS, "all are observed", 30.0)
        found = observed(observer)
        chosen, seen = extender.decisions(), observer.decisions()
        uids = {name: each["pod"]["uid"] for name, each in chosen.items()}
        cases = {name: (extender.case(uid), observer.case(uid)) for name, uid in uids.items()}
    assert found["results"]["not_rated"] == found["not_foreseen"] == 0
    # kube-scheduler binds in goroutines, so binds are seen in another order than that of the decisions
    alike = {name for name, (ours, theirs) in cases.items() if requested(ours) == requested(theirs)}
    same = {name for name, (_, theirs) in cases.items() if chosen[name]["assumed"] in best(theirs)}
    record(Result(f"{PODS} pods observed beside our own extender: same choice", len(same) / PODS, ""))
    record(Result("of these, seen in the same state", len(alike), "pods", at_least=PODS / 10))
    share = len(same & alike) / len(alike)
    record(Result("same choice in the same state", share, "", at_least=0.95))
    assert len(alike) >= PODS / 10
    assert share >= 0.95
    assert found["same_share"] == pytest.approx(len(same) / PODS)
    assert {each["candidates"] for each in seen.values()} == {each["candidates"] for each in chosen.values()} == {20}


@pytest.mark.timeout(120, func_only=True)
def test_it_looks_on_while_the_default_scheduler_places_pods(cluster: ControlPlane) -> None:
    made = nodes(6)
    made[1]["metadata"]["labels"]["disk"] = "ssd"
    create_nodes(cluster.api, made)
    taint = {"spec": {"taints": [{"key": "kept", "value": "free", "effect": "NoSchedule"}]}}
    request(cluster.api, "PATCH", "/api/v1/nodes/node-0", taint, "application/strategic-merge-patch+json")
    pods = [pod(f"pod-{i}", scheduler="default-scheduler") for i in range(40)]
    for each in pods[:5]:
        each["spec"]["nodeSelector"] = {"disk": "ssd"}
    for each in pods[5:10]:
        each["spec"]["hostNetwork"] = False
        each["spec"]["topologySpreadConstraints"] = [
            {
                "maxSkew": 50,
                "topologyKey": "kubernetes.io/hostname",
                "whenUnsatisfiable": "DoNotSchedule",
                "labelSelector": {},
            }
        ]
    with running_extender(cluster, usage_source="none", observe=True) as observer:
        with kube_scheduler(cluster, plain_configuration()), Binds(cluster.api) as binds:
            create(cluster.api, pods)
            bound = binds.wait([each["metadata"]["name"] for each in pods])
        eventually(lambda: observed(observer)["pods"] == len(pods), "all are observed", 30.0)
        found, seen = observed(observer), observer.decisions()
        refused = observer.post("prioritize", {"Pod": pods[0], "Nodes": None, "NodeNames": ["node-1"]})
    print(as_text(found))
    assert refused.status_code == 404
    assert found["not_foreseen"] == 0
    assert found["results"]["one_node"] == 5, "five pods select the only node with an ssd"
    assert found["unmodelled"] == {"topology_spread": 5}
    assert {name: each["outcome"]["node"] for name, each in seen.items()} == {
        name: each.node for name, each in bound.items()
    }
    assert {each["candidates"] for each in seen.values()} == {1, 5}, "the tainted node is never a candidate"


@pytest.mark.timeout(120, func_only=True)
def test_the_command_ends_by_itself_with_a_report(cluster: ControlPlane, tmp_path: Path) -> None:
    create_nodes(cluster.api, nodes(3))
    command = [sys.executable, "-m", "extender", "observe", "--for", "10", "--json", "--port", "0"]
    command += ["--kubeconfig", str(cluster.extender_kubeconfig(tmp_path / "kubeconfig")), "--usage-source", "none"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ
    ) as process:
        try:
            if process.stderr is None:
                raise AssertionError("no stderr")
            while "pods observed" not in process.stderr.readline():
                pass
            with kube_scheduler(cluster, plain_configuration()), Binds(cluster.api) as binds:
                create(cluster.api, [pod(f"pod-{i}", scheduler="default-scheduler") for i in range(5)])
                binds.wait([f"pod-{i}" for i in range(5)])
            told, _ = process.communicate(timeout=60.0)
        finally:
            process.kill()
    assert process.returncode == 0
    assert json.loads(told)["pods"] == 5
    names = request(cluster.api, "GET", "/api/v1/events?limit=1000")["items"]
    assert not [each for each in names if each.get("reportingComponent") == "maddpg-extender"], "nothing was written"
