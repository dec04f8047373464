"""How fast the simulator is on one core, and how that grows with the number of nodes."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from tests.bench.report import Result
from training.simulator.speed import GOAL, GOAL_NODES, growth, speeds


def measure(arguments: Sequence[str]) -> list[Result]:
    """Decisions a second by number of nodes, and what a decision costs there over what it costs on the fewest."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.serving simulator", description=__doc__)
    parser.add_argument("--seconds", type=float, default=1.0, help="CPU time of each measurement (default: 1)")
    measured = speeds(parser.parse_args(arguments).seconds)
    fewest, costs = min(measured), growth(measured)
    results = []
    for nodes, speed in measured.items():
        goal = GOAL if nodes == GOAL_NODES else None
        results.append(Result(f"simulator, {nodes} nodes", speed, "decisions/s", at_least=goal))
        if nodes != fewest:
            results.append(Result(f"simulator, {nodes} nodes: cost over that on {fewest}", costs[nodes], "x"))
    return results
