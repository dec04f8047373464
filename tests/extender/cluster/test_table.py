"""The table's columns always equal what a fresh listing of the same cluster would give."""

from __future__ import annotations

import random
import threading

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from extender.cluster.account import SpeedBasis
from extender.cluster.assumption import RETRIED_LIMIT
from extender.cluster.status import ReadReport
from extender.cluster.table import KEPT_CHANGES, UNKNOWN, ClusterTable
from extender.errors import OwnershipError
from policy.cluster import COLUMNS, NONZERO_CPU, NONZERO_MEMORY, UNMEASURED_MEMORY_RATIO
from policy.criteria import EXPECTED_USE_RATIO
from policy.errors import InvalidInputError
from tests.extender.tables import node_names


class Clock:
    """Seconds that move only when told."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Heard:
    """A listener that writes down what it is told."""

    def __init__(self) -> None:
        self.events: list[tuple[str, ...]] = []

    def pod_bound(self, uid: str, node: str, at: float) -> None:
        self.events.append(("bound", uid, node))

    def pod_removed(self, uid: str, reason: str, at: float) -> None:
        self.events.append(("removed", uid, reason))

    def pod_reported(self, uid: str, read: ReadReport) -> None:
        self.events.append(("reported", uid, read().phase))

    def assumption_expired(self, uid: str, node: str, at: float) -> None:
        self.events.append(("expired", uid, node))


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def table(clock: Clock) -> ClusterTable:
    table = ClusterTable(capacity=2, assumed_time_limit=30.0, clock=clock)
    table.upsert_node("a", 8.0, 32.0)
    table.upsert_node("b", 4.0, 16.0, speed=1.5)
    return table


def row(table: ClusterTable, node: str) -> dict[str, float]:
    """All numbers of one node."""
    [at] = table.rows_of([node])
    assert at != UNKNOWN
    return {name: float(getattr(table.state, name)[at]) for name in COLUMNS}


def test_pods_add_to_requests_and_to_expected_use(table: ClusterTable) -> None:
    table.pod_bound("p", "a", 2.0, 4.0)
    found = row(table, "a")
    assert (found["cpu_requested"], found["memory_requested"]) == (2.0, 4.0)
    assert found["cpu_used"] == pytest.approx(2.0 * EXPECTED_USE_RATIO)
    assert found["memory_used"] == pytest.approx(4.0 * EXPECTED_USE_RATIO)
    assert row(table, "b")["cpu_requested"] == 0.0


def test_a_pod_that_asks_for_zero_is_expected_to_use_something(table: ClusterTable) -> None:
    """`cpu: "0"` is a request, which scores count as it is; but what runs uses some, and a burst must see itself."""
    table.pod_bound("p", "a", 0.0, 0.0)
    found = row(table, "a")
    assert (found["cpu_nonzero"], found["memory_nonzero"]) == (0.0, 0.0)
    assert found["cpu_used"] == pytest.approx(EXPECTED_USE_RATIO * NONZERO_CPU)
    assert found["memory_used"] == pytest.approx(EXPECTED_USE_RATIO * NONZERO_MEMORY)
    table.pod_removed("p")
    assert row(table, "a")["cpu_used"] == 0.0


def test_a_measurement_replaces_the_expectation_of_pods_bound_before_it(table: ClusterTable, clock: Clock) -> None:
    table.pod_bound("old", "a", 2.0, 4.0, since=900.0)
    table.pod_bound("new", "a", 1.0, 1.0, since=990.0)
    assert table.set_usage("a", 0.5, 3.0, 0.25, measured_at=950.0)
    found = row(table, "a")
    assert found["cpu_used"] == pytest.approx(0.5 + EXPECTED_USE_RATIO)
    assert found["memory_used"] == pytest.approx(3.0 + EXPECTED_USE_RATIO)
    assert found["cpu_pressure"] == 0.25
    table.pod_removed("new")
    assert row(table, "a")["cpu_used"] == 0.5
    table.pod_removed("old")
    found = row(table, "a")
    assert found["cpu_used"] == 0.0, "what it used has gone with it"
    assert found["memory_used"] == 3.0, "measured memory stays until the next measurement"


def test_a_pod_that_has_ended_takes_its_part_of_the_measured_use_with_it(table: ClusterTable) -> None:
    for name, cpu in (("large", 3.0), ("small", 1.0)):
        table.pod_bound(name, "a", cpu, 1.0, since=900.0)
    table.set_usage("a", 2.0, 2.0, None, 950.0)
    table.pod_removed("small")
    assert row(table, "a")["cpu_used"] == pytest.approx(2.0 * 3.0 / 4.0)
    table.pod_bound("small", "a", 1.0, 1.0, since=900.0)
    assert row(table, "a")["cpu_used"] == 2.0, "it is there, after all"
    table.pod_bound("small", "a", 1.0, 1.0, since=900.0)
    table.pod_bound("seen late", "a", 1.0, 1.0, since=910.0)
    assert row(table, "a")["cpu_used"] == 2.0, "it was measured, too"
    table.set_usage("a", 1.5, 2.0, None, 990.0)
    assert row(table, "a")["cpu_used"] == 1.5


def test_a_pod_takes_no_more_with_it_than_was_expected_of_it(table: ClusterTable) -> None:
    table.pod_bound("idle", "a", 0.9, 1.0, since=900.0)
    table.pod_bound("busy", "a", 0.1, 1.0, since=900.0)
    table.set_usage("a", 4.0, 2.0, None, 950.0)
    table.pod_removed("idle")
    assert row(table, "a")["cpu_used"] == pytest.approx(4.0 - EXPECTED_USE_RATIO * 0.9)
    table.pod_removed("busy")
    assert row(table, "a")["cpu_used"] == pytest.approx(4.0 - EXPECTED_USE_RATIO * 1.0)


def test_a_pod_bound_while_use_was_measured_counts_with_the_time_before_it(table: ClusterTable) -> None:
    table.pod_bound("p", "a", 2.0, 4.0, since=965.0)
    table.set_usage("a", 1.0, 3.0, None, 950.0, until=980.0)
    found = row(table, "a")
    assert found["cpu_used"] == pytest.approx(1.0 + EXPECTED_USE_RATIO * 2.0 * 15.0 / 30.0)
    assert found["memory_used"] == pytest.approx(3.0 + EXPECTED_USE_RATIO * 4.0), "memory counts wholly"
    table.pod_removed("p")
    assert row(table, "a")["cpu_used"] == pytest.approx(1.0 - EXPECTED_USE_RATIO), "and what it was expected to use"
    for since, share in ((950.0, 0.0), (950.3, 0.01), (979.7, 0.99), (980.0, 1.0), (990.0, 1.0)):
        table.pod_bound("q", "a", 2.0, 4.0, since=since)
        table.set_usage("a", 1.0, 3.0, None, 950.0, until=980.0)
        assert row(table, "a")["cpu_used"] == pytest.approx(1.0 + EXPECTED_USE_RATIO * 2.0 * share), since
        table.pod_removed("q")


@pytest.mark.parametrize("until", [900.0, 950.0, 4600.0])
def test_an_end_that_makes_no_sense_changes_little(table: ClusterTable, until: float) -> None:
    table.pod_bound("p", "a", 2.0, 4.0, since=990.0)
    table.set_usage("a", 1.0, 3.0, None, 950.0, until=until)
    most = 2.0 if until < 4600.0 else 2.0 * 40.0 / 50.0  # now is 1000
    assert row(table, "a")["cpu_used"] == pytest.approx(1.0 + EXPECTED_USE_RATIO * most)


def test_a_throttled_node_is_full_at_the_use_that_it_reaches(table: ClusterTable) -> None:
    table.pod_bound("p", "a", 2.0, 1.0, since=900.0)
    table.set_usage("a", 3.0, 2.0, None, 950.0)
    version = table.state.version[table.rows_of(["a"])[0]]
    table.set_speed("a", 1.0, SpeedBasis("completions", full_at=0.5))
    found = row(table, "a")
    assert found["cpu_used"] == 6.0
    assert found["version"] > version
    table.upsert_node("a", 8.0, 32.0)
    assert row(table, "a")["cpu_used"] == 3.0


def test_a_pod_without_requests_changes_what_scores_count(table: ClusterTable, clock: Clock) -> None:
    """Its real sum stays: that is what kube-scheduler filters by, and what autoscalers may fill."""
    table.pod_bound("bound", "a", 0.0, 0.0, cpu_nonzero=0.1, memory_nonzero=0.25)
    table.assume("assumed", "a", 0.0, 1.0, 0.1, 1.0)
    found = row(table, "a")
    assert (found["cpu_requested"], found["memory_requested"]) == (0.0, 1.0)
    assert (found["cpu_nonzero"], found["memory_nonzero"]) == (0.2, 1.25)
    assert found["cpu_used"] == pytest.approx(EXPECTED_USE_RATIO * 0.2)
    assert found["memory_used"] == pytest.approx(EXPECTED_USE_RATIO * 1.25)
    clock.now += 60.0
    table.set_usage("a", 0.05, 0.1, None, clock.now)
    found = row(table, "a")
    assert found["cpu_used"] == 0.05, "what is measured is not expected any more"
    assert found["cpu_nonzero"] == 0.2, "what is requested stays, as that of any other pod"
    table.pod_removed("bound")
    table.withdraw("assumed")
    found = row(table, "a")
    assert found["cpu_nonzero"] == found["memory_nonzero"] == 0.0


def test_pressure_is_estimated_where_it_is_not_measured(table: ClusterTable) -> None:
    table.set_usage("a", 8.0, 0.0, None, 900.0)
    assert row(table, "a")["cpu_pressure"] == pytest.approx(0.3)


@pytest.mark.parametrize(
    ("node", "cpu", "memory", "pressure", "at"),
    [
        ("unknown", 1.0, 1.0, None, 950.0),
        ("a", -1.0, 1.0, None, 950.0),
        ("a", float("nan"), 1.0, None, 950.0),
        ("a", 1.0, float("inf"), None, 950.0),
        ("a", 1.0, 1.0, float("nan"), 950.0),
        ("a", 1.0, 1.0, None, 899.0),
    ],
    ids=["unknown_node", "negative", "nan", "infinite", "nan_pressure", "older"],
)
def test_a_measurement_that_cannot_be_true_is_not_taken(
    table: ClusterTable, node: str, cpu: float, memory: float, pressure: float | None, at: float
) -> None:
    table.set_usage("a", 2.0, 2.0, None, 900.0)
    before = row(table, "a")
    assert not table.set_usage(node, cpu, memory, pressure, at)
    assert row(table, "a") == before


def test_a_measurement_from_the_future_is_one_of_now_and_gives_way_to_the_next(table: ClusterTable) -> None:
    """It is 1000; one node's clock is an hour ahead, and is put right."""
    assert table.set_usage("a", 2.0, 2.0, None, 4600.0)
    table.pod_bound("p", "a", 2.0, 0.0, since=1000.5)
    assert row(table, "a")["cpu_used"] == 2.0, "bound when it was measured, at the latest: now"
    assert table.set_usage("a", 3.0, 2.0, None, 995.0), "what is true replaces it, whatever its time"
    assert row(table, "a")["cpu_used"] == 3.0 + EXPECTED_USE_RATIO * 2.0
    assert not table.set_usage("a", 1.0, 2.0, None, 994.0)


