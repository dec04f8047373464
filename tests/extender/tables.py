"""What tests read of a `ClusterTable` that the service never asks for."""

from __future__ import annotations

from extender.cluster.table import ClusterTable


def node_of(table: ClusterTable, uid: str) -> str | None:
    """Node the pod is on, seen or assumed; None if neither."""
    pod = table._pods.get(uid)
    return None if pod is None else pod.node


def node_names(table: ClusterTable) -> list[str]:
    """Names of all nodes, in no particular order."""
    return list(table._nodes)
