"""What an answer over HTTP costs, beside a do-nothing extender in Go measured in the same run.

Every figure of ours and the do-nothing extender's twin are taken in turns, request by request, over one keep-alive
connection each, so that the machine's mood falls on both. Each request is for a new pod, as in life, so each placement
assumed by the last answer has changed a row by the time of the next.
"""

from __future__ import annotations

import argparse
import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from tests.bench.client import KeepAliveClient, extender_args, node_names
from tests.bench.cpu import cpu_seconds
from tests.bench.report import Result
from tests.control_plane.binaries import DONOTHING, build

SIZES: Final = {10: 2000, 100: 2000, 500: 2000, 5000: 1000}
"""Names in a request, and how many requests are timed."""

ROUNDS: Final = 5
"""Parts of a series; the figures are medians over them, so that one bad second of the machine does not decide."""

WARM_UP: Final = 100
PAUSE_S: Final = 0.002
"""Time for the service to notice that a node has changed."""


@dataclass(frozen=True, slots=True)
class Server:
    """A server as a child process."""

    process: subprocess.Popen[str]
    port: int


@dataclass(frozen=True, slots=True)
class Series:
    """Requests to time: whom they go to, and what is done before each, untimed."""

    server: Server
    client: KeepAliveClient
    verb: str = "/prioritize"
    before: Callable[[], None] | None = None


@dataclass(frozen=True, slots=True)
class Timing:
    """What a series took: medians over the rounds of each round's p50 and p99, the mean, and CPU time a request."""

    p50_ms: float
    p99_ms: float
    mean_ms: float
    cpu_us: float

    @classmethod
    def of(cls, seconds: list[float], cpu_seconds: float) -> Timing:
        """From the seconds of each request, in order, and the server's CPU time for all of them."""
        rounds = np.array_split(np.array(seconds) * 1e3, ROUNDS)
        p50, p99 = (float(np.median([np.quantile(each, q) for each in rounds])) for q in (0.5, 0.99))
        return cls(p50, p99, float(np.mean(seconds)) * 1e3, cpu_seconds / len(seconds) * 1e6)


@contextmanager
def running(*command: str) -> Iterator[Server]:
    """A server as a child process, ended with the block. It prints its port first: bare, or as JSON with `port`."""
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            document = json.loads(process.stdout.readline() if process.stdout else "")
            yield Server(process, int(document["port"] if isinstance(document, dict) else document))
        finally:
            process.terminate()


def compare(
    first: Series, second: Series, names: list[str], repeats: int, body: Callable[[int], bytes]
) -> tuple[Timing, Timing]:
    """Time two series in turns, request by request; check the first timed answers."""
    both = (first, second)
    seconds: list[list[float]] = [[], []]
    spent = [0.0, 0.0]
    for turn in range(-WARM_UP, repeats):
        content = body(turn + WARM_UP)
        if turn == 0:
            spent = [cpu_seconds(series.server.process.pid) for series in both]
        for elapsed, series in zip(seconds, both, strict=True):
            if series.before is not None:
                series.before()
            taken, answer = series.client.exchange(series.client.prepare(series.verb, content))
            if turn == 0 and series.verb == "/prioritize":
                check(answer, names)
            if turn >= 0:
                elapsed.append(taken)
    spent = [cpu_seconds(series.server.process.pid) - before for series, before in zip(both, spent, strict=True)]
    one, other = (Timing.of(*of) for of in zip(seconds, spent, strict=True))
    return one, other


def http_figures(ours: Series, donothing: Series, names: list[str], repeats: int) -> list[Result]:
    """`/prioritize` for that many names: p50, p99 and CPU time, and their ratios to the do-nothing extender's."""
    size = len(names)
    mine, limit = compare(ours, donothing, names, repeats, lambda turn: extender_args(names, turn))
    results = ratios(f"/prioritize, {size} names", mine, limit, goals={"p50": 1.5, "p99": 2.5} if size == 500 else {})
    if size == 5000:
        results.append(Result("/prioritize, 5000 names, p99 alone", mine.p99_ms, "ms", at_most=10.0))
    if size == 10:
        results.append(Result("allocations over HTTP, 10 nodes", 10_000.0 / mine.mean_ms, "1/s", at_least=3200.0))
    return results


