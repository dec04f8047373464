"""Measured use: what metrics-server says, what happens while it says nothing, and what the table makes of it."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from extender.cluster.api import ApiServer
from extender.cluster.metrics_server import PATH, MetricsServer, duration
from extender.cluster.table import ClusterTable
from extender.cluster.usage import NodeUse, UsageError, UsagePoller
from policy.criteria import EXPECTED_USE_RATIO
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
    ],
)
def test_go_durations(text: str, seconds: float) -> None:
    assert duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", "s", "20", "-1s", "1d", "20s20s"])
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="does not parse"):
        duration(text)


def test_a_sample_of_metrics_server(api: FakeApi, kubeconfig: Any) -> None:
    api.metrics = {"items": [metrics(cpu="1500250001n", memory="2097152Ki")]}
    assert MetricsServer(ApiServer(kubeconfig)).read() == [
        NodeUse("n0", cpu=1.500250001, memory=2.0, pressure=None, begin=NEW_YEAR + 40.0, end=NEW_YEAR + 60.0)
    ]


@pytest.mark.parametrize(
    "item",
    [
        pytest.param({**metrics(), "window": "soon"}, id="window"),
        pytest.param({**metrics(), "timestamp": "yesterday"}, id="timestamp"),
        pytest.param({**metrics(), "usage": {"cpu": "1 core", "memory": "1Gi"}}, id="quantity"),
        pytest.param({**metrics(), "usage": {"cpu": 1}}, id="type"),
    ],
)
def test_a_sample_that_does_not_decode_is_an_error(api: FakeApi, kubeconfig: Any, item: dict[str, Any]) -> None:
    api.metrics = {"items": [item]}
    with pytest.raises(UsageError, match="does not decode"):
        MetricsServer(ApiServer(kubeconfig)).read()


def test_no_metrics_server_is_an_error_that_says_so(kubeconfig: Any) -> None:
    with pytest.raises(UsageError, match=r"metrics-server: .* answered 404"):
        MetricsServer(ApiServer(kubeconfig)).read()


def test_use_counts_pods_bound_after_the_measurement_began_as_expected(
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
    following.wait(lambda table: used(table) == pytest.approx(1.5 + EXPECTED_USE_RATIO * 2.0), "measured and expected")
    age = following.source.staleness()["usage"]
    assert age is not None
    assert age > 1_000_000.0, "as old as the sample says, however recently it was fetched"

    api.metrics = None
    failures = following.source.counts()["usage", "failures"]
    eventually(lambda: following.source.counts()["usage", "failures"] > failures, "absence counted again")
    assert following.see(used) == pytest.approx(1.5 + EXPECTED_USE_RATIO * 2.0), (
        "what is known stays until it is too old"
    )
    api.metrics = {"items": [metrics(cpu="1", at="2026-01-01T00:02:00Z")]}
    following.wait(lambda table: used(table) == pytest.approx(1.0), "back by itself, and both pods measured")


class Scripted:
    """Answers in turn; an exception is raised."""

    def __init__(self, *answers: Sequence[NodeUse] | UsageError) -> None:
        self._answers = list(answers)

    def read(self) -> Sequence[NodeUse]:
        answer = self._answers.pop(0)
        if isinstance(answer, UsageError):
            raise answer
        return answer

    def close(self) -> None: ...


def poll(poller: UsagePoller, times: int = 1) -> None:
    async def polling() -> None:
        for _ in range(times):
            await poller.poll()

    asyncio.run(polling())


def use(name: str, cpu: float = 1.0, end: float = 100.0) -> NodeUse:
    return NodeUse(name, cpu=cpu, memory=1.0, pressure=None, begin=end - 20.0, end=end)


def test_staleness_is_the_age_of_the_newest_sample_that_was_taken() -> None:
    table = ClusterTable(clock=lambda: 130.0)
    table.upsert_node("n", 4.0, 8.0)
    poller = UsagePoller(Scripted([use("n", end=100.0), use("unknown", end=120.0)]), table, 1.0, clock=lambda: 130.0)
    assert poller.staleness() is None
    poll(poller)
    assert poller.staleness() == 30.0
    assert poller.ignored == 1


@pytest.mark.parametrize("cpu", [float("nan"), float("inf"), -1.0])
def test_a_reading_out_of_range_changes_nothing(cpu: float) -> None:
    table = ClusterTable()
    table.upsert_node("n", 4.0, 8.0)
    poller = UsagePoller(Scripted([use("n", cpu)]), table, 1.0)
    poll(poller)
    assert table.state.cpu_used[table.rows_of(["n"])[0]] == 0.0
    assert (poller.ignored, poller.staleness()) == (1, None)


def test_failures_are_counted_and_forgotten_with_the_next_answer() -> None:
    table = ClusterTable()
    poller = UsagePoller(Scripted(UsageError("gone"), UsageError("gone"), []), table, 1.0)
    poll(poller, 2)
    assert (poller.failures, poller.trouble) == (2, "gone")
    poll(poller)
    assert (poller.failures, poller.trouble) == (2, None)


def test_many_readings_leave_turns_to_others() -> None:
    table = ClusterTable()
    names = [f"n{i}" for i in range(1000)]
    for name in names:
        table.upsert_node(name, 4.0, 8.0)
    poller = UsagePoller(Scripted([use(name) for name in names]), table, 1.0)

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
    api.metrics = {"items": []}
    assert MetricsServer(ApiServer(kubeconfig)).read() == []
    assert api.requests[f"list {PATH}"] == 1
