"""Measures the speed of one core: a few seconds of fixed work, and one line of JSON. Needs numpy and zlib alone.

Three kernels of fixed size: integers and branches (zlib), floating point (a Fourier transform that fits into a core's
cache), and memory (random reads of a table that does not). None of them chooses other instructions by processor as
matrix products and hashes do, so that special units do not pass for a fast core. They run in turns, several rounds,
each timed in CPU time of the thread, which leaves out waiting and throttling. What remains of neighbours only ever adds
time, so the best round of each kernel counts. The speed is the geometric mean of reference time over best time.

It compares machines that run the same build: the same image, so the same zlib and numpy.

`python -m extender.benchmark` is the same as `maddpg-extender benchmark` in a process that imports nothing until it
measures: a pod that waits for its next round in a week should be small.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
import time
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import stdev
from typing import Final

VERSION: Final = 1
"""Of the kernels: speeds of two versions are not comparable."""

ROUNDS: Final = 9

REFERENCE_S: Final[Mapping[str, float]] = {"integer": 0.0645, "floating": 0.0662, "memory": 0.0580}
"""Seconds that each kernel takes on the reference core, a vCPU of n2-standard-8.

Best of sixty rounds on a vCPU of Sapphire Rapids, times its published CoreMark over the reference's (20,043 over 17,321
in extender/cluster/instances.csv). A wrong scale is the same on every node that is measured.
"""

_WORDS: Final = (
    b"node pod speed core cache branch integer memory 0 1 2 17 256 4096 { } ( ) , . : ; -> == += return".split()
)
_TEXT: Final = 600_000
_TRANSFORM: Final = 1 << 14
_TRANSFORMS: Final = 400
_TABLE: Final = 1 << 22
_READS: Final = 1 << 20

Kernel = Callable[[], object]


@dataclass(frozen=True, slots=True)
class Measured:
    """What was measured.

    Attributes:
        speed: of the core, relative to the reference core.
        spread: standard deviation of the logarithm of a round's speed: how much the rounds disagree.
        kernels: speed by kernel.
        rounds: how many rounds.
    """

    speed: float
    spread: float
    kernels: Mapping[str, float]
    rounds: int

    def line(self) -> str:
        """Return it as one line of JSON."""
        kernels = {name: round(speed, 4) for name, speed in self.kernels.items()}
        return json.dumps(
            {
                "benchmark": VERSION,
                "speed": round(self.speed, 4),
                "spread": round(self.spread, 4),
                "kernels": kernels,
                "rounds": self.rounds,
            }
        )


def kernels() -> Mapping[str, Kernel]:
    """Return the fixed work, by kind; it is made ready here, so that only the work is timed."""
    import numpy as np

    text = _text(_TEXT)
    signal = np.random.default_rng(1).standard_normal(_TRANSFORM).astype(np.complex128)
    table = np.arange(_TABLE, dtype=np.int64)
    places = np.random.default_rng(2).integers(0, _TABLE, _READS)
    out = np.empty(_READS, dtype=np.int64)

    def integer() -> None:
        for _ in range(2):
            zlib.decompress(zlib.compress(text, 6))

    def floating() -> None:
        for _ in range(_TRANSFORMS):
            np.fft.fft(signal)

    def memory() -> None:
        for _ in range(5):
            table.take(places, out=out, mode="clip")

    return {"integer": integer, "floating": floating, "memory": memory}


def measure(
    work: Mapping[str, Kernel],
    reference_s: Mapping[str, float] = REFERENCE_S,
    rounds: int = ROUNDS,
    timer: Callable[[], float] = time.thread_time,
) -> Measured:
    """Time the work and return the speed of this core.

    Args:
        work: kernels by name.
        reference_s: what each takes on the reference core, seconds.
        rounds: how often each runs, at least twice; one more round before warms caches and is not timed.
        timer: CPU seconds of this thread.
    """
    taken: dict[str, list[float]] = {name: [] for name in work}
    for number in range(rounds + 1):
        for name, kernel in work.items():
            began = timer()
            kernel()
            if number:
                taken[name].append(timer() - began)
    speeds = {name: reference_s[name] / min(times) for name, times in taken.items()}
    by_round = [_mean_log(reference_s[name] / times[i] for name, times in taken.items()) for i in range(rounds)]
    return Measured(math.exp(_mean_log(speeds.values())), stdev(by_round), speeds, rounds)


def run(out: Path | None, after_s: float) -> None:
    """Wait, measure, print the line, and write it to a file too.

    Args:
        out: the file, such as ``/dev/termination-log`` in a pod, from where the kubelet shows it in the pod's status.
        after_s: seconds to wait before.

    Raises:
        OSError: the file cannot be written.
    """
    time.sleep(after_s)
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ.setdefault(name, "1")  # before numpy is imported: idle threads cost memory
    line = measure(kernels()).line()
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()
    if out is not None:
        out.write_text(line, encoding="utf-8")


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point of ``python -m extender.benchmark``."""
    parser = argparse.ArgumentParser(prog="python -m extender.benchmark")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--after-s", type=float, default=0.0)
    chosen = parser.parse_args(arguments)
    run(chosen.out, chosen.after_s)


def _text(size: int) -> bytes:
    """Return words in an order that a linear congruential generator draws: neither random bytes nor a repetition."""
    words, state, length = [], 1, 0
    while length < size:
        state = (state * 1103515245 + 12345) % (1 << 31)
        words.append(_WORDS[(state >> 16) % len(_WORDS)])
        length += len(words[-1]) + 1
    return b" ".join(words)


def _mean_log(speeds: Iterable[float]) -> float:
    logs = [math.log(speed) for speed in speeds]
    return sum(logs) / len(logs)


if __name__ == "__main__":
    main()
