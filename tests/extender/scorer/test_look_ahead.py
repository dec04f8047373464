"""A pod is scored between /filter and /prioritize, where that is quick; the answer is the same."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from extender.cluster.table import ClusterTable
from extender.scorer.load import LoadedScorer
from extender.scorer.scoring import Pace, Scoring, ScoringLimits, sample_size
from policy.cluster import ClusterState, Demand, PodDemand
from policy.scorers import Preferences
from tests.extender.scorers import Controlled, open_gate
from tests.extender.service import Service, by_names, pod

Run = Callable[..., Service]


def filtered(service: Service, names: list[str], name: str, **asked: str) -> None:
    assert service.post("filter", by_names(names, pod(name, **asked))).json()["NodeNames"] == names


def test_filter_leaves_nothing_to_score_for_prioritize(run_service: Run) -> None:
    scorer = open_gate()
    service = run_service(loaded=scorer.loaded())
    names = service.add_nodes(20)
    plain = service.prioritize(names, pod("first"))  # how long it takes is known now
    for turn in range(50):  # unless the machine interrupted it
        service.change(lambda table: [table.withdraw(uid) for uid in ("uid-first", "uid-second")])
        scorer.calls.clear()
        demand = f"{300 + turn}m"
        filtered(service, names, "second", cpu=demand)
        time.sleep(0.02)
        ahead = list(scorer.calls)
        answer = service.prioritize(names, pod("second", cpu=demand))
        assert sorted(answer.values()) == sorted(plain.values()), "of the fastest nodes, all alike, one is drawn"
        assert scorer.calls == [20], "whether before or after it was asked"
        assert service.decision("uid-second")["fallback_reason"] is None  # which asks the scorer for reasons
        if ahead:
            return
    pytest.fail("nothing was ever scored before the request")


def test_a_scorer_that_is_slow_or_unknown_is_not_asked_ahead(run_service: Run) -> None:
    scorer = Controlled()
    scorer.gate.set()
    service = run_service(loaded=scorer.loaded())
    names = service.add_nodes(20)
    scorer.calls.clear()
    filtered(service, names, "first")
    assert scorer.calls == []
    scorer.gate.clear()  # a scorer that hangs would hang the event loop
    filtered(service, names, "second")
    scorer.gate.set()
    assert set(service.prioritize(names, pod("first"))) == set(names)


@pytest.mark.parametrize("quantity", ["1x", "-1"])
def test_a_pod_that_cannot_be_asked_about_still_passes_the_filter(run_service: Run, quantity: str) -> None:
    service = run_service()
    filtered(service, service.add_nodes(3), "broken", cpu=quantity)
    assert service.metric("maddpg_requests_total", verb="filter", code="200") == 1


def test_more_rows_are_expected_to_take_no_less() -> None:
    pace = Pace()
    assert pace.expected(1) == float("inf")
    pace.took(500, 0.001)
    assert pace.expected(1) == pace.expected(500) == 0.001
    assert pace.expected(5000) == pytest.approx(0.016)
    pace.took(1, 0.0001)
    assert (pace.expected(1), pace.expected(2), pace.expected(100), pace.expected(500)) == (
        0.0001,
        0.0002,
        0.001,
        0.001,
    )
    pace.took(1, 0.01)
    assert (pace.expected(1), pace.expected(500)) == (0.0001, 0.001), "once may be chance"
    pace.took(1, 0.01)
    assert pace.expected(500) == 0.01, "if one row takes as long, 500 cannot take less"
    pace.took(500, 0.0005)
    assert pace.expected(1) == pace.expected(500) == 0.0005
    pace.forget()
    assert pace.expected(500) == float("inf")


def test_the_node_assumed_is_scored_again_only_for_a_demand_that_comes_again(run_service: Run) -> None:
    scorer = open_gate()
    service = run_service(loaded=scorer.loaded())
    names = service.add_nodes(20)
    service.prioritize(names, pod("warm"))
    scorer.calls.clear()
    for turn in range(3):
        service.prioritize(names, pod(f"differs-{turn}", cpu=f"{100 + turn}m"))
    assert scorer.calls == [20, 20, 20]
    assert service.prioritize(names, pod("alike", cpu="700m"))
    for turn in range(50):  # a run that the machine interrupts is reason to wait for the next request
        service.prioritize(names, pod(f"alike-{turn}", cpu="700m"))
        if scorer.calls[4:] == [1] * (turn + 2):
            return
    pytest.fail("the row was never scored before the next request")


@dataclass
class Sum:
    """Says of each row what is requested of it and by the pod: no two states are answered alike."""

    name: str = "sum"
    local: bool = True

    def preferences(self, state: ClusterState, demand: Demand) -> Preferences:
        """Requested CPU, with the pod's."""
        return state.cpu_requested + demand.cpu


