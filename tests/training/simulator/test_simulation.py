"""The simulator against numbers computed by hand, on scenarios without randomness."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from policy import criteria
from policy.errors import InvalidInputError
from policy.observation import estimated_pressure
from tests.training.plain_scenarios import NODE, POD, at_random, first_fit, plain
from training.simulator import contention
from training.simulator.accounts import SLOWDOWN_BINS, SLOWDOWN_EDGES
from training.simulator.episode import METRICS, slowdown_percentile
from training.simulator.fluid import OUTLOOK_SPREAD
from training.simulator.nodes import drift
from training.simulator.reward import episode_reward
from training.simulator.scenarios import Arrivals, Hidden, Measurement, Reward, load_scenario
from training.simulator.simulation import Simulator
from training.simulator.workload import arrival_times, load_workload

HERE = np.array([0], dtype=np.int64)
WAIT = np.array([-1], dtype=np.int64)


def alone(slack: float = 2.0, speed: float = 1.0, nodes: int = 1, **changes: Any) -> Simulator:
    """Nodes of one speed; only the first pod counts. It takes 100 s on the reference core."""
    pod = replace(POD, slack=(slack, slack), lifetime=changes.pop("lifetime", 1.0))
    return Simulator(plain(nodes, replace(NODE, speed=speed), (pod,), episode_arrivals=1, **changes), 1, 0)


def until_finished(simulator: Simulator) -> dict[str, float]:
    """Place the first pod and no other, until it is done; the metrics, which are that pod's."""
    simulator.step(HERE)
    for _ in range(5000):
        if simulator.counts()["finished"][0]:
            return {name: float(values[0]) for name, values in simulator.metrics().items()}
        simulator.step(WAIT)
    raise AssertionError("the pod never finished")


# ---- progress and SLA


@pytest.mark.parametrize(
    ("slack", "speed", "violated", "lateness"),
    [
        pytest.param(1.2, 1.0, 0, 0.0, id="in time: 100 s of 120 s"),
        pytest.param(1.3, 0.7, 1, (100 / 0.7 - 130) / 130, id="late: 142.9 s of 130 s"),
        pytest.param(2.0, 0.25, 1, (400 - 200) / 200, id="twice too late"),
        pytest.param(1.0, 0.1, 1, 2.0, id="lateness stops at two allowances"),
        pytest.param(0.0, 0.1, 0, 0.0, id="best effort is never late"),
    ],
)
def test_a_pod_alone_is_late_by_what_its_node_is_too_slow(
    slack: float, speed: float, violated: int, lateness: float
) -> None:
    simulator = alone(slack, speed)
    measured = until_finished(simulator)
    assert measured["sla_violation_rate"] == violated
    assert measured["lateness"] == pytest.approx(lateness, rel=1e-9, abs=1e-12)
    assert measured["completion_rate"] == 1.0
    assert measured["reward"] == pytest.approx(1.0 - 2.0 * violated - lateness)
    slowdown = float(slowdown_percentile(simulator.slowdowns(), 0.5)[0, 0])
    assert slowdown == pytest.approx(1.0 / speed, rel=0.05)


def test_time_in_the_queue_counts_toward_the_deadline() -> None:
    simulator = alone(slack=1.1)
    arrived = float(simulator.now[0])
    number = int(simulator.pod_number[0])
    simulator.step(WAIT)
    while int(simulator.pod_number[0]) != number or simulator.now[0] < arrived + 30:
        simulator.step(WAIT)
    bound = float(simulator.now[0])
    measured = until_finished(simulator)
    assert measured["sla_violation_rate"] == 1.0
    assert measured["lateness"] == pytest.approx((bound + 100.0 - arrived - 110.0) / 110.0)


def test_lateness_of_a_running_pod_is_its_nodes_and_of_queued_pods_everybodys() -> None:
    simulator = alone(slack=1.0, speed=0.5, nodes=4, reward=Reward(balance_weight=0.0))
    total = np.zeros(4)
    result = simulator.step(np.array([2]))
    while not simulator.counts()["finished"][0]:
        total += result.node_reward[0]
        result = simulator.step(WAIT)
    total += result.node_reward[0]
    assert total[0] < 0.0  # all other pods wait, and are late too
    np.testing.assert_allclose(total[[1, 3]], total[0], rtol=1e-5)
    # what node 2 has besides is its own pod: one violation, and 100 s late at an allowance of 100 s
    assert total[2] - total[0] == pytest.approx(-2.0, rel=1e-4)


