"""Walks a newcomer's path and times it: clone, `make demo`, the first explained decision. `make newcomer` runs it.

What is cloned is the last commit. The requirements come from the package index or from pip's cache; the goal is for a
warm cache. Writes build/newcomer.json.
"""

from __future__ import annotations

import os
import re
import resource
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Final

from tests.bench.report import Result, publish
from tests.control_plane.toolchain import REPOSITORY

GOAL_S: Final = 180.0
URL: Final = re.compile(r"^dashboard: (http://\S+?)/dashboard/")
PLACED: Final = re.compile(r"^(\S+) -> \S+;")


def first_placement(lines: list[str]) -> tuple[str, str] | None:
    """Return where the demo serves and the first pod that it placed; None before both are printed."""
    urls, pods = ([found[1] for line in lines if (found := it.match(line))] for it in (URL, PLACED))
    return (urls[0], pods[0]) if urls and pods else None


def walk(folder: Path) -> tuple[list[Result], str]:
    """Walk the path in an empty folder; returns what each part took, and the explanation.

    Raises:
        RuntimeError: the demo ended before it placed a pod, or nothing was explained.
        subprocess.CalledProcessError: a command failed.
    """
    clone = folder / "maddpg-scheduler"
    begun = time.monotonic()
    subprocess.run(("git", "clone", "--quiet", "--depth", "1", REPOSITORY.as_uri(), str(clone)), check=True)
    cloned = time.monotonic()
    with subprocess.Popen(
        ("make", "demo"), cwd=clone, stdout=subprocess.PIPE, text=True, env=_plain(), start_new_session=True
    ) as demo:
        try:
            lines: list[str] = []
            while (placement := first_placement(lines)) is None:
                line = demo.stdout.readline() if demo.stdout else ""
                if not line:
                    raise RuntimeError("make demo ended before it placed a pod:\n" + "".join(lines))
                lines.append(line)
            placed = time.monotonic()
            url, pod = placement
            command = (".venv/bin/maddpg-extender", "explain", pod, "--namespace", "demo", "--url", url)
            # what it says of a failure goes to the terminal
            told = subprocess.run(
                command, cwd=clone, check=True, stdout=subprocess.PIPE, text=True, env=_plain()
            ).stdout
            explained = time.monotonic()
        finally:
            os.killpg(demo.pid, signal.SIGINT)
    spent = resource.getrusage(resource.RUSAGE_CHILDREN)
    if "is best" not in told:
        raise RuntimeError(f"this explains nothing: {told}")
    return [
        Result("clone", cloned - begun, "s"),
        Result("make demo, until the first pod is placed", placed - cloned, "s"),
        Result("explain", explained - placed, "s"),
        Result("CPU time of all three", spent.ru_utime + spent.ru_stime, "s"),
        Result("from a clone to the first explained decision", explained - begun, "s", at_most=GOAL_S),
    ], told


def _plain() -> dict[str, str]:
    """The environment without what points at this checkout."""
    return {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV", "MAKEFLAGS")}


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as place:
        results, explanation = walk(Path(place))
    print(explanation)
    publish("a newcomer's path", results, REPOSITORY / "build" / "newcomer.json")
    sys.exit(not results[-1].passed)
