"""Measured use from kubelets, from the watch of nodes to the table."""

from __future__ import annotations

import asyncio
import heapq
import random
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from extender.cluster import kubelet_connection as connections
from extender.cluster import kubelets as module
from extender.cluster import rounds as rounds_module
from extender.cluster.cpu_times import KEPT_ANSWERS, MOST_GONE, CpuTimes
from extender.cluster.kubelet import RESULTS, Endpoint, KubeletOptions
from extender.cluster.kubelet_connection import Connection
from extender.cluster.kubelets import Kubelets
from extender.cluster.kubernetes import KubernetesOptions, KubernetesSource
from extender.cluster.metrics_server import PATH as METRICS
from extender.cluster.metrics_server import MetricsServer
from extender.cluster.rounds import FIRST_RATE, RETRY_RATE, Rounds
from extender.cluster.stats import CpuTime, decode_summary
from extender.cluster.table import ClusterTable
from extender.settings import Settings
from policy.criteria import EXPECTED_USE_RATIO
from policy.errors import InvalidInputError
from tests.control_plane.certificates import Authority
from tests.extender.cluster.fake_api import NODES, PODS, FakeApi
from tests.extender.cluster.fake_kubelet import FakeKubelet, head, time_of
from tests.extender.cluster.following import Following, eventually, node, pod

TOKEN = "a-token"
INTERVAL = 0.2


@pytest.fixture
def kubeconfig(api: FakeApi, tmp_path: Path) -> Path:
    return api.kubeconfig(tmp_path, {"token": TOKEN})


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path, "kubelet-ca")


@pytest.fixture
def kubelet(api: FakeApi, authority: Authority) -> Iterator[Callable[..., FakeKubelet]]:
    """Start a kubelet and let the API server show its node."""
    with ExitStack() as ending:

        def start(name: str, **more: Any) -> FakeKubelet:
            pair = more.pop("pair", None) or authority.issue(name, name)
            fake = ending.enter_context(FakeKubelet(name, pair, token=TOKEN, **more))
            show(api, name, fake.port)
            return fake

        yield start


def show(
    api: FakeApi, name: str, port: int, address: str = "127.0.0.1", capacity: dict[str, str] | None = None
) -> None:
    """Let the API server show a node with its kubelet there."""
    shown = node(name)
    if capacity is not None:
        shown["status"]["capacity"] = capacity
    shown["status"]["addresses"] = [{"type": "InternalIP", "address": address}]
    shown["status"]["daemonEndpoints"] = {"kubeletEndpoint": {"Port": port}}
    api.put(NODES, name, shown)


@pytest.fixture
def measure(follow: Callable[..., Following], authority: Authority) -> Callable[..., tuple[Following, Kubelets]]:
    """Follow the cluster and ask its kubelets; keywords are those of `KubeletOptions`."""

    def start(**options: Any) -> tuple[Following, Kubelets]:
        values = {"interval": INTERVAL, "ca_file": authority.certificate, "loopback": True, **options}
        following = follow(options={"kubelets": KubeletOptions(**values)})
        found = following.source.kubelets
        assert found is not None
        return following, found

    return start


def used(following: Following, name: str) -> tuple[float, float, float]:
    """Cores and GiB used on a node, and its CPU pressure."""

    def look(table: ClusterTable) -> tuple[float, float, float]:
        state, row = table.state, table.rows_of([name])[0]
        return float(state.cpu_used[row]), float(state.memory_used[row]), float(state.cpu_pressure[row])

    return following.see(look)


