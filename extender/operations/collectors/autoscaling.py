"""Signals for autoscalers, as they were worked out last."""

from __future__ import annotations

from typing import Final

from extender.operations.families import Family
from extender.operations.signals import RESOURCES, Signals


def _requests(signals: Signals) -> dict[tuple[str, str, str], float]:
    return {
        (resource, unit, rated): getattr(pods, resource)
        for rated, pods in signals.latest.pending.items()
        for resource, unit in RESOURCES.items()
    }


def _headroom(signals: Signals) -> dict[tuple[str, str, str], float]:
    return {(resource, RESOURCES[resource], of): value for (resource, of), value in signals.latest.headroom.items()}


def _node_headroom(signals: Signals) -> dict[tuple[str, str], float]:
    return {
        (node, resource): ratio
        for node, each in signals.latest.nodes.items()
        for resource, ratio in each.headroom.items()
    }


SIGNALS: Final[tuple[Family[Signals], ...]] = (
    Family(
        "maddpg_pending_pods",
        "Pods that wait for this scheduler, by how the best node with room would serve them: well (in time), badly "
        "(too slow for their urgency), nowhere (no node has room), unrated (too many kinds of pods to look at)",
        lambda signals: {rated: pods.pods for rated, pods in signals.latest.pending.items()},
        ("rated",),
    ),
    Family("maddpg_pending_requests", "What these pods request together", _requests, ("resource", "unit", "rated")),
    Family(
        "maddpg_placements_total",
        "Pods decided upon here and seen bound, by whether their node was expected to be too slow for their urgency; "
        "unknown where it was not among the best few",
        lambda signals: signals.placements,
        ("at_risk",),
    ),
    Family(
        "maddpg_headroom",
        "Allocatable less requested on nodes that are ready: of all together (cluster), and of the one with most "
        "(node)",
        _headroom,
        ("resource", "unit", "of"),
    ),
    Family(
        "maddpg_headroom_ratio",
        "Allocatable less requested over allocatable, of all nodes that are ready together",
        lambda signals: signals.latest.headroom_ratio,
        ("resource",),
    ),
    Family(
        "maddpg_node_headroom_ratio",
        "The same of single nodes, those with the least room; see the setting `node_metrics`",
        _node_headroom,
        ("node", "resource"),
    ),
    Family(
        "maddpg_node_expected_rate",
        "Rate that a small pod is expected to run at on these nodes: 1 is an idle reference core's",
        lambda signals: {node: each.expected_rate for node, each in signals.latest.nodes.items()},
        ("node",),
    ),
)
