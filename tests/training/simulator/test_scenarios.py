"""Scenario files: what is accepted, what is refused and by which name; and the draws that episodes are made of."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml

from policy.errors import InvalidInputError
from training.simulator.draws import (
    SELECTION_SEEDS,
    TEST_SEEDS,
    Stream,
    cluster_seeds,
    episode_seeds,
    exponential,
    normal,
    uniform,
)
from training.simulator.scenarios import FOLDER, load_scenario, scenario_names
from training.simulator.simulation import Simulator
from training.simulator.workload import draw_arrivals, load_workload

REFERENCE = yaml.safe_load((FOLDER / "reference.yaml").read_text(encoding="utf-8"))


def test_the_suite_is_complete() -> None:
    assert {"reference", "steady", "peak", "burst", "services", "trace"} <= set(scenario_names())


@pytest.mark.parametrize("name", scenario_names())
def test_every_scenario_loads_under_its_own_name_and_runs(name: str) -> None:
    scenario = load_scenario(name)
    assert scenario.name == name
    assert scenario.version >= 1
    simulator = Simulator(scenario, 2, 0)
    for _ in range(30):
        feasible = simulator.feasible
        simulator.step(np.where(feasible.any(axis=1), feasible.argmax(axis=1), -1))
    assert (simulator.counts()["running"] > 0).all()


def test_a_scenario_of_ones_own_is_read_by_path(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump({**REFERENCE, "name": "mine", "nodes": 3}), encoding="utf-8")
    assert load_scenario(str(path)).nodes == 3


BAD = {
    "unknown field": ({"speed": 3}, "speed"),
    "missing field": ({"nodes": None}, "nodes"),
    "number for a list": ({"load": 0.4}, "load"),
    "three for two": ({"load": [0.4, 0.5, 0.6]}, "load"),
    "load falls": ({"load": [0.5, 0.4]}, "load"),
    "no nodes": ({"nodes": 0}, "nodes"),
    "text for a number": ({"nodes": "ten"}, "nodes"),
    "a truth for a number": ({"nodes": True}, "nodes"),
    "warm-up beyond the episode": ({"warmup_arrivals": 600}, "warmup_arrivals"),
    "no node classes": ({"node_classes": []}, "node_classes"),
    "a node without cores": (
        {"node_classes": [{"name": "x", "cores": 0, "memory": 1, "speed": 1, "weight": 1}]},
        "node_classes.x",
    ),
    "no pod classes": ({"pod_classes": []}, "pod_classes"),
    "unknown kind of pod": (
        {"pod_classes": [{**REFERENCE["pod_classes"][0], "kind": "gpu"}]},
        "pod_classes.interactive.kind",
    ),
    "slack below one": (
        {"pod_classes": [{**REFERENCE["pod_classes"][0], "slack": [0.5, 2.0]}]},
        "pod_classes.interactive.slack",
    ),
    "a lifetime below one unit": (
        {"pod_classes": [{**REFERENCE["pod_classes"][0], "lifetime": 0.5}]},
        "pod_classes.interactive",
    ),
    "memory use falls": ({"hidden": {"memory_use": [1.4, 0.5]}}, "hidden.memory_use"),
    "throttled altogether": ({"hidden": {"throttled_loss": 1.0}}, "hidden.throttled_loss"),
    "no templates": ({"templates": {"count": 0}}, "templates.count"),
    "templates without noise": ({"templates": {"noise": 0.0}}, "templates.noise"),
    "more than every template": ({"templates": {"deadlines": 1.1}}, "templates.deadlines"),
    "wave beyond one": ({"arrivals": {"wave": 1.0}}, "arrivals.wave"),
    "unknown process": ({"arrivals": {"process": "fractal"}}, "arrivals.process"),
    "unknown field inside": ({"hidden": {"decay": 1}}, "hidden.decay"),
    "a scrape interval of nothing": ({"measurement": {"scrape_interval": [0, 10]}}, "scrape_interval"),
    "a list for a mapping": ({"reward": [1, 2]}, "reward"),
    "a negative reward weight": ({"reward": {"balance_weight": -1}}, "reward.balance_weight"),
    "a negative price of load variance": ({"reward": {"spread_weight": -1}}, "reward.spread_weight"),
    "a process without time": ({"hidden": {"decay_time": 0}}, "hidden.decay_time"),
    "a share above one": ({"measurement": {"estimated_pressure_share": 1.5}}, "estimated_pressure_share"),
    "a burst that slows": ({"arrivals": {"process": "bursty", "burst_rate": 0}}, "arrivals.burst_rate"),
}


@pytest.mark.parametrize(("change", "named"), BAD.values(), ids=BAD)
def test_a_senseless_scenario_is_refused_by_the_name_of_the_field(
    change: dict[str, object], named: str, tmp_path: Path
) -> None:
    document = {key: value for key, value in {**REFERENCE, **change}.items() if value is not None}
    path = tmp_path / "bad.yaml"
    path.write_text(yaml.safe_dump(document), encoding="utf-8")
    with pytest.raises(InvalidInputError, match=named):
        load_scenario(str(path))


@pytest.mark.parametrize(
    ("text", "named"),
    [pytest.param("nodes: [", "YAML", id="not YAML"), pytest.param("[1, 2]", "not a mapping", id="not a mapping")],
)
def test_a_file_that_is_no_scenario_is_refused(text: str, named: str, tmp_path: Path) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(InvalidInputError, match=named):
        load_scenario(str(path))


def test_an_unknown_scenario_is_answered_with_the_known_ones() -> None:
    with pytest.raises(InvalidInputError, match="reference"):
        load_scenario("refrence")


def test_more_nodes_bring_as_many_more_arrivals_over_the_same_time() -> None:
    small = load_scenario("reference")
    large = small.resized(50)
    assert (large.nodes, large.episode_arrivals, large.warmup_arrivals) == (50, 3000, 750)
    spans = []
    for scenario in (small, large):
        simulator = Simulator(scenario, 20, 4)
        spans.append(simulator._world.table.time[:, scenario.episode_arrivals - 1].mean())
    assert spans[1] == pytest.approx(spans[0], rel=0.15)


# ---- draws


def test_draws_have_the_distribution_they_claim() -> None:
    seeds, index = np.arange(50, dtype=np.uint64)[:, None], np.arange(4000)[None, :]
    flat = uniform(seeds, Stream.LOAD, index)
    assert flat.min() >= 0.0
    assert flat.max() < 1.0
    histogram = np.histogram(flat, bins=20, range=(0, 1))[0]
    assert histogram == pytest.approx(np.full(20, flat.size / 20), rel=0.04)
    assert exponential(seeds, Stream.LOAD, index).mean() == pytest.approx(1.0, abs=0.01)
    bell = normal(seeds, Stream.LOAD, index)
    assert (bell.mean(), bell.std()) == (pytest.approx(0.0, abs=0.01), pytest.approx(1.0, abs=0.01))


def test_streams_seeds_and_indices_are_independent() -> None:
    seeds, index = np.arange(100, dtype=np.uint64)[:, None], np.arange(1000)[None, :]
    one, other = uniform(seeds, Stream.LOAD, index), uniform(seeds, Stream.DECAY, index)
    assert abs(np.corrcoef(one.ravel(), other.ravel())[0, 1]) < 0.01
    assert abs(np.corrcoef(one[:-1].ravel(), one[1:].ravel())[0, 1]) < 0.01
    assert abs(np.corrcoef(one[:, :-1].ravel(), one[:, 1:].ravel())[0, 1]) < 0.01


def test_a_draw_depends_on_nothing_but_its_name() -> None:
    seeds = np.array([7, 9], dtype=np.uint64)
    block = normal(seeds[:, None], Stream.DECAY, np.arange(100)[None, :])
    single = normal(seeds[1:], Stream.DECAY, np.array([63]))
    assert single[0] == block[1, 63]


def test_training_selection_and_test_episodes_are_disjoint() -> None:
    assert not set(SELECTION_SEEDS[:10]) & set(TEST_SEEDS[:10])
    assert SELECTION_SEEDS.stop <= TEST_SEEDS.start
    highest = int(episode_seeds(TEST_SEEDS[-1:])[0])
    trained = np.concatenate([cluster_seeds(seed, 500) for seed in (0, 1, 2**62 - 1)])
    assert int(trained.min()) > highest
    assert len(np.unique(trained)) == len(trained)


def test_selection_and_test_episodes_have_other_nodes() -> None:
    scenario = replace(load_scenario("reference"), nodes=6)
    mixes = [
        Simulator(scenario, 40, episode_seeds(seeds[:40])).state.node_speed for seeds in (SELECTION_SEEDS, TEST_SEEDS)
    ]
    alike = sum((row == other).all() for row in mixes[0] for other in mixes[1])
    assert alike <= 5


def test_memory_use_is_drawn_once_for_each_cluster_and_changes_nothing_else() -> None:
    usual, memory = load_scenario("reference"), load_scenario("memory")
    seeds = episode_seeds(TEST_SEEDS[:40])
    before, after = (draw_arrivals(load_workload(each), seeds, np.ones(40), 500) for each in (usual, memory))
    for name in ("time", "cpu", "memory", "work", "slack", "cpu_use"):
        np.testing.assert_array_equal(getattr(before, name), getattr(after, name))
    ratio = np.median(after.memory_use / after.memory, axis=1)
    assert 0.45 < ratio.min() < 0.65
    assert 1.2 < ratio.max() < 1.5
    assert np.log(after.memory_use / after.memory)[ratio < 0.9].std(axis=1).mean() == pytest.approx(0.4, abs=0.05)
