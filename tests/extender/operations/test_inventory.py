"""What is shown of nodes: pages, pressure that is not measured, and a table that fits a terminal."""

from __future__ import annotations

import json
import random
from types import SimpleNamespace
from typing import Any, cast

import pytest
from typer.testing import CliRunner

from extender.cli import app
from extender.cluster.account import SpeedBasis
from extender.cluster.kubelet import Endpoint
from extender.cluster.rounds import Rounds
from extender.cluster.source import ClusterSource
from extender.cluster.stats import NodePressure
from extender.cluster.table import ClusterTable
from extender.operations.inventory import Inventory, as_text
from tests.extender.service import Service

WIDTH = 80


@pytest.fixture
def service(run_service: Any) -> Service:
    running: Service = run_service()
    running.add_nodes(7)
    running.change(lambda table: table.upsert_node("n" * 253, 4.0, 8.0, 1.25, False, SpeedBasis("published", 1.0, 1.5)))
    return running


def test_every_node_is_on_one_page(service: Service) -> None:
    found, after, pages = [], 0, 0
    while after is not None:
        page = service.operations.get(f"/v1/nodes?limit=3&after={after}").json()
        found += [it["node"] for it in page["nodes"]]
        after, pages = page["next"], pages + 1
    assert sorted(found) == sorted([*(f"node-{i}" for i in range(7)), "n" * 253])
    assert pages == 3


def test_a_node_is_shown_with_what_is_known_of_it(service: Service) -> None:
    service.change(lambda table: table.pod_bound("p", "node-1", 2.0, 4.0))
    service.change(lambda table: table.set_usage("node-1", 1.0, 3.0, 0.25, 1.0))
    found = service.operations.get("/v1/nodes/node-1").json()
    assert found["allocatable"] == {"cpu": 8.0, "memory": 32.0}
    assert found["requested"] == {"cpu": 2.0, "memory": 4.0}
    assert found["used"]["measured"] == {"cpu": 1.0, "memory": 3.0}
    assert found["used"]["age_s"] > 0.0
    assert found["pressure"]["cpu"] == 0.25
    assert found["pressure"]["source"] == "psi"
    assert (found["speed"]["value"], found["speed"]["share_left"]) == (1.25, 1.0)
    long = service.operations.get(f"/v1/nodes/{'n' * 253}").json()
    assert (long["ready"], long["speed"]["source"], long["speed"]["high"]) == (False, "published", 1.5)
    assert long["pressure"]["source"] == "estimated from the use"
    assert long["used"]["measured"] is long["used"]["age_s"] is None


def test_the_command_prints_eighty_columns_or_the_whole_document(service: Service) -> None:
    url = service.background.operations_url
    printed = CliRunner().invoke(app, ["nodes", "--url", url])
    assert printed.exit_code == 0, printed.output
    lines = printed.output.splitlines()
    assert max(map(len, lines)) <= WIDTH
    assert [line.split()[0] for line in lines[1:9]] == ["n" * 24, *(f"node-{i}" for i in range(7))]
    assert lines[1].split()[1:4] == ["1.25", "1.00-1.50", "published"]
    document = json.loads(CliRunner().invoke(app, ["nodes", "--url", url, "--json"]).output)
    assert len(document["nodes"]) == 8
    assert document["next"] is None


def test_each_node_says_what_measured_it_and_whether_its_kernel_has_psi() -> None:
    table = ClusterTable()
    for name in ("idle", "old", "silent", "elsewhere"):
        table.upsert_node(name, 4.0, 8.0)
    table.set_usage("idle", 1.0, 3.0, 0.0, 75.0, by="kubelet")
    table.set_usage("elsewhere", 1.0, 3.0, None, 75.0, by="metrics-server")
    rounds = Rounds(15.0, random.Random(1))
    for name, result in {"idle": "measured", "old": "measured", "silent": "timeout"}.items():
        rounds.follow(name, Endpoint(name, "10.0.0.1", 10250))
        rounds.kubelets[name].result = result
    rounds.follow("elsewhere", None)
    pressures = {"idle": NodePressure(0.0, 0.0, 0.0, 90.0), "old": NodePressure(None, None, None, 90.0)}
    source = SimpleNamespace(
        kubelets=SimpleNamespace(pressures=pressures, rounds=rounds),
        speeds=None,
        completed=None,
        keeper=None,
        benchmarks=None,
    )
    inventory = Inventory(table, cast("ClusterSource", source), clock=lambda: 100.0)
    shown = inventory.document(inventory.take(0, 10))["nodes"]
    assert {it["node"]: (it["used"]["source"], it["used"]["kubelet"]) for it in shown} == {
        "idle": ("kubelet", "measured"),
        "old": ("requests", "measured"),
        "silent": ("requests", "timeout"),
        "elsewhere": ("metrics-server", "no_address"),
    }
    nodes = {it["node"]: it["pressure"] for it in shown}
    assert nodes["idle"] == {"cpu": 0.0, "memory": 0.0, "io": 0.0, "source": "psi", "age_s": 10.0}
    assert nodes["old"]["source"] == "no PSI in this kernel: estimated from the use"
    assert nodes["old"]["memory"] is None
    assert nodes["silent"]["source"] == "no answer of its kubelet: estimated from the use"


def test_the_table_names_nodes_whose_pods_wait(service: Service) -> None:
    basis = SpeedBasis("completions", 0.5, 0.7, 30, 3, share_left=0.6, full_at=0.25)
    service.change(lambda table: table.set_speed("node-2", 0.6, basis))
    shown = service.operations.get("/v1/nodes/node-2").json()
    assert (shown["speed"]["value"], shown["speed"]["share_left"]) == (0.6, 0.6)
    assert shown["speed"]["full_at"] == 0.25
    assert "node-2: its pods wait and end late, so 60% of its speed count, and 25% of its CPU." in as_text(
        None, [shown]
    )


def test_the_table_says_why_nothing_is_learned() -> None:
    assert "Speeds are not learned: no CPU times: usage_source names no kubelets." in as_text(
        {"refused": "no CPU times: usage_source names no kubelets"}, []
    )
    learning = {"refused": None, "evidence": {"kept": 36}, "estimated": 3, "unconnected": 1}
    assert "Learned from 36 completed pods: 3 nodes; 1 nodes share no template with others." in as_text(learning, [])
