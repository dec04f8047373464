"""The figures of docs/how-it-works.md are what the shipped policy says, and the examples of the guides work."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml

from policy import criteria
from policy.bundle import load_bundle, shipped_bundle_path
from policy.cluster import ClusterState, Demand, FloatArray, PodDemand
from policy.heuristics import KUBE_DEFAULT, Heuristic, by_name
from policy.observation import estimated_pressure, observe
from policy.priorities import priorities
from policy.scorers import Preferences
from training.config import load_config
from training.simulator.scenarios import load_scenario
from training.simulator.traces import load_trace

DOCS = Path(__file__).parents[2] / "docs"
PAGE = (DOCS / "how-it-works.md").read_text(encoding="utf-8")
DRAWN = (DOCS / "decision.svg").read_text(encoding="utf-8")


def cells(first: str) -> list[list[str]]:
    """Cells of the rows of the page's tables that begin with a text."""
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in PAGE.splitlines() if line.startswith("|")]
    return [row for row in rows if row[0].startswith(first)]


def state() -> ClusterState:
    """The nodes of the page's first table."""
    rows = [cells(name)[0] for name in ("large-old", "large-new", "medium")]
    cores, memory, speed, cpu_requested, cpu_used, memory_requested, memory_used = np.array(
        [[float(cell) for cell in row[1:]] for row in rows]
    ).T
    return replace(
        ClusterState.idle(cores, memory, speed),
        cpu_requested=cpu_requested,
        cpu_nonzero=cpu_requested,
        memory_requested=memory_requested,
        memory_nonzero=memory_requested,
        cpu_used=cpu_used,
        memory_used=memory_used,
        cpu_pressure=estimated_pressure(cpu_used, cores),
    )


def rounded(values: Preferences) -> list[str]:
    return [f"{value + 0.0:.2f}" for value in np.round(values.astype(float), 2)]


@pytest.mark.parametrize("urgency", [0.8, 0.2])
def test_the_example_has_the_figures_of_the_shipped_policy(urgency: float) -> None:
    bundle = load_bundle(shipped_bundle_path())
    demand = PodDemand(2.0, 4.0, urgency)
    preferences = bundle.scorer().preferences(state(), demand)
    rows = [row for row in (line.split("|") for line in PAGE.splitlines()) if len(row) > 3]
    at = next(index for index, row in enumerate(rows) if row[1].strip().startswith(f"{urgency}:"))
    assert [cell.strip() for cell in rows[at][3:6]] == rounded(preferences)
    assert [cell.strip() for cell in rows[at + 1][3:6]] == [
        str(each) for each in priorities(preferences, bundle.manifest.temperature)
    ]
    score = by_name(KUBE_DEFAULT).preferences(state(), demand) * 100.0
    assert cells(KUBE_DEFAULT)[0][2:] == [f"{each:.0f}" for each in score]


def test_the_drawing_has_them_too() -> None:
    bundle = load_bundle(shipped_bundle_path())
    scorer, demand = bundle.scorer(), PodDemand(2.0, 4.0, 0.8)
    seen = observe(state(), demand)
    preferences = scorer.preferences(state(), demand)
    shown = [seen[:, column] for column in (0, 1, 2, 3, 5)]
    shown += [scorer.bids(state(), demand)[:, column] for column in range(3)]
    drawn = re.findall(r'<text x="(?:195|270|340)" y="\d+"[^>]*>([-\d.]+)</text>', DRAWN)
    expected = [text for row in (*shown, preferences) for text in rounded(row)]
    assert drawn == [*expected, *(str(each) for each in priorities(preferences, bundle.manifest.temperature))]


def blocks(page: str) -> list[str]:
    return re.findall(r"^```\w+\n(.*?)^```", (DOCS / page).read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)


def test_the_example_of_a_rule_rates_nodes() -> None:
    function, entry = blocks("rules.md")
    names = {"criteria": criteria, "ClusterState": ClusterState, "Demand": Demand, "FloatArray": FloatArray}
    exec(compile(function, "rules.md", "exec"), names)  # noqa: S102 - our own document
    rule = eval(entry.strip(), {"Heuristic": Heuristic, **names})  # noqa: S307
    got = rule.preferences(state(), PodDemand(2.0, 4.0, 0.8))
    used, cores = np.array([6.0, 20.0, 3.0]), np.array([32.0, 32.0, 16.0])
    assert rounded(got) == rounded(1.0 - estimated_pressure(used, cores) - (used + 1.3) / cores)


def test_the_files_of_the_guide_to_own_data_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trace, scenario, run = blocks("own-data.md")
    for name, text in (("ours.csv", trace), ("ours.yaml", scenario), ("train.yaml", run)):
        (tmp_path / name).write_text(text, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    assert len(load_trace(load_scenario("ours.yaml"))) == 2
    config = load_config(tmp_path / "train.yaml")
    assert [arena.scenario for arena in config.arenas] == ["ours.yaml", "wide"]
    assert yaml.safe_load(scenario)["name"] == config.name
