"""How often a scorer prefers the worse of two nodes that differ in one thing: counted over random nodes and pods.

All else equal, nobody wants the more used, more pressed, fuller or slower node. What is asked are states, not rows of
features, so that criteria and bounds count as in serving.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

import numpy as np

from policy.cluster import ClusterState, DemandBatch
from policy.scorers import Scorer
from training.simulator.draws import FloatArray

ROWS: Final = 10_000
SEED: Final = 1

TOLERANCE: Final = 1e-5
"""Preference that may be gained: float32 rounds sums of four at 1e-7, and no such difference moves a priority."""

LARGEST_STEP: Final = 0.3
"""Largest change: of a share of the node for use and requests, of pressure, and of the speed's logarithm."""

WORSENED: Final = {
    "more CPU used": "cpu_used",
    "more memory used": "memory_used",
    "more pressed": "cpu_pressure",
    "fuller of CPU requests": "cpu_requested",
    "fuller of memory requests": "memory_requested",
    "slower": "node_speed",
}
"""Each kind of worse node, and the column that tells it."""


def random_nodes(rows: int, generator: np.random.Generator) -> tuple[ClusterState, DemandBatch]:
    """Return nodes ``[rows, 1]`` and a pod for each, in any state that a cluster may show."""

    def uniform(low: float, high: float) -> FloatArray:
        return generator.uniform(low, high, (rows, 1))

    cores = np.exp(uniform(np.log(2.0), np.log(128.0)))
    memory = cores * uniform(1.0, 8.0)
    state = ClusterState(
        cpu_allocatable=cores,
        memory_allocatable=memory,
        cpu_requested=cores * uniform(0.0, 1.0),
        memory_requested=memory * uniform(0.0, 1.0),
        cpu_used=cores * uniform(0.0, 1.2),
        memory_used=memory * uniform(0.0, 1.0),
        cpu_pressure=uniform(0.0, 1.0) ** 2,
        node_speed=np.exp(uniform(np.log(0.4), np.log(2.5))),
        version=np.zeros((rows, 1), dtype=np.int64),
        memory_unseen=memory * uniform(0.0, 0.3),
        memory_ratio=uniform(0.65, 1.5),
    )
    urgency = np.where(uniform(0.0, 1.0) < 0.1, 0.0, uniform(0.0, 1.0))
    share = uniform(0.01, 0.5) ** 2
    return state, DemandBatch(cpu=cores * share, memory=memory * uniform(0.01, 0.5) ** 2, urgency=urgency)


def worsened(state: ClusterState, column: str, generator: np.random.Generator) -> ClusterState:
    """Return the nodes with one column worse, by up to `LARGEST_STEP` of its unit."""
    step = generator.uniform(0.0, LARGEST_STEP, state.shape)
    old = getattr(state, column)
    if column == "node_speed":
        return replace(state, node_speed=old * np.exp(-step))
    if column == "cpu_pressure":
        return replace(state, cpu_pressure=np.minimum(old + step, 1.0))
    resource = column.split("_")[0]
    new = old + step * getattr(state, f"{resource}_allocatable")
    counted = {f"{resource}_nonzero": new} if column.endswith("requested") else {}
    return replace(state, **{column: new, **counted})


def violations(scorer: Scorer, rows: int = ROWS, seed: int = SEED) -> dict[str, int]:
    """Of `rows` random nodes and pods, in how many the scorer prefers the worse node, for each kind of `WORSENED`.

    Equal seeds ask about equal nodes. For rules that look at one row at a time: others see clusters of one node.

    Raises:
        ScoringError: the scorer fails.
    """
    generator = np.random.default_rng(seed)
    state, demand = random_nodes(rows, generator)
    before = scorer.preferences(state, demand)
    found = {}
    for kind, column in WORSENED.items():
        after = scorer.preferences(worsened(state, column, generator), demand)
        found[kind] = int(np.count_nonzero(after > before + TOLERANCE))
    return found
