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
    """Struct of arrays with a leading axis ``[clusters]``."""

    # Of every pod.
    arrived: NDArray[np.int64]
    finished: NDArray[np.int64]
    failed: NDArray[np.int64]
    bound: NDArray[np.int64]  # bindings
    retries: NDArray[np.int64]  # attempts that found no node
    # Of *measured* pods, which arrive after the warm-up and before the episode's last arrival.
    measured: NDArray[np.int64]  # those that arrived
    measured_failed: NDArray[np.int64]  # those that were killed
    resolved: NDArray[np.int64]  # those whose SLA is decided: violated, or done (a service: its first unit)
    violations: NDArray[np.int64]  # those whose SLA is violated
    lateness: FloatArray  # their lateness, in allowances
    slowdowns: NDArray[np.int64]  # units of work done, by class and bin of slowdown, ``[clusters, w, SLOWDOWN_BINS]``
    # Of the time between the two, seconds, and integrals over it of shares of the cluster's capacity.
    time: FloatArray
    used: FloatArray
    allocated: FloatArray
    memory_used: FloatArray
    memory_allocated: FloatArray
    imbalance: FloatArray  # of the variance across nodes of use over capacity

    @classmethod
    def empty(cls, clusters: int, classes: int) -> Self:
        """Nothing has happened."""
        values: dict[str, NDArray[Any]] = {}
        for item in fields(cls):
            values[item.name] = np.zeros(clusters, dtype=np.float64 if item.type == "FloatArray" else np.int64)
        values["slowdowns"] = np.zeros((clusters, classes, SLOWDOWN_BINS), dtype=np.int64)
        return cls(**values)
