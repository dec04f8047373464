"""How fast the simulator is: `python -m training.simulator.speed` prints decisions a second by number of nodes."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

import numpy as np
from numpy.typing import NDArray

from training.simulator.engine import Simulator
from training.simulator.scenarios import load_scenario

CLUSTERS: Final = {10: 512, 50: 128, 200: 32, 1000: 8}
"""Clusters side by side that fill the processor's cache well, by number of nodes."""

WARM_UP: Final = 8
"""Decisions before the clock starts, for each node: the clusters are filled by then."""


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
        simulator.step(_anywhere(simulator.feasible, generator))
    spent, decisions = 0.0, 0
    while spent < seconds:
        begun = clock()
        feasible = simulator.feasible
        _ = (simulator.state, simulator.demand)
        spent += clock() - begun
        placement = _anywhere(feasible, generator)
        begun = clock()
        simulator.step(placement)
        spent += clock() - begun
        decisions += clusters
    return decisions / spent


def _anywhere(feasible: NDArray[np.bool_], generator: np.random.Generator) -> NDArray[np.int64]:
    luck = np.where(feasible, generator.random(feasible.shape), -1.0)
    return np.where(feasible.any(axis=1), luck.argmax(axis=1), -1)


if __name__ == "__main__":
    for size, side_by_side in CLUSTERS.items():
        print(f"{size} nodes, {side_by_side} clusters: {decisions_per_second(size, side_by_side):,.0f} decisions/s")