def test_violations_in_steps_add_up_to_the_metrics() -> None:
    simulator = Simulator(replace(load_scenario("reference"), warmup_arrivals=0, episode_arrivals=10_000), 4, 3)
    simulator.reset(3, 0.9)
    generator = np.random.default_rng(0)
    violations, lateness, reward = np.zeros(4), np.zeros(4), np.zeros(4)
    weights = simulator.scenario.reward
    balance = np.zeros(4)
    for _ in range(300):
        result = simulator.step(at_random(simulator, generator))
        violations += result.violations
        lateness += result.lateness
        reward += result.node_reward.sum(axis=1)
        balance += weights.balance_weight * simulator.nodes
    accounts = simulator._world.accounts
    assert violations.sum() > 20
    np.testing.assert_array_equal(violations, accounts.violations)
    np.testing.assert_allclose(lateness, accounts.lateness)
    assert (-(violations + lateness) >= reward - 1e-3).all()
    assert (-(violations + lateness) - balance <= reward + 1e-3).all()


@pytest.mark.parametrize(("slack", "speed"), [(1.3, 0.7), (1.3, 0.8), (2.0, 0.25)])
def test_the_potential_of_a_node_foretells_what_its_pod_will_be_charged(slack: float, speed: float) -> None:
    simulator = alone(slack, speed)
    assert simulator.potential().tolist() == [[0.0]]  # nothing runs yet
    arrived = simulator.now[0]
    simulator.step(HERE)
    left = 100.0 / speed - (simulator.now[0] - arrived)
    late_by = 100.0 / speed - slack * 100.0
    violation = 1.0 / (1.0 + np.exp(-late_by / (OUTLOOK_SPREAD * left)))
    lateness = max(late_by, 0.0) / (slack * 100.0)
    assert simulator.potential()[0, 0] == pytest.approx(-(violation + lateness))
    while not simulator.step(WAIT).violations[0] and not simulator.counts()["finished"][0]:
        pass
    # Once it is violated only its lateness is to come; once it is done nothing is.
    running = simulator.counts()["running"][0]
    accrued = simulator.metrics()["lateness"][0]
    assert simulator.potential()[0, 0] == pytest.approx(accrued - lateness if running else 0.0)


def test_best_effort_pods_and_those_in_the_queue_add_nothing_to_the_potential() -> None:
    simulator = alone(0.0, 0.1)
    simulator.step(HERE)
    assert simulator.potential().tolist() == [[0.0]]
    waiting = alone(1.0, 0.1)
    waiting.step(WAIT)
    assert waiting.potential().tolist() == [[0.0]]


# ---- services


def test_a_service_stays_for_all_its_units_and_has_a_deadline_for_each() -> None:
    simulator = alone(slack=1.2, lifetime=6.0)
    units = int(simulator._world.pods.units[0, 0])
    assert units > 1
    arrived = float(simulator.now[0])
    measured = until_finished(simulator)
    assert measured["sla_violation_rate"] == 0.0
    assert float(simulator.now[0]) >= arrived + units * 100.0
    assert simulator.slowdowns().sum() == units


def test_a_service_on_a_slow_node_is_violated_once_and_late_again_with_every_unit() -> None:
    simulator = alone(slack=1.0, speed=0.8, lifetime=6.0)
    units = int(simulator._world.pods.units[0, 0])
    measured = until_finished(simulator)
    assert measured["sla_violation_rate"] == 1.0
    assert measured["lateness"] == pytest.approx(min(units * 0.25, 2.0))


# ---- contention


CLASSES = (replace(POD, name="a", kind="cpu"), replace(POD, name="b", kind="bandwidth"))


def rates(use: list[float], cores: float = 10.0, speed: float = 1.0, decay: float = 0.0) -> np.ndarray:
    return contention.rates(
        np.array([use]),
        np.array([cores]),
        np.array([speed]),
        np.array([decay]),
        np.array([1.0]),
        contention.sensitivities(CLASSES),
    )[0]


