"""Pods bound per second by a real kube-scheduler through ours, through a do-nothing extender in Go, and without any.

All pods are created first, then the scheduler is started: creation would be the limit otherwise. The three ways are run
in turns, each with a fresh scheduler and a fresh extender, so that none works while another is measured, and the order
changes from round to round. Figures are medians over the rounds; the ratios with goals are medians of each round's own
ratio, since a machine may be a third faster in one minute than in the next. Both extenders are asked as the shipped
configuration says, once per pod, and name every node. A further way tells what our watch of nodes and pods costs,
mostly the API server: the do-nothing extender is asked while ours looks on. And one tells what the language costs: a
do-nothing extender in Python (`tests.bench.floor`). KWOK plays the nodes and marks the pods
running; the API server, etcd and the controller manager run on the same machine. metrics-server does not: in a cluster
it has a machine of its own, and here its questions to thousands of nodes would be measured.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.bench.cpu import cpu_seconds
from tests.bench.latency import running
from tests.bench.report import Result
from tests.control_plane.access import Manifest
from tests.control_plane.binaries import DONOTHING, build
from tests.control_plane.cluster import Binaries, ControlPlane
from tests.control_plane.extender_process import Extender, running_extender
from tests.control_plane.scheduler import (
    PROFILE,
    Configuration,
    kube_scheduler,
    plain_configuration,
    shipped_configuration,
)
from tests.control_plane.workload import Binds, create, create_nodes, node, pod, remove_pods, wipe

LEASE_S: Final = 600
"""Validity of a node's lease: with the usual 40 s, 5,000 nodes would renew 500 of them a second."""

TIMEOUT_S: Final = 900.0

OURS, DONOTHING_WAY, NONE = "ours", "do-nothing in Go", "no extender"
FLOOR: Final = "do-nothing in Python"
LOOKED_ON: Final = "do-nothing in Go, ours only watching"
DIFFERING: Final = ", pods all of another demand"


@dataclass(frozen=True, slots=True)
class Rate:
    """What one run showed: pods bound per second, and CPU time that the extender and the scheduler took per pod."""

    pods_per_s: float
    extender_us: float
    scheduler_us: float


@dataclass(frozen=True, slots=True)
class Asked:
    """An extender that runs: where, and as which process."""

    url: str
    pid: int


def same(number: int) -> Manifest:
    """A pod like all others."""
    return pod(f"web-{number}", scheduler=PROFILE)


def differing(number: int) -> Manifest:
    """A pod whose demand no other has: nothing kept can answer for it."""
    return pod(f"web-{number}", cpu=f"{100 + number}m", scheduler=PROFILE)


@dataclass(frozen=True, slots=True)
class Bench:
    """Where pods are bound, and what runs ours.

    Attributes:
        plane: the control plane.
        python: interpreter that runs ours.
    """

    plane: ControlPlane
    python: str

    def ours(self) -> AbstractContextManager[Extender]:
        """Our extender, ready, until the block ends."""
        return running_extender(self.plane, python=self.python, usage_source="none", log_level="warning")


@contextmanager
def _asking(way: str, bench: Bench) -> Iterator[Asked | None]:
    """The extender of a way, ready, until the block ends."""
    if way == OURS:
        with bench.ours() as extender:
            yield Asked(extender.url, extender.process.pid)
    elif way == LOOKED_ON:
        with bench.ours(), _asking(DONOTHING_WAY, bench) as asked:
            yield asked
    elif way in (DONOTHING_WAY, FLOOR):
        in_go, in_python = (str(build(DONOTHING) / "donothing"),), (bench.python, "-m", "tests.bench.floor")
        with running(*(in_go if way == DONOTHING_WAY else in_python)) as server:
            yield Asked(f"http://127.0.0.1:{server.port}", server.process.pid)
    else:
        yield None


def bound_per_second(bench: Bench, way: str, pods: list[Manifest]) -> Rate:
    """Create the pods, start the scheduler, wait until all are bound, remove them."""
    plane = bench.plane
    create(plane.api, pods)
    with _asking(way, bench) as asked, Binds(plane.api) as binds:
        configuration: Configuration = (
            plain_configuration(PROFILE) if asked is None else shipped_configuration(asked.url, httpTimeout="5s")
        )
        before = 0.0 if asked is None else cpu_seconds(asked.pid)
        with kube_scheduler(plane, configuration) as scheduler:
            bound = binds.wait([each["metadata"]["name"] for each in pods], TIMEOUT_S)
            scheduling = cpu_seconds(scheduler.process.pid)
        spent = 0.0 if asked is None else cpu_seconds(asked.pid) - before
    remove_pods(plane.api)
    times = sorted(each.at for each in bound.values())
    rate = (len(times) - 1) / (times[-1] - times[0])
    return Rate(rate, 1e6 * spent / len(times), 1e6 * scheduling / len(times))


