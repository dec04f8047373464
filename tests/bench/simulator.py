"""How fast the simulator is on one core, and how that grows with the number of nodes."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Final

from tests.bench.report import Result
from training.simulator.speed import CLUSTERS, decisions_per_second

GOAL_AT: Final = 10
GOAL: Final = 100_000.0
"""Decisions a second on one core, at ten nodes."""

ROUNDS: Final = 3
"""Measurements of each size; the fastest counts, since other work on the machine only ever slows one down."""


def measure(arguments: Sequence[str]) -> list[Result]:
    """Decisions a second by number of nodes, and what a decision costs there over what it costs on the fewest."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.serving simulator", description=__doc__)
    parser.add_argument("--seconds", type=float, default=1.0, help="CPU time of each measurement (default: 1)")
    seconds = parser.parse_args(arguments).seconds
    speeds = {
        nodes: max(decisions_per_second(nodes, clusters, seconds) for _ in range(ROUNDS if nodes == GOAL_AT else 1))
        for nodes, clusters in CLUSTERS.items()
    }
    fewest = min(speeds)
    results = []
    for nodes, speed in speeds.items():
        goal = GOAL if nodes == GOAL_AT else None
        results.append(Result(f"simulator, {nodes} nodes", speed, "decisions/s", at_least=goal))
        if nodes != fewest:
            growth = speeds[fewest] / speed
            results.append(Result(f"simulator, {nodes} nodes: cost over that on {fewest}", growth, "x"))
    return results