def test_a_pod_bound_in_the_future_is_bound_now(table: ClusterTable, clock: Clock) -> None:
    table.pod_bound("p", "a", 2.0, 0.0, since=4600.0)
    clock.now = 1030.0
    table.set_usage("a", 3.0, 2.0, None, 1010.0)
    assert row(table, "a")["cpu_used"] == 3.0, "it is in a measurement that began after it was seen"


def test_a_clock_of_ours_that_is_set_back_keeps_neither_pods_nor_measurements_out(
    table: ClusterTable, clock: Clock
) -> None:
    clock.now = 4600.0
    table.pod_bound("p", "a", 2.0, 0.0)
    table.set_usage("a", 1.0, 2.0, None, 4590.0)
    clock.now = 1000.0
    assert table.set_usage("a", 3.0, 2.0, None, 990.0)
    assert row(table, "a")["cpu_used"] == 3.0 + EXPECTED_USE_RATIO * 2.0
    clock.now = 1030.0
    assert table.set_usage("a", 3.0, 2.0, None, 1010.0)
    assert row(table, "a")["cpu_used"] == 3.0


def test_old_measurements_are_dropped_and_use_is_expected_again(table: ClusterTable) -> None:
    table.pod_bound("p", "a", 2.0, 0.0, since=100.0)
    table.set_usage("a", 7.0, 1.0, 0.9, 900.0)
    assert table.forget_usage_before(900.0) == 0
    assert table.forget_usage_before(901.0) == 1
    found = row(table, "a")
    assert found["cpu_used"] == pytest.approx(2.0 * EXPECTED_USE_RATIO)
    assert found["cpu_pressure"] == 0.0
    assert table.forget_usage_before(901.0) == 0


