"""What is said of policies against rivals on the same episodes."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from policy import heuristics
from policy.errors import InvalidInputError
from tests.training.command_line import invoke
from tests.training.tiny_runs import NODES, tiny_config, write_scenario
from training.evaluation.plan import STUDY_SEEDS
from training.evaluation.protocol import SLA, evaluate
from training.learning.algorithms import build_algorithm
from training.ppo import verdicts
from training.simulator.conditions import Condition


def test_a_difference_is_the_policy_less_the_rival_on_the_episodes_of_the_report(tmp_path: Path) -> None:
    condition = Condition(str(write_scenario(tmp_path)), 0.6, episodes=4)
    ours, theirs = heuristics.by_name("marginal-cost"), heuristics.by_name("kube-default")
    found = verdicts.verdicts([ours], [theirs], [condition])[condition.label]
    played = evaluate([ours, theirs], condition, STUDY_SEEDS)
    expected = (played.values[ours.name][SLA] - played.values[theirs.name][SLA]).mean()
    assert found["differences"][0]["difference"]["value"] == pytest.approx(expected)
    assert found["rates"]["kube-default"]["mean"] == pytest.approx(played.values[theirs.name][SLA].mean())


def test_a_difference_is_bold_where_its_interval_is_on_one_side_of_zero() -> None:
    rate = {"mean": 0.01, "low": 0.005, "high": 0.02}
    pair = {"first_name": "a", "second_name": "b", "difference": {"value": -0.01, "low": -0.02, "high": -0.001}}
    document = {
        "calm": {"rates": {"a": rate, "b": rate}, "differences": [{**pair, "better": "first"}]},
        "busy": {"rates": {"a": rate, "b": rate}, "differences": [{**pair, "better": None}]},
    }
    assert verdicts.markdown(document).splitlines() == [
        "| SLA violations, % | calm | busy |",
        "|---|---|---|",
        "| a | 1.00 (0.50-2.00) | 1.00 (0.50-2.00) |",
        "| b | 1.00 (0.50-2.00) | 1.00 (0.50-2.00) |",
        "",
        "| points | calm | busy |",
        "|---|---|---|",
        "| a - b | **-1.00 (-2.00 to -0.10)** | -1.00 (-2.00 to -0.10) |",
    ]


def test_versus_names_bundles_after_their_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scenario = str(write_scenario(tmp_path))
    monkeypatch.setattr(verdicts, "conditions", lambda episodes: [Condition(scenario, 0.4, episodes=episodes)])
    output = invoke("versus", "training/models/even", "--episodes", "2", "--out", tmp_path / "found.json")
    assert "even - maddpg-default" in output
    document = json.loads((tmp_path / "found.json").read_text(encoding="utf-8"))
    assert document["trained"]["even"]["updates"] == 2000
    (found,) = document["played"].values()
    assert set(found["rates"]) == {"even", "maddpg-default", "marginal-cost", "kube-default"}


def test_mappo_is_not_trained_by_run(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="'mappo'; train it by maddpg-train ppo"):
        build_algorithm(tiny_config(tmp_path, algorithm="mappo"), NODES)


def test_ppo_without_benchmarl_names_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "benchmarl", None)
    loaded = [name for name in sys.modules if name.startswith(("benchmarl.", "training.ppo."))]
    for name in loaded:
        monkeypatch.delitem(sys.modules, name)
    with pytest.raises(InvalidInputError, match=r"pip install -r requirements/ppo\.txt"):
        invoke("ppo", "--out", tmp_path / "run")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"actor": {"kind": "monotone", "criteria_set": "physical", "initial_bids": [0.1] * 4}}, "actor.kind shared"),
        ({"arenas": [{"scenario": "wide"}, {"scenario": "wide", "nodes": 3}]}, "one arena"),
    ],
)
def test_what_ppo_cannot_train_is_refused(changes: dict[str, object], words: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match=words):
        tiny_config(tmp_path, algorithm="ippo", **changes)
