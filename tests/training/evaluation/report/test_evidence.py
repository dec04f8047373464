"""Goals that no episode decides: the simulator's speed, a run at scale, and the ablation table."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from policy.errors import InvalidInputError
from training.evaluation.report.evidence import PARTS, Evidence, further_goals, read_ablations, read_scale
from training.evaluation.report.goals import Goal

FAST = {10: 200_000.0, 50: 80_000.0, 1000: 4_000.0}
SCALE = {"episodes": 12_000, "seconds": 1440.0, "updates": 9, "finished": True}
TABLE = {name: {"settings": {}, "seeds": 5, "diverged": 0} for name in ("base",)} | {
    key: {"settings": {key.split(".")[0]: {key.split(".")[1]: 1}}, "seeds": 5, "diverged": 1} for key in PARTS
}


def goals(**changed: Any) -> dict[str, Goal]:
    """By the first words of their names."""
    found = further_goals(Evidence(**{"speeds": FAST, "scale": SCALE, "ablations": TABLE, **changed}))
    return {goal.name.split(" ")[0] + str(number): goal for number, goal in enumerate(found)}


def test_all_are_reached_by_what_is_asked() -> None:
    found = goals()
    assert [goal.reached for goal in found.values()] == [True] * 4
    assert found["simulator,0"].value == 200_000.0
    assert found["simulator:1"].value == 50.0
    assert "1000 nodes 50" in found["simulator:1"].name
    assert found["minutes2"].value == pytest.approx(20.0)
    assert found["ablation3"].value == 6.0


@pytest.mark.parametrize(
    ("key", "changed"),
    [
        pytest.param("simulator,0", {"speeds": {10: 99_000.0, 1000: 1.0}}, id="slow"),
        pytest.param("simulator:1", {"speeds": {10: 200_000.0}}, id="growth not measured"),
        pytest.param("minutes2", {"scale": {**SCALE, "episodes": 9_999}}, id="too few episodes"),
        pytest.param("minutes2", {"scale": {**SCALE, "seconds": 5_000.0}}, id="too long"),
        pytest.param("minutes2", {"scale": {**SCALE, "finished": False}}, id="stopped early"),
        pytest.param("minutes2", {"scale": {**SCALE, "episodes": 0}}, id="no episode"),
        pytest.param(
            "ablation3", {"ablations": {k: v for k, v in TABLE.items() if k != "critic.twin"}}, id="a part left out"
        ),
    ],
)
def test_each_is_missed_by_less(key: str, changed: dict[str, Any]) -> None:
    assert [name for name, goal in goals(**changed).items() if not goal.reached] == [key]


def test_without_evidence_none_is_reached() -> None:
    assert not any(goal.reached for goal in further_goals(Evidence()))


def test_what_commands_wrote_is_read(tmp_path: Path) -> None:
    (tmp_path / "outcome.json").write_text(json.dumps({**SCALE, "best": {"score": 0.4}}))
    assert read_scale(tmp_path / "outcome.json") == SCALE
    variant = {"settings": {"critic": {"twin": False}}, "seeds": [1, 2], "diverged": [2], "about": ""}
    (tmp_path / "ablations.json").write_text(json.dumps({"variants": {"one": variant}}))
    read = read_ablations(tmp_path / "ablations.json")
    assert read == {"one": {"settings": {"critic": {"twin": False}}, "seeds": 2, "diverged": 1}}


def test_the_committed_ablations_compare_every_part() -> None:
    committed = Path(__file__).parents[4] / "docs" / "ablations" / "ablations.json"
    assert goals(ablations=read_ablations(committed))["ablation3"].reached


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"variants": {"a": 1}}'], ids=["empty", "a list", "{}", "a number"])
def test_other_files_are_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "other.json"
    path.write_text(text)
    for read in (read_scale, read_ablations):
        with pytest.raises(InvalidInputError, match=r"other\.json"):
            read(path)
