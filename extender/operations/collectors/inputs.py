"""What is known of the cluster, and how old it is."""

from __future__ import annotations

from typing import Final

from extender.cluster.source import INPUTS, ClusterSource
from extender.cluster.table import ClusterTable
from extender.operations.families import Family


def _staleness(source: ClusterSource) -> dict[str, float]:
    ages = source.staleness()
    return {name: float("nan") if (age := ages.get(name)) is None else age for name in INPUTS}


SOURCE: Final[tuple[Family[ClusterSource], ...]] = (
    Family(
        "maddpg_input_staleness_seconds",
        "Time since the input was last known to be current; NaN if it never was",
        _staleness,
        ("input",),
    ),
    Family(
        "maddpg_source_events_total",
        "What happened to each input: lists, watches, reconnects, failures",
        lambda source: source.counts(),
        ("input", "event"),
    ),
    Family("maddpg_synced", "1 once nodes and pods have been listed", lambda source: source.synced),
)

TABLE: Final[tuple[Family[ClusterTable], ...]] = (
    Family(
        "maddpg_nodes",
        "Nodes known, by readiness",
        lambda table: {"true": (ready := table.ready_count), "false": table.node_count - ready},
        ("ready",),
    ),
    Family("maddpg_pods", "Pods known to be on a node", lambda table: table.pod_count),
    Family(
        "maddpg_assumed_placements",
        "Placements believed that the watch has not shown yet",
        lambda table: table.assumed_count,
    ),
    Family(
        "maddpg_assumed_expired_total",
        "Assumed placements that the watch never showed",
        lambda table: table.assumed_expired,
    ),
)
