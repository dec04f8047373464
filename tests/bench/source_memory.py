"""Memory and time to ready of the whole service over a large cluster: `python -m tests.bench.source_memory`.

Starts a fake API server with the cluster in one process and `maddpg-extender serve` in another, asks /readyz until it
says yes, then lets pods come and go. Prints one JSON object. While it runs, /healthz is asked again and again: its
slowest answer bounds how long the first list, and then the churn, keep the event loop from a request.
"""

import argparse
import http.client
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from tests.bench.client import extender_args
from tests.bench.cpu import cpu_seconds
from tests.extender.cluster.fake_api import FakeApi

MIB = 1024.0
NAMES = 500
"""Nodes asked about ten times a second while pods come and go."""


def resident_mib(pid: int, what: str = "VmRSS") -> float:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(f"{what}:"):
            return int(line.split()[1]) / MIB
    raise LookupError(f"/proc/{pid}/status says no {what}")


class Asker:
    """One keep-alive connection to the service, and the slowest answer so far."""

    def __init__(self, port: int) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        self.slowest = 0.0

    def ask(self, path: str) -> tuple[int, bytes]:
        began = time.perf_counter()
        self._connection.request("GET", path)
        response = self._connection.getresponse()
        body = response.read()
        self.slowest = max(self.slowest, time.perf_counter() - began)
        return response.status, body

    def prioritize(self, number: int, names: Sequence[str]) -> None:
        """Ask for priorities of these nodes for a new pod, of one of forty demands."""
        began = time.perf_counter()
        body = extender_args(list(names), number, cpu=f"{100 * (1 + number % 40)}m")
        self._connection.request("POST", "/prioritize", body)
        response = self._connection.getresponse()
        answer = response.read()
        self.slowest = max(self.slowest, time.perf_counter() - began)
        if response.status != 200:
            raise RuntimeError(f"answered {response.status}: {answer[:200]!r}")


def slope_per_minute(times: Sequence[float], values: Sequence[float], settling: float = 0.2) -> float:
    """Least-squares slope of values over times in seconds, a minute; the first share of the time is left out."""
    begin = times[0] + settling * (times[-1] - times[0])
    kept = [(time_, value) for time_, value in zip(times, values, strict=True) if time_ >= begin]
    return float(np.polyfit(*zip(*kept, strict=True), 1)[0]) * 60.0


def measure(
    nodes: int, pods: int, size: int, churn: float, seconds: float, flags: Sequence[str] = ()
) -> dict[str, float | int]:
    server = [sys.executable, "-m", "tests.bench.fake_cluster", f"--nodes={nodes}", f"--pods={pods}", f"--bytes={size}"]
    with (
        tempfile.TemporaryDirectory() as directory,
        subprocess.Popen(server, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as cluster,
    ):
        try:
            assert cluster.stdout is not None
            assert cluster.stdin is not None
            said = json.loads(cluster.stdout.readline())
            api = FakeApi()
            api.port = said["port"]
            log = (Path(directory) / "log").open("w")
            began = time.perf_counter()
            service = subprocess.Popen(
                [
                    str(Path(sys.executable).with_name("maddpg-extender")),
                    "serve",
                    f"--kubeconfig={api.kubeconfig(Path(directory))}",
                    "--port=0",
                    *flags,
                ],
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
            try:
                assert service.stdout is not None
                asker = Asker(json.loads(service.stdout.readline())["port"])
                started = time.perf_counter() - began
                asked = 0
                while (answer := asker.ask("/readyz"))[0] != 200:
                    asked += 1
                    if time.perf_counter() - began > 120:
                        raise TimeoutError(answer[1].decode())
                    time.sleep(0.005)
                ready, slowest_list = time.perf_counter() - began, asker.slowest
                after_list = resident_mib(service.pid)
                cluster.stdin.write(f"{churn}\n")
                cluster.stdin.flush()
                asker.slowest, used = 0.0, cpu_seconds(service.pid)
                until, samples, times, asked = time.perf_counter() + seconds, [], [], 0
                while time.perf_counter() < until:
                    asker.ask("/healthz")
                    if len(samples) % 10 == 0:
                        asker.prioritize(asked, [f"node-{i:05d}.example.internal" for i in range(min(nodes, NAMES))])
                        asked += 1
                    samples.append(resident_mib(service.pid))
                    times.append(time.perf_counter())
                    time.sleep(0.01)
                return {
                    "nodes": nodes,
                    "pods": pods,
                    "pod_bytes": said["pod_bytes"],
                    "listening_s": round(started, 2),
                    "ready_s": round(ready, 2),
                    "rss_ready_mib": round(after_list, 1),
                    "slowest_answer_while_listing_ms": round(1000 * slowest_list, 1),
                    "churn_events_per_s": 2 * churn,
                    "churn_s": seconds,
                    "rss_after_churn_mib": round(resident_mib(service.pid), 1),
                    "rss_churn_first_fifth_max_mib": round(max(samples[: len(samples) // 5]), 1),
                    "rss_churn_last_fifth_max_mib": round(max(samples[-(len(samples) // 5) :]), 1),
                    "rss_churn_slope_mib_per_min": round(slope_per_minute(times, samples), 3),
                    "prioritize_answers_in_churn": asked,
                    "rss_peak_mib": round(resident_mib(service.pid, "VmHWM"), 1),
                    "slowest_answer_in_churn_ms": round(1000 * asker.slowest, 1),
                    "cpu_cores_in_churn": round((cpu_seconds(service.pid) - used) / seconds, 3),
                }
            finally:
                service.terminate()
                service.wait(20)
                log.close()
        finally:
            cluster.terminate()


def options(piece: str | None, description: str | None, *, churn: float, seconds: float) -> argparse.ArgumentParser:
    """Size of the cluster and length of its churn, for this program or a piece of `tests.bench.serving`."""
    prog = None if piece is None else f"python -m tests.bench.serving {piece}"
    parser = argparse.ArgumentParser(prog=prog, description=description)
    parser.add_argument("--nodes", type=int, default=5000)
    parser.add_argument("--pods", type=int, default=50_000)
    parser.add_argument("--bytes", type=int, default=5000, help="JSON size of each object")
    parser.add_argument("--churn", type=float, default=churn, help="pods replaced a second")
    parser.add_argument("--seconds", type=float, default=seconds, help="length of the churn")
    return parser


def main() -> None:
    parser = options(None, __doc__, churn=250.0, seconds=30.0)
    chosen = parser.parse_args()
    print(json.dumps(measure(chosen.nodes, chosen.pods, chosen.bytes, chosen.churn, chosen.seconds), indent=2))


if __name__ == "__main__":
    main()
