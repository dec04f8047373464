"""From what happened to the numbers of a report. Pure reading: computing metrics changes nothing."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from training.simulator.accounts import SLOWDOWN_EDGES
from training.simulator.draws import FloatArray
from training.simulator.pods import NOWHERE
from training.simulator.reward import episode_reward
from training.simulator.world import World

METRICS: Final = {
    "reward": "mean earning of a pod: 1 in time; violated -1 and its lateness",
    "sla_violation_rate": "share of pods late, or killed",
    "completion_rate": "share of pods neither killed nor still unfinished past their deadline",
    "lateness": "mean lateness of a pod, in its allowance (slack x ideal time)",
    "failure_rate": "share of pods killed for memory",
    "cpu_used": "share of the cluster's CPU that is used, mean over time",
    "cpu_allocated": "share of the cluster's CPU that is requested, mean over time",
    "memory_used": "share of the cluster's memory that is used, mean over time",
    "memory_allocated": "share of the cluster's memory that is requested, mean over time",
    "load_variance": "variance across nodes of CPU use over capacity, mean over time",
    "retries": "attempts that placed nothing, over pods arrived",
}
"""Every metric, with its meaning; the first four are over pods whose SLA is decided."""


def measure(world: World) -> dict[str, FloatArray]:
    """The metrics of each cluster's measured pods and time so far; float64 ``[clusters]`` each, NaN if undecided."""
    accounts, pods = world.accounts, world.pods
    overdue = (pods.deadline < world.now[:, None]) & world.is_measured(pods.number)
    with np.errstate(divide="ignore", invalid="ignore"):  # nothing measured yet: NaN
        resolved = np.where(accounts.resolved > 0, accounts.resolved, np.nan)
        time = np.where(accounts.time > 0.0, accounts.time, np.nan)
        violations = accounts.violations / resolved
        lateness = accounts.lateness / resolved
        return {
            "reward": episode_reward(violations, lateness),
            "sla_violation_rate": violations,
            "completion_rate": 1.0 - (accounts.measured_failed + overdue.sum(axis=1)) / resolved,
            "lateness": lateness,
            "failure_rate": accounts.measured_failed / resolved,
            "cpu_used": accounts.used / time,
            "cpu_allocated": accounts.allocated / time,
            "memory_used": accounts.memory_used / time,
            "memory_allocated": accounts.memory_allocated / time,
            "load_variance": accounts.imbalance / time,
            "retries": accounts.retries / np.maximum(accounts.arrived, 1),
        }


def counts(world: World) -> dict[str, NDArray[np.int64]]:
    """Pods by what became of them, int64 ``[clusters]``: arrived = running + pending + finished + failed."""
    pods = world.pods
    running = pods.occupied & (pods.node != NOWHERE)
    return {
        "arrived": world.accounts.arrived.copy(),
        "running": running.sum(axis=1),
        "pending": (pods.occupied & ~running).sum(axis=1),
        "finished": world.accounts.finished.copy(),
        "failed": world.accounts.failed.copy(),
    }


def slowdown_percentile(slowdowns: NDArray[np.int64], share: float) -> FloatArray:
    """The slowdown that `share` of the counted units stay below, from counts ``[..., bins]``; NaN where none counted.

    Exact to the width of a bin, 4.4 %: the bin's upper edge is returned.
    """
    reached = np.cumsum(slowdowns, axis=-1)
    total = reached[..., -1]
    bins = np.argmax(reached >= np.maximum(share * total, 1.0)[..., None], axis=-1)
    return np.where(total > 0, SLOWDOWN_EDGES[bins + 1], np.nan)
