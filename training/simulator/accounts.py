"""What happened in each cluster: counts and time averages from which every metric is computed."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, Final, Self

import numpy as np
from numpy.typing import NDArray

from training.simulator.draws import FloatArray

SLOWDOWN_BINS: Final = 96
SLOWDOWN_EDGES: Final = np.geomspace(0.5, 32.0, SLOWDOWN_BINS + 1)
"""Slowdowns are counted in logarithmic bins, 4.4 % wide, so that percentiles need no list of pods."""


@dataclass(slots=True)
class Accounts:
    """Struct of arrays with a leading axis ``[clusters]``.

    The first five count every pod; the others only *measured* ones, which arrive after the warm-up and before the
    episode's last arrival, and the time between those two.

    Attributes:
        arrived, finished, failed, bound, retries: pods so far; bindings; attempts that found no node.
        measured: measured pods that arrived.
        measured_failed: those that were killed.
        resolved: those whose SLA is decided: violated, or done (a service: its first unit).
        violations: those whose SLA is violated.
        lateness: their lateness, in allowances.
        slowdowns: units of work done, by class and bin of slowdown, ``[clusters, w, SLOWDOWN_BINS]``.
        time: seconds measured.
        used, allocated, memory_used, memory_allocated: integral over time of the shares of the cluster's capacity.
        imbalance: integral over time of the variance across nodes of use over capacity.
    """

    arrived: NDArray[np.int64]
    finished: NDArray[np.int64]
    failed: NDArray[np.int64]
    bound: NDArray[np.int64]
    retries: NDArray[np.int64]
    measured: NDArray[np.int64]
    measured_failed: NDArray[np.int64]
    resolved: NDArray[np.int64]
    violations: NDArray[np.int64]
    lateness: FloatArray
    slowdowns: NDArray[np.int64]
    time: FloatArray
    used: FloatArray
    allocated: FloatArray
    memory_used: FloatArray
    memory_allocated: FloatArray
    imbalance: FloatArray

    @classmethod
    def empty(cls, clusters: int, classes: int) -> Self:
        """Nothing has happened."""
        values: dict[str, NDArray[Any]] = {}
        for item in fields(cls):
            values[item.name] = np.zeros(clusters, dtype=np.float64 if item.type == "FloatArray" else np.int64)
        values["slowdowns"] = np.zeros((clusters, classes, SLOWDOWN_BINS), dtype=np.int64)
        return cls(**values)
