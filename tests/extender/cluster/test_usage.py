"""Measured use: what metrics-server says, what happens while it says nothing, and what the table makes of it."""

import asyncio
import math
import re
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest

from extender.cluster import usage
from extender.cluster.api import ApiServer
from extender.cluster.metrics_server import PATH, MetricsServer, duration
from extender.cluster.table import ClusterTable
from extender.cluster.usage import Answer, Intake, NodeUse, UsageError, UsagePoller
from extender.supervision import Supervisor
from policy.criteria import EXPECTED_USE_RATIO
from policy.errors import InvalidInputError
from tests.extender.cluster.fake_api import NODES, PODS, FakeApi
from tests.extender.cluster.following import Following, eventually, node, pod

NEW_YEAR = 1767225600.0


def metrics(
    name: str = "n0", cpu: str = "1500m", memory: str = "2Gi", at: str = "2026-01-01T00:01:00Z"
) -> dict[str, Any]:
    return {
        "metadata": {"name": name},
        "timestamp": at,
        "window": "20s",
        "usage": {"cpu": cpu, "memory": memory},
    }


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("20s", 20.0),
        ("10.062s", 10.062),
        ("1m30s", 90.0),
        ("1m0s", 60.0),
        ("1h2m3s", 3723.0),
        ("500ms", 0.5),
        ("0s", 0.0),
        ("0", 0.0),
        ("1.5h", 5400.0),
        ("20s20s", 40.0),
        ("250us", 0.00025),
        ("250µs", 0.00025),
        ("3ns", 3e-9),
        (".5s", 0.5),
    ],
)
def test_go_durations(text: str, seconds: float) -> None:
    assert duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", "s", "20", "-1s", "1d", "1e3s", "1 s", "1s\n", "9" * 100 + "s"])
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(InvalidInputError, match="does not parse"):
        duration(text)


N0 = NodeUse("n0", cpu=1.5, memory=2.0, pressure=None, begin=NEW_YEAR + 40.0, end=NEW_YEAR + 60.0)


def test_a_sample_of_metrics_server(api: FakeApi, kubeconfig: Any) -> None:
    api.metrics = {"items": [metrics(cpu="1500250001n", memory="2097152Ki")]}
    assert MetricsServer(ApiServer(kubeconfig)).read() == Answer([replace(N0, cpu=1.500250001)])


def without(key: str) -> dict[str, Any]:
    return {name: value for name, value in metrics("odd").items() if name != key}


@pytest.mark.parametrize(
    ("item", "reason"),
    [
        pytest.param({**metrics("odd"), "usage": {"cpu": "1"}}, "incomplete", id="no-memory"),
        pytest.param({**metrics("odd"), "usage": {"memory": "1Gi"}}, "incomplete", id="no-cpu"),
        pytest.param({**metrics("odd"), "usage": {}}, "incomplete", id="no-resource"),
        pytest.param({**metrics("odd"), "usage": {"cpu": None, "memory": "1"}}, "incomplete", id="null-resource"),
        pytest.param({**metrics("odd"), "usage": None}, "incomplete", id="null-usage"),
        pytest.param({**metrics("odd"), "metadata": {}}, "incomplete", id="no-name"),
        pytest.param(without("usage"), "incomplete", id="no-usage"),
        pytest.param(without("timestamp"), "incomplete", id="no-timestamp"),
        pytest.param(without("window"), "incomplete", id="no-window"),
        pytest.param({**metrics("odd"), "window": "soon"}, "time", id="window"),
        pytest.param({**metrics("odd"), "window": "-20s"}, "time", id="negative-window"),
        pytest.param({**metrics("odd"), "timestamp": "yesterday"}, "time", id="timestamp"),
        pytest.param({**metrics("odd"), "timestamp": "2026-01-01T00:01:00"}, "time", id="no-time-zone"),
        pytest.param({**metrics("odd"), "timestamp": ""}, "time", id="empty-timestamp"),
        pytest.param({**metrics("odd"), "usage": {"cpu": "1 core", "memory": "1Gi"}}, "value", id="quantity"),
        pytest.param({**metrics("odd"), "usage": {"cpu": "NaN", "memory": "1Gi"}}, "value", id="nan"),
        pytest.param({**metrics("odd"), "usage": {"cpu": "1", "memory": ""}}, "value", id="empty-quantity"),
        pytest.param({**metrics("odd"), "usage": {"cpu": [], "memory": "1Gi"}}, "undecodable", id="type"),
        pytest.param({**metrics("odd"), "metadata": None}, "undecodable", id="no-metadata"),
        pytest.param("odd", "undecodable", id="text"),
        pytest.param(None, "undecodable", id="null"),
    ],
)
def test_an_item_that_is_no_measurement_costs_itself_alone(
    api: FakeApi, kubeconfig: Any, item: Any, reason: str
) -> None:
    api.metrics = {"items": [metrics("n0"), item, metrics("n1")]}
    assert MetricsServer(ApiServer(kubeconfig)).read() == Answer([N0, replace(N0, node="n1")], {reason: 1})


