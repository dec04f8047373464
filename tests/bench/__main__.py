"""`make bench`: what a decision costs, beside a do-nothing extender in Go measured in the same run.

Every figure of ours and the do-nothing extender's twin are taken in turns, request by request, over one keep-alive
connection each, so that the machine's mood falls on both. Each request is for a new pod, as in life, so each placement
assumed by the last answer has changed a row by the time of the next.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import numpy as np

from policy.bundle import load_bundle, shipped_bundle_path
from policy.cluster import ClusterState, PodDemand
from policy.priorities import priorities
from policy.scorers import ActorScorer
from tests.bench.client import KeepAliveClient, extender_args, node_names
from tests.bench.report import Result, publish
from tests.control_plane.binaries import DONOTHING, build

SIZES: Final = {10: 2000, 100: 2000, 500: 2000, 5000: 400}
"""Names in a request, and how many requests are timed."""

WARM_UP: Final = 100
ORIGINAL_ACTOR_MS: Final = 3.1
"""Milliseconds for 10 agents in the original project's completion report."""


@contextmanager
def running(*command: str) -> Iterator[subprocess.Popen[str]]:
    """A server as a child process, ended with the block."""
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.terminate()


def port_of(process: subprocess.Popen[str]) -> int:
    """The port a server prints first: a bare number, or JSON with `port`."""
    line = process.stdout.readline() if process.stdout else ""
    document = json.loads(line)
    return int(document["port"] if isinstance(document, dict) else document)


def actor_figures() -> list[Result]:
    """Inference and the whole decision in process, ten nodes, one class of pods after the other."""
    bundle = load_bundle(shipped_bundle_path())
    scorer = ActorScorer(bundle.actors)
    generator = np.random.default_rng(1)
    state = ClusterState.idle(generator.uniform(8, 32, 10), 64.0, generator.uniform(0.7, 1.5, 10))
    observation = generator.uniform(0, 1, (10, 8)).astype(np.float32)
    demands = [PodDemand(cpu, 1.0, 0.5) for cpu in generator.uniform(0.1, 4.0, 100).tolist()]
    inference = timed(lambda _turn: bundle.actors.bids(observation), 5000)
    decision = timed(
        lambda turn: priorities(scorer.preferences(state, demands[turn % 100]), bundle.manifest.temperature),
        5000,
    )
    p50 = float(np.median(inference)) * 1000
    return [
        Result("actor, 10 nodes, p50", p50, "ms", at_most=0.1),
        Result("actor, 10 nodes, original report over ours", ORIGINAL_ACTOR_MS / p50, "x", at_least=31.0),
        Result("decision from state to priorities, 10 nodes, p50", float(np.median(decision)) * 1000, "ms"),
        Result("allocations in process, 10 nodes", 10.0 / float(np.mean(decision)), "1/s", at_least=32_000.0),
    ]


def timed(work: object, repeats: int) -> np.ndarray:  # type: ignore[type-arg]
    """Seconds of each call of ``work(turn)``, after a warm-up."""
    if not callable(work):
        raise TypeError("work must be callable")
    seconds = np.empty(repeats)
    for turn in range(-WARM_UP, repeats):
        started = time.perf_counter()
        work(turn)
        if turn >= 0:
            seconds[turn] = time.perf_counter() - started
    return seconds


def http_figures(ours: KeepAliveClient, donothing: KeepAliveClient, names: list[str], repeats: int) -> list[Result]:
    """p50 and p99 of `/prioritize` for that many names, and their ratios to the do-nothing extender's."""
    seconds: dict[str, list[float]] = {"ours": [], "do-nothing": []}
    for turn in range(-WARM_UP, repeats):
        body = extender_args(names, turn + WARM_UP)
        for name, client in (("ours", ours), ("do-nothing", donothing)):
            elapsed, answer = client.exchange(client.prepare("/prioritize", body))
            if turn == 0:
                check(answer, names)
            if turn >= 0:
                seconds[name].append(elapsed)
    size = len(names)
    results = []
    for label, quantile, limit in (("p50", 0.5, 1.5), ("p99", 0.99, 2.5)):
        mine, limiting = (float(np.quantile(seconds[name], quantile)) * 1000 for name in ("ours", "do-nothing"))
        absolute = 10.0 if (size, label) == (5000, "p99") else None
        results += [
            Result(f"/prioritize, {size} names, {label}", mine, "ms", at_most=absolute),
            Result(f"/prioritize, {size} names, {label}, do-nothing in Go", limiting, "ms"),
            Result(
                f"/prioritize, {size} names, {label}, ratio",
                mine / limiting,
                "x",
                at_most=limit if size == 500 else None,
            ),
        ]
    if size == 10:
        results.append(
            Result("allocations over HTTP, 10 nodes", 10.0 / float(np.mean(seconds["ours"])), "1/s", at_least=3200.0)
        )
    return results


def check(answer: bytes, names: list[str]) -> None:
    """Refuse to time answers that kube-scheduler would not take.

    Raises:
        RuntimeError: a host is missing, or a score is no integer in 0..10.
    """
    document = json.loads(answer)
    if [entry["Host"] for entry in document] != names and {entry["Host"] for entry in document} != set(names):
        raise RuntimeError(f"the answer names other hosts than the {len(names)} asked about")
    if not all(type(entry["Score"]) is int and 0 <= entry["Score"] <= 10 for entry in document):
        raise RuntimeError("a score is no integer in 0..10")


def main() -> None:
    """Measure, print, write build/bench.json."""
    results = actor_figures()
    largest = max(SIZES)
    with (
        running(sys.executable, "-m", "tests.bench.service", str(largest)) as service,
        running(str(build(DONOTHING) / "donothing")) as limit,
        KeepAliveClient(port_of(service)) as ours,
        KeepAliveClient(port_of(limit)) as donothing,
    ):
        for size, repeats in SIZES.items():
            results += http_figures(ours, donothing, node_names(largest)[:size], repeats)
    publish("make bench", results, Path("build/bench.json"))


if __name__ == "__main__":
    main()
