"""Scenarios that differ from the reference in one thing."""

from __future__ import annotations

import json
from dataclasses import asdict, fields, replace
from pathlib import Path

import numpy as np
import pytest

from policy.errors import InvalidInputError
from training.simulator import contention
from training.simulator.conditions import Condition
from training.simulator.deviations import MEMORY, PHYSICS, REPLICAS, VARIANTS, find_scenario
from training.simulator.scenarios import Arrivals, Contention, load_scenario
from training.simulator.simulation import Simulator

REFERENCE = load_scenario("reference")

CHANGED = {
    "urgent": {"pod_classes"},
    "first-look": {"pod_classes", "arrivals", "episode_arrivals", "warmup_arrivals"},
    "three": {"nodes", "episode_arrivals", "warmup_arrivals"},
    "knee": {"contention"},
    "contention": {"contention"},
    "decay": {"hidden"},
    "use": {"pod_classes"},
    "memory": {"pod_classes", "hidden"},
    "throttled": {"hidden"},
    "wide": {"pod_classes", "hidden"},
    "wide-replicas": {"pod_classes", "hidden", "arrivals"},
}


@pytest.mark.parametrize("name", VARIANTS)
def test_a_variant_changes_what_it_says_and_runs(name: str) -> None:
    scenario = find_scenario(name)
    assert scenario.name == name
    kind = name if name in CHANGED else name.split("-")[0]
    differing = {
        item.name for item in fields(scenario) if getattr(scenario, item.name) != getattr(REFERENCE, item.name)
    }
    as_it_is = {"hidden"} if name.endswith("-0.15") else set()  # the reference's own sigma
    assert differing == CHANGED[kind] - as_it_is | {"name"}
    simulator = Simulator(scenario, 2, 0)
    for _ in range(20):
        feasible = simulator.feasible
        simulator.step(np.where(feasible.any(axis=1), feasible.argmax(axis=1), -1))
    assert (simulator.counts()["running"] > 0).all()


def test_variants_have_the_values_of_their_names() -> None:
    assert {pod.memory_use for pod in find_scenario("memory-1.2-0.4").pod_classes} == {1.2}
    assert find_scenario("memory-1.2-0.4").hidden.memory_use_sigma == 0.4
    assert find_scenario("knee-0.85").contention == Contention(knee=0.85)
    assert find_scenario("contention-double").contention == Contention(scale=2.0)
    assert find_scenario("decay-none").hidden.decay_spread == 0.0
    throttled = find_scenario("throttled").hidden
    assert (throttled.throttled_share, throttled.throttled_loss) == (0.25, 0.5)
    assert {pod.cpu_use for pod in find_scenario("use-1.5").pod_classes} == {1.5}
    assert {pod.slack for pod in find_scenario("urgent").pod_classes} == {(1.0, 1.2)}
    assert len(MEMORY) == len(PHYSICS) == 8


def test_conditions_know_variants_by_name_and_offer_them() -> None:
    assert Condition("three", 0.4).sized().nodes == 3
    assert Condition("three", 0.4).label == "three@0.4"
    with pytest.raises(InvalidInputError, match="first-look"):
        Condition("nowhere").sized()


def test_replicas_arrive_at_once_and_are_alike() -> None:
    simulator = Simulator(find_scenario("first-look"), 3, 5)
    table = simulator._world.table
    shape = (3, 4, REPLICAS)
    for column in (table.time, table.kind, table.cpu, table.memory, table.slack):
        groups = column[:, : 4 * REPLICAS].reshape(shape)
        assert (groups == groups[..., :1]).all()
    assert (np.diff(table.time[:, ::REPLICAS]) > 0.0).all()
    assert len(np.unique(table.work[:, :REPLICAS])) == 3 * REPLICAS


def test_replicas_offer_the_same_load() -> None:
    usual = replace(REFERENCE, arrivals=Arrivals())
    grouped = replace(usual, arrivals=Arrivals(replicas=4))
    spans = [Simulator(each, 64, 1)._world.table.time[:, 799].mean() for each in (usual, grouped)]
    assert spans[1] == pytest.approx(spans[0], rel=0.05)


def test_replicas_of_a_trace_are_refused(tmp_path: Path) -> None:
    document = asdict(load_scenario("trace"))
    document["arrivals"]["replicas"] = 2
    path = tmp_path / "grouped.yaml"
    path.write_text(json.dumps(document), encoding="utf-8")
    with pytest.raises(InvalidInputError, match="replicas"):
        load_scenario(str(path))


def test_contention_begins_at_the_knee_and_grows_with_the_scale() -> None:
    classes = REFERENCE.pod_classes[:1]
    asked = (np.array([[8.0]]), np.array([10.0]), np.array([1.0]), np.array([0.0]), np.array([1.0]))
    usual = contention.rates(*asked, contention.sensitivities(classes))[0, 0]
    assert contention.rates(*asked, contention.sensitivities(classes), 0.85)[0, 0] == 1.0
    assert contention.rates(*asked, contention.sensitivities(classes), 0.3)[0, 0] < usual
    twice = contention.rates(*asked, contention.sensitivities(classes, 2.0))[0, 0]
    assert 1.0 - twice == pytest.approx(2.0 * (1.0 - usual))


def test_pods_without_requests_use_what_others_use() -> None:
    silent = replace(REFERENCE.pod_classes[0], unrequested=0.25)
    usual, mixed = (
        Simulator(replace(REFERENCE, pod_classes=(pod,)), 16, 3)._world.table
        for pod in (REFERENCE.pod_classes[0], silent)
    )
    np.testing.assert_array_equal(mixed.cpu_use, usual.cpu_use)
    np.testing.assert_array_equal(mixed.memory_use, usual.memory_use)
    asks = mixed.cpu > 0.0
    np.testing.assert_array_equal(asks, mixed.memory > 0.0)
    assert asks.mean() == pytest.approx(0.75, abs=0.02)
    np.testing.assert_array_equal(mixed.cpu[asks], usual.cpu[asks])
