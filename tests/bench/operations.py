"""What `/prioritize` takes while operators ask as hard as they are allowed to, beside what it takes while nobody does.

Every GET endpoint of `/openapi.json` is asked over `CONNECTIONS` connections at once, by a process of its own that
gives way to the client that is timed. Blocks with and without it take turns; a figure is the median over the rounds of
each round's ratio of p99. Many decisions are remembered first: the answers about them are the large ones.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Final

import numpy as np

from tests.bench.client import KeepAliveClient, extender_args, node_names
from tests.bench.latency import running
from tests.bench.report import Result

CONNECTIONS: Final = 8
NAMES: Final = 500
DECISIONS: Final = 10_000
ROUNDS: Final = 5
LIMITS: Final = {"/v1/decisions": "?limit=1000"}
"""What makes an answer as large as it may be."""
UID: Final = "00000000-0000-4000-8000-000000000001"
NODE: Final = node_names(1)[0]
PARAMETERS: Final = {"{uid}": UID, "{name}": NODE}


def endpoints(port: int) -> list[str]:
    """Paths of all endpoints that are read with GET, as the service describes itself."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    connection.request("GET", "/openapi.json")
    described = json.loads(connection.getresponse().read())["paths"]
    connection.close()
    found = []
    for path, operations in described.items():
        if "get" in operations:
            for parameter, value in PARAMETERS.items():
                path = path.replace(parameter, value)
            found.append(path + LIMITS.get(path, ""))
    return [*found, "/openapi.json"]


def ask(port: int, path: str) -> None:
    """Ask for one path over `CONNECTIONS` connections, each as fast as it is answered, until standard input ends."""

    def ask_on() -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        while True:
            try:
                connection.request("GET", path)
                connection.getresponse().read()
            except (http.client.HTTPException, OSError):
                connection.close()  # refused: the next request opens it anew

    os.nice(10)
    for _ in range(CONNECTIONS):
        threading.Thread(target=ask_on, daemon=True).start()
    print("asking", flush=True)
    sys.stdin.read()


@contextmanager
def crowd(port: int, path: str) -> Iterator[None]:
    """Operators who ask for this path, in a process of their own, for as long as the block lasts."""
    command = (sys.executable, "-m", "tests.bench.operations", str(port), path)
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            if process.stdout is not None:
                process.stdout.readline()
            yield
        finally:
            process.kill()


def measure(arguments: Sequence[str]) -> list[Result]:
    """Each endpoint: p99 of `/prioritize` while it is asked, over p99 while it is not."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.serving operations", description=__doc__)
    parser.add_argument("--requests", type=int, default=400, help="requests timed in each block")
    requests: int = parser.parse_args(arguments).requests
    names = node_names(NAMES)
    results = []
    with (
        running(sys.executable, "-m", "tests.bench.service", str(NAMES)) as service,
        KeepAliveClient(service.port) as client,
    ):
        turn = 0

        def p99_ms(count: int) -> float:
            nonlocal turn
            seconds = []
            for _ in range(count):
                turn += 1
                body = extender_args(names, turn)
                seconds.append(client.exchange(client.prepare("/prioritize", body))[0])
            return float(np.quantile(seconds, 0.99)) * 1e3

        p99_ms(DECISIONS)
        for path in endpoints(service.port):
            ratios = []
            for _ in range(ROUNDS):
                calm = p99_ms(requests)
                with crowd(service.port, path):
                    ratios.append(p99_ms(requests) / calm)
            title = f"/prioritize, {NAMES} names, p99 while {path} is asked, over p99 alone"
            results.append(Result(title, float(np.median(ratios)), "x", at_most=2.0))
    return results


if __name__ == "__main__":
    ask(int(sys.argv[1]), sys.argv[2])
