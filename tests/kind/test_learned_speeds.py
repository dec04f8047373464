"""Speeds that an extender learns on a real cluster from Jobs of two templates, with nothing labelled.

The nodes are containers of one machine, so their cores are equally fast. What differs is an emulation: the program of
the Jobs does `FACTORS` times the work on each worker, as if its cores were slower by that factor. The kubelets, their
CPU times, the watch and the estimate are real.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.chart.helm import NAMESPACE, RELEASE
from tests.kind.cluster import Cluster, wait_until
from tests.kind.release import Release, python_container

LABEL = "maddpg-scheduler.io/speed"
FACTORS = (1.0, 2.0)
"""How much work one and the same Job is on each worker, in the order of their names."""
TEMPLATES = {"brief": 300_000, "lengthy": 600_000}
"""Rounds of the program by template; some 6 and 12 CPU seconds."""
COMPLETIONS = 4
"""Pods of each template on each worker. All run at once, so that each runs for a minute or more: a kubelet reads CPU
times every 10 to 15 s, and a reading counts only if it covers half of the run."""
INTERVAL_S = 5.0

PROGRAM = "import os\nfor _ in range(int({rounds} * {factors}[os.environ['NODE']])): sum(range(1500))"


@pytest.fixture(scope="module")
def workers(cluster: Cluster) -> Iterator[list[str]]:
    """The workers, without the label that gives a speed."""
    found = sorted(cluster.workers)
    labelled = {
        each["metadata"]["name"]: each["metadata"]["labels"].get(LABEL) for each in cluster.get("nodes")["items"]
    }
    for name in found:
        cluster.kubectl("label", "node", name, f"{LABEL}-")
    yield found
    for name in found:
        if (speed := labelled[name]) is not None:
            cluster.kubectl("label", "--overwrite", "node", name, f"{LABEL}={speed}")


@pytest.fixture(scope="module")
def release(cluster: Cluster, image_name: str, workers: list[str]) -> Iterator[Release]:
    """One extender that asks kubelets, whose certificates kind leaves self-signed."""
    kubelet = {"enabled": True, "insecureSkipTLSVerify": True}
    made = Release(cluster, image_name, replicas=1, kubelet=kubelet, settings={"usage_interval_s": INTERVAL_S})
    made.install()
    yield made
    made.helm("uninstall", RELEASE, "--wait", "--timeout", "120s")
    cluster.kubectl("delete", "namespace", NAMESPACE, "--wait", "--timeout=60s")


def job(name: str, node: str, image: str, program: str) -> dict[str, Any]:
    """A Job whose pods run the program on that node."""
    pods = {
        "restartPolicy": "Never",
        "nodeSelector": {"kubernetes.io/hostname": node},
        "containers": [python_container(image, program, {"requests": {"cpu": "100m", "memory": "32Mi"}})],
    }
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": name, "labels": {"app": "learned-speeds"}},
        "spec": {"completions": COMPLETIONS, "parallelism": COMPLETIONS, "template": {"spec": pods}},
    }


@pytest.mark.timeout(1200, func_only=True)
def test_learned_speeds_are_those_of_the_work(release: Release, workers: list[str], image_name: str) -> None:
    cluster, factors = release.cluster, dict(zip(workers, FACTORS, strict=True))
    (extender,) = release.ready("extender")

    def nodes() -> dict[str, dict[str, Any]]:
        return {each["node"]: each for each in release.ask(extender, "/v1/nodes")["nodes"]}

    wait_until(lambda: all(nodes()[name]["used"]["measured"] for name in workers), "kubelets are asked", 60.0)
    assert {nodes()[name]["speed"]["source"] for name in workers} == {"default"}
    for template, rounds in TEMPLATES.items():
        for number, name in enumerate(workers):
            program = PROGRAM.format(rounds=rounds, factors=factors)
            cluster.apply(job(f"{template}-{number}", name, image_name, program))
    try:
        least = COMPLETIONS * len(TEMPLATES) - 3  # some may be read too early
        wait_until(
            lambda: all((nodes()[name]["speed"]["learned"] or {}).get("completions", 0) >= least for name in workers),
            f"{least} completions on each worker",
            900.0,
            2.0,
        )
        print(release.ask(extender, "/v1/nodes")["learning"])
        found = {name: nodes()[name]["speed"] for name in workers}
        mean = (FACTORS[0] * FACTORS[1]) ** 0.5
        for name, speed in found.items():
            assert speed["source"] == "completions"
            print(
                f"{name}: true {mean / factors[name]:.3f}, learned {speed['value']:.3f} "
                f"({speed['low']:.3f}-{speed['high']:.3f}) from {speed['learned']['completions']} pods of "
                f"{speed['learned']['templates']} templates; pressure {nodes()[name]['pressure']}"
            )
        fast, slow = (found[name]["value"] for name in workers)
        assert fast / slow == pytest.approx(FACTORS[1] / FACTORS[0], rel=0.2)
    finally:
        cluster.kubectl("delete", "jobs", "--selector=app=learned-speeds", "--wait", "--timeout=60s")


def test_without_the_right_to_node_statistics_every_kubelet_refuses(release: Release) -> None:
    cluster = release.cluster
    (extender,) = release.ready("extender")
    roles = [
        each
        for each in cluster.get("clusterroles")["items"]
        if any("nodes/stats" in rule.get("resources", ()) for rule in each["rules"] or ())
        and each["metadata"]["labels"].get("app.kubernetes.io/instance") == RELEASE
    ]
    assert len(roles) == 1
    kept = [rule for rule in roles[0]["rules"] if "nodes/stats" not in rule.get("resources", ())]
    whole = {key: roles[0][key] for key in ("apiVersion", "kind", "rules")} | {
        "metadata": {"name": roles[0]["metadata"]["name"]}
    }
    states = f'maddpg_kubelets{{state="failing"}} {float(len(cluster.nodes))}'
    cluster.apply({**whole, "rules": kept})
    try:
        wait_until(lambda: states in release.text(extender, "/metrics"), "every kubelet refuses", 120.0)
        assert 'maddpg_kubelet_requests_total{result="forbidden"}' in release.text(extender, "/metrics")
    finally:
        cluster.apply(whole)