NODES = 4
DEMANDS = [PodDemand(1.0 + each, 1.0, 0.5) for each in range(3)]
asked = st.tuples(st.integers(0, NODES - 1), st.sampled_from(DEMANDS))


@given(st.lists(st.tuples(st.sampled_from(["ahead", "ask", "place", "same list", "replace"]), asked), max_size=20))
def test_what_was_scored_ahead_is_answered_only_while_it_is_true(
    steps: list[tuple[str, tuple[int, PodDemand]]],
) -> None:
    table = ClusterTable()
    for node in range(NODES):
        table.upsert_node(f"node-{node}", 64.0, 256.0)
    scoring = Scoring(LoadedScorer(Sum(), 0.1, ""), table, ScoringLimits(2, 3, 1.0), time.perf_counter)
    scoring._pace.took(NODES, 1e-6)
    lists = [table.rows_of([f"node-{each}" for each in range(node + 1)]) for node in range(NODES)]

    async def run() -> None:
        for number, (step, (node, demand)) in enumerate(steps):
            rows = lists[node] if step != "same list" else lists[node].copy()
            if step == "ahead":
                scoring.prepare(rows, demand)
            elif step == "replace":
                table.remove_node(f"node-{node}")
                table.upsert_node(f"node-{node}", 32.0 + number, 256.0)
            elif step == "place":
                table.assume(f"uid-{number}", f"node-{node}", demand.cpu, demand.memory)
                scoring.placed(table.row_of(f"node-{node}"), demand, asked=1)
            else:
                got = await scoring.preferences(table.state, demand, rows, time.perf_counter() + 60.0)
                wanted = Sum().preferences(table.state.take(rows), demand).astype(np.float32)
                np.testing.assert_array_equal(got.preferences, wanted)

    try:
        asyncio.run(run())
    finally:
        scoring.stop()


def sampled(service: Service) -> tuple[list[str], list[str], list[str]]:
    """250 nodes, of which kube-scheduler asks about 120 at a time, the first of them, and those that come next."""
    names = service.add_nodes(250)
    size = sample_size(250)
    assert size == 120
    return names, names[:size], names[size : 2 * size]


@pytest.mark.parametrize("asks_filter", [False, True])
def test_rows_of_placements_are_scored_together_where_nodes_are_sampled(run_service: Run, asks_filter: bool) -> None:
    scorer = open_gate()
    service = run_service(loaded=scorer.loaded())
    names, *samples = sampled(service)
    for turn in range(3):  # a demand that comes again, of nodes that are all scored
        service.prioritize(names, pod(f"warm-{turn}"))
    for round_ in range(50):  # unless the machine interrupted a run
        scorer.calls.clear()
        for number, some in enumerate(samples):
            if asks_filter:
                filtered(service, some, f"pod-{round_}-{number}")
            service.prioritize(some, pod(f"pod-{round_}-{number}"))
        service.prioritize(names, pod(f"next-{round_}"))  # finds both scored; its own row follows
        if scorer.calls == [2, 1]:
            return
    pytest.fail(f"the two rows were never scored together: {scorer.calls}")


def test_rows_that_wait_are_scored_before_those_of_another_demand(run_service: Run) -> None:
    scorer = open_gate()
    service = run_service(loaded=scorer.loaded())
    names, sample, _ = sampled(service)
    for round_ in range(50):  # unless the machine interrupted a run
        for demand in ("100m", "200m", "100m"):
            for turn in range(2):
                service.prioritize(names, pod(f"even-{round_}-{demand}-{turn}", cpu=demand))
        scorer.calls.clear()
        service.prioritize(sample, pod(f"first-{round_}", cpu="100m"))
        waits = not scorer.calls
        service.prioritize(sample, pod(f"second-{round_}", cpu="200m"))
        if waits and scorer.calls[-1] == 1:
            scorer.calls.clear()
            service.prioritize(sample, pod(f"third-{round_}", cpu="100m"))
            if scorer.calls == [1, 1]:  # what waited of 200m; and only what 200m placed was not scored for 100m
                return
    pytest.fail("the row that waited was never scored before those of another demand")


def test_the_row_of_a_pod_that_fits_few_nodes_does_not_wait(run_service: Run) -> None:
    scorer = open_gate()
    service = run_service(loaded=scorer.loaded())
    names, *_ = sampled(service)
    for round_ in range(50):  # unless the machine interrupted a run
        scorer.calls.clear()
        for turn in range(4):
            service.prioritize(names[:20], pod(f"pod-{round_}-{turn}"))
        if scorer.calls == [1] * 4:
            return
    pytest.fail(f"rows were not scored one by one: {scorer.calls}")


@pytest.mark.parametrize(
    ("nodes", "size"), [(0, 0), (50, 50), (100, 100), (250, 120), (1000, 420), (5000, 500), (10000, 500)]
)
def test_sample_sizes_are_those_of_kube_scheduler(nodes: int, size: int) -> None:
    assert sample_size(nodes) == size
