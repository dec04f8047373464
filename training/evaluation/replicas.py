"""How a workload's replicas are spread over nodes: counted from placements, where a scenario has replicas."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from training.simulator.draws import FloatArray
from training.simulator.scenarios import Scenario

REPLICA_SHARE: Final = "replica_share"
"""Metric: the largest share of a workload's replicas on one node, mean over workloads; the fewer share a fate, the
better."""


class ReplicaCounts:
    """Replicas of each workload on each node, ``[clusters, workloads, n]``, as they were placed.

    Args:
        scenario: with `arrivals.replicas` above 1.
        clusters: how many side by side.
    """

    def __init__(self, scenario: Scenario, clusters: int) -> None:
        self._size = scenario.arrivals.replicas
        self._first = -(-scenario.warmup_arrivals // self._size)
        workloads = scenario.episode_arrivals // self._size
        self._counts = np.zeros((clusters, workloads, scenario.nodes), dtype=np.int64)

    def add(self, pod_number: NDArray[np.int64], placement: NDArray[np.int64]) -> None:
        """Count one pod of each cluster on its node, ``[clusters]``; -1 and pods beyond the episode count nowhere."""
        workload = pod_number // self._size
        rows = np.flatnonzero((placement >= 0) & (workload < self._counts.shape[1]))
        np.add.at(self._counts, (rows, workload[rows], placement[rows]), 1)

    def largest_share(self) -> FloatArray:
        """`REPLICA_SHARE` of each cluster, ``[clusters]``; workloads of the warm-up are left out, NaN without any."""
        counts = self._counts[:, self._first :]
        placed = counts.sum(axis=-1)
        shares = np.where(placed > 0, counts.max(axis=-1) / np.maximum(placed, 1), np.nan)
        known = (placed > 0).any(axis=1)
        result = np.full(len(counts), np.nan)
        result[known] = np.nanmean(shares[known], axis=1)
        return result
