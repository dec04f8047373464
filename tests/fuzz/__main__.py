"""`make fuzz`: coverage-guided fuzzing of everything that decodes bytes from outside. Exit code 1 if anything is found.

`python -m tests.fuzz [--seconds 300] [TARGET ...]`. A find is an exception that is none of our errors, an input that
takes long, or memory that grows; the input is kept under build/fuzz, and
`python -m tests.fuzz.fuzzer TARGET FILE` gives it again.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from tests.bench.report import Result, publish
from tests.fuzz.seeds import dictionary, seeds
from tests.fuzz.targets import TARGETS

FOLDER = Path("build/fuzz")
HANGS_S = 120
"""Wall-clock time of one input after which it counts as hanging; `tests.fuzz.targets` bounds its CPU time."""
MOST_MEMORY_MIB = 1024
MOST_GROWTH_MIB = 64
LONGEST_INPUT = 16_384

_PULSE = re.compile(r"^#(\d+)\s+\w+\s+cov: (\d+) ft: (\d+).*? rss: (\d+)Mb", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one run found.

    Attributes:
        executions: inputs tried.
        coverage: edges of our code that they took.
        seed_coverage: of these, what the seeds alone took.
        growth_mib: resident memory at the end over that after the seeds.
        finds: inputs that were not decoded or refused as they must.
        log: the end of what it printed: the traceback of a find.
    """

    executions: int
    coverage: int
    seed_coverage: int
    growth_mib: float
    finds: tuple[Path, ...]
    log: str


def fuzz(target: str, limit: str, folder: Path = FOLDER, seed: int = 0) -> Outcome:
    """Fuzz one target.

    Args:
        target: of `TARGETS`.
        limit: libFuzzer's option that ends it: `-max_total_time=SECONDS` or `-runs=INPUTS`.
        folder: for the corpus and what is found.
        seed: of the changes; 0 draws one.

    Raises:
        RuntimeError: the fuzzer did not run.
    """
    corpus, found = folder / target / "corpus", folder / target / "found"
    for each in (corpus, found):
        each.mkdir(parents=True, exist_ok=True)
    for old in found.iterdir():
        old.unlink()
    for number, content in enumerate(seeds(target)):
        (corpus / f"seed-{number:03}").write_bytes(content)
    words = folder / "words.dict"
    words.write_text(dictionary())
    command = [
        sys.executable, "-m", "tests.fuzz.fuzzer", target,
        limit, f"-timeout={HANGS_S}", f"-rss_limit_mb={MOST_MEMORY_MIB}",
        f"-max_len={LONGEST_INPUT}", f"-artifact_prefix={found}/", f"-dict={words}", f"-seed={seed}", str(corpus),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
    pulses = [tuple(map(int, pulse)) for pulse in _PULSE.findall(done.stderr)]
    finds = tuple(sorted(found.iterdir()))
    if len(pulses) < 2 or (done.returncode and not finds):
        raise RuntimeError(f"the fuzzer ended with {done.returncode}:\n{done.stdout[-1000:]}{done.stderr[-3000:]}")
    begun = re.search(r"INITED cov: (\d+).*? rss: (\d+)Mb", done.stderr)
    seed_coverage, first_mib = map(int, begun.groups()) if begun else (0, pulses[0][3])
    return Outcome(pulses[-1][0], pulses[-1][1], seed_coverage, pulses[-1][3] - first_mib, finds, done.stdout[-3000:])


def results(target: str, outcome: Outcome) -> list[Result]:
    """The figures of one run."""
    return [
        Result(f"fuzzing of {target}, inputs", outcome.executions, "inputs", at_least=1),
        Result(f"fuzzing of {target}, edges reached", outcome.coverage, "edges", at_least=1),
        Result(f"fuzzing of {target}, of them by the seeds", outcome.seed_coverage, "edges"),
        Result(f"fuzzing of {target}, growth of memory", outcome.growth_mib, "MiB", at_most=MOST_GROWTH_MIB),
        Result(f"fuzzing of {target}, finds", len(outcome.finds), "inputs", at_most=0),
    ]


def main() -> int:
    """Fuzz, print, write build/fuzz/fuzz.json."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=f"of {', '.join(TARGETS)}; default: all")
    parser.add_argument("--seconds", type=float, default=300.0, help="for all targets together")
    chosen = parser.parse_args()
    targets = chosen.targets or list(TARGETS)
    if unknown := [name for name in targets if name not in TARGETS]:
        parser.error(f"unknown target {unknown[0]!r}; known: {', '.join(TARGETS)}")
    figures: list[Result] = []
    for target in targets:
        outcome = fuzz(target, f"-max_total_time={max(1, round(chosen.seconds / len(targets)))}")
        figures += results(target, outcome)
        if outcome.finds:
            print(outcome.log, *outcome.finds, sep="\n", file=sys.stderr)
    publish("make fuzz", figures, FOLDER / "fuzz.json")
    return 0 if all(figure.passed is not False for figure in figures) else 1


if __name__ == "__main__":
    sys.exit(main())
