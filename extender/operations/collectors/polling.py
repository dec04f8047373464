"""What kubelets were asked and answered, where measured use comes from them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Protocol, TypeVar, runtime_checkable

from extender.operations.families import Family
from extender.operations.signals import Signals

V = TypeVar("V")


@runtime_checkable
class AsksKubelets(Protocol):
    """A source that may ask kubelets."""

    @property
    def kubelets(self) -> Any:
        """The `Kubelets` of `extender.cluster.kubelets`; None before the start, and where they are not asked."""
        ...


@dataclass(frozen=True, slots=True)
class Asking:
    """What asks kubelets, and which nodes get metrics of their own."""

    source: AsksKubelets
    signals: Signals


def _asked(read: Callable[[Any], V], otherwise: V) -> Callable[[Asking], V]:
    """Return what reads from that which asks kubelets; `otherwise` while nothing does."""
    return lambda asking: otherwise if (kubelets := asking.source.kubelets) is None else read(kubelets)


def _pressures(asking: Asking) -> dict[tuple[str, str], float]:
    if (kubelets := asking.source.kubelets) is None:
        return {}
    shown = ((node, kubelets.pressures.get(node)) for node in asking.signals.latest.nodes)
    return {
        (node, resource): share
        for node, pressure in shown
        if pressure is not None
        for resource in ("cpu", "memory", "io")
        if (share := getattr(pressure, resource)) is not None
    }


KUBELETS: Final[tuple[Family[Asking], ...]] = (
    Family(
        "maddpg_kubelet_requests_total",
        "Questions to kubelets, by how they ended: measured, or why not",
        _asked(lambda kubelets: kubelets.results, {}),
        ("result",),
    ),
    Family(
        "maddpg_kubelets",
        "Nodes by how the last question to their kubelet ended: measured, failing, waiting for the first one; or "
        "no_address, where their status gives none",
        _asked(lambda kubelets: kubelets.rounds.states(), {}),
        ("state",),
    ),
    Family(
        "maddpg_kubelet_psi_nodes",
        "Nodes measured, by whether their kernel collects pressure (PSI); elsewhere pressure is estimated from the use",
        _asked(lambda kubelets: kubelets.psi(), {}),
        ("collected",),
    ),
    Family(
        "maddpg_kubelet_lag_seconds",
        "How late the last question was asked; it grows if `kubelet_connections` are too few",
        _asked(lambda kubelets: kubelets.rounds.lag, 0.0),
    ),
    Family(
        "maddpg_kubelet_pods_ignored_total",
        "Pods in kubelets' answers without a usable CPU time, each time",
        _asked(lambda kubelets: kubelets.pods_ignored, 0),
    ),
    Family(
        "maddpg_node_pressure_ratio",
        "Share of the last ten seconds in which some task waited for CPU, memory or I/O; of single nodes, those with "
        "the least room; see the setting `node_metrics`",
        _pressures,
        ("node", "resource"),
    ),
)
