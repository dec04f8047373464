"""`maddpg-train compare` and `gate`: who is better, and who may not ship."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml
from click.testing import Result

from policy.bundle import MANIFEST_FILE, load_bundle, shipped_bundle_path
from policy.errors import BundleError, InvalidInputError
from tests.training.command_line import call
from tests.training.tiny_runs import one_thread, quick_parity, tiny_config  # noqa: F401 - fixtures
from training.evaluation import gate
from training.evaluation.compare import difference, pair
from training.evaluation.protocol import Evaluation
from training.export import export_bundle
from training.learning.networks import Actor
from training.simulator.conditions import Condition
from training.simulator.deviations import COVERAGE, MEMORY, VARIANTS, find_scenario
from training.simulator.draws import TEST_SEEDS
from training.simulator.scenarios import FOLDER, load_scenario

pytestmark = pytest.mark.usefixtures("quick_parity")

SHIPPED = str(shipped_bundle_path())
EIGHT = ["--loads", "0.4", "--seeds", "8"]


@pytest.fixture
def bad(tmp_path: Path) -> Path:
    """A bundle whose actor avoids idle and fast nodes, as an untrained or broken one may."""
    folder = tmp_path / "bad"
    actor = Actor((16, 16), (-0.8, -0.8, -0.9, 0.0))
    export_bundle(actor, tiny_config(tmp_path, name="bad"), folder, training={}, card="# card\n")
    return folder


def entry(result: Result) -> dict[str, object]:
    (only,) = json.loads(result.stdout)
    assert isinstance(only, dict)
    return only


def test_the_shipped_policy_is_better_than_kube_default_whichever_comes_first(short: str) -> None:
    forward = entry(call("compare", SHIPPED, "kube-default", "--scenario", short, *EIGHT, "--json"))
    backward = entry(call("compare", "kube-default", SHIPPED, "--scenario", short, *EIGHT, "--json"))
    assert (forward["verdict"], backward["verdict"]) == ("A better", "B better")
    assert forward["first"] == backward["second"]
    assert forward["episodes"] == 8
    ours, theirs = forward["difference"], backward["difference"]
    assert isinstance(ours, dict)
    assert isinstance(theirs, dict)
    assert ours["value"] == pytest.approx(-theirs["value"])
    assert ours["low"] <= ours["value"] <= ours["high"] < 0.0
    assert isinstance(forward["improvement"], dict)
    assert forward["improvement"]["low"] > 0.5


def test_a_policy_does_not_differ_from_its_copy(short: str, tmp_path: Path) -> None:
    copy = shutil.copytree(shipped_bundle_path(), tmp_path / "copy")
    result = call("compare", SHIPPED, copy, "--scenario", short, "--loads", "0.4", "--seeds", "3")
    assert result.exit_code == 0
    assert "no difference shown" in result.stdout
    assert "0.50 (0.50 to 0.50)" in result.stdout


def test_every_condition_gets_a_verdict(short: str) -> None:
    options = ["--scenario", short, "--loads", "0.3,0.5", "--seeds", "8", "--json"]
    found = json.loads(call("compare", "random", "expected-speed", *options).stdout)
    assert [(each["condition"], each["verdict"]) for each in found] == [
        (f"{short}@0.3", "B better"),
        (f"{short}@0.5", "B better"),
    ]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nobody", "random"], "rules are random"),
        (["random", "random"], "two policies"),
        (["random", "least-used", "--metric", "cpu_used"], "metric is 'cpu_used'"),
        (["random", "least-used", "--loads", "low"], "--loads"),
        (["random", "least-used", "--scenario", "none-such"], "none-such"),
    ],
    ids=["no-such-rule", "the-same-twice", "metric", "loads", "scenario"],
)
def test_compare_names_what_is_wrong(arguments: list[str], message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        call("compare", *arguments, "--seeds", "1")


def test_compare_refuses_a_folder_that_is_no_bundle(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="cannot read"):
        pair(str(tmp_path), "random")


@pytest.mark.parametrize(
    ("metric", "better"),
    [("sla_violation_rate", "second"), ("completion_rate", "first"), ("reward", "first")],
    ids=["fewer-violations", "more-completions", "more-reward"],
)
def test_the_better_one_is_told_by_the_metrics_direction_on_episodes_that_both_have(metric: str, better: str) -> None:
    values = {"a": {metric: np.array([0.5, 0.6, np.nan, 0.7])}, "b": {metric: np.array([0.1, 0.2, 9.0, 0.2])}}
    played = Evaluation(load_scenario("reference"), 0.4, TEST_SEEDS[:4], values)
    found = difference(played, "a", "b", metric, "here")
    assert found.better == better
    assert found.episodes == 3
    assert found.difference.value == pytest.approx(1.3 / 3)


@pytest.fixture
def short(tmp_path: Path) -> str:
    """The reference scenario with a quarter of its arrivals, as a file: long enough to tell good from bad."""
    document = yaml.safe_load((FOLDER / "reference.yaml").read_text(encoding="utf-8"))
    document |= {"name": "short", "episode_arrivals": 150, "warmup_arrivals": 75}
    path = tmp_path / "short.yaml"
    path.write_text(yaml.safe_dump(document), encoding="utf-8")
    return str(path)


@pytest.fixture
def small(short: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """`--quick` as eight short episodes; the condition's name."""
    monkeypatch.setattr(gate, "QUICK", (Condition(short, 0.4, episodes=8),))
    return f"{short}@0.4"