def test_use_and_pressure_reach_the_table(kubelet: Any, measure: Any) -> None:
    kubelet("node-a", cpu=2.0, memory_gib=3.0, pressure=0.25, cpu_seconds={"uid-1": 12.5})
    kubelet("node-b", cpu=1.0, memory_gib=1.0)
    following, found = measure()
    eventually(lambda: used(following, "node-a") == (2.0, 3.0, 0.25), "measured")
    eventually(lambda: used(following, "node-b")[:2] == (1.0, 1.0), "the other one too")
    assert found.pressures["node-a"].memory == found.pressures["node-a"].io == 0.25
    assert not found.pressures["node-b"].measured
    assert found.psi() == {"true": 1, "false": 1}
    time_ = found.cpu_times.of("node-a", "uid-1")
    assert time_ is not None
    assert time_.seconds == 12.5
    assert abs(time_.at - time.time()) < 30.0
    assert found.rounds.states() == {"measured": 2, "failing": 0, "waiting": 0, "no_address": 0}
    staleness = following.source.staleness()["usage"]
    assert staleness is not None
    assert staleness < 10.0
    assert following.source.counts()["usage", "failures"] == 0


def test_pressure_is_estimated_where_the_kernel_does_not_collect_it(kubelet: Any, measure: Any) -> None:
    kubelet("node-a", cpu=4.0)  # all that can be allocated
    kubelet("node-b", cpu=4.0, pressure=0.0)
    following, _ = measure()
    eventually(lambda: used(following, "node-a")[0] == used(following, "node-b")[0] == 4.0, "measured")
    assert used(following, "node-a")[2] > 0.0
    assert used(following, "node-b")[2] == 0.0


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ({"status": 403}, "forbidden"),
        ({"status": 500}, "status"),
        ({"raw": head(101, "Connection: Upgrade", "Upgrade: h2c")}, "status"),
        ({"raw": head(200, "Content-Length: 9") + b"{}"}, "truncated"),
        ({"raw": head(200, "Content-Length: 2") + b"{}"}, "undecodable"),
        ({"memory_gib": -1.0}, "value"),
    ],
)
def test_a_kubelet_at_fault_spoils_no_other_and_is_taken_back(
    kubelet: Any, measure: Any, fault: dict[str, Any], reason: str
) -> None:
    good, bad = kubelet("node-a"), kubelet("node-b", cpu=3.0)
    sound = {name: getattr(bad, name) for name in fault}
    for name, value in fault.items():
        setattr(bad, name, value)
    following, found = measure()
    eventually(lambda: found.results[reason] >= 2, "asked again")
    assert used(following, "node-a")[0] == 1.0
    assert found.rounds.states()["failing"] == 1
    eventually(lambda: len(good.asked) >= len(bad.asked) + 2, "the good one is asked more often")
    assert following.source.counts()["usage", "failures"] == sum(found.results.values()) - found.results["measured"]
    for name, value in sound.items():
        setattr(bad, name, value)
    eventually(lambda: used(following, "node-b")[0] == 3.0, "taken back")
    assert found.rounds.states()["measured"] == 2
    assert set(found.results) == set(RESULTS)


