"""How fast the simulator is: decisions a second by number of nodes, which `maddpg-train speed` prints."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Final

import numpy as np

from training.simulator.scenarios import load_scenario
from training.simulator.simulation import Simulator
from training.simulator.ties import drawn_node

CLUSTERS: Final = {10: 512, 50: 128, 200: 32, 1000: 8}
"""Clusters side by side that fill the processor's cache well, by number of nodes."""

GOAL_NODES: Final = 10
GOAL: Final = 100_000.0
"""Decisions a second on one core, at `GOAL_NODES`."""

ROUNDS: Final = 3
"""Measurements at `GOAL_NODES`; the fastest counts, since other work on the machine only ever slows one down."""

WARM_UP: Final = 8
"""Decisions before the clock starts, for each node: the clusters are filled by then."""


def speeds(seconds: float = 1.0, clock: Callable[[], float] = time.thread_time) -> dict[int, float]:
    """Number of nodes -> decisions a second on one core, for every size of `CLUSTERS`; `seconds` for each measurement.

    The fewest nodes come first.
    """
    return {
        nodes: max(
            decisions_per_second(nodes, clusters, seconds, clock) for _ in range(ROUNDS if nodes == GOAL_NODES else 1)
        )
        for nodes, clusters in sorted(CLUSTERS.items())
    }


def growth(measured: Mapping[int, float]) -> dict[int, float]:
    """Number of nodes -> what a decision costs there over what it costs on the fewest."""
    fewest = min(measured)
    return {nodes: measured[fewest] / speed for nodes, speed in measured.items()}


def decisions_per_second(
    nodes: int, clusters: int, seconds: float = 2.0, clock: Callable[[], float] = time.thread_time
) -> float:
    """Decisions a second on this thread, on clusters at work, placing pods at random.

    Counts all that a simulated decision needs: what a scheduler sees, feasibility, and the step. Only the drawing of
    the random placements is left out.

    Args:
        nodes: nodes of each cluster.
        clusters: clusters side by side.
        seconds: how long to measure.
        clock: seconds; this thread's CPU time by default, so that other work on the machine does not count.
    """
    simulator = Simulator(load_scenario("reference").resized(nodes), clusters, 0)
    generator = np.random.default_rng(0)
    for _ in range(WARM_UP * nodes):
        simulator.step(drawn_node(simulator.feasible, generator.random((clusters, nodes))))
    spent, decisions = 0.0, 0
    while spent < seconds:
        begun = clock()
        feasible = simulator.feasible
        _ = (simulator.state, simulator.demand)
        spent += clock() - begun
        placement = drawn_node(feasible, generator.random(feasible.shape))
        begun = clock()
        simulator.step(placement)
        spent += clock() - begun
        decisions += clusters
    return decisions / spent
