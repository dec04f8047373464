"""The benchmark of a core: right arithmetic, robust against noise, small while it waits, and the same by both ways."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from extender import benchmark
from extender.benchmark import REFERENCE_S, VERSION, kernels, measure
from extender.cli import app

REFERENCE = {"integer": 1.0, "floating": 2.0, "memory": 4.0}


class Core:
    """A core that takes the given seconds for each kernel, round by round; the first round warms caches."""

    def __init__(self, rounds: list[dict[str, float]]) -> None:
        self.now = 0.0
        self._rounds = rounds
        self._done = dict.fromkeys(REFERENCE, 0)

    def work(self) -> dict[str, Callable[[], object]]:
        return {name: (lambda name=name: self._run(name)) for name in REFERENCE}  # type: ignore[misc]

    def _run(self, name: str) -> None:
        self.now += self._rounds[self._done[name]][name]
        self._done[name] += 1

    def speed(self) -> benchmark.Measured:
        return measure(self.work(), REFERENCE, len(self._rounds) - 1, lambda: self.now)


def test_the_speed_is_the_geometric_mean_over_the_kernels() -> None:
    taken = {"integer": 0.5, "floating": 2.0, "memory": 1.0}
    measured = Core([taken] * 4).speed()
    assert measured.kernels == {"integer": 2.0, "floating": 1.0, "memory": 4.0}
    assert (measured.speed, measured.spread, measured.rounds) == (pytest.approx(2.0), pytest.approx(0.0), 3)


def test_rounds_that_a_neighbour_slowed_change_the_spread_and_not_the_speed() -> None:
    slow = {name: 3.0 * seconds for name, seconds in REFERENCE.items()}
    measured = Core([slow, slow, REFERENCE, slow, slow]).speed()
    assert measured.speed == pytest.approx(1.0)
    assert measured.spread == pytest.approx(math.log(3.0) / 2.0)


def test_the_first_round_does_not_count() -> None:
    fast = {name: 0.1 * seconds for name, seconds in REFERENCE.items()}
    assert Core([fast, REFERENCE, REFERENCE]).speed().speed == pytest.approx(1.0)


def test_every_kernel_has_a_reference_and_does_the_same_work_again() -> None:
    work = kernels()
    assert work.keys() == REFERENCE_S.keys()
    assert all(kernel() is None for kernel in work.values())


def test_the_text_to_compress_is_neither_random_nor_a_repetition() -> None:
    import zlib

    text = benchmark._text(100_000)
    assert 0.1 < len(zlib.compress(text)) / len(text) < 0.6
    assert len({text[at : at + 64] for at in range(0, 99_000, 64)}) > 1500
    assert benchmark._text(100_000) == text


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Kernels that take no time."""
    monkeypatch.setattr(benchmark, "kernels", lambda: Core([REFERENCE] * 99).work())


def test_both_ways_print_one_line_and_write_it_to_a_file(quick: None, tmp_path: Path) -> None:
    out = tmp_path / "termination-log"
    out.touch()
    printed = CliRunner().invoke(app, ["benchmark", "--out", str(out)])
    assert printed.exit_code == 0, printed.output
    assert printed.output == out.read_text() + "\n"
    assert len(out.read_text()) < 1024, "a termination log is cut off at 4 KiB, and shared among containers"
    found = json.loads(printed.output)
    assert found.keys() == {"benchmark", "speed", "spread", "kernels", "rounds"}
    assert found["benchmark"] == VERSION


def test_a_file_that_cannot_be_written_is_told(quick: None, tmp_path: Path) -> None:
    printed = CliRunner().invoke(app, ["benchmark", "--out", str(tmp_path / "no" / "file")])
    assert printed.exit_code == 1
    assert "cannot write the result to" in printed.output


def run_with_its_peak(code: str) -> tuple[str, float]:
    """Run code in a process of its own; returns its first line, and the most memory that it held, MiB."""
    told = "import atexit; atexit.register(lambda: print(open('/proc/self/status').read()))\n"
    run = subprocess.run([sys.executable, "-c", told + code], capture_output=True, text=True, check=True, timeout=120)
    first, _, status = run.stdout.partition("\n")
    (peak,) = [line for line in status.splitlines() if line.startswith("VmHWM")]
    return first, int(peak.split()[1]) / 1024


def test_a_process_that_waits_is_small_and_imports_nothing_large() -> None:
    code = (
        "import sys, time\n"
        "def waited(s):\n"
        "    print(s, sorted({'numpy', 'pydantic', 'typer', 'msgspec', 'onnxruntime'} & set(sys.modules)))\n"
        "    sys.exit(0)\n"
        "time.sleep = waited\n"
        "from extender.benchmark import main\n"
        "main(['--after-s', '604800'])\n"
    )
    said, size = run_with_its_peak(code)
    assert said == "604800.0 []"
    assert size < 32


def test_the_real_one_takes_seconds_and_agrees_with_itself() -> None:
    speeds = []
    for _ in range(2):
        said, size = run_with_its_peak("from extender.benchmark import main; main([])")
        speeds.append(json.loads(said)["speed"])
        assert size < 128, "the chart's limit of memory is half as much again"
    assert 0.05 < min(speeds) <= max(speeds) < 10.0
    assert abs(math.log(speeds[1] / speeds[0])) < 0.2