def test_one_that_never_answers_is_given_up(kubelet: Any, measure: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ANSWER_TIMEOUT", 0.3)
    good = kubelet("node-a")
    kubelet("node-b", silent=True)
    _, found = measure(connections=2)
    eventually(lambda: found.results["timeout"] >= 1, "given up")
    assert good.asked


def test_values_that_make_no_sense_are_counted_and_left_out(kubelet: Any, measure: Any) -> None:
    kubelet("node-a", cpu=4000.0)
    kubelet("node-b", memory_gib=0.0)
    following, _ = measure()
    counts = following.source.counts
    eventually(lambda: counts()["usage", "ignored_absurd"] and counts()["usage", "ignored_zero"], "counted")
    assert used(following, "node-a")[0] == used(following, "node-b")[0] == 0.0


@pytest.mark.parametrize(
    ("capacity", "expected"),
    [
        ({"cpu": "5", "memory": "17Gi"}, (0.05, 0.05)),  # pods alone
        ({"cpu": "4500m", "memory": "16Gi"}, (0.5, 1.0)),
        ({"cpu": "2", "memory": "1Gi"}, (1.0, 1.0)),  # below allocatable: nothing is reserved
        ({"cpu": "x", "memory": "17Gi"}, (1.0, 1.0)),
        ({}, (1.0, 1.0)),
    ],
)
def test_use_that_is_reserved_for_the_system_does_not_count(
    api: FakeApi, kubelet: Any, measure: Any, capacity: dict[str, str], expected: tuple[float, float]
) -> None:
    fake = kubelet("node-a", cpu=1.0, memory_gib=1.0)
    show(api, "node-a", fake.port, capacity=capacity)
    following, _ = measure()
    eventually(lambda: used(following, "node-a")[0] > 0.0, "measured")
    assert used(following, "node-a")[:2] == pytest.approx(expected, rel=1e-6)


def test_the_kubelet_of_another_node_is_not_believed(kubelet: Any, measure: Any, authority: Authority) -> None:
    fake = kubelet("node-a", pair=authority.issue("any", "127.0.0.1"))
    fake.node = "node-b"
    _, found = measure()
    eventually(lambda: found.results["other_node"], "noticed")


def test_a_self_signed_certificate_needs_the_setting(kubelet: Any, measure: Any, tmp_path: Path) -> None:
    (folder := tmp_path / "own").mkdir()
    fake = kubelet("node-a", pair=Authority(folder, "node-a-ca").issue("node-a", "node-a"))
    _, found = measure()
    eventually(lambda: found.results["certificate"], "refused")
    assert fake.heads == []


def test_any_certificate_does_with_the_setting(kubelet: Any, measure: Any, tmp_path: Path) -> None:
    (folder := tmp_path / "own").mkdir()
    kubelet("node-a", pair=Authority(folder, "node-a-ca").issue("x"))
    following, _ = measure(ca_file=None, insecure=True)
    eventually(lambda: used(following, "node-a")[0] == 1.0, "measured")


def test_connections_are_kept_and_opened_again_where_they_are_lost(
    kubelet: Any, measure: Any, authority: Authority
) -> None:
    fakes = [kubelet(f"node-{name}") for name in "ab"]
    _, found = measure()
    eventually(lambda: all(len(fake.asked) >= 3 for fake in fakes), "asked again and again")
    assert [fake.opened for fake in fakes] == [1, 1]
    fakes[0].rotate(authority.issue("next", "node-a"))
    fakes[0].drop()
    before = len(fakes[0].asked)
    eventually(lambda: len(fakes[0].asked) >= before + 2, "asked on a new connection")
    assert fakes[0].opened == 2
    assert found.results["lost"] == found.results["certificate"] == 0


def test_a_question_on_a_kept_connection_that_is_lost_is_asked_once_more(
    kubelet: Any, measure: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Connection, "usable", lambda *_: True)  # it is closed while the question is on its way
    fake = kubelet("node-a", closes=True)
    _, found = measure()
    eventually(lambda: len(fake.asked) >= 3, "asked again and again")
    assert fake.opened >= 3
    assert found.results["lost"] == 0
    fake.raw = b""  # neither the kept nor the new one brings anything
    eventually(lambda: found.results["lost"] == 1, "lost twice")
    opened = fake.opened
    time.sleep(INTERVAL / 2)
    assert fake.opened == opened, "not a third time before it is asked again"


def test_a_rotated_certificate_is_looked_at_though_the_connection_holds(
    kubelet: Any, measure: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "CONNECTION_LIFE_S", 2.0 * INTERVAL)
    fake = kubelet("node-a")
    _, found = measure()
    eventually(lambda: len(fake.asked) >= 2, "asked on one connection")
    (folder := tmp_path / "own").mkdir()
    fake.rotate(Authority(folder, "kubelet-ca").issue("own", "node-a"))
    eventually(lambda: found.results["certificate"], "refused")


@pytest.mark.parametrize("kept", [0, 2])
def test_there_are_never_more_connections_than_stated(kubelet: Any, measure: Any, kept: int) -> None:
    fakes = [kubelet(f"node-{name}", delay=0.02) for name in "abcdef"]
    following, _ = measure(connections=2, kept=kept)
    most = 0

    def all_asked() -> bool:
        nonlocal most
        most = max(most, sum(fake.open_now for fake in fakes))
        return all(len(fake.asked) >= 4 for fake in fakes)

    eventually(all_asked, "asked again and again")
    # A server sees that a connection was closed a little later than the next one sees it opened.
    assert most <= 4 + kept
    opened, asked = sum(fake.opened for fake in fakes), sum(len(fake.asked) for fake in fakes)
    assert opened <= asked - 2 * kept if kept else opened >= asked
    assert used(following, "node-f")[0] == 1.0


def test_connections_leave_most_files_to_others(kubelet: Any, measure: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module.resource, "getrlimit", lambda _: (4, 4))
    fakes = [kubelet(f"node-{name}") for name in "ab"]
    measure()
    eventually(lambda: all(len(fake.asked) >= 4 for fake in fakes), "asked again and again")
    assert sum(fake.opened for fake in fakes) >= 4, "one of two is kept"


def test_a_node_that_goes_is_not_asked_and_one_that_moves_is_asked_there(
    api: FakeApi, kubelet: Any, measure: Any
) -> None:
    fake, other = kubelet("node-a", cpu_seconds={"uid-1": 1.0}), kubelet("node-b")
    following, found = measure()
    eventually(lambda: len(fake.asked) and len(other.asked), "asked")
    api.delete(NODES, "node-a")
    eventually(lambda: "node-a" not in found.pressures, "forgotten")
    asked = len(fake.asked)
    show(api, "node-b", fake.port)
    fake.node, fake.cpu = "node-b", 3.0
    eventually(lambda: found.results["certificate"], "the certificate is the other node's")
    assert len(fake.asked) == asked
    assert found.cpu_times.of("node-a", "uid-1") is None
    assert found.rounds.states()["measured"] == 0
    following.wait(lambda table: table.node_count == 1, "one node")


def test_a_list_forgets_what_it_lacks(api: FakeApi, kubelet: Any, measure: Any) -> None:
    kubelet("node-a")
    kubelet("node-b")
    _, found = measure()
    eventually(lambda: len(found.pressures) == 2, "measured")
    api.delete(NODES, "node-a", watched=False)
    api.compact()
    api.cut_watches()
    eventually(lambda: len(found.pressures) == 1, "forgotten")


def test_nodes_without_a_usable_address_are_counted(api: FakeApi, measure: Any) -> None:
    api.put(NODES, "node-a", node("node-a"))
    show(api, "node-b", 10250)
    _, found = measure(loopback=False)
    eventually(lambda: found.rounds.states()["no_address"] == 2, "counted")
    assert found.rounds.states()["waiting"] == 0


def test_a_refused_token_is_read_again(
    kubelet: Any, measure: Any, kubeconfig: Path, api: FakeApi, tmp_path: Path
) -> None:
    (file := tmp_path / "token").write_text("old")
    api.kubeconfig(tmp_path, {"tokenFile": str(file)})
    kubelet("node-a")
    following, found = measure()
    eventually(lambda: found.results["unauthorized"], "refused")
    file.write_text(TOKEN)
    eventually(lambda: used(following, "node-a")[0] == 1.0, "measured")


def test_nothing_is_asked_without_credentials(kubelet: Any, measure: Any, api: FakeApi, tmp_path: Path) -> None:
    api.kubeconfig(tmp_path, {"token": TOKEN, "as": "somebody"})
    fake = kubelet("node-a")
    _, found = measure()
    eventually(lambda: found.results["credentials"], "noticed")
    assert fake.opened == 0


def test_it_stops_at_once_whatever_kubelets_do(kubelet: Any, measure: Any) -> None:
    kubelet("node-a", silent=True)
    fake = kubelet("node-b")
    following, _ = measure()
    eventually(lambda: len(fake.asked), "asked")
    began = time.monotonic()
    following.run(following.source.stop())
    assert time.monotonic() - began < 4.0
    asked = len(fake.asked)
    time.sleep(3 * INTERVAL)
    assert len(fake.asked) == asked


def test_an_unexpected_error_is_recorded_and_costs_one_question(
    kubelet: Any, measure: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = decode_summary
    broken = iter([True])

    def decode(body: bytes) -> Any:
        if next(broken, False):
            raise KeyError("a bug")
        return real(body)

    monkeypatch.setattr(module, "decode_summary", decode)
    kubelet("node-a")
    following, found = measure()
    eventually(lambda: used(following, "node-a")[0] == 1.0, "measured")
    assert found.results["unexpected"] == 1


# ---- metrics-server for nodes whose kubelet does not answer ------------------------------------------------------

LISTED = f"list {METRICS}"


@pytest.fixture
def measure_both(follow: Callable[..., Following], authority: Authority) -> Callable[[], tuple[Following, Kubelets]]:
    """Follow the cluster as `usage_source: auto` does."""

    def start() -> tuple[Following, Kubelets]:
        asking = KubeletOptions(interval=INTERVAL, ca_file=authority.certificate, loopback=True)
        following = follow(usage=MetricsServer, options={"kubelets": asking, "usage_interval": INTERVAL})
        assert following.source.kubelets is not None
        return following, following.source.kubelets

    return start


def serve_metrics(api: FakeApi, **cores: str) -> None:
    """Let metrics-server measure these nodes now; a dash stands where a name has an underscore."""
    items = [
        {
            "metadata": {"name": name.replace("_", "-")},
            "timestamp": time_of(time.time()),
            "window": "15s",
            "usage": {"cpu": cpu, "memory": "1Gi"},
        }
        for name, cpu in cores.items()
    ]
    api.metrics = {"items": items}


def source_of(following: Following, name: str) -> str | None:
    return following.see(lambda table: table._nodes[name].measured_by)


def no_right(fake: FakeKubelet, _: Path) -> None:
    fake.status = 403


def behind_a_firewall(fake: FakeKubelet, _: Path) -> None:
    fake.silent = True


def signs_its_own_certificate(fake: FakeKubelet, folder: Path) -> None:
    (folder / "own").mkdir()
    fake.rotate(Authority(folder / "own", "node-b-ca").issue("own", "node-b"))


@pytest.mark.parametrize(
    ("harm", "result"),
    [(no_right, "forbidden"), (behind_a_firewall, "timeout"), (signs_its_own_certificate, "certificate")],
)
def test_metrics_server_measures_the_nodes_whose_kubelet_does_not_answer(
    api: FakeApi,
    kubelet: Any,
    measure_both: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    harm: Any,
    result: str,
) -> None:
    monkeypatch.setattr(module, "ANSWER_TIMEOUT", 0.3)
    kubelet("node-a", pressure=0.25)
    harm(kubelet("node-b"), tmp_path)
    serve_metrics(api, node_a="3500m", node_b="2500m")
    following, found = measure_both()
    eventually(lambda: used(following, "node-b")[0] == 2.5, "measured by metrics-server")
    listed = api.requests[LISTED]
    eventually(lambda: api.requests[LISTED] >= listed + 2, "asked each interval")
    eventually(lambda: source_of(following, "node-a") == "kubelet", "measured by its kubelet")
    assert used(following, "node-a")[::2] == (1.0, 0.25), "the kubelet wins"
    assert source_of(following, "node-b") == "metrics-server"
    assert (found.rounds.result_of("node-a"), found.rounds.result_of("node-b")) == ("measured", result)
    assert found.rounds.trouble is None


def test_a_kubelet_that_comes_back_is_used_again_and_metrics_server_is_left_alone(
    api: FakeApi, kubelet: Any, measure_both: Any
) -> None:
    fake = kubelet("node-b", cpu=3.0)
    fake.status = 403
    serve_metrics(api, node_b="2500m")
    following, found = measure_both()
    eventually(lambda: used(following, "node-b")[0] == 2.5, "measured by metrics-server")
    assert found.rounds.trouble == "no kubelet answers: 1 forbidden"
    fake.status = 200
    eventually(lambda: found.rounds.result_of("node-b") == "measured", "it answers")
    # it says whole seconds of a moment that has passed: the one that metrics-server told is later for a while
    eventually(lambda: used(following, "node-b")[0] == 3.0, "taken back")
    assert source_of(following, "node-b") == "kubelet"
    listed = api.requests[LISTED]
    time.sleep(4 * INTERVAL)
    assert api.requests[LISTED] <= listed + 1, "one that had begun may end"


def test_metrics_server_is_not_asked_while_every_kubelet_answers(api: FakeApi, kubelet: Any, measure_both: Any) -> None:
    fakes = [kubelet(f"node-{name}") for name in "ab"]
    serve_metrics(api, node_a="3500m", node_b="3500m")
    following, _ = measure_both()
    eventually(lambda: all(len(fake.asked) >= 5 for fake in fakes), "asked again and again")
    assert used(following, "node-a")[0] == used(following, "node-b")[0] == 1.0
    assert api.requests[LISTED] == 0
    assert following.source.counts()["usage", "failures"] == 0


def test_where_neither_answers_use_is_expected_from_requests(api: FakeApi, kubelet: Any, measure_both: Any) -> None:
    kubelet("node-a").status = 403
    api.put(PODS, "old", pod("old", on="node-a", cpu="2"))
    following, _ = measure_both()
    eventually(lambda: api.requests[LISTED] >= 2, "metrics-server is asked, which is not there")
    assert used(following, "node-a")[0] == pytest.approx(2.0 * EXPECTED_USE_RATIO)
    assert source_of(following, "node-a") is None
    assert following.source.staleness()["usage"] is None


def test_a_node_without_an_address_is_measured_by_metrics_server(api: FakeApi, kubelet: Any, measure_both: Any) -> None:
    kubelet("node-a")
    api.put(NODES, "node-b", node("node-b"))
    serve_metrics(api, node_b="2500m")
    following, found = measure_both()
    eventually(lambda: used(following, "node-b")[0] == 2.5, "measured")
    assert found.rounds.result_of("node-b") == "no_address"


def test_kubelets_that_do_not_answer_are_told_of_once(
    kubelet: Any, measure_both: Any, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "REPORT_S", 0.0)
    fakes = [kubelet(f"node-{name}") for name in "ab"]
    for fake in fakes:
        fake.status = 403
    _, found = measure_both()
    eventually(lambda: found.results["forbidden"] >= 5, "refused again and again")

    def told_of() -> list[Any]:
        return [record.msg for record in caplog.records if record.name == "extender.cluster.kubelets"]

    told = told_of()
    assert [each["event"] for each in told] == ["kubelets do not answer"]
    for fake in fakes:
        fake.status = 200
    # in between, that one answers and the other does not may be told of too
    eventually(lambda: told_of()[-1]["event"] == "all kubelets answer again", "they answer")
    assert told[0]["use_of_their_nodes"] == "asked from metrics-server"
    assert told[0]["reason"] == "forbidden"


class _Time:
    """A clock that the test sets."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now


def test_however_many_kubelets_nobody_reaches_they_cost_a_stated_rate_and_all_come_back_with_the_first(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(rounds_module, "time", clock := _Time())
    rounds, count, interval = Rounds(15.0, random.Random(7)), 5000, 15.0
    for number in range(count):
        rounds.follow(f"node-{number}", Endpoint(f"node-{number}", "10.0.0.1", 10250))

    def first_due() -> float:
        while (head := rounds._due[0])[2].due != head[0]:  # it was asked to come sooner
            heapq.heappop(rounds._due)
        return head[0]

    async def ask(until: float, answers: bool) -> list[str]:
        asked = []
        while (due := first_due()) <= until:
            clock.now = max(clock.now, due)
            kubelet = await rounds.next()
            asked.append(kubelet.endpoint.node)
            (rounds.answered if answers else rounds.failed)(kubelet)
        return asked

    assert len(set(asyncio.run(ask(interval, answers=False)))) == count, "each is asked once, soon"
    asyncio.run(ask(7200.0, answers=False))
    hour = asyncio.run(ask(10800.0, answers=False))
    assert 0.8 * RETRY_RATE < len(hour) / 3600.0 < 1.2 * RETRY_RATE
    assert rounds.states() == {"measured": 0, "failing": count, "waiting": 0, "no_address": 0}
    first = asyncio.run(ask(clock.now + 5.0, answers=True))
    again = asyncio.run(ask(clock.now + 2.0 * min(interval, count / FIRST_RATE), answers=True))
    assert len({*first, *again}) == count
    assert rounds.states() == {"measured": count, "failing": 0, "waiting": 0, "no_address": 0}
    intervals = asyncio.run(ask(clock.now + 10.0 * interval, answers=True))
    assert len(intervals) == pytest.approx(10 * count, rel=0.05), "once each interval, not twice"


def test_settings_choose_kubelets(kubeconfig: Path, tmp_path: Path) -> None:
    settings = Settings(
        kubeconfig=kubeconfig,
        usage_source="kubelet",
        usage_interval_s=20.0,
        kubelet_connections=7,
        kubelet_kept_connections=70,
        kubelet_ca_file=tmp_path / "ca.crt",
    )
    options = KubernetesSource.from_settings(settings)._options
    assert options.kubelets == KubeletOptions(20.0, connections=7, kept=70, ca_file=tmp_path / "ca.crt")
    sources = {
        source: KubernetesSource.from_settings(settings.model_copy(update={"usage_source": source}))
        for source in ("auto", "kubelet", "metrics-server")
    }
    assert sources["auto"]._options == options
    assert sources["metrics-server"]._options == replace(options, kubelets=None)
    assert {name: source._usage for name, source in sources.items()} == {
        "auto": MetricsServer, "kubelet": None, "metrics-server": MetricsServer,
    }  # fmt: skip
    assert Settings().usage_source == "auto"
    assert KubernetesOptions().kubelets is None


def test_contradicting_settings_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="exclude each other"):
        Settings(kubelet_insecure_skip_tls_verify=True, kubelet_ca_file=tmp_path)


@pytest.mark.parametrize("values", [{"interval": 0.0}, {"connections": 0}, {"kept": -1}])
def test_options_out_of_range_are_refused(values: dict[str, Any]) -> None:
    with pytest.raises(InvalidInputError):
        KubeletOptions(**values)


# ---- CPU time of pods --------------------------------------------------------------------------------------------


def test_the_cpu_time_of_a_pod_that_ended_is_kept_for_a_while() -> None:
    times, last = CpuTimes(), CpuTime(7.0, 100.0)
    times.record("node-a", {"uid-1": last})
    for _ in range(KEPT_ANSWERS):
        times.record("node-a", {"uid-2": CpuTime(1.0, 115.0)})
        assert times.of("node-a", "uid-1") == last
    times.record("node-a", {"uid-2": CpuTime(1.0, 115.0)})
    assert times.of("node-a", "uid-1") is None
    assert times.of("node-b", "uid-2") is None
    assert len(times) == 1


def test_a_pod_that_is_shown_again_counts_with_its_new_time() -> None:
    times = CpuTimes()
    times.record("node-a", {"uid-1": CpuTime(7.0, 100.0)})
    times.record("node-a", {})
    times.record("node-a", {"uid-1": CpuTime(8.0, 130.0)})
    assert times.of("node-a", "uid-1") == CpuTime(8.0, 130.0)
    assert len(times) == 1


def test_pods_that_are_gone_are_bounded() -> None:
    times = CpuTimes()
    for round_ in range(3):
        times.record("node-a", {f"uid-{round_}-{i}": CpuTime(1.0, 100.0) for i in range(MOST_GONE)})
    times.record("node-a", {})
    assert len(times) == MOST_GONE
    assert times.of("node-a", "uid-2-0") is not None
    assert times.of("node-a", "uid-0-0") is None
