"""One node is rated above all others, so that the placement we assume is the one kube-scheduler makes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from tests.extender.service import Service, pod
from tests.extender.tables import node_of


def _best(scores: dict[str, int]) -> list[str]:
    return [name for name, priority in scores.items() if priority == max(scores.values())]


def test_one_of_equal_nodes_is_a_level_above_the_others(run_service: Callable[..., Service]) -> None:
    service = run_service(scorer="kube-default")
    names = service.add_nodes(20)
    scores = service.prioritize(names)
    assert Counter(scores.values()) == {10: 1, 9: 19}
    decision = service.decision("uid-web")
    assert _best(scores) == [decision["assumed"]] == [decision["top"][0]["node"]]
    assert [each["priority"] for each in decision["top"]] == [10, 9, 9, 9, 9]
    assert decision["rated_best"] == 20


def test_higher_preference_wins_among_nodes_that_round_alike(run_service: Callable[..., Service]) -> None:
    service = run_service(scorer="least-used", usage_time_limit_s=1e10)  # measured in 1970
    names = service.add_nodes(3)
    # 0.004 of preference apart: 10 x exp(-0.04) rounds to 10 as well
    for name, cores in zip(names, (0.032, 0.0, 0.064), strict=True):
        service.change(lambda table, name=name, cores=cores: table.set_usage(name, cores, 1.0, 0.0, 0.0))
    for turn in range(10):
        scores = service.prioritize(names, pod(f"pod-{turn}"))
        service.change(lambda table, turn=turn: table.withdraw(f"uid-pod-{turn}"))
        assert scores == {names[0]: 9, names[1]: 10, names[2]: 9}


def test_burst_spreads_evenly_before_the_watch_shows_a_single_bind(run_service: Callable[..., Service]) -> None:
    service = run_service(scorer="kube-default")
    names = service.add_nodes(20)
    chosen = Counter(name for turn in range(100) for name in _best(service.prioritize(names, pod(f"pod-{turn}"))))
    assert chosen == dict.fromkeys(names, 5)


def test_an_answer_names_every_node_unless_told_to_leave_out_those_of_priority_zero(
    run_service: Callable[..., Service],
) -> None:
    long, short = run_service(scorer="expected-speed"), run_service(scorer="expected-speed", answer_every_node=False)
    names = long.add_nodes(6)
    assert short.add_nodes(6) == names
    for service in (long, short):
        for name in names:
            speed = 0.2 if name in names[:2] else 1.75
            service.change(lambda table, name=name, speed=speed: table.upsert_node(name, 8.0, 32.0, speed=speed))
    every, some = long.prioritize([*names, "unknown"]), short.prioritize([*names, "unknown"])
    assert set(every) == {*names, "unknown"}
    assert [name for name, priority in every.items() if priority == 0] == names[:2]
    assert some == {name: priority for name, priority in every.items() if priority > 0}
    assert short.decision("uid-web")["top"] == long.decision("uid-web")["top"]


@pytest.mark.parametrize("settings", [{}, {"answer_every_node": False}], ids=["every node", "short"])
@pytest.mark.parametrize("neutral", [0, 5, 10])
def test_nodes_that_nobody_tells_apart_are_all_named_and_none_is_assumed(
    run_service: Callable[..., Service], settings: dict[str, Any], neutral: int
) -> None:
    service = run_service(max_nodes=3, unknown_node_priority=neutral, **settings)
    names = service.add_nodes(4)
    assert service.prioritize(names, pod("many")) == dict.fromkeys(names, neutral)
    assert service.prioritize(["new-0", "new-1"], pod("new")) == {"new-0": neutral, "new-1": neutral}
    for uid in ("uid-many", "uid-new"):
        assert service.decision(uid)["assumed"] is None
        assert service.change(lambda table, uid=uid: node_of(table, uid)) is None


def test_a_placement_is_assumed_where_one_node_is_left_or_stands_above_all_others(
    run_service: Callable[..., Service],
) -> None:
    service = run_service(unknown_node_priority=10)
    names = service.add_nodes(2)
    service.prioritize(["new"], pod("one"))
    assert service.decision("uid-one")["assumed"] == "new"
    service.prioritize(names, pod("rated"))
    assert service.decision("uid-rated")["assumed"] in names
    service.prioritize([*names, "new"], pod("drawn"))
    assert service.decision("uid-drawn")["assumed"] is None, "an unknown node of the same priority may win the draw"


def test_a_former_attempt_is_forgotten_even_if_too_many_nodes_are_named(run_service: Callable[..., Service]) -> None:
    service = run_service(max_nodes=3)
    names = service.add_nodes(4)
    service.prioritize(names[:2])
    assert service.change(lambda table: node_of(table, "uid-web")) in names
    service.prioritize(names)
    assert service.change(lambda table: node_of(table, "uid-web")) is None
