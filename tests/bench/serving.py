"""`make bench-serving`: what serving must show, piece by piece, into build/bench-serving.json.

`python -m tests.bench.serving` starts the list anew and runs every piece, each in a process of its own, so that one
that breaks does not take the others along. `python -m tests.bench.serving PIECE [options]` runs one and merges its
figures into the list; `... PIECE --help` names its options. The exit code says whether every piece could measure; what
missed its goal stands in the list.
"""

from __future__ import annotations

import argparse
import importlib
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from tests.bench.report import Result, merge, read, show

PIECES: Final = {
    "actor": "the actor and the whole decision in process, ten nodes",
    "latency": "the verbs over HTTP, in turns with a do-nothing extender in Go",
    "operations": "/prioritize while each operations endpoint is asked as hard as it allows, beside alone",
    "steps": "one pod in process, step by step, with warm and with cold caches",
    "memory": "memory, and time to ready, over 5,000 nodes and 50,000 pods",
    "kubelets": "use of 5,000 nodes read from their kubelets, one interval",
    "simulator": "decisions of the simulator on one core, 10 to 1,000 nodes",
    "throughput": "pods bound per second by a real kube-scheduler, beside the do-nothing extender",
    "endurance": "memory over ten minutes of churn and requests, 5,000 nodes and 50,000 pods",
    "errors": "error answers over 100,000 requests, without faults and with faults injected",
}
"""What each piece measures. A piece is the module tests.bench.PIECE with `measure(arguments) -> list[Result]`, which
parses its own options and defaults to what the whole run takes."""

RESULTS: Final = Path("build/bench-serving.json")


def run(piece: str, arguments: Sequence[str]) -> None:
    """Measure one piece here, print its figures, merge them into `RESULTS`."""
    measure: Callable[[Sequence[str]], list[Result]] = importlib.import_module(f"tests.bench.{piece}").measure
    results = measure(arguments)
    merge(results, RESULTS)
    show(piece, [result.row for result in results], RESULTS)


def run_all() -> list[str]:
    """Measure every piece in a process of its own; returns those that broke."""
    RESULTS.unlink(missing_ok=True)
    broken = []
    for piece in PIECES:
        started = time.monotonic()
        print(f"---- {piece}: {PIECES[piece]}", flush=True)
        if subprocess.run([sys.executable, "-m", "tests.bench.serving", piece], check=False).returncode:
            broken.append(piece)
        print(f"---- {piece} took {time.monotonic() - started:.0f} s", flush=True)
    rows = read(RESULTS)
    show("make bench-serving", [row for row in rows if row["goal"]], RESULTS)
    missed = sum(row["pass"] is False for row in rows)
    print(
        f"{sum(row['pass'] is True for row in rows)} goals met, {missed} missed; pieces that broke: {broken or 'none'}"
    )
    return broken


def main() -> int:
    """One piece, or all of them; 1 if one could not measure."""
    if len(sys.argv) == 1:
        return 1 if run_all() else 0
    about = "\n".join(f"  {name:12} {meaning}" for name, meaning in PIECES.items())
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench.serving",
        description=f"pieces:\n{about}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("piece", choices=PIECES)
    run(parser.parse_args(sys.argv[1:2]).piece, sys.argv[2:])
    return 0


if __name__ == "__main__":
    sys.exit(main())
