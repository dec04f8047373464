"""`make proof`: kube-scheduler alone and ours by turns, on real containers whose nodes differ; writes docs/evidence."""

from __future__ import annotations

import signal
import sys
from pathlib import Path
from typing import Annotated

import typer

from tests.control_plane.processes import StartError
from tests.control_plane.toolchain import BuildError
from tests.kind.cluster import ClusterError
from tests.proof.evidence import FASTEST, VIOLATIONS, judged_by_fastest, read, write
from tests.proof.machines import cluster, kinds
from tests.proof.prediction import predict
from tests.proof.switchback import Plan, Record, Switchback
from training.evaluation.statistics import Estimate

OUT = Path(__file__).resolve().parents[2] / "docs" / "evidence"


def main(
    pairs: Annotated[int, typer.Option(min=1, help="Pairs of blocks; two or more have an interval.")] = Plan.pairs,
    block_seconds: Annotated[float, typer.Option(help="Length of a block.")] = Plan.block_s,
    dropped_seconds: Annotated[float, typer.Option(help="Start of a block that is not counted.")] = Plan.dropped_s,
    warmup_seconds: Annotated[float, typer.Option(help="Before the first block.")] = Plan.warmup_s,
    load: Annotated[float, typer.Option(help="CPU time offered over what nodes can give.")] = Plan.load,
    seed: Annotated[int, typer.Option(help="Of arrivals and of the order of the blocks.")] = Plan.seed,
    out: Annotated[Path, typer.Option(help="Folder for figures, raw data and plots.")] = OUT,
    again: Annotated[bool, typer.Option("--again", help="Run nothing: judge the raw data in --out again.")] = False,
) -> None:
    """Run the experiment; about an hour. Needs root on Linux, or a Docker Engine."""
    if again:
        try:
            kept = read(out)
        except OSError as error:
            sys.exit(f"make proof: no run to judge again, {error.filename}: {error.strerror}")
        write(kept, _predicted(kept), out)
        return
    if dropped_seconds >= block_seconds:
        said = f"{dropped_seconds:g} is not below the block's {block_seconds:g} s"
        raise typer.BadParameter(said, param_hint="--dropped-seconds")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # so that the cluster is taken down
    plan = Plan(pairs, block_seconds, dropped_seconds, warmup_seconds, load, seed)
    try:
        with cluster() as (made, image):
            print(f"workers: {kinds(made)}; {plan.rate:.2f} Jobs a second; order: {plan.arms}", flush=True)
            record = Switchback(made, image, plan, lambda text: print(text, flush=True)).run()
    except (BuildError, StartError, ClusterError, TimeoutError) as error:
        sys.exit(f"make proof: {error}")
    rows = write(record, _predicted(record), out)
    (verdict,) = (row for row in rows if row["name"] == f"{VIOLATIONS.name}, difference")
    print("below kube-scheduler's with the whole interval" if verdict["pass"] else "the interval holds 0, or worse")


def _predicted(record: Record) -> dict[str, Estimate]:
    """What the simulator expects, told each template's time alone as measured before, and as `FASTEST` has it."""
    completions = _completions(record)
    fastest = predict(record.plan, judged_by_fastest(record).nominal_s, completions)
    return {
        **predict(record.plan, record.nominal_s, completions),
        **{f"{name}, {FASTEST}": expected for name, expected in fastest.items()},
    }


def _completions(record: Record) -> int:
    """Jobs per worker that ended during the warm-up."""
    ended = [job for job in record.jobs.values() if job.block < 0 and job.ended is not None]
    return max(1, round(len(ended) / len(record.kinds)))


if __name__ == "__main__":
    typer.run(main)
