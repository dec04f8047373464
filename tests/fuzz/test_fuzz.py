"""A few seconds of `make fuzz`, and proof that it would find something."""

from __future__ import annotations

import platform
import sys
from pathlib import Path

import pytest

from extender.protocol import wire
from tests.fuzz.__main__ import fuzz, results
from tests.fuzz.seeds import seeds
from tests.fuzz.targets import TARGETS, one_input

supported = pytest.mark.skipif(
    sys.platform != "linux" or platform.machine() != "x86_64", reason="atheris is built for linux on x86_64 alone"
)


@supported
@pytest.mark.parametrize("target", TARGETS)
def test_no_input_of_a_short_run_breaks_a_decoder(target: str, tmp_path: Path) -> None:
    outcome = fuzz(target, "-runs=5000", tmp_path, seed=1)
    missed = [result.name for result in results(target, outcome) if result.passed is False]
    assert not missed, f"{outcome.finds}\n{outcome.log}"
    assert outcome.seed_coverage >= 50, "our modules are not instrumented, or the seeds do not reach them"


@pytest.mark.parametrize("target", TARGETS)
def test_every_seed_is_decoded_or_refused(target: str) -> None:
    found = list(seeds(target))
    for content in found:
        one_input(target, content)
    assert {content[0] for content in found} == set(range(len(TARGETS[target]))), "a decoder without a seed"


def test_an_error_that_is_not_ours_is_a_find(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(request: object) -> bytes:
        raise KeyError("NodeNames")

    monkeypatch.setattr(wire, "encode_filter", broken)
    with pytest.raises(KeyError):
        one_input("wire", b'\x00{"Pod":{"metadata":{}},"NodeNames":["a"]}')