def test_a_version_moves_with_its_row_and_only_then(table: ClusterTable) -> None:
    before = row(table, "a")["version"], row(table, "b")["version"]
    table.pod_bound("p", "a", 1.0, 1.0)
    after = row(table, "a")["version"], row(table, "b")["version"]
    assert after[0] > before[0]
    assert after[1] == before[1]
    table.upsert_node("a", 8.0, 32.0)
    table.upsert_node("a", 8.0, 32.0, ready=False)
    table.pod_bound("p", "a", 1.0, 1.0)
    assert (row(table, "a")["version"], row(table, "b")["version"]) == after
    table.upsert_node("a", 9.0, 32.0)
    assert row(table, "a")["version"] > after[0]


@pytest.mark.parametrize("changes", [0, 1, 5, 2 * KEPT_CHANGES - 1, 2 * KEPT_CHANGES, 5 * KEPT_CHANGES])
def test_rows_changed_since_a_version_are_those_that_show_a_later_one(table: ClusterTable, changes: int) -> None:
    for number in range(8):
        table.upsert_node(f"m{number}", cpu=8.0, memory=32.0)
    since, generator = table.version, random.Random(changes)
    for number in range(changes):
        table.assume(f"u{number}", f"m{generator.randrange(8)}", cpu=0.1, memory=0.1)
        assert table.state.version.max() == table.version
    assert table.changed_since(since) == np.flatnonzero(table.state.version > since).tolist()
    assert table.changed_since(table.version) == []


