"""What a benchmark writes can be read by whoever judges it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.bench import serving
from tests.bench.report import Result, merge, read

VERDICTS = {
    "at most, met": (Result("a", 1.5, "x", at_most=1.5), "<= 1.5", True),
    "at most, missed": (Result("a", 1.6, "x", at_most=1.5), "<= 1.5", False),
    "at least, met": (Result("a", 0.95, "x", at_least=0.95), ">= 0.95", True),
    "at least, missed": (Result("a", 0.94, "x", at_least=0.95), ">= 0.95", False),
    "without a goal": (Result("a", 3.0, "ms"), None, None),
}


@pytest.mark.parametrize("case", VERDICTS)
def test_a_figure_says_its_goal_and_whether_it_is_met(case: str) -> None:
    result, goal, passed = VERDICTS[case]
    assert result.row == {"name": "a", "value": result.value, "unit": result.unit, "goal": goal, "pass": passed}


def test_pieces_run_one_by_one_end_in_one_list_without_old_figures(tmp_path: Path) -> None:
    path = tmp_path / "build" / "figures.json"
    merge([Result("a", 1.0, "x"), Result("b", 2.0, "x")], path)
    merge([Result("c", 3.0, "x"), Result("a", 4.0, "x")], path)
    assert [(row["name"], row["value"]) for row in json.loads(path.read_text())] == [("a", 4.0), ("b", 2.0), ("c", 3.0)]
    assert read(tmp_path / "absent.json") == []


@pytest.mark.parametrize("piece", serving.PIECES)
def test_every_piece_says_what_its_options_are(piece: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        serving.run(piece, ["--help"])
    assert ended.value.code == 0
    assert f"serving {piece}" in capsys.readouterr().out
