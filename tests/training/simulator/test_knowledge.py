"""What schedulers are told: each kind shows and hides what it says, and no episode goes otherwise for it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from policy.cluster import ClusterState
from policy.criteria import EXPECTED_USE_RATIO
from policy.errors import InvalidInputError
from policy.observation import estimated_pressure
from policy.urgency import BY_OWNER_KIND, BY_QOS
from tests.training.plain_scenarios import at_random
from training.simulator.conditions import Condition
from training.simulator.draws import TEST_SEEDS, episode_seeds
from training.simulator.knowledge import TOLD, Knowledge, knowledge
from training.simulator.nodes import draw_nodes
from training.simulator.scenarios import load_scenario
from training.simulator.simulation import Simulator
from training.simulator.warmup import tell

REFERENCE = load_scenario("reference")
CLUSTERS = 16
SEEDS = episode_seeds(TEST_SEEDS[:CLUSTERS])
SPEEDS = draw_nodes(REFERENCE, SEEDS).speed


def told(known: Knowledge, decisions: int = 60) -> Simulator:
    """Clusters that show this, some decisions into their episodes; placements do not depend on what is told."""
    simulator = Simulator(REFERENCE, CLUSTERS, SEEDS)
    simulator.reset(SEEDS, 0.4, tell(REFERENCE, SEEDS, 0.4, known))
    generator = np.random.default_rng(0)
    for _ in range(decisions):
        simulator.step(at_random(simulator, generator))
    return simulator


def urgency(simulator: Simulator) -> np.ndarray:
    return simulator.demand.urgency[:, 0]


LABELLED = told(Knowledge())


@pytest.mark.parametrize("name", sorted(TOLD))
def test_what_is_told_changes_no_episode(name: str) -> None:
    known = replace(knowledge(name), completions=min(knowledge(name).completions, 1), use_late=1.0)
    simulator = told(known)
    np.testing.assert_array_equal(simulator.now, LABELLED.now)
    np.testing.assert_array_equal(simulator.projected_violations(), LABELLED.projected_violations())
    for metric, values in LABELLED.metrics().items():
        np.testing.assert_array_equal(simulator.metrics()[metric], values)


def test_labels_tell_the_truth() -> None:
    np.testing.assert_array_equal(LABELLED.state.node_speed, SPEEDS)
    true = urgency(LABELLED)
    assert ((true > 1 / 3.1) & (true < 1 / 1.2)).all()


@pytest.mark.parametrize("error", [0.1, 0.3])
def test_wrong_labels_are_off_by_what_they_say_up_as_often_as_down(error: float) -> None:
    off = tell(REFERENCE, SEEDS, 0.4, Knowledge(speed_error=error)).speed / SPEEDS - 1.0
    np.testing.assert_allclose(np.abs(off), error)
    assert abs(np.mean(off > 0.0) - 0.5) < 0.15


def test_shares_of_labels_are_wrong_or_missing() -> None:
    wrong = tell(REFERENCE, SEEDS, 0.4, Knowledge(speed_error=0.2, speed_wrong=0.25)).speed != SPEEDS
    assert 0.15 < wrong.mean() < 0.35
    some = tell(REFERENCE, SEEDS, 0.4, Knowledge(speed_missing=0.5)).speed
    missing = (some == 1.0) & (SPEEDS != 1.0)
    assert 0.35 < missing.mean() / (SPEEDS != 1.0).mean() < 0.65
    np.testing.assert_array_equal(some[~missing], SPEEDS[~missing])


def test_pods_without_an_annotation_are_as_urgent_as_their_qos_class() -> None:
    assert set(urgency(told(knowledge("no-urgency")))) == {BY_QOS["Burstable"]}
    half = urgency(told(Knowledge(urgency_missing=0.5)))
    labelled = half == urgency(LABELLED)
    assert 0 < labelled.sum() < CLUSTERS
    assert set(half[~labelled]) == {BY_QOS["Burstable"]}


def test_without_any_run_urgency_is_inferred_from_the_kind_of_the_owner() -> None:
    assert set(urgency(told(knowledge("learned-0")))) == {BY_OWNER_KIND["Job"]}


def test_deadlines_and_learned_durations_tell_about_how_urgent_a_pod_is() -> None:
    scenario = replace(REFERENCE, templates=replace(REFERENCE.templates, deadlines=1.0))
    known = tell(scenario, SEEDS, 0.4, knowledge("learned-30"))
    simulator = Simulator(scenario, CLUSTERS, SEEDS)
    ratios = []
    for start in range(3):
        simulator.reset(SEEDS + np.uint64(1000 * start), 0.4, known, machines=SEEDS)
        generator = np.random.default_rng(start)
        for _ in range(20):
            world = simulator._world
            true = 1.0 / world.pods.slack[world.rows, world.current]
            ratios.append(urgency(simulator) / true)
            simulator.step(at_random(simulator, generator))
    assert np.median(np.concatenate(ratios)) == pytest.approx(1.0, abs=0.15)
    assert np.quantile(np.abs(np.concatenate(ratios) - 1.0), 0.8) < 0.45


def test_bare_clusters_show_requests_alone() -> None:
    state = told(knowledge("bare")).state
    np.testing.assert_allclose(state.cpu_used, EXPECTED_USE_RATIO * state.cpu_nonzero)
    np.testing.assert_allclose(state.memory_used, EXPECTED_USE_RATIO * state.memory_nonzero)
    np.testing.assert_allclose(state.cpu_pressure, estimated_pressure(state.cpu_used, state.cpu_allocatable))
    assert (state.node_speed == 1.0).all()


def test_unlabelled_clusters_show_use_but_no_pressure() -> None:
    state: ClusterState = told(knowledge("unlabelled")).state
    np.testing.assert_array_equal(state.cpu_used, LABELLED.state.cpu_used)
    np.testing.assert_allclose(state.cpu_pressure, estimated_pressure(state.cpu_used, state.cpu_allocatable))
    assert (state.cpu_pressure != LABELLED.state.cpu_pressure).any()


def test_late_use_is_scraped_as_rarely_as_it_says() -> None:
    late = told(Knowledge(use_late=3.0))._world.seen.interval
    np.testing.assert_allclose(late, 3.0 * LABELLED._world.seen.interval)


def test_clusters_side_by_side_may_each_show_something_else() -> None:
    names = ["labelled", "learned-1", "unlabelled", "bare"] * (CLUSTERS // 4)
    mixed = tell(REFERENCE, SEEDS, 0.4, [knowledge(name) for name in names])
    alone = tell(REFERENCE, SEEDS, 0.4, knowledge("learned-1"))
    np.testing.assert_array_equal(mixed.speed[::4], SPEEDS[::4])
    np.testing.assert_array_equal(mixed.speed[1::4], alone.speed[1::4])
    np.testing.assert_array_equal(mixed.expected_s[1::4], alone.expected_s[1::4])
    assert (mixed.speed[2::4] == 1.0).all()
    assert mixed.use.tolist() == [True, True, True, False] * (CLUSTERS // 4)


def test_a_copy_of_the_moment_tells_the_same() -> None:
    simulator = told(knowledge("learned-1"))
    rows = np.array([3, 3, 0])
    twin = simulator.clone(rows)
    np.testing.assert_array_equal(twin.state.node_speed, simulator.state.node_speed[rows])
    np.testing.assert_array_equal(urgency(twin), urgency(simulator)[rows])
    twin.step(np.argmax(twin.feasible, axis=1))
    assert (urgency(twin) > 0.0).all()


def test_a_condition_names_what_is_told() -> None:
    assert Condition("reference", 0.4, told="learned-3").label == "learned-3 reference@0.4"
    assert Condition("reference", 0.4, told="learned-3").knowledge.completions == 3
    assert Condition("reference", 0.4).label == "reference@0.4"


@pytest.mark.parametrize("name", ["", "learnt", "learned-", "learned--1", "learned-1.5", "Labelled"])
def test_an_unknown_name_is_refused_with_the_names_there_are(name: str) -> None:
    with pytest.raises(InvalidInputError, match=r"told is .*labelled, learned, unlabelled, bare.*learned-N"):
        Condition("reference", told=name).knowledge  # noqa: B018 - the property raises


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("speed", "guessed"),
        ("speed_missing", 1.5),
        ("speed_error", 1.0),
        ("urgency", True),
        ("use_late", 0.5),
        ("completions", -1),
        ("completions", 2.5),
    ],
)
def test_knowledge_out_of_range_is_refused_by_name(field: str, value: object) -> None:
    with pytest.raises(ValueError, match=field):
        Knowledge(**{field: value})  # type: ignore[arg-type]


def test_what_is_told_must_be_of_as_many_clusters() -> None:
    with pytest.raises(InvalidInputError, match="known says what 2 clusters show; give one for each of 16"):
        tell(REFERENCE, SEEDS, 0.4, [Knowledge()] * 2)
    with pytest.raises(InvalidInputError, match="told is of clusters"):
        Simulator(REFERENCE, 3).reset(1, 0.4, tell(REFERENCE, SEEDS, 0.4, Knowledge()))
    with pytest.raises(InvalidInputError, match="machines has shape"):
        Simulator(REFERENCE, 3).reset(1, 0.4, machines=SEEDS)
