"""What metrics show of kubelets, and that single nodes are bounded by `node_metrics`."""

from __future__ import annotations

from collections import Counter
from types import SimpleNamespace
from typing import Any, cast

from extender.cluster.stats import NodePressure
from extender.operations.collectors.polling import KUBELETS, Asking, AsksKubelets
from extender.operations.metrics import Metrics
from extender.operations.signals import Signals

PRESSURE = NodePressure(cpu=0.25, memory=0.0, io=None, at=1.0)


def values(kubelets: Any, latest: Any) -> dict[tuple[str, tuple[str, ...]], float]:
    """Every sample by its name and labels."""
    metrics = Metrics()
    asking = Asking(
        cast("AsksKubelets", SimpleNamespace(kubelets=kubelets)), cast("Signals", SimpleNamespace(latest=latest))
    )
    metrics.register(asking, KUBELETS)
    return {
        (sample.name, tuple(sample.labels.values())): sample.value
        for metric in metrics.registry.collect()
        for sample in metric.samples
        if "kubelet" in sample.name or "node_pressure" in sample.name
    }


def test_questions_nodes_and_pressures_are_shown() -> None:
    kubelets = SimpleNamespace(
        results=Counter(measured=7, forbidden=2),
        rounds=SimpleNamespace(states=lambda: {"measured": 3, "failing": 1}, lag=0.5),
        psi=lambda: {"true": 2, "false": 1},
        pods_ignored=4,
        pressures={"node-a": PRESSURE, "node-b": PRESSURE},
    )
    assert values(kubelets, SimpleNamespace(nodes={"node-a": None, "node-c": None})) == {
        ("maddpg_kubelet_requests_total", ("measured",)): 7,
        ("maddpg_kubelet_requests_total", ("forbidden",)): 2,
        ("maddpg_kubelets", ("measured",)): 3,
        ("maddpg_kubelets", ("failing",)): 1,
        ("maddpg_kubelet_psi_nodes", ("true",)): 2,
        ("maddpg_kubelet_psi_nodes", ("false",)): 1,
        ("maddpg_kubelet_lag_seconds", ()): 0.5,
        ("maddpg_kubelet_pods_ignored_total", ()): 4,
        ("maddpg_node_pressure_ratio", ("node-a", "cpu")): 0.25,
        ("maddpg_node_pressure_ratio", ("node-a", "memory")): 0.0,
    }


def test_nothing_is_shown_before_the_start() -> None:
    assert {name for name, _ in values(None, None)} == {
        "maddpg_kubelet_lag_seconds",
        "maddpg_kubelet_pods_ignored_total",
    }