@pytest.mark.parametrize(
    ("use", "expected"),
    [
        pytest.param([0.0, 0.0], [1.0, 1.0], id="idle"),
        pytest.param([3.0, 3.0], [1.0, 1.0], id="at the knee, 60 %"),
        # 80 %: half way past the knee; neighbours half cpu, half bandwidth
        pytest.param([4.0, 4.0], [1 - 0.5 * 0.35, 1 - 0.5 * (0.35 + 0.75) / 2], id="half way past the knee"),
        pytest.param([10.0, 0.0], [0.65, 0.65], id="full of cpu-bound pods"),
        pytest.param([0.0, 10.0], [0.65, 0.25], id="full of pods that stream from memory"),
        pytest.param([20.0, 0.0], [0.325, 0.325], id="twice overcommitted: half the share too"),
    ],
)
def test_neighbours_slow_each_other_by_kind(use: list[float], expected: list[float]) -> None:
    np.testing.assert_allclose(rates(use), expected)


def test_speed_and_decay_multiply_the_rate() -> None:
    np.testing.assert_allclose(rates([2.0, 2.0], speed=1.5, decay=0.2), [1.2, 1.2])


def test_mean_interference_is_what_the_criterion_expects() -> None:
    assert contention.SENSITIVITY.mean() == pytest.approx(criteria.CONTENTION_SLOPE, abs=0.02)


def test_pressure_shows_queueing_and_decay() -> None:
    total, cores = np.array([2.0, 10.0, 2.0]), np.array([10.0, 10.0, 10.0])
    np.testing.assert_allclose(contention.pressure(total, cores, np.array([0.0, 0.0, 0.3])), [0.0, 0.3, 0.3])


# ---- measurements


def test_a_scheduler_sees_a_bound_pods_expected_use_at_once_and_its_real_use_after_the_scrape() -> None:
    simulator = Simulator(plain(2, scrape=(50.0, 50.0)), 1, 0)
    before = simulator.state
    assert before.cpu_used[0].tolist() == [0.0, 0.0]
    simulator.step(HERE)
    state = simulator.state
    assert float(simulator.now[0]) < 50.0
    assert state.cpu_used[0, 0] == pytest.approx(criteria.EXPECTED_USE_RATIO * 1.0)
    assert state.memory_used[0, 0] == pytest.approx(criteria.EXPECTED_USE_RATIO * 1.0)
    assert state.version[0].tolist() == [1, 0]
    while simulator.now[0] < 50.0:
        simulator.step(WAIT)
    state = simulator.state
    assert state.cpu_used[0, 0] == pytest.approx(1.0)
    assert state.memory_used[0, 0] == pytest.approx(1.0)


def test_a_measured_pod_is_seen_until_the_next_scrape_after_it_finished() -> None:
    simulator = Simulator(plain(1, scrape=(60.0, 60.0)), 1, 0)
    simulator.step(HERE)
    while not simulator.counts()["finished"][0]:
        simulator.step(WAIT)
    state = simulator.state
    assert state.cpu_requested[0, 0] == 0.0
    assert state.cpu_used[0, 0] == pytest.approx(1.0)
    finished = float(simulator.now[0])
    while simulator.now[0] < finished + 61.0:
        simulator.step(WAIT)
    assert simulator.state.cpu_used[0, 0] == 0.0


def test_the_state_a_scheduler_holds_does_not_change_behind_its_back() -> None:
    simulator = Simulator(plain(2), 1, 0)
    held = simulator.state
    feasible = simulator.feasible
    simulator.step(HERE)
    assert held.cpu_requested[0].tolist() == [0.0, 0.0]
    assert feasible.all()


def test_clusters_without_psi_show_the_estimated_pressure_and_others_the_measured_one() -> None:
    scenario = load_scenario("reference")
    simulator = Simulator(scenario, 32, 5)
    generator = np.random.default_rng(0)
    for _ in range(150):
        simulator.step(at_random(simulator, generator))
    without = np.array([simulator.snapshot(cluster).pressure is None for cluster in range(32)])
    assert 0 < without.sum() < 32
    state = simulator.state
    estimate = estimated_pressure(state.cpu_used, state.cpu_allocatable)
    np.testing.assert_allclose(state.cpu_pressure[without], estimate[without])
    assert np.abs(state.cpu_pressure[~without] - estimate[~without]).mean() > 0.02


def test_decay_shows_in_pressure_alone() -> None:
    hidden = Hidden(decay_mean=0.3, decay_spread=0.0)
    settings = Measurement(scrape_interval=(20.0, 20.0))
    simulator = Simulator(plain(1, hidden=hidden, measurement=settings), 1, 0)
    simulator.step(HERE)
    while simulator.now[0] < 25.0:
        simulator.step(WAIT)
    state = simulator.state
    assert state.cpu_pressure[0, 0] == pytest.approx(0.3)
    assert state.node_speed[0, 0] == 1.0
    assert state.cpu_allocatable[0, 0] == 8.0
    measured = until_finished(alone(slack=1.3, hidden=hidden))
    assert measured["lateness"] == pytest.approx((100 / 0.7 - 130) / 130)