def in_turns(
    bench: Bench, ways: Sequence[str], make: Callable[[int], Manifest], pods: int, rounds: int, title: str
) -> dict[str, list[Rate]]:
    """Run the ways `rounds` times, each round in the opposite order of the one before."""
    rates: dict[str, list[Rate]] = {way: [] for way in ways}
    for turn in range(rounds):
        for way in ways if turn % 2 == 0 else reversed(ways):
            started = time.monotonic()
            rate = bound_per_second(bench, way, [make(number) for number in range(pods)])
            rates[way].append(rate)
            spent = f", kube-scheduler {rate.scheduler_us:.0f} us a pod"
            if rate.extender_us:
                spent += f", extender {rate.extender_us:.0f}"
            print(
                f"{title}, {way}, round {turn + 1}: {rate.pods_per_s:.0f} pods/s{spent}"
                f" ({time.monotonic() - started:.0f} s)",
                file=sys.stderr,
                flush=True,
            )
    return rates


def _results(title: str, rates: dict[str, list[Rate]], goals: Mapping[str, float]) -> list[Result]:
    """Medians, and ours over each of the ways in `goals`."""
    medians = {way: statistics.median(rate.pods_per_s for rate in of) for way, of in rates.items() if of}
    results = [Result(f"{title}, bound through {way}", rate, "pods/s") for way, rate in medians.items()]
    for way in (OURS, DONOTHING_WAY, FLOOR):
        if rates.get(way):
            spent = statistics.median(rate.extender_us for rate in rates[way])
            results.append(Result(f"{title}, CPU time of {way}", spent, "us/pod"))
    for way, of in rates.items():
        if of:
            spent = statistics.median(rate.scheduler_us for rate in of)
            results.append(Result(f"{title}, CPU time of kube-scheduler, {way}", spent, "us/pod"))
    for way, at_least in goals.items():
        if OURS in medians and way in medians:
            pairs = zip(rates[OURS], rates[way], strict=True)
            ratio = statistics.median(ours.pods_per_s / other.pods_per_s for ours, other in pairs)
            results.append(Result(f"{title}, ours over {way}", ratio, "x", at_least=at_least))
    return results


def measure(arguments: Sequence[str]) -> list[Result]:
    """Every size of cluster; the control plane is taken down at the end."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.serving throughput", description=__doc__)
    parser.add_argument("--nodes", type=int, nargs="+", default=[1000, 5000])
    parser.add_argument("--pods", type=int, default=5000, help="pods of one run")
    parser.add_argument("--runs", type=int, default=5, help="rounds of ours, the do-nothing extender's and none")
    parser.add_argument(
        "--watching-runs", type=int, default=1, help="runs of the do-nothing extender while ours watches"
    )
    parser.add_argument("--floor", action="store_true", help="a do-nothing extender in Python takes its turns, too")
    parser.add_argument("--differing-runs", type=int, default=1, help="rounds with pods that all differ in demand")
    parser.add_argument(
        "--python", default=sys.executable, help="interpreter that runs ours; it has the project installed"
    )
    chosen = parser.parse_args(arguments)
    results: list[Result] = []
    with tempfile.TemporaryDirectory(prefix="throughput-") as directory:
        plane = ControlPlane(Path(directory), Binaries.build(), lease_s=LEASE_S)
        bench = Bench(plane, chosen.python)
        with plane.running():
            plane.metrics_server.stop()
            for count in chosen.nodes:
                create_nodes(plane.api, (node(f"node-{number}") for number in range(count)), TIMEOUT_S)
                title = f"{count} nodes, {chosen.pods} pods"
                ways = (OURS, DONOTHING_WAY, NONE, *((FLOOR,) if chosen.floor else ()))
                rates = in_turns(bench, ways, same, chosen.pods, chosen.runs, title)
                rates |= in_turns(bench, (LOOKED_ON,), same, chosen.pods, chosen.watching_runs, title)
                results += _results(title, rates, {NONE: 0.85, DONOTHING_WAY: 0.95})
                both, apart = (OURS, DONOTHING_WAY), title + DIFFERING
                rates = in_turns(bench, both, differing, chosen.pods, chosen.differing_runs, apart)
                results += _results(apart, rates, {DONOTHING_WAY: 0.8})
                wipe(plane.api, TIMEOUT_S)
    return results
