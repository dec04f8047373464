"""The actor and the whole decision in process: ten nodes, one class of pods after the other.

Ten nodes and the figures to beat are the original project's: 3.1 ms for ten agents, 3,200 allocations a second.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from policy.bundle import load_bundle, shipped_bundle_path
from policy.cluster import ClusterState, PodDemand
from policy.priorities import priorities
from tests.bench.report import Result

NODES: Final = 10
DEMANDS: Final = 100
WARM_UP: Final = 100
ORIGINAL_ACTOR_MS: Final = 3.1
"""Milliseconds for 10 agents in the original project's completion report."""


def measure(arguments: Sequence[str]) -> list[Result]:
    """Inference alone, and from state to priorities; each decision allocates one pod."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.serving actor", description=__doc__)
    parser.add_argument("--repeats", type=int, default=5000)
    repeats: int = parser.parse_args(arguments).repeats
    bundle = load_bundle(shipped_bundle_path())
    scorer = bundle.scorer()
    generator = np.random.default_rng(1)
    state = ClusterState.idle(generator.uniform(8, 32, NODES), 64.0, generator.uniform(0.7, 1.5, NODES))
    observation = generator.uniform(0, 1, (NODES, 8)).astype(np.float32)
    demands = [PodDemand(cpu, 1.0, 0.5) for cpu in generator.uniform(0.1, 4.0, DEMANDS).tolist()]
    inference = _timed(lambda _turn: bundle.actors.bids(observation), repeats)
    decision = _timed(
        lambda turn: priorities(scorer.preferences(state, demands[turn % DEMANDS]), bundle.manifest.temperature),
        repeats,
    )
    p50 = float(np.median(inference)) * 1000
    return [
        Result("actor, 10 nodes, p50", p50, "ms", at_most=0.1),
        Result("actor, 10 nodes, original report over ours", ORIGINAL_ACTOR_MS / p50, "x", at_least=31.0),
        Result("decision from state to priorities, 10 nodes, p50", float(np.median(decision)) * 1000, "ms"),
        Result("allocations in process, 10 nodes", NODES / float(np.mean(decision)), "1/s", at_least=32_000.0),
    ]


def _timed(work: Callable[[int], object], repeats: int) -> NDArray[np.float64]:
    """Seconds of each call of ``work(turn)``, after a warm-up."""
    seconds = np.empty(repeats)
    for turn in range(-WARM_UP, repeats):
        started = time.perf_counter()
        work(turn)
        if turn >= 0:
            seconds[turn] = time.perf_counter() - started
    return seconds