def test_the_hidden_drift_keeps_its_mean_and_spread() -> None:
    generator = np.random.default_rng(0)
    state = np.full(20_000, 5.0)
    for _ in range(60):
        state = drift(state, 1.0, 0.5, 100.0, np.array(20.0), generator.standard_normal(state.shape))
    assert state.mean() == pytest.approx(1.0, abs=0.02)
    assert state.std() == pytest.approx(0.5, abs=0.02)


# ---- the queue


def test_pods_that_fit_nowhere_are_tried_again_oldest_first_when_there_is_room() -> None:
    big = replace(POD, cpu=(8.0, 8.0), slack=(3.0, 3.0))
    simulator = Simulator(plain(1, pods=(big,)), 1, 0)
    order = []
    while len(order) < 4:
        if simulator.feasible.any():
            order.append(int(simulator.pod_number[0]))
            simulator.step(HERE)
        else:
            simulator.step(WAIT)
    assert order == [0, 1, 2, 3]
    assert simulator.counts()["finished"][0] == 3


def test_back_off_doubles_from_one_second_to_ten() -> None:
    simulator = Simulator(plain(1), 1, 0)
    world = simulator._world
    number, waits = int(simulator.pod_number[0]), []
    while len(waits) < 6:
        if int(simulator.pod_number[0]) == number:
            slot = int(world.current[0])
            left = float(simulator.now[0])
            simulator.step(WAIT)
            waits.append(float(world.pods.retry_at[0, slot]) - left)
        else:
            simulator.step(HERE if simulator.feasible.any() else WAIT)
    assert waits == pytest.approx([1.0, 2.0, 4.0, 8.0, 10.0, 10.0])


def test_a_lost_nodes_pods_are_queued_again_and_the_node_takes_none() -> None:
    hidden = Hidden(node_loss_time=1.0, node_return_time=1e9, eviction_delay=40.0)
    simulator = Simulator(plain(1, hidden=hidden, scrape=(30.0, 30.0)), 1, 0)
    assert simulator._world.nodes.up.all()
    simulator.step(HERE)
    while simulator._world.nodes.up.any():
        simulator.step(WAIT)
    state = simulator.state
    assert state.cpu_requested[0, 0] == 0.0
    assert not simulator.feasible.any()
    counts = simulator.counts()
    assert counts["running"][0] == 0
    assert counts["pending"][0] == counts["arrived"][0]
    lost = float(simulator.now[0])
    assert float(simulator._world.pods.retry_at[0].min()) <= lost + 40.0


def test_a_node_out_of_memory_kills_the_pod_that_exceeds_its_request_most() -> None:
    modest = replace(POD, name="modest", memory=(8.0, 8.0), memory_use=1.0)
    greedy = replace(POD, name="greedy", memory=(4.0, 4.0), memory_use=2.0, slack=(0.0, 0.0))
    simulator = Simulator(plain(1, pods=(modest, greedy), reward=Reward(balance_weight=0.0)), 1, 4)
    failed, violations = 0, 0
    for _ in range(200):
        result = simulator.step(first_fit(simulator))
        if result.failed[0]:
            failed += int(result.failed[0])
            violations += int(result.violations[0])
            left = simulator._world.pods.node[0] == 0
            used = float(simulator._world.pods.memory_use[0][left].sum())
            assert used <= 32.0
    assert failed > 0
    # best effort pods have no deadline, so a violation of one is its end
    assert violations >= failed
    assert simulator.counts()["failed"][0] == failed


def test_a_node_takes_no_more_pods_than_the_kubelet_allows() -> None:
    tiny = replace(POD, cpu=(0.125, 0.125), memory=(0.125, 0.125), duration=1e6, slack=(0.0, 0.0))
    simulator = Simulator(plain(1, pods=(tiny,), node=replace(NODE, cores=1000.0, memory=1000.0)), 1, 0)
    for _ in range(110):
        simulator.step(HERE)
    assert simulator.counts()["running"][0] == 110
    assert not simulator.feasible.any()


# ---- load


