"""The policy where nothing is labelled: what learning wins back, and the command that prints it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from policy.bundle import load_bundle, shipped_bundle_path
from policy.errors import InvalidInputError
from tests.training.command_line import invoke
from tests.training.tiny_runs import write_scenario
from training.evaluation.completions_curve import curve
from training.simulator.conditions import Condition
from training.simulator.draws import TEST_SEEDS
from training.simulator.scenarios import load_scenario


def test_thirty_completions_a_node_win_back_most_of_what_labels_are_worth() -> None:
    policy = load_bundle(shipped_bundle_path()).scorer()
    scenario = replace(load_scenario("reference"), episode_arrivals=300, warmup_arrivals=100)
    none, thirty = curve(policy, Condition(scenario, 0.4, episodes=12), TEST_SEEDS, [0, 30])
    print(none, thirty)
    (usual, *_), (before, *_) = thirty.rates.values(), none.rates.values()
    assert usual.value < 0.05
    assert before.value > 0.07
    assert thirty.rates[1.0].value < thirty.rates[0.0].value
    assert thirty.median_error < 0.10 < none.median_error


def test_the_command_prints_the_curve_and_what_each_part_costs(tmp_path: Path) -> None:
    options = ["--scenario", write_scenario(tmp_path), "--episodes", "2", "--completions", "0,2", "--first", "7"]
    output = invoke("learned", *options)
    assert "tiny version 1, 3 nodes, load 0.4, 2 test episodes from number 7 on" in output
    assert "| completions per node | SLA violations %, 50% with a deadline |" in output
    for name in ("0", "2", "labelled", "learned-speed", "inferred-urgency", "unlabelled", "bare", "kube-default"):
        assert f"\n| {name} | " in output


@pytest.mark.parametrize("counts", ["some", "1,", "1.5"])
def test_the_command_refuses_what_is_no_number_of_completions(counts: str) -> None:
    with pytest.raises(InvalidInputError, match="--completions is"):
        invoke("learned", "--completions", counts)


def test_no_fewer_than_no_completions_are_asked_for() -> None:
    with pytest.raises(InvalidInputError, match="told is 'learned--1'"):
        invoke("learned", "--nodes", "3", "--episodes", "1", "--completions=-1")