def test_a_row_given_to_another_node_never_shows_an_old_version(table: ClusterTable) -> None:
    seen = {row(table, "a")["version"]}
    for i in range(5):
        [at] = table.rows_of(["a"] if i == 0 else [f"n{i - 1}"])
        table.remove_node("a" if i == 0 else f"n{i - 1}")
        table.upsert_node(f"n{i}", 8.0, 32.0)
        assert table.rows_of([f"n{i}"])[0] == at
        version = row(table, f"n{i}")["version"]
        assert version not in seen
        seen.add(version)


def test_growing_keeps_every_row(table: ClusterTable) -> None:
    table.pod_bound("p", "b", 1.0, 1.0)
    before = row(table, "b")
    heard: list[tuple[int, str]] = []
    table.subscribe_rows(lambda at, name: heard.append((at, name)))
    for i in range(100):
        table.upsert_node(f"n{i}", 1.0, 1.0)
    assert row(table, "b") == before
    assert table.node_count == 102
    assert {name: at for at, name in heard} == dict(
        zip(node_names(table), table.rows_of(node_names(table)), strict=True)
    )
    assert len(table.state) >= 102


@pytest.mark.parametrize("cpu", [0.0, -1.0, float("nan"), float("inf")])
def test_a_node_that_cannot_be_scored_is_not_kept(table: ClusterTable, cpu: float) -> None:
    assert not table.upsert_node("a", cpu, 32.0)
    assert table.rows_of(["a", "b"]).tolist()[0] == UNKNOWN
    assert table.upsert_node("a", 8.0, 32.0)


def test_pods_seen_before_their_node_count_once_it_appears(table: ClusterTable) -> None:
    table.pod_bound("p", "late", 1.0, 2.0)
    table.pod_bound("gone", "late", 1.0, 2.0)
    table.pod_removed("gone")
    table.upsert_node("late", 8.0, 8.0)
    assert row(table, "late")["cpu_requested"] == 1.0


def test_pods_of_a_removed_node_count_again_when_it_returns(table: ClusterTable) -> None:
    table.pod_bound("p", "a", 1.0, 2.0)
    assert table.remove_node("a")
    assert not table.remove_node("a")
    table.upsert_node("a", 8.0, 32.0)
    assert row(table, "a")["cpu_requested"] == 1.0


def test_a_list_removes_what_it_does_not_hold_but_assumed_pods(table: ClusterTable) -> None:
    table.pod_bound("p", "a", 1.0, 1.0)
    table.pod_bound("q", "a", 1.0, 1.0)
    table.assume("r", "a", 1.0, 1.0)
    assert table.keep_only_pods({"q"}) == 1
    assert row(table, "a")["cpu_requested"] == 2.0
    assert table.keep_only_nodes({"b"}) == 1
    assert node_names(table) == ["b"]