def test_offered_work_over_capacity_is_the_load_asked_for() -> None:
    scenario = load_scenario("reference")
    simulator = Simulator(scenario, 200, 1)
    simulator.reset(1, 0.4)
    world = simulator._world
    table = world.table
    work = (table.cpu_use * np.exp(0.0) * table.work).sum(axis=1)
    capacity = (world.nodes.cores * world.nodes.speed).sum(axis=1)
    offered = work / table.time[:, -1] / capacity
    assert offered.mean() == pytest.approx(0.4, rel=0.03)


@pytest.mark.parametrize("process", ["poisson", "bursty"])
def test_arrivals_come_at_the_mean_rate(process: Any) -> None:
    settings = Arrivals(process=process, day=500.0, wave=0.3, burst_rate=4.0, burst_time=30.0, calm_time=90.0)
    seeds = np.arange(300, dtype=np.uint64)
    times = arrival_times(settings, seeds, np.full(300, 2.0), 4000)
    assert (np.diff(times, axis=1) > 0.0).all()
    assert (4000 / times[:, -1]).mean() == pytest.approx(2.0, rel=0.03)


def test_bursts_are_burstier_than_poisson() -> None:
    seeds = np.arange(200, dtype=np.uint64)
    dispersion = {}
    for process in ("poisson", "bursty"):
        settings = Arrivals(process=process, burst_rate=6.0, burst_time=30.0, calm_time=120.0)  # type: ignore[arg-type]
        times = arrival_times(settings, seeds, np.full(200, 1.0), 1000)
        counts = np.stack([np.bincount((row // 30).astype(int), minlength=20)[:20] for row in times])
        dispersion[process] = counts.var() / counts.mean()
    assert dispersion["poisson"] == pytest.approx(1.0, abs=0.15)
    assert dispersion["bursty"] > 3.0


def test_the_daily_wave_moves_arrivals_from_night_to_day() -> None:
    settings = Arrivals(day=1000.0, wave=0.8)
    times = arrival_times(settings, np.array([3], dtype=np.uint64), np.array([5.0]), 40_000)[0]
    by_hour = np.bincount((times % 1000.0 // 100.0).astype(int), minlength=10)
    assert by_hour.max() / by_hour.min() > 4.0


def test_load_follows_from_the_mean_work_of_the_classes() -> None:
    assert load_workload(plain()).mean_work == pytest.approx(100.0)
    twice = load_workload(plain(pods=(replace(POD, cpu=(2.0, 2.0)),))).mean_work
    assert twice == pytest.approx(200.0)
    assert load_workload(plain(pods=(replace(POD, lifetime=5.0),))).mean_work == pytest.approx(500.0)


# ---- metrics


def test_every_metric_is_explained_and_no_explanation_lacks_a_metric() -> None:
    simulator = Simulator(plain(), 1, 0)
    assert list(simulator.metrics()) == list(METRICS)


def test_a_metric_without_pods_is_not_a_number_rather_than_zero() -> None:
    assert np.isnan(Simulator(plain(), 1, 0).metrics()["sla_violation_rate"]).all()


def test_use_and_allocation_are_two_numbers() -> None:
    half = replace(POD, cpu=(2.0, 2.0), cpu_use=0.5, duration=1e5, slack=(0.0, 0.0))
    simulator = Simulator(plain(1, pods=(half,), warmup_arrivals=2, episode_arrivals=4), 1, 0)
    for _ in range(2):
        simulator.step(HERE)
    for _ in range(10):
        simulator.step(WAIT)
    measured = simulator.metrics()
    # two of the pods run from before the measured time to its end: 4 of 8 cores requested, 2 used
    assert measured["cpu_allocated"][0] == pytest.approx(0.5)
    assert measured["cpu_used"][0] == pytest.approx(0.25)
    assert measured["load_variance"][0] == pytest.approx(0.0)


def test_pods_of_the_warm_up_do_not_count() -> None:
    simulator = Simulator(plain(2, warmup_arrivals=30, episode_arrivals=60), 2, 0)
    for _ in range(29):
        simulator.step(first_fit(simulator))
    assert (simulator._world.accounts.resolved == 0).all()
    for _ in range(400):
        simulator.step(first_fit(simulator))
    assert (simulator.undecided() == 0).all()
    assert (simulator._world.accounts.resolved == 30).all()


def test_percentiles_come_from_the_counted_bins() -> None:
    counts = np.zeros((2, SLOWDOWN_BINS), dtype=np.int64)
    counts[0, 10], counts[0, 50] = 95, 5
    np.testing.assert_allclose(slowdown_percentile(counts, 0.5), [SLOWDOWN_EDGES[11], np.nan])
    np.testing.assert_allclose(slowdown_percentile(counts, 0.95)[0], SLOWDOWN_EDGES[11])
    np.testing.assert_allclose(slowdown_percentile(counts, 0.96)[0], SLOWDOWN_EDGES[51])


def test_the_reported_reward_is_one_in_time_and_minus_one_and_the_lateness_otherwise() -> None:
    np.testing.assert_allclose(episode_reward(np.array([0.0, 1.0, 0.2]), np.array([0.0, 0.5, 0.1])), [1.0, -1.5, 0.5])


def test_imbalance_costs_more_than_the_same_use_spread_evenly() -> None:
    weights = Reward(lateness_weight=0.0, violation_weight=0.0, balance_weight=1.0)
    pod = replace(POD, cpu=(2.0, 2.0), duration=1e5, slack=(0.0, 0.0))
    packed = Simulator(plain(2, pods=(pod,), reward=weights), 1, 0)
    spread = Simulator(plain(2, pods=(pod,), reward=weights), 1, 0)
    packed.step(HERE)
    spread.step(HERE)
    both = packed.step(HERE).node_reward[0], spread.step(np.array([1])).node_reward[0]
    np.testing.assert_allclose(both[0], [-(0.5**2), 0.0], atol=1e-7)
    np.testing.assert_allclose(both[1], [-(0.25**2), -(0.25**2)], atol=1e-7)


def test_price_of_load_variance_is_nothing_where_all_nodes_are_used_alike() -> None:
    weights = Reward(lateness_weight=0.0, violation_weight=0.0, spread_weight=1.0)
    pod = replace(POD, cpu=(2.0, 2.0), duration=1e5, slack=(0.0, 0.0))
    simulator = Simulator(plain(2, pods=(pod,), reward=weights), 1, 0)
    np.testing.assert_allclose(simulator.step(HERE).node_reward[0], [-(0.125**2), -(0.125**2)], atol=1e-7)
    np.testing.assert_allclose(simulator.step(np.array([1])).node_reward[0], [0.0, 0.0], atol=1e-7)


# ---- refusals


@pytest.mark.parametrize(
    "placement",
    [
        pytest.param(np.array([0, 0]), id="another number of clusters"),
        pytest.param(np.array([0.0]), id="not integers"),
        pytest.param(np.array([2]), id="no such node"),
        pytest.param(np.array([-2]), id="below -1"),
    ],
)
def test_a_senseless_placement_is_refused_and_changes_nothing(placement: np.ndarray) -> None:
    simulator = Simulator(plain(2), 1, 0)
    before = simulator.now.copy()
    with pytest.raises(InvalidInputError, match="placement"):
        simulator.step(placement)
    assert simulator.now.tolist() == before.tolist()
    assert simulator.state.cpu_requested.sum() == 0.0


def test_a_node_that_is_full_is_refused() -> None:
    simulator = Simulator(plain(2, pods=(replace(POD, cpu=(8.0, 8.0)),)), 1, 0)
    simulator.step(HERE)
    assert simulator.feasible[0].tolist() == [False, True]
    with pytest.raises(InvalidInputError, match="feasible"):
        simulator.step(HERE)


@pytest.mark.parametrize(
    ("clusters", "seed", "load", "named"),
    [
        pytest.param(0, 0, 0.4, "clusters", id="no clusters"),
        pytest.param(2, np.zeros(3, dtype=np.uint64), 0.4, "seed", id="seeds for other clusters"),
        pytest.param(2, 0, 0.0, "load", id="no load"),
        pytest.param(2, 0, np.nan, "load", id="load not a number"),
        pytest.param(2, 0, np.ones(3), "load", id="loads for other clusters"),
    ],
)
def test_a_senseless_episode_is_refused_by_name(clusters: int, seed: Any, load: Any, named: str) -> None:
    with pytest.raises(InvalidInputError, match=named):
        Simulator(plain(), clusters, 0).reset(seed, load)


def test_a_reset_without_a_seed_begins_another_episode() -> None:
    simulator = Simulator(load_scenario("reference"), 2, 0)
    first = simulator.now
    simulator.reset()
    assert (simulator.now != first).all()
    second = simulator.now
    simulator.reset(0)
    np.testing.assert_array_equal(simulator.now, first)
    simulator.reset()
    np.testing.assert_array_equal(simulator.now, second)