def ratios(title: str, mine: Timing, limit: Timing, goals: Mapping[str, float]) -> list[Result]:
    """Our figures beside the do-nothing extender's."""
    results = []
    for label, unit, ours, theirs in (
        ("p50", "ms", mine.p50_ms, limit.p50_ms),
        ("p99", "ms", mine.p99_ms, limit.p99_ms),
        ("CPU", "us", mine.cpu_us, limit.cpu_us),
    ):
        results += [
            Result(f"{title}, {label}", ours, unit),
            Result(f"{title}, {label}, do-nothing in Go", theirs, unit),
            Result(f"{title}, {label}, ratio", ours / theirs, "x", at_most=goals.get(label)),
        ]
    return results


def other_figures(ours: Series, donothing: Series, names: list[str], service: Server, share: float) -> list[Result]:
    """`/filter`, pods that all differ in demand, and `/prioritize` for every node after one of them changed."""
    some = names[:500]
    filtered = compare(
        replace(ours, verb="/filter"),
        replace(donothing, verb="/filter"),
        some,
        round(share * SIZES[500]),
        lambda turn: extender_args(some, turn),
    )
    differing = compare(
        ours,
        donothing,
        some,
        round(share * SIZES[500] / 2),
        lambda turn: extender_args(some, turn, cpu=f"{100 + turn}m"),
    )

    def pause() -> None:
        time.sleep(PAUSE_S)

    def change_one_node() -> None:
        service.process.send_signal(signal.SIGUSR1)
        time.sleep(PAUSE_S)

    calm, changed = compare(
        replace(ours, before=pause),
        replace(ours, before=change_one_node),
        names,
        round(share * SIZES[5000]),
        lambda turn: extender_args(names, turn),
    )
    title = "/prioritize, 5000 names, one node changed"
    return [
        *ratios("/filter, 500 names", *filtered, goals={}),
        *ratios("/prioritize, 500 names, each pod of another demand", *differing, goals={}),
        Result(f"{title}, p50", changed.p50_ms, "ms"),
        Result(f"{title}, p99", changed.p99_ms, "ms"),
        Result(f"{title}, p50 over none changed", changed.p50_ms / calm.p50_ms, "x", at_most=1.2),
        Result(f"{title}, p99 over none changed", changed.p99_ms / calm.p99_ms, "x", at_most=1.2),
    ]


def check(answer: bytes, names: list[str]) -> None:
    """Refuse to time answers that kube-scheduler would not take.

    Raises:
        RuntimeError: no host is named, or another than was asked about, or a score is no integer in 0..10.
    """
    document = json.loads(answer)
    if not document or not {entry["Host"] for entry in document} <= set(names):
        raise RuntimeError(f"the answer names none or other hosts than the {len(names)} asked about")
    if not all(type(entry["Score"]) is int and 0 <= entry["Score"] <= 10 for entry in document):
        raise RuntimeError("a score is no integer in 0..10")


def measure(arguments: Sequence[str]) -> list[Result]:
    """Every size of request, `/filter`, differing demands, and a changed node."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.serving latency", description=__doc__)
    parser.add_argument("--share", type=float, default=1.0, help="share of the requests to time; less is noisier")
    share: float = parser.parse_args(arguments).share
    results: list[Result] = []
    largest = max(SIZES)
    with (
        running(sys.executable, "-m", "tests.bench.service", str(largest)) as service,
        running(str(build(DONOTHING) / "donothing")) as limit,
        KeepAliveClient(service.port) as our_client,
        KeepAliveClient(limit.port) as their_client,
    ):
        names = node_names(largest)
        ours, donothing = Series(service, our_client), Series(limit, their_client)
        for size, repeats in SIZES.items():
            results += http_figures(ours, donothing, names[:size], round(share * repeats))
        results += other_figures(ours, donothing, names, service, share)
    return results