def test_listeners_hear_what_becomes_of_a_pod(table: ClusterTable, clock: Clock) -> None:
    heard = Heard()
    table.listeners.subscribe(heard)
    table.pod_bound("p", "a", 2.0, 1.0)
    table.pod_bound("p", "a", 2.0, 1.0)
    table.pod_removed("p", "succeeded")
    table.assume("q", "b", 1.0, 1.0)
    clock.now += 1000.0
    assert table.expire_assumed() == 1
    assert heard.events == [
        ("bound", "p", "a"),
        ("removed", "p", "succeeded"),
        ("expired", "q", "b"),
    ]


def test_a_burst_sees_its_own_assumed_placements(table: ClusterTable) -> None:
    assert table.assume("p", "a", 2.0, 1.0)
    assert row(table, "a")["cpu_requested"] == 2.0
    assert (table.assumed_count, table.pod_count) == (1, 0)


def test_the_watch_corrects_an_assumption(table: ClusterTable) -> None:
    heard = Heard()
    table.listeners.subscribe(heard)
    table.assume("p", "a", 2.0, 1.0)
    table.pod_bound("p", "b", 2.0, 1.0)
    table.pod_bound("p", "b", 2.0, 1.0)
    assert (row(table, "a")["cpu_requested"], row(table, "b")["cpu_requested"]) == (0.0, 2.0)
    assert (table.assumed_count, table.pod_count) == (0, 1)
    assert heard.events == [("bound", "p", "b")]
    assert not table.assume("p", "a", 2.0, 1.0), "what the watch showed is not overruled"


def test_an_assumption_expires_after_its_time_limit(table: ClusterTable, clock: Clock) -> None:
    table.assume("early", "a", 1.0, 1.0)
    clock.now += 20.0
    table.assume("late", "a", 1.0, 1.0)
    clock.now += 10.0
    assert table.expire_assumed() == 1
    assert row(table, "a")["cpu_requested"] == 1.0
    clock.now += 20.0
    assert table.expire_assumed() == 1
    assert row(table, "a")["cpu_requested"] == 0.0


def test_an_assumption_expires_though_the_clock_was_set_back(table: ClusterTable, clock: Clock) -> None:
    table.assume("early", "a", 1.0, 1.0)
    clock.now -= 3600.0
    table.assume("late", "a", 1.0, 1.0)
    assert table.expire_assumed() == 0
    clock.now += 29.0
    assert table.expire_assumed() == 0
    clock.now += 1.0
    assert table.expire_assumed() == 2
    assert row(table, "a")["cpu_requested"] == 0.0


def test_scoring_a_pod_again_moves_its_assumption_and_renews_it(table: ClusterTable, clock: Clock) -> None:
    table.assume("p", "a", 1.0, 1.0)
    clock.now += 29.0
    table.assume("p", "b", 1.0, 1.0)
    clock.now += 2.0
    assert table.expire_assumed() == 0
    assert (row(table, "a")["cpu_requested"], row(table, "b")["cpu_requested"]) == (0.0, 1.0)


def test_a_pod_that_kube_scheduler_gives_up_goes_nowhere(table: ClusterTable, clock: Clock) -> None:
    """What it says for the first time ends the assumption; what it said before is no news of this attempt."""
    table.assume("p", "a", 1.0, 1.0)
    assert table.pod_given_up("p", ("Unschedulable", "0/2 nodes are available"))
    assert row(table, "a")["cpu_requested"] == 0.0
    table.assume("p", "b", 1.0, 1.0)
    assert not table.pod_given_up("p", ("Unschedulable", "0/2 nodes are available")), "a label of the pod changed"
    assert row(table, "b")["cpu_requested"] == 1.0
    assert table.pod_given_up("p", ("Unschedulable", "0/3 nodes are available"))
    assert not table.pod_given_up("q", ("Unschedulable", "")), "nothing was assumed"
    assert row(table, "b")["cpu_requested"] == 0.0


