"""What a cluster learns before an episode: CPU time by hand, templates, and the estimators that serve on both."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from tests.training.plain_scenarios import NODE, POD, plain
from training.evaluation.completions_curve import speed_errors
from training.simulator import fluid
from training.simulator.conditions import Condition
from training.simulator.draws import TEST_SEEDS, episode_seeds
from training.simulator.fluid import Completed
from training.simulator.knowledge import knowledge
from training.simulator.nodes import draw_nodes
from training.simulator.pod_templates import draw_templates, template_of
from training.simulator.scenarios import Hidden, load_scenario
from training.simulator.scrape import scrape
from training.simulator.simulation import Simulator
from training.simulator.warmup import history, tell
from training.simulator.workload import draw_arrivals, load_workload


def completed(pods: int = 1, cpu_use: float = 1.0, speed: float = 0.5, **hidden: Any) -> tuple[Completed, Simulator]:
    """Pods of 100 s that run together on one node of 8 cores, and what is told of the first that ends."""
    pod = replace(POD, cpu_use=cpu_use)
    scenario = plain(1, replace(NODE, speed=speed), (pod,), load=(1e6, 1e6), hidden=Hidden(**hidden))
    simulator = Simulator(scenario, 1, 0)
    for _ in range(pods):
        simulator.step(np.array([0], dtype=np.int64))
    found = fluid.advance(simulator._world, simulator.now + 1000.0).completed
    scrape(simulator._world)
    assert found is not None
    return found, simulator


@pytest.mark.parametrize(
    ("options", "cpu_s", "run_s"),
    [
        pytest.param({}, 200.0, 200.0, id="alone: work over speed"),
        pytest.param({"throttled_share": 1.0, "throttled_loss": 0.6}, 200.0, 500.0, id="throttled"),
        pytest.param({"decay_mean": 0.2}, 200.0, 250.0, id="decayed"),
        # 8 pods that use 1.5 cores each on 8 cores: a third of the time each waits; full interference takes 0.35
        pytest.param({"pods": 8, "cpu_use": 1.5}, 200.0 / 0.65, 300.0 / 0.65, id="crowded"),
    ],
)
def test_cpu_time_holds_interference_but_neither_waiting_nor_throttling(
    options: dict[str, Any], cpu_s: float, run_s: float
) -> None:
    found, _ = completed(**options)
    assert found.cpu_s[0] == pytest.approx(cpu_s, rel=1e-3)
    assert found.run_s[0] == pytest.approx(run_s, rel=1e-3)


def test_throttling_shows_neither_in_a_label_nor_in_pressure() -> None:
    _, simulator = completed(throttled_share=1.0)
    assert simulator.state.node_speed[0, 0] == 0.5
    assert simulator.state.cpu_pressure[0, 0] == 0.0


def test_a_share_of_nodes_is_throttled() -> None:
    scenario = replace(load_scenario("reference"), hidden=Hidden(throttled_share=0.3, throttled_loss=0.4))
    throttled = draw_nodes(scenario, episode_seeds(TEST_SEEDS[:50])).throttled
    assert set(np.unique(throttled)) == {0.0, 0.4}
    assert (throttled > 0.0).mean() == pytest.approx(0.3, abs=0.06)


def test_services_are_no_completions() -> None:
    scenario = plain(2, pods=(replace(POD, lifetime=4.0),))
    seeds = episode_seeds(TEST_SEEDS[:2])
    assert not len(history(scenario, seeds, None, np.array([2, 2])).at)
    known = tell(scenario, seeds, None, knowledge("learned-2"))
    assert (known.speed == 1.0).all()
    assert not known.runs.any()


def test_pods_of_a_template_differ_by_its_noise_and_templates_by_the_rest() -> None:
    scenario, seeds = load_scenario("reference"), episode_seeds(TEST_SEEDS[:20])
    workload = load_workload(scenario)
    table = draw_arrivals(workload, seeds, np.ones(20), 2000)
    templates = draw_templates(workload, seeds)
    row = np.repeat(np.arange(20), 2000)
    number, kind, work = np.tile(np.arange(2000), 20), table.kind.ravel(), table.work.ravel()
    noise = scenario.templates.noise
    template = template_of(templates, noise, seeds, row, number, kind, work)
    np.testing.assert_array_equal(template // scenario.templates.count, kind)
    of_cluster = row * 1000 + template
    assert len(np.unique(of_cluster)) == 20 * 4 * scenario.templates.count
    off = np.log(work) - templates.log_work.reshape(20, -1)[row, template]
    assert off.std() == pytest.approx(noise, abs=0.04)
    assert abs(off.mean()) < 0.02
    again = template_of(templates, noise, seeds, row[::-1], number[::-1], kind[::-1], work[::-1])
    np.testing.assert_array_equal(again[::-1], template)


def test_each_node_completes_as_many_pods_as_asked_for() -> None:
    seeds = episode_seeds(TEST_SEEDS[:4])
    happened = history(load_scenario("reference"), seeds, np.full(4, 0.4), np.array([5, 1, 5, 1]))
    counts = np.zeros((4, 10), dtype=np.int64)
    np.add.at(counts, (happened.row, happened.node), 1)
    assert (counts.min(axis=1) >= np.array([5, 1, 5, 1])).all()
    assert (np.diff(happened.at) >= 0.0).all()


def test_thirty_completions_a_node_tell_speeds_within_ten_percent() -> None:
    before, after = (
        speed_errors(Condition("reference", 0.4, episodes=16, told=f"learned-{count}"), TEST_SEEDS) for count in (0, 30)
    )
    assert np.median(before) > 0.15
    assert np.median(after) < 0.10
    assert np.quantile(after, 0.9) < 0.20


def test_hidden_throttling_does_not_mislead_learned_speeds() -> None:
    scenario = load_scenario("reference")
    hidden = replace(scenario.hidden, throttled_share=0.3, throttled_loss=0.5)
    errors = speed_errors(Condition(replace(scenario, hidden=hidden), 0.3, episodes=16, told="learned-30"), TEST_SEEDS)
    assert np.median(errors) < 0.10
    assert np.quantile(errors, 0.9) < 0.20


def test_throttled_nodes_count_as_slower_where_their_pods_are_looked_at() -> None:
    reference = load_scenario("reference")
    hidden = replace(reference.hidden, throttled_share=0.25, throttled_loss=0.5)
    scenario = replace(reference, hidden=hidden)
    seeds = episode_seeds(TEST_SEEDS[:16])
    throttled = draw_nodes(scenario, seeds).throttled > 0.0
    assert throttled.any()
    left = tell(scenario, seeds, 0.3, knowledge("learned-throttling")).speed
    left = left / tell(scenario, seeds, 0.3, knowledge("learned")).speed
    assert 0.5 < left[throttled].mean() < 0.85
    assert left[~throttled].mean() > 0.99
