"""How reliably a kind cluster comes up: creations in a row, with their times and failures.

`python -m tests.kind.creations --count 10` creates and deletes a cluster that many times, cut off from outside, prints
each one's times and writes build/kind-creations.json. It ends with status 1 where one failed.
"""

import argparse
import json
import os
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from tests.control_plane.processes import StartError
from tests.control_plane.toolchain import REPOSITORY, BuildError
from tests.kind.cluster import ClusterError, created
from tests.kind.engine import Engine, engine
from tests.kind.machine import CutOff, cut_off
from tests.kind.node_image import node
from tests.kind.release import workload

OUT = REPOSITORY / "build" / "kind-creations.json"
PODS = 4


@dataclass
class Creation:
    """One cluster, from nothing to its deletion; a time is None where that was not reached."""

    number: int
    load_average: float
    """Of the machine as it began: what else runs makes it slower."""
    ready_s: float | None = None
    """Until every node and every pod of kube-system was ready."""
    placed_s: float | None = None
    """From there until pods ran on both workers."""
    deleted_s: float | None = None
    """From there until the cluster was gone."""
    refused: int = 0
    """Packets that would have left the machine, and were refused."""
    failure: str | None = None


def attempt(number: int, found: Engine, node_image: str | None, cut: CutOff) -> Creation:
    """Create a cluster, run pods on it and delete it."""
    made = Creation(number, round(os.getloadavg()[0], 1))
    refused, mark = cut.refused, time.monotonic()

    def lap() -> float:
        nonlocal mark
        before, mark = mark, time.monotonic()
        return round(mark - before, 1)

    try:
        with created(found, node_image, f"maddpg-{number}") as cluster:
            made.ready_s = lap()
            with workload(cluster, "spread", PODS, schedulerName="default-scheduler") as pods:
                made.placed_s = lap()
                if {each["spec"]["nodeName"] for each in pods} != set(cluster.workers):
                    made.failure = "not every worker took pods"
            lap()
        made.deleted_s = lap()
    except (BuildError, ClusterError, TimeoutError) as error:
        made.failure = str(error)
    made.refused = cut.refused - refused
    return made


def main(arguments: Sequence[str] | None = None) -> int:
    """Create clusters and say how it went."""
    parser = argparse.ArgumentParser(prog="python -m tests.kind.creations", description=__doc__)
    parser.add_argument("--count", type=int, default=10, help="clusters to create; 10 unless given")
    parser.add_argument("--out", type=Path, default=OUT, help="file to write")
    chosen = parser.parse_args(arguments)
    try:
        with engine() as found:
            given = os.environ.get("KIND_NODE_IMAGE")
            image = given or (node.make(found.environment) if found.own else None)
            if not found.own:
                results = _attempts(chosen.count, found, image, CutOff([]), chosen.out)
            else:
                with cut_off() as cut:
                    results = _attempts(chosen.count, found, image, cut, chosen.out)
    except (BuildError, StartError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    failed = [each for each in results if each.failure]
    times = [each.ready_s for each in results if each.ready_s is not None]
    if times:
        spread = f"{min(times):.0f}, {statistics.median(times):.0f} and {max(times):.0f} s"
        print(f"ready after {spread} (least, median, most); {len(failed)} of {len(results)} failed; {chosen.out}")
    return 1 if failed else 0


def _attempts(count: int, found: Engine, image: str | None, cut: CutOff, out: Path) -> list[Creation]:
    """One after the other; the file is whole after each, however the run ends."""
    results: list[Creation] = []
    out.parent.mkdir(parents=True, exist_ok=True)
    for number in range(1, count + 1):
        made = attempt(number, found, image, cut)
        results.append(made)
        out.write_text(json.dumps([asdict(each) for each in results], indent=1) + "\n")
        print(json.dumps(asdict(made)), flush=True)
    return results


if __name__ == "__main__":
    sys.exit(main())