def test_numbers_that_are_no_texts_and_resources_that_nobody_asked_for_are_fine(api: FakeApi, kubeconfig: Any) -> None:
    item = {**metrics(), "usage": {"cpu": 1.5, "memory": 2 << 30, "swap": "0"}, "window": "20s"}
    api.metrics = {"items": [item]}
    assert MetricsServer(ApiServer(kubeconfig)).read() == Answer([N0])


@pytest.mark.parametrize("answer", [b"[]", b"<html>", b'{"items": 7}', b"[" * 100_000])
def test_an_answer_that_is_no_list_is_an_error(api: FakeApi, kubeconfig: Any, answer: bytes) -> None:
    api.answers[PATH] = lambda: (200, answer, {})
    with pytest.raises(UsageError, match="does not decode"):
        MetricsServer(ApiServer(kubeconfig)).read()


def test_no_metrics_server_is_an_error_that_says_so(kubeconfig: Any) -> None:
    with pytest.raises(UsageError, match=r"metrics-server: .* answered 404"):
        MetricsServer(ApiServer(kubeconfig)).read()


def test_use_counts_what_is_expected_of_pods_bound_half_way_through_the_measurement(
    api: FakeApi, follow: Callable[..., Following]
) -> None:
    api.put(NODES, "n0", node("n0"))
    long_bound = [{"type": "PodScheduled", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z"}]
    just_bound = [{"type": "PodScheduled", "status": "True", "lastTransitionTime": "2026-01-01T00:00:50Z"}]
    api.put(PODS, "old", pod("old", on="n0", cpu="1", conditions=long_bound))
    api.put(PODS, "new", pod("new", on="n0", cpu="2", conditions=just_bound))
    following = follow(usage=MetricsServer, options={"usage_interval": 0.05})

    def used(table: ClusterTable) -> float:
        return float(table.state.cpu_used[table.rows_of(["n0"])[0]])

    eventually(lambda: following.source.synced, "first list")
    assert following.see(used) == pytest.approx(EXPECTED_USE_RATIO * 3.0), "nothing measured: expected of all pods"
    assert following.source.staleness()["usage"] is None
    eventually(lambda: following.source.counts()["usage", "failures"] > 1, "absence counted")

    api.metrics = {"items": [metrics(cpu="1500m")]}
    following.wait(lambda table: used(table) == pytest.approx(1.5 + EXPECTED_USE_RATIO * 1.0), "measured and expected")
    age = following.source.staleness()["usage"]
    assert age is not None
    assert age > 1_000_000.0, "as old as the sample says, however recently it was fetched"

    api.metrics = None
    failures = following.source.counts()["usage", "failures"]
    eventually(lambda: following.source.counts()["usage", "failures"] > failures, "absence counted again")
    assert following.see(used) == pytest.approx(1.5 + EXPECTED_USE_RATIO * 1.0), (
        "what is known stays until it is too old"
    )
    api.metrics = {"items": [metrics(cpu="1", at="2026-01-01T00:02:00Z")]}
    following.wait(lambda table: used(table) == pytest.approx(1.0), "back by itself, and both pods measured")


class Scripted:
    """Answers in turn; an exception is raised."""

    name = "a-source"
    names_nodes_by = "the label x"

    def __init__(self, *answers: Sequence[NodeUse] | Answer | Exception) -> None:
        self._answers = list(answers)
        self.closed = 0

    def read(self) -> Answer:
        answer = self._answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer if isinstance(answer, Answer) else Answer(answer)

    def close(self) -> None:
        self.closed += 1


def poll(poller: UsagePoller, times: int = 1) -> None:
    async def polling() -> None:
        for _ in range(times):
            await poller.poll()

    asyncio.run(polling())


def use(name: str, cpu: float = 1.0, end: float = 100.0, memory: float = 1.0) -> NodeUse:
    return NodeUse(name, cpu=cpu, memory=memory, pressure=None, begin=end - 20.0, end=end)


class Clock:
    def __init__(self, now: float = 130.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


def two_nodes(clock: Clock) -> ClusterTable:
    table = ClusterTable(clock=clock)
    table.upsert_node("n", 4.0, 8.0)
    table.upsert_node("m", 4.0, 8.0)
    return table


def used(table: ClusterTable, name: str = "n") -> tuple[float, float]:
    row = table.rows_of([name])[0]
    return float(table.state.cpu_used[row]), float(table.state.memory_used[row])


def test_staleness_is_the_age_of_the_newest_sample_that_was_taken() -> None:
    clock = Clock()
    poller = UsagePoller(Scripted([use("n", end=100.0), use("unknown", end=120.0)]), two_nodes(clock), 1.0, clock)
    assert poller.staleness() is None
    poll(poller)
    assert poller.staleness() == 30.0
    assert poller.refused == Counter(unknown_node=1)


@pytest.mark.parametrize(
    ("odd", "reason"),
    [
        pytest.param(use("n", cpu=math.nan), "value", id="nan"),
        pytest.param(use("n", cpu=math.inf), "value", id="inf"),
        pytest.param(use("n", cpu=-1.0), "value", id="negative"),
        pytest.param(use("n", memory=-1.0), "value", id="negative-memory"),
        pytest.param(replace(use("n"), pressure=math.nan), "value", id="pressure"),
        pytest.param(use("n", memory=0.0), "zero", id="no-memory"),
        pytest.param(use("n", cpu=0.0), "zero", id="no-cpu"),
        pytest.param(use("n", cpu=41.0), "absurd", id="cpu-of-ten-nodes"),
        pytest.param(use("n", memory=81.0), "absurd", id="memory-of-ten-nodes"),
        pytest.param(use("n", end=-62135596800.0), "time", id="zero-time-of-go"),
        pytest.param(replace(use("n"), begin=math.nan), "time", id="no-begin"),
        pytest.param(replace(use("n"), begin=101.0), "time", id="ends-before-it-begins"),
    ],
)
def test_a_measurement_that_makes_no_sense_is_none_and_costs_its_node_alone(odd: NodeUse, reason: str) -> None:
    clock = Clock()
    table = two_nodes(clock)
    table.pod_bound("p", "n", 2.0, 4.0, since=10.0)
    poller = UsagePoller(Scripted([odd, use("m", 2.0)]), table, 1.0, clock)
    poll(poller)
    assert used(table) == (EXPECTED_USE_RATIO * 2.0, EXPECTED_USE_RATIO * 4.0), "expected from the pod's requests"
    assert used(table, "m") == (2.0, 1.0)
    assert poller.refused == Counter({reason: 1})
    assert poller.failures == 0


def test_a_node_at_a_few_times_of_what_it_can_allocate_and_an_idle_one_are_believed() -> None:
    """What the system itself uses comes on top of allocatable; a node without pods may use next to no CPU."""
    clock = Clock()
    table = two_nodes(clock)
    table.pod_bound("p", "n", 2.0, 4.0, since=10.0)
    poll(UsagePoller(Scripted([use("n", 12.5, memory=30.0), use("m", 0.0)]), table, 1.0, clock))
    assert (used(table), used(table, "m")) == ((12.5, 30.0), (0.0, 1.0))


def test_nonsense_leaves_what_was_measured_before() -> None:
    clock = Clock()
    table = two_nodes(clock)
    table.pod_bound("p", "n", 2.0, 4.0, since=10.0)
    poll(UsagePoller(Scripted([use("n", 3.0)], [use("n", 0.0, end=110.0), use("m")]), table, 1.0, clock), 2)
    assert used(table) == (3.0, 1.0)


@pytest.mark.parametrize("ahead", [3600.0, 5.0], ids=["an-hour", "less-than-the-interval"])
def test_a_measurement_from_the_future_was_made_just_now_and_gives_way_to_the_next(ahead: float) -> None:
    clock = Clock(1000.0)
    table = two_nodes(clock)
    poller = UsagePoller(
        Scripted([use("n", 1.0, end=1000.0 + ahead)], [use("n", 3.0, end=990.0)], [use("n", 2.0, end=985.0)]),
        table,
        1.0,
        clock,
    )
    poll(poller)
    table.pod_bound("just-now", "n", 2.0, 1.0, since=990.0)
    assert used(table)[0] == 1.0 + EXPECTED_USE_RATIO * 1.0, "bound half way through the 20 s that end now"
    assert poller.staleness() == 0.0
    clock.now += 1.0
    poll(poller)
    assert used(table)[0] == 3.0 + EXPECTED_USE_RATIO * 2.0, "the next answer counts, whatever its time"
    poll(poller)
    assert used(table)[0] == 3.0 + EXPECTED_USE_RATIO * 2.0, "one with a time of the past does not"
    assert poller.refused == Counter(older=1)


def test_a_measurement_from_the_future_that_is_told_again_is_no_new_one() -> None:
    clock = Clock(1000.0)
    table = two_nodes(clock)
    poller = UsagePoller(
        Scripted([use("n", end=4600.0)], [use("n", end=4600.0)], [use("n", end=4700.0)]), table, 1.0, clock
    )
    poll(poller)
    clock.now = 1100.0
    poll(poller)
    assert (poller.staleness(), poller.failures) == (100.0, 0)
    assert table.forget_usage_before(1000.0) == 1, "it is as old as when it came first"
    poll(poller)
    assert poller.staleness() == 0.0


def test_times_from_the_future_are_forgotten_with_their_nodes() -> None:
    table = ClusterTable(clock=Clock(1000.0))
    intake = Intake(table, "a-source", Clock(1000.0))
    for number in range(100):
        table.upsert_node(f"n-{number}", 4.0, 8.0)
        assert intake.take(use(f"n-{number}", end=4600.0)) is None
        table.remove_node(f"n-{number - 3}")
    assert len(intake._ahead) == 4, "those known, and the one that went last"


def test_a_clock_of_ours_that_was_ahead_does_not_keep_true_measurements_out() -> None:
    clock = Clock(5000.0)
    table = two_nodes(clock)
    table.pod_bound("p", "n", 2.0, 1.0)
    poller = UsagePoller(Scripted([use("n", 1.0, end=4990.0)], [use("n", 3.0, end=1390.0)]), table, 1.0, clock)
    poll(poller)
    clock.now = 1400.0
    poll(poller)
    assert used(table)[0] == 3.0 + EXPECTED_USE_RATIO * 2.0, "the pod counts as bound just now"
    assert poller.staleness() == 0.0
    clock.now += 100.0
    table.set_usage("n", 4.0, 1.0, None, 1450.0)
    assert used(table)[0] == 4.0, "and is in a measurement that begins later"


def test_failures_are_counted_and_forgotten_with_the_next_answer() -> None:
    clock = Clock()
    poller = UsagePoller(Scripted(UsageError("gone"), UsageError("gone"), [use("n")]), two_nodes(clock), 1.0, clock)
    poll(poller, 2)
    assert (poller.failures, poller.trouble) == (2, "gone")
    poll(poller)
    assert (poller.failures, poller.trouble) == (2, None)


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        pytest.param(
            [use("ip-10-0-1-5")], "the label x is, for one, 'ip-10-0-1-5', and a node is called 'n'", id="names"
        ),
        pytest.param([], "there is none", id="nothing"),
        pytest.param([use("n", memory=0.0), use("m", memory=0.0)], r"\(2 zero\)", id="only-nonsense"),
        pytest.param(Answer([], {"incomplete": 3}), r"\(3 incomplete\)", id="only-incomplete"),
    ],
)
def test_an_answer_of_which_nothing_can_be_used_is_a_failure_that_says_why(answer: Any, why: str) -> None:
    clock = Clock()
    poller = UsagePoller(Scripted(answer), two_nodes(clock), 1.0, clock)
    poll(poller)
    assert poller.failures == 1
    assert re.search(why, poller.trouble or "")


def test_before_any_node_is_known_and_when_nothing_is_newer_nothing_is_wrong() -> None:
    clock = Clock()
    empty = UsagePoller(Scripted([use("n")], []), ClusterTable(clock=clock), 1.0, clock)
    poll(empty, 2)
    slow = UsagePoller(Scripted([use("n")], [use("n", end=99.0)]), two_nodes(clock), 1.0, clock)
    poll(slow, 2)
    assert (empty.failures, slow.failures) == (0, 0)


def test_partial_answers_are_used_and_counted() -> None:
    clock = Clock()
    table = two_nodes(clock)
    poller = UsagePoller(Scripted(Answer([use("n", 2.0)], partial=True)), table, 1.0, clock)
    poll(poller)
    assert (poller.partial, used(table)[0]) == (1, 2.0)


def test_a_reader_that_never_answers_is_not_asked_twice_and_does_not_keep_the_service_from_ending(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(usage, "ANSWER_TIMEOUT_S", 0.05)
    answer, asked = threading.Event(), []

    class Silent(Scripted):
        def read(self) -> Answer:
            asked.append(1)
            answer.wait(30.0)
            return Answer([use("n", 2.0)])

    clock = Clock()
    table = two_nodes(clock)
    poller = UsagePoller(Silent(), table, 1.0, clock)

    async def polling() -> None:
        await poller.poll()
        await poller.poll()
        answer.set()
        await poller.poll()

    began = time.monotonic()
    asyncio.run(polling())
    assert time.monotonic() - began < 5.0
    assert (len(asked), poller.failures, used(table)[0]) == (1, 2, 2.0)


def test_what_nobody_expected_of_a_reader_is_tried_again_counted_and_told_by_kind(
    caplog: pytest.LogCaptureFixture,
) -> None:
    clock = Clock()
    table = two_nodes(clock)
    reader = Scripted(UnicodeEncodeError("latin-1", "Bearer s3cr3t", 0, 1, "s3cr3t"), [use("n", 2.0)])
    poller = UsagePoller(reader, table, 0.01, clock)

    async def supervised() -> dict[str, int]:
        supervisor = Supervisor(first_retry_s=0.01)
        supervisor.start("usage", poller.run)
        while used(table)[0] != 2.0:  # noqa: ASYNC110 - the poller sets no event
            await asyncio.sleep(0.01)
        assert await supervisor.stop()
        return supervisor.failures.counts()

    assert asyncio.run(asyncio.wait_for(supervised(), 10.0)) == {"usage": 1}
    assert "UnicodeEncodeError" in caplog.text
    assert "s3cr3t" not in caplog.text
    assert reader.closed >= 1


def test_nothing_is_asked_before_pods_are_known() -> None:
    clock, known = Clock(), False
    reader = Scripted([use("n", 2.0)])
    table = two_nodes(clock)
    poller = UsagePoller(reader, table, 0.01, clock, ready=lambda: known)

    async def scenario() -> None:
        nonlocal known
        running = asyncio.create_task(poller.run())
        await asyncio.sleep(0.1)
        assert used(table)[0] == 0.0
        known = True
        while used(table)[0] != 2.0:  # noqa: ASYNC110 - the poller sets no event
            await asyncio.sleep(0.01)
        running.cancel()

    asyncio.run(asyncio.wait_for(scenario(), 10.0))


def test_many_readings_leave_turns_to_others() -> None:
    clock = Clock()
    table = ClusterTable(clock=clock)
    names = [f"n{i}" for i in range(1000)]
    for name in names:
        table.upsert_node(name, 4.0, 8.0)
    poller = UsagePoller(Scripted([use(name) for name in names]), table, 1.0, clock)

    async def count_turns() -> int:
        turns, polling = 0, asyncio.create_task(poller.poll())
        while not polling.done():
            await asyncio.sleep(0)
            turns += int(0 < np_count(table) < 1000)
        return turns

    def np_count(table: ClusterTable) -> int:
        return int((table.state.cpu_used > 0.0).sum())

    assert asyncio.run(count_turns()) >= 9


def test_the_metrics_path_is_the_one_rbac_allows(api: FakeApi, kubeconfig: Any) -> None:
    api.metrics = {"items": None}
    assert MetricsServer(ApiServer(kubeconfig)).read() == Answer([])
    assert api.requests[f"list {PATH}"] == 1