def test_a_pod_that_was_given_up_is_believed_for_less_long(table: ClusterTable, clock: Clock) -> None:
    """The same failure again changes no condition, so the watch does not tell of it."""
    table.pod_given_up("p", "no room")
    table.assume("first", "a", 1.0, 1.0)
    table.assume("p", "a", 1.0, 1.0)
    clock.now += RETRIED_LIMIT
    assert table.expire_assumed() == 1
    assert row(table, "a")["cpu_requested"] == 1.0
    table.assume("p", "a", 1.0, 1.0, certain=True)
    clock.now += RETRIED_LIMIT
    assert table.expire_assumed() == 0, "what was bound is certain, whatever was said before"
    table.pod_bound("p", "a", 1.0, 1.0)
    table.pod_removed("p")
    table.assume("p", "a", 1.0, 1.0)
    clock.now += RETRIED_LIMIT
    assert table.expire_assumed() == 0, "another pod, or one that was placed since"


def test_a_nomination_moves_an_assumption_and_renews_it(table: ClusterTable, clock: Clock) -> None:
    table.pod_given_up("p", "no room")
    table.assume("p", "a", 2.0, 1.0, 2.0, 1.0)
    clock.now += 4.0
    table.pod_nominated("p", "b")
    assert (row(table, "a")["cpu_requested"], row(table, "b")["cpu_requested"]) == (0.0, 2.0)
    assert row(table, "b")["cpu_used"] == pytest.approx(2.0 * EXPECTED_USE_RATIO)
    clock.now += 29.0
    assert table.expire_assumed() == 0
    table.pod_bound("p", "b", 2.0, 1.0)
    table.pod_nominated("p", "a")
    table.pod_nominated("nobody", "a")
    assert (row(table, "a")["cpu_requested"], row(table, "b")["cpu_requested"]) == (0.0, 2.0), "it is bound"


@pytest.mark.parametrize("end", ["removed", "withdrawn", "node_removed"])
def test_an_assumption_survives_whatever_becomes_of_pod_and_node(table: ClusterTable, clock: Clock, end: str) -> None:
    table.assume("p", "a", 1.0, 1.0)
    if end == "removed":
        assert table.pod_removed("p")
    elif end == "withdrawn":
        assert table.withdraw("p")
    else:
        table.remove_node("a")
        clock.now += 31.0
        assert table.expire_assumed() == 1
        table.upsert_node("a", 8.0, 32.0)
    assert row(table, "a")["cpu_requested"] == 0.0
    assert table.assumed_count == 0
    assert not table.withdraw("p")
    assert table.expire_assumed() == 0


def test_only_the_owning_thread_may_change_it(table: ClusterTable) -> None:
    table.claim()
    raised: list[Exception] = []

    def change() -> None:
        try:
            table.upsert_node("c", 1.0, 1.0)
        except OwnershipError as error:
            raised.append(error)

    thread = threading.Thread(target=change)
    thread.start()
    thread.join()
    assert len(raised) == 1
    assert table.node_count == 2


@pytest.mark.parametrize(("cpu", "memory"), [(-1.0, 0.0), (float("nan"), 0.0), (0.0, float("inf"))])
def test_a_pod_that_asks_for_nonsense_is_refused(table: ClusterTable, cpu: float, memory: float) -> None:
    with pytest.raises(InvalidInputError):
        table.pod_bound("p", "a", cpu, memory)


NODES = st.sampled_from(["a", "b", "c", "d", "e"])
UIDS = st.sampled_from(["p", "q", "r", "s", "t", "u"])
AMOUNTS = st.floats(0.0, 4.0)


def test_memory_use_over_requests_is_that_of_the_pods_that_were_measured() -> None:
    clock = Clock()
    table = ClusterTable(clock=clock)
    table.upsert_node("a", 8.0, 100.0)
    assert row(table, "a")["memory_ratio"] == UNMEASURED_MEMORY_RATIO
    table.pod_bound("old", "a", 1.0, 40.0, clock.now - 20.0)
    table.set_usage("a", 1.0, 50.0, None, clock.now - 10.0)
    measured = (50.0 + 5.0) / (40.0 + 5.0)
    assert row(table, "a")["memory_ratio"] == pytest.approx(measured)
    table.pod_bound("new", "a", 1.0, 8.0, clock.now)
    found = row(table, "a")
    assert (found["memory_ratio"], found["memory_unseen"]) == (pytest.approx(measured), 8.0)
    table.pod_removed("old")
    assert row(table, "a")["memory_ratio"] == pytest.approx(measured), "it is still in what was measured"
    table.set_usage("a", 1.0, 6.0, None, clock.now)
    found = row(table, "a")
    measured = (6.0 + 5.0) / (8.0 + 5.0)
    assert (found["memory_ratio"], found["memory_unseen"]) == (pytest.approx(measured), 0.0)
    table.forget_usage_before(clock.now + 1.0)
    found = row(table, "a")
    assert (found["memory_ratio"], found["memory_unseen"]) == (pytest.approx(UNMEASURED_MEMORY_RATIO), 8.0)


