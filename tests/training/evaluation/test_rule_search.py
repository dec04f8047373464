"""The constants of a rule, searched on selection seeds."""

from __future__ import annotations

from dataclasses import fields, replace

import pytest

from policy.errors import InvalidInputError
from policy.heuristics import DETERMINISTIC
from tests.training.command_line import call
from training.evaluation import rule_search
from training.evaluation.rule_search import TUNABLE, tune
from training.simulator.scenarios import load_scenario

SHORT = replace(load_scenario("reference"), nodes=4, episode_arrivals=60, warmup_arrivals=10)
FEW = {"generations": 2, "population": 4, "episodes": 1}


@pytest.mark.parametrize("name", TUNABLE)
def test_every_constant_of_the_rule_is_searched_and_the_one_in_use_lies_in_its_range(name: str) -> None:
    tunable = TUNABLE[name]
    rule = DETERMINISTIC[name].rule
    assert isinstance(rule, tunable.rule)  # type: ignore[arg-type]  # a class
    assert [item.name for item in fields(rule)] == list(tunable.ranges)
    for field, (low, high) in tunable.ranges.items():
        assert low <= getattr(rule, field) <= high


def test_the_same_seed_finds_the_same_constants_and_another_others() -> None:
    found = tune("marginal-cost", SHORT, seed=3, **FEW)
    assert found == tune("marginal-cost", SHORT, seed=3, **FEW)
    assert found.constants != tune("marginal-cost", SHORT, seed=4, **FEW).constants
    assert set(found.rates) == set(rule_search.LOADS)


def test_the_search_finds_what_is_better(monkeypatch: pytest.MonkeyPatch) -> None:
    def play(rule: object, *_given: object) -> object:
        constants = rule.rule  # type: ignore[attr-defined]
        return {rule_search.SLA: ((constants.margin - 1.4) ** 2 + (constants.harm - 0.1) ** 2)[:, 0]}

    monkeypatch.setattr(rule_search, "play", play)
    found = tune("marginal-cost", SHORT, generations=12, population=30, episodes=1)
    assert found.constants["margin"] == pytest.approx(1.4, abs=0.03)
    assert found.constants["harm"] == pytest.approx(0.1, abs=0.03)


@pytest.mark.parametrize(
    ("name", "changes", "complaint"),
    [
        ("kube-default", {}, "marginal-cost"),
        ("marginal-cost", {"population": 3}, "population"),
        ("marginal-cost", {"episodes": 10**9}, "selection seeds"),
    ],
    ids=["no-constants", "too-few", "too-many"],
)
def test_what_cannot_be_searched_is_refused(name: str, changes: dict[str, int], complaint: str) -> None:
    with pytest.raises(InvalidInputError, match=complaint):
        tune(name, SHORT, **{**FEW, **changes})


def test_the_command_prints_constants_and_rates() -> None:
    few = ["--generations", "1", "--population", "4", "--episodes", "1"]
    result = call("tune-rule", "sufficient-speed", "--scenario", "three", *few)
    assert result.exit_code == 0, result.output
    assert "safe_margin: " in result.stdout
    assert result.stdout.count("SLA violations at load") == len(rule_search.LOADS)
