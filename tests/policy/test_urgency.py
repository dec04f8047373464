"""Urgency from the signs of a pod: each sign, their order, switching off, and signs that make no sense."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import pytest

from policy.urgency import BY_OWNER_KIND, BY_QOS, FEWEST_RUNS, SOURCES, STEP, Signs, UrgencyRules, urgency_of
from policy.urgency import urgency_of_priority as of_priority

RULES = UrgencyRules({"gold": 0.93})

EVERY = Signs(
    qos="Guaranteed", annotated=0.123, priority_class="gold", priority=1000, owner_kind="CronJob", owner_name="backup",
    deadline_s=600.0, period_s=300.0, expected_s=90.0, runs=7,
)  # fmt: skip


@pytest.mark.parametrize(
    ("signs", "value", "source", "reason"),
    [
        (EVERY, 0.123, "annotation", "annotated"),
        (EVERY._replace(annotated=None), 0.93, "priority_class", "PriorityClass gold, as set"),
        (
            EVERY._replace(annotated=None, priority_class="silver"),
            0.3, "deadline", "Job of CronJob backup, expected 90 s of 300 s between starts",
        ),
        (
            EVERY._replace(annotated=None, priority_class="silver", period_s=None),
            0.15, "deadline", "Job of CronJob backup, expected 90 s of 600 s until its deadline",
        ),
        (
            EVERY._replace(annotated=None, priority_class="silver", period_s=None, deadline_s=None),
            0.65, "priority", "priority 1000 of silver",
        ),
        (
            EVERY._replace(annotated=None, priority_class="", period_s=None, deadline_s=None, priority=0),
            0.5, "owner", "Job of CronJob backup",
        ),
        (Signs(qos="Guaranteed", owner_kind="Workflow", owner_name="etl"), 0.8, "qos", "QoS class Guaranteed"),
    ],
)  # fmt: skip
def test_the_first_sign_decides_and_says_why(signs: Signs, value: float, source: str, reason: str) -> None:
    assert urgency_of(signs, RULES) == (pytest.approx(value), source, reason)


@pytest.mark.parametrize(
    ("kind", "serves", "value", "reason"),
    [
        ("Job", False, 0.5, "Job x"),
        ("Job", True, 0.5, "Job x"),
        ("ReplicaSet", False, 0.5, "ReplicaSet x"),
        ("ReplicaSet", True, 0.8, "ReplicaSet x with a readiness probe"),
        ("StatefulSet", False, 0.7, "StatefulSet x"),
        ("StatefulSet", True, 0.8, "StatefulSet x with a readiness probe"),
        ("DaemonSet", True, 0.5, "DaemonSet x"),
    ],
)
def test_the_kind_of_the_owner(kind: str, serves: bool, value: float, reason: str) -> None:
    signs = Signs(qos="BestEffort", owner_kind=kind, owner_name="x", serves=serves)
    assert urgency_of(signs, RULES) == (value, "owner", reason)


def test_a_bare_pod_has_the_urgency_of_its_qos_class() -> None:
    assert [urgency_of(Signs(qos=each, serves=True), RULES).value for each in BY_QOS] == [0.8, 0.5, 0.0]


def test_a_bare_pod_may_have_a_deadline() -> None:
    signs = Signs(qos="BestEffort", deadline_s=100.0, expected_s=80.0)
    assert urgency_of(signs, RULES) == (0.8, "deadline", "expected 80 s of 100 s until its deadline")


@pytest.mark.parametrize(
    ("expected_s", "limit", "value"),
    [(1.0, 1e6, STEP), (30.0, 100.0, 0.3), (100.0, 100.0, 1.0), (500.0, 100.0, 1.0), (52.0, 100.0, 0.5)],
)
def test_a_deadline_is_urgent_by_the_share_that_the_pod_will_need(
    expected_s: float, limit: float, value: float
) -> None:
    signs = Signs(qos="Burstable", deadline_s=limit, expected_s=expected_s)
    assert urgency_of(signs, RULES).value == value


@pytest.mark.parametrize("runs", [1, FEWEST_RUNS - 1])
def test_too_few_runs_tell_nothing_of_a_deadline(runs: int) -> None:
    signs = Signs(qos="Burstable", deadline_s=100.0, expected_s=80.0, runs=runs)
    assert urgency_of(signs, RULES).source == "qos"


@pytest.mark.parametrize("nonsense", [math.nan, math.inf, -math.inf, -60.0, 0.0])
@pytest.mark.parametrize("name", ["deadline_s", "period_s", "expected_s"])
def test_a_time_that_makes_no_sense_is_no_sign(name: str, nonsense: float) -> None:
    signs = Signs(qos="Burstable", owner_kind="CronJob", owner_name="x", expected_s=10.0, deadline_s=100.0)
    odd = signs._replace(**{name: nonsense})
    expected = 0.1 if name == "period_s" else 0.5
    assert urgency_of(odd, RULES).value == expected


@pytest.mark.parametrize("nonsense", [math.nan, math.inf, -0.1, 1.1])
def test_a_declared_urgency_that_makes_no_sense_is_no_sign(nonsense: float) -> None:
    assert urgency_of(Signs(qos="Burstable", annotated=nonsense), RULES).source == "qos"


def test_priorities_are_monotone_and_within_bounds() -> None:
    values = [-(2**31), -1000, -1, 1, 2, 10, 100, 1000, 10**6, 10**9, 10**9 + 1, 1_999_999_999, 2 * 10**9, 2**31 - 1]
    urgencies = [of_priority(value) for value in values]
    assert urgencies == sorted(urgencies)
    assert urgencies[:4] == [0.0, 0.0, 0.0, 0.5]
    assert [of_priority(value) for value in (10**9, 2_000_000_000, 2_000_001_000)] == [0.9, 1.0, 1.0]


def test_a_priority_beyond_all_bounds_is_no_error() -> None:
    assert [of_priority(10**400), of_priority(-(10**400))] == [1.0, 0.0]


def test_what_is_inferred_can_be_switched_off() -> None:
    signs = EVERY._replace(annotated=None, priority_class="silver")
    assert urgency_of(signs, replace(RULES, inferred=False)) == (0.8, "qos", "QoS class Guaranteed")
    assert urgency_of(signs._replace(annotated=0.2), replace(RULES, inferred=False)).value == 0.2
    assert urgency_of(signs._replace(priority_class="gold"), replace(RULES, inferred=False)).value == 0.93


def test_kinds_can_be_overruled_added_and_left_out() -> None:
    rules = replace(RULES, by_owner_kind={"Job": 0.1, "Workflow": 0.2})
    kinds = "Job", "Workflow", "ReplicaSet"
    found = [urgency_of(Signs("Burstable", owner_kind=kind, owner_name="x", serves=True), rules) for kind in kinds]
    assert [(each.value, each.source) for each in found] == [(0.1, "owner"), (0.2, "owner"), (0.5, "qos")]


def test_reasons_stay_short_whatever_names_are_given() -> None:
    signs = Signs(
        qos="Burstable", owner_kind="K" * 253, owner_name="n" * 253, expected_s=1e300, deadline_s=1.234567890123e300
    )
    by_kind = replace(RULES, by_owner_kind={"K" * 253: 0.5})
    for each in (signs, signs._replace(deadline_s=None)):
        assert len(urgency_of(each, by_kind).reason) < 200


def test_every_combination_of_signs_gives_an_urgency_within_bounds_from_a_known_source() -> None:
    values = {
        "annotated": (None, 0.0, 2.0), "priority_class": ("", "gold"), "priority": (None, 0, -5, 10**10),
        "owner_kind": ("", "Job", "ReplicaSet", "\0"), "serves": (False, True), "deadline_s": (None, 1.0, math.nan),
        "period_s": (None, 60.0), "expected_s": (None, 1e-9, 1e9), "runs": (None, 0, 100),
    }  # fmt: skip
    steps, seen = set[float](), set[str]()
    for chosen in itertools.product(*values.values()):
        found = urgency_of(Signs("Burstable", **dict(zip(values, chosen, strict=True))), RULES)  # type: ignore[arg-type]
        assert 0.0 <= found.value <= 1.0
        seen.add(found.source)
        steps.add(found.value)
    assert seen == set(SOURCES)
    assert len(steps) < 25
    assert set(BY_OWNER_KIND.values()) <= {round(step * STEP, 2) for step in range(21)}