class Histories(RuleBasedStateMachine):
    """Random histories of a cluster; after each step the table must equal one that is told the present alone."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = Clock()
        self.table = ClusterTable(capacity=1, assumed_time_limit=30.0, clock=self.clock)
        self.nodes: dict[str, tuple[float, float]] = {}
        self.pods: dict[str, tuple[str, float, float, float, bool]] = {}
        self.usage: dict[str, tuple[float, float]] = {}
        self.measured: dict[str, set[tuple[str, float, float]]] = {}

    @rule(node=NODES, cpu=st.floats(1.0, 8.0), speed=st.floats(0.5, 2.0))
    def upsert(self, node: str, cpu: float, speed: float) -> None:
        self.table.upsert_node(node, cpu, 8.0, speed)
        self.nodes[node] = (cpu, speed)

    @rule(node=NODES)
    def remove_node(self, node: str) -> None:
        assert self.table.remove_node(node) == (node in self.nodes)
        self.nodes.pop(node, None)
        self.usage.pop(node, None)
        self.measured.pop(node, None)

    @rule(uid=UIDS, node=NODES, cpu=AMOUNTS, memory=AMOUNTS)
    def bind(self, uid: str, node: str, cpu: float, memory: float) -> None:
        self.clock.now += 1.0
        self.table.pod_bound(uid, node, cpu, memory)
        self.pods[uid] = (node, cpu, memory, self.clock.now, False)

    @rule(uid=UIDS, node=NODES, cpu=AMOUNTS, memory=AMOUNTS)
    def assume(self, uid: str, node: str, cpu: float, memory: float) -> None:
        self.clock.now += 1.0
        if self.table.assume(uid, node, cpu, memory):
            self.pods[uid] = (node, cpu, memory, self.clock.now, True)

    @rule(uid=UIDS)
    def remove_pod(self, uid: str) -> None:
        self.table.pod_removed(uid)
        self.pods.pop(uid, None)

    @rule(node=NODES, cpu=AMOUNTS, back=st.integers(0, 5))
    def measure(self, node: str, cpu: float, back: int) -> None:
        at = self.clock.now - back
        if self.table.set_usage(node, cpu, cpu, None, at):
            self.usage[node] = (cpu, at)
            self.measured[node] = {(uid, pod[1], pod[3]) for uid, pod in self.pods.items() if pod[0] == node}

    @rule(seconds=st.integers(1, 40))
    def wait(self, seconds: int) -> None:
        self.clock.now += seconds
        self.table.expire_assumed()
        for uid, pod in list(self.pods.items()):
            if pod[4] and self.clock.now - pod[3] >= 30.0:
                del self.pods[uid]

    @invariant()
    def equals_a_fresh_listing(self) -> None:
        fresh = ClusterTable(clock=self.clock)
        for node, (cpu, speed) in self.nodes.items():
            fresh.upsert_node(node, cpu, 8.0, speed)
            if node in self.usage:
                fresh.set_usage(node, self.usage[node][0], self.usage[node][0], None, self.usage[node][1])
        for uid, (node, cpu, memory, since, _) in self.pods.items():
            fresh.pod_bound(uid, node, cpu, memory, since)
        names = sorted(self.nodes)
        assert sorted(node_names(self.table)) == names
        ours, theirs = self.table.rows_of(names), fresh.rows_of(names)
        for column in COLUMNS:
            found, wanted = getattr(self.table.state, column)[ours], getattr(fresh.state, column)[theirs]
            if column in ("cpu_used", "cpu_pressure"):  # of pods that ended since, a fresh listing knows nothing
                assert (found <= wanted + 1e-9).all(), column
                here = {(node, uid, cpu, since) for uid, (node, cpu, _, since, _) in self.pods.items()}
                whole = [all((node, *pod) in here for pod in self.measured.get(node, ())) for node in names]
                found, wanted = found[whole], wanted[whole]
            if column not in ("version", "memory_ratio"):  # these two tell of the past
                np.testing.assert_array_equal(found, wanted, err_msg=column)
        assert self.table.assumed_count == sum(pod[4] for pod in self.pods.values())


TestHistories = Histories.TestCase
TestHistories.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