@pytest.mark.usefixtures("small")
def test_the_gate_lets_the_shipped_policy_pass() -> None:
    result = call("gate", SHIPPED, "--quick")
    assert result.exit_code == 0, result.output
    assert "refused" not in result.output
    assert result.stdout.count("holds") == 1


def test_the_gate_refuses_a_bad_actor_and_says_where_and_against_whom(bad: Path, small: str) -> None:
    result = call("gate", bad, "--quick", "--json")
    assert result.exit_code == 1
    document = json.loads(result.stdout)
    assert not document["passed"]
    lines = [line for line in result.stderr.splitlines() if line.startswith("refused: ")]
    assert [f"refused: {failure}" for failure in document["failures"]] == lines
    worse = {tuple(line.split(": ")[1:3]) for line in lines}
    assert {(small, "worse than incumbent"), (small, "worse than kube-default")} <= worse
    assert set(document["conditions"]) == {small}


def test_the_gate_takes_another_incumbent(bad: Path, small: str) -> None:
    result = call("gate", SHIPPED, "--quick", "--against", bad, "--json")
    incumbent = json.loads(result.stdout)["conditions"][small]["incumbent"]
    assert incumbent["better"] == "first"
    assert incumbent["second"] > 2 * incumbent["first"]


def test_the_gate_refuses_a_bundle_that_does_not_validate(bad: Path) -> None:
    manifest = json.loads((bad / MANIFEST_FILE).read_text())
    (bad / MANIFEST_FILE).write_text(json.dumps(manifest | {"model_sha256": "0" * 64}))
    result = call("gate", bad, "--quick")
    assert result.exit_code == 1
    assert "refused: policy bundle refused: model_sha256" in result.stderr


@pytest.mark.parametrize(
    ("ours", "passes"),
    [(0.0, True), (0.5 * gate.MARGIN, True), (1.5 * gate.MARGIN, False)],
    ids=["tie", "within-the-margin", "beyond-the-margin"],
)
def test_the_gate_overlooks_what_is_smaller_than_its_margin(ours: float, passes: bool) -> None:
    rate = "sla_violation_rate"
    values = {"candidate": {rate: np.full(4, 0.01 + ours)}, "kube-default": {rate: np.full(4, 0.01)}}
    played = Evaluation(load_scenario("reference"), 0.4, TEST_SEEDS[:4], values)
    found = difference(played, "candidate", "kube-default", rate, "here")
    equal = gate.Order({"slower": 3}, {"slower": 3})
    assert bool(gate.failures([gate.ConditionResult("here", {"kube-default": found})], equal)) is not passes


def test_the_gate_refuses_what_prefers_worse_nodes_more_often_than_the_incumbent() -> None:
    found = gate.failures([], gate.Order({"slower": 4, "more pressed": 0}, {"slower": 3, "more pressed": 9}))
    assert len(found) == 1
    assert "slower" in found[0]
    assert "4" in found[0]


def test_the_frozen_suite_covers_every_committed_scenario_and_more_nodes() -> None:
    scenarios = {path.stem for path in FOLDER.glob("*.yaml")}
    unusual = {name for name in VARIANTS if name not in (*MEMORY, *COVERAGE)}
    played = {str(suite.scenario) for suite in gate.FROZEN}
    assert played - set(MEMORY) == scenarios | unusual
    assert played & set(MEMORY)
    assert any((suite.nodes or 0) > find_scenario(str(suite.scenario)).nodes for suite in gate.FROZEN)


def test_two_bundles_of_one_name_are_told_apart_by_their_folders(bad: Path, tmp_path: Path) -> None:
    twin = shutil.copytree(bad, tmp_path / "twin")
    first, second = pair(str(bad), str(twin))
    assert (first.name, second.name) == (f"bad ({bad})", f"bad ({twin})")
    assert load_bundle(twin).manifest.name == "bad"
