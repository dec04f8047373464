"""One node is rated above all others, so that the placement we assume is the one kube-scheduler makes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from tests.extender.service import Service, pod


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


def test_an_answer_names_the_nodes_above_the_lowest_unless_told_to_name_all(
    run_service: Callable[..., Service],
) -> None:
    asked = pod("web")
    long, short = run_service(), run_service(answer_every_node=False)
    names = long.add_nodes(6)
    assert short.add_nodes(6) == names
    every, some = long.prioritize([*names, "unknown"], asked), short.prioritize([*names, "unknown"], asked)
    least = min(every.values())
    assert set(every) == {*names, "unknown"}
    assert some == {name: priority - least for name, priority in every.items() if priority > least}
    assert short.decision("uid-web")["top"] == long.decision("uid-web")["top"], "the record has the priorities"
    assert short.prioritize(["unknown"], pod("nowhere")) == {}
