"""What kubelets were asked and answered, where measured use comes from them."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Final, Protocol, runtime_checkable

from extender.cluster.stats import NodePressure
from extender.operations.families import Family
from extender.operations.signals import Signals


class Kubelets(Protocol):
    """What asks kubelets: `extender.cluster.kubelets.Kubelets`, as far as metrics need it."""

    results: Counter[str]
    pressures: dict[str, NodePressure]
    pods_ignored: int

    @property
    def lag(self) -> float:
        """How late the last question was asked, seconds."""
        ...

    def states(self) -> dict[str, int]:
        """Nodes by how the last question ended."""
        ...

    def psi(self) -> dict[str, int]:
        """Nodes that were measured, by whether their kernel collects pressure."""
        ...


@runtime_checkable
class AsksKubelets(Protocol):
    """A source that may ask kubelets."""

    @property
    def kubelets(self) -> Kubelets | None:
        """What asks them; None before the start, and where they are not asked."""
        ...


@dataclass(frozen=True, slots=True)
class Asking:
    """What asks kubelets, and which nodes get metrics of their own."""

    source: AsksKubelets
    signals: Signals


def _requests(asking: Asking) -> dict[str, float]:
    kubelets = asking.source.kubelets
    return {} if kubelets is None else dict(kubelets.results)


def _states(asking: Asking) -> dict[str, float]:
    kubelets = asking.source.kubelets
    return {} if kubelets is None else dict(kubelets.states())


def _psi(asking: Asking) -> dict[str, float]:
    kubelets = asking.source.kubelets
    return {} if kubelets is None else dict(kubelets.psi())


def _pressures(asking: Asking) -> dict[tuple[str, str], float]:
    kubelets, latest = asking.source.kubelets, asking.signals.latest
    if kubelets is None or latest is None:
        return {}
    shown = ((node, kubelets.pressures.get(node)) for node in latest.nodes)
    return {
        (node, resource): share
        for node, pressure in shown
        if pressure is not None
        for resource in ("cpu", "memory", "io")
        if (share := getattr(pressure, resource)) is not None
    }


def _lag(asking: Asking) -> float:
    kubelets = asking.source.kubelets
    return 0.0 if kubelets is None else kubelets.lag


def _pods_ignored(asking: Asking) -> float:
    kubelets = asking.source.kubelets
    return 0.0 if kubelets is None else kubelets.pods_ignored


KUBELETS: Final[tuple[Family[Asking], ...]] = (
    Family(
        "maddpg_kubelet_requests_total",
        "Questions to kubelets, by how they ended: measured, or why not",
        _requests,
        ("result",),
    ),
    Family(
        "maddpg_kubelets",
        "Nodes by how the last question to their kubelet ended: measured, failing, waiting for the first one; or "
        "no_address, where their status gives none",
        _states,
        ("state",),
    ),
    Family(
        "maddpg_kubelet_psi_nodes",
        "Nodes measured, by whether their kernel collects pressure (PSI); elsewhere pressure is estimated from the use",
        _psi,
        ("collected",),
    ),
    Family(
        "maddpg_kubelet_lag_seconds",
        "How late the last question was asked; it grows if `kubelet_connections` are too few",
        _lag,
    ),
    Family(
        "maddpg_kubelet_pods_ignored_total",
        "Pods in kubelets' answers without a usable CPU time, each time",
        _pods_ignored,
    ),
    Family(
        "maddpg_node_pressure_ratio",
        "Share of the last ten seconds in which some task waited for CPU, memory or I/O; of single nodes, those with "
        "the least room; see the setting `node_metrics`",
        _pressures,
        ("node", "resource"),
    ),
)
