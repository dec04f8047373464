"""Speeds of nodes: what is learned, what wins, and a whole run from kubelets and watches to a decision."""

from __future__ import annotations

import asyncio
import math
import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest

from extender.app import create_app
from extender.cluster import estimation
from extender.cluster.completed import Completion
from extender.cluster.decoding import decode_node
from extender.cluster.estimation import LEAST_COMPLETIONS, MOST_WAITING, NodeSpeeds
from extender.cluster.kubelet import KubeletOptions
from extender.cluster.kubernetes import KubernetesOptions, KubernetesSource
from extender.cluster.machines import Machine, SpeedRules, machine_of
from extender.cluster.table import ClusterTable
from extender.settings import Settings
from policy.speeds import Completions, SpeedFit, fit
from tests.control_plane.certificates import Authority
from tests.extender.background import BackgroundService
from tests.extender.cluster.fake_api import NODES, PODS, FakeApi
from tests.extender.cluster.fake_kubelet import FakeKubelet
from tests.extender.cluster.following import QUICK, eventually, node
from tests.extender.cluster.jobs import completed
from tests.extender.service import by_names, pod

WORK = {"compile": 20.0, "index": 40.0, "render": 70.0}
"""CPU seconds on a core of speed 1, by template."""


def machine(identity: str = "m", source: str = "default", speed: float = 1.0, node_class: str = "") -> Machine:
    return Machine(identity, node_class, speed, source)


class Learning:
    """A table whose nodes complete pods, with a clock of its own."""

    def __init__(self, speeds: dict[str, float], refused: str | None = None, **of: Machine) -> None:
        self.now = 1000.0
        self.table = ClusterTable()
        self.speeds = NodeSpeeds(self.table, refused, pause_s=0.0, timer=lambda: self.now)
        self.true = speeds
        self.random = random.Random(1)
        for name in speeds:
            self.show(name, of.get(name, machine()))

    def show(self, name: str, of: Machine) -> None:
        speed, basis = self.speeds.present(name, of)
        self.table.upsert_node(name, 8.0, 32.0, speed, True, basis)

    def complete(self, count: int, *names: str, noise: float = 0.05) -> None:
        for name in names or tuple(self.true):
            for number in range(count):
                template = list(WORK)[number % len(WORK)]
                cpu_s = WORK[template] / self.true[name] * math.exp(self.random.gauss(0.0, noise))
                self.speeds.completed(Completion(name, template, 2.0 * cpu_s, cpu_s))

    def fit(self) -> None:
        asyncio.run(self.speeds.step())

    def speed(self, name: str) -> float:
        return float(self.table.state.node_speed[self.table.row_of(name)])

    def source(self, name: str) -> str:
        return self.table.basis_of(name).source


def test_completions_give_speeds_and_the_table_has_them() -> None:
    learning = Learning({"a": 0.5, "b": 1.0, "c": 2.0})
    learning.complete(12)
    learning.fit()
    for name, speed in learning.true.items():
        assert learning.speed(name) == pytest.approx(speed, rel=0.1)
        basis = learning.table.basis_of(name)
        assert basis.source == "completions"
        assert basis.low is not None
        assert basis.high is not None
        assert basis.low < speed < basis.high
        assert (basis.completions, basis.templates, basis.anchored) == (12, 3, False)
    assert learning.speeds.counts()["completions"] == 3


def test_what_an_operator_says_of_a_node_wins_and_gives_the_scale() -> None:
    learning = Learning({"a": 0.5, "b": 1.0, "c": 2.0}, a=machine(source="label", speed=1.0))
    learning.complete(12)
    learning.fit()
    assert (learning.speed("a"), learning.source("a")) == (1.0, "label")
    assert learning.speed("b") == pytest.approx(2.0, rel=0.1)
    assert learning.table.basis_of("b").anchored
    learning.show("c", machine(source="annotation", speed=0.7))
    assert (learning.speed("c"), learning.source("c")) == (0.7, "annotation")
    learning.show("c", machine())
    assert learning.source("c") == "completions"


def test_a_probe_counts_more_than_a_table_and_less_than_completions() -> None:
    learning = Learning({"a": 1.0, "b": 1.0}, a=machine(source="published", speed=1.3))
    assert (learning.speed("a"), learning.source("a")) == (1.3, "published")
    learning.speeds.probed("a", 1.1)
    learning.speeds.probed("b", 1.1)
    learning.speeds.probed("unknown", 1.1)
    learning.speeds.probed("b", math.nan)
    assert (learning.speed("a"), learning.source("a")) == (1.1, "probe")
    learning.true["a"] = 2.0
    learning.complete(60)
    learning.fit()
    assert learning.source("a") == learning.source("b") == "completions"
    assert learning.speed("a") / learning.speed("b") == pytest.approx(2.0, rel=0.15)


def test_another_machine_under_the_name_of_a_node_begins_with_nothing() -> None:
    learning = Learning({"a": 0.5, "b": 1.0, "c": 2.0})
    learning.complete(12)
    learning.fit()
    learning.show("a", machine("another"))
    assert (learning.speed("a"), learning.source("a")) == (1.0, "default")
    assert learning.speeds.estimate("a") is None
    learning.complete(LEAST_COMPLETIONS, "b")
    learning.fit()
    assert learning.source("a") == "default"


def test_what_was_found_of_a_machine_is_not_given_to_the_one_that_replaced_it_meanwhile(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    learning = Learning({"a": 0.5, "b": 1.0, "c": 2.0})
    learning.complete(12)
    begun, replaced = threading.Event(), threading.Event()

    def slow_fit(data: Completions) -> SpeedFit:
        begun.set()
        assert replaced.wait(10.0)
        return fit(data)

    monkeypatch.setattr(estimation, "fit", slow_fit)

    async def replaced_while_fitting() -> None:
        fitting = asyncio.create_task(learning.speeds.step())
        assert await asyncio.to_thread(begun.wait, 10.0)
        learning.show("a", machine("another"))
        replaced.set()
        await fitting

    asyncio.run(replaced_while_fitting())
    assert "a" in learning.speeds.fitted.estimates
    assert learning.speeds.estimate("a") is None
    assert (learning.speed("a"), learning.source("a")) == (1.0, "default")
    assert learning.source("c") == "completions"


def test_rows_change_only_where_an_estimate_moved() -> None:
    learning = Learning({f"n{row}": 0.5 + 0.1 * row for row in range(10)})
    learning.complete(60)
    learning.fit()
    _ = learning.table.state
    version = learning.table.version
    learning.complete(3)
    learning.fit()
    assert learning.speeds.fitted_at is not None
    assert learning.table.version - version <= 2


def test_few_completions_change_no_speed() -> None:
    learning = Learning({"a": 0.5, "b": 1.0})
    learning.complete(LEAST_COMPLETIONS - 1)
    learning.fit()
    assert learning.speeds.estimate("a") is not None
    assert learning.source("a") == learning.source("b") == "default"


def test_nodes_that_went_are_forgotten() -> None:
    learning = Learning({"a": 0.5, "b": 1.0, "c": 2.0})
    learning.complete(12)
    learning.fit()
    learning.speeds.keep_only({"b", "c"})
    learning.complete(3, "b", "c")
    learning.fit()
    assert set(learning.speeds.fitted.estimates) == {"b", "c"}
    assert sum(learning.speeds.counts().values()) == 2


def test_nothing_is_kept_where_nothing_is_learned() -> None:
    learning = Learning({"a": 0.5, "b": 1.0}, refused="why not")
    learning.complete(12)
    learning.fit()
    assert not learning.speeds._changes
    assert learning.speeds.fitted_at is None
    assert learning.source("a") == "default"


def test_completions_that_find_no_room_are_counted() -> None:
    learning = Learning({"a": 1.0, "b": 1.0})
    learning.complete(MOST_WAITING // 2 + 5)
    assert learning.speeds.evidence()["dropped"] == 2 * (MOST_WAITING // 2 + 5) - (MOST_WAITING - 2)


def test_the_pause_grows_with_the_work_of_a_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    learning = Learning({"a": 1.0, "b": 1.0})
    learning.complete(12)
    learning.fit()
    assert 0.0 < learning.speeds._pause_s == pytest.approx(learning.speeds.fit_s / 0.02)


def test_a_node_whose_pods_wait_more_than_elsewhere_counts_as_slower_for_a_while() -> None:
    learning = Learning({"a": 1.0, "b": 1.0, "c": 1.0})
    learning.complete(30)
    for _ in range(20):
        for template, cpu_s in WORK.items():
            learning.speeds.completed(Completion("a", template, 8.0 * cpu_s, cpu_s))
            learning.speeds.completed(Completion("b", template, 2.0 * cpu_s, cpu_s))
    learning.fit()
    throttled, free = learning.speeds.slowdown("a"), learning.speeds.slowdown("b")
    assert throttled is not None
    assert free is not None
    assert throttled / free > 2.0
    estimate, basis = learning.speeds.estimate("a"), learning.table.basis_of("a")
    assert estimate is not None
    assert estimate.speed == pytest.approx(1.0, rel=0.1), "its cores are as fast as the others'"
    assert 1.0 / throttled <= basis.share_left < 0.6
    assert basis.low is not None
    assert basis.high is not None
    assert basis.low < learning.speed("a") < basis.high
    assert learning.speed("a") == pytest.approx(basis.share_left * estimate.speed, rel=0.03)
    assert learning.speeds.present("a", machine())[0] == learning.speed("a"), "an update of the Node keeps it"
    assert learning.table.basis_of("b").share_left == 1.0
    learning.now += 7200.0
    learning.fit()
    assert learning.speeds.slowdown("a") is None
    assert learning.speed("a") == pytest.approx(1.0, rel=0.1), "forgotten without another completion"
    assert learning.table.basis_of("a").share_left == 1.0


def test_a_labelled_node_is_throttled_too() -> None:
    learning = Learning({"a": 1.6, "b": 1.0, "c": 1.0}, a=machine(source="label", speed=1.6))
    learning.complete(30)
    for _ in range(20):
        for template, cpu_s in WORK.items():
            learning.speeds.completed(Completion("a", template, 4.0 * cpu_s, cpu_s))
    learning.fit()
    assert learning.table.basis_of("a").source == "label"
    assert 0.4 < learning.speed("a") < 1.1


def test_a_completion_costs_less_than_fifty_microseconds() -> None:
    learning = Learning({"a": 1.0, "b": 1.0})
    began = time.process_time()
    learning.complete(5000)
    assert (time.process_time() - began) / 10_000 < 50e-6


@pytest.mark.parametrize(
    ("change", "same"),
    [
        pytest.param({"metadata": {"uid": "other"}}, False, id="node object"),
        pytest.param({"spec": {"providerID": "gce://other"}}, False, id="provider's ID"),
        pytest.param({"status": {"nodeInfo": {"systemUUID": "other", "bootID": "b"}}}, False, id="machine's UUID"),
        pytest.param({"metadata": {"labels": {"node.kubernetes.io/instance-type": "x"}}}, False, id="instance type"),
        pytest.param({"status": {"nodeInfo": {"systemUUID": "s", "bootID": "other"}}}, True, id="reboot"),
        pytest.param({"metadata": {"labels": {"a": "b"}}}, True, id="another label"),
    ],
)
def test_what_tells_machines_of_one_name_apart(change: dict[str, Any], same: bool) -> None:
    base: dict[str, Any] = {
        "metadata": {"name": "n", "uid": "u"},
        "spec": {"providerID": "gce://p/z/n"},
        "status": {"nodeInfo": {"systemUUID": "s", "bootID": "b"}},
    }

    def identity(of: dict[str, Any]) -> str:
        merged = {part: {**base[part], **of.get(part, {})} for part in base}
        return machine_of(decode_node(msgspec.Raw(msgspec.json.encode(merged))), SpeedRules())[0].identity

    assert (identity(change) == identity({})) is same


@pytest.mark.parametrize(
    ("labels", "node_class"),
    [
        pytest.param({"node.kubernetes.io/instance-type": "n2-standard-8"}, "n2-standard-8 arm64", id="instance type"),
        pytest.param({"node.kubernetes.io/instance-type": "k3s"}, "", id="a distribution's name"),
        pytest.param(
            {f"feature.node.kubernetes.io/cpu-model.{it}": it for it in ("vendor_id", "family", "id")},
            "vendor_id family id arm64",
            id="CPU model",
        ),
        pytest.param({}, "", id="neither"),
    ],
)
def test_nodes_of_a_class_have_the_same_machines(labels: dict[str, str], node_class: str) -> None:
    content = {"metadata": {"name": "n", "labels": labels}, "status": {"nodeInfo": {"architecture": "arm64"}}}
    found, _ = machine_of(decode_node(msgspec.Raw(msgspec.json.encode(content))), SpeedRules())
    assert found.node_class == node_class


# ---- whole runs ------------------------------------------------------------------------------------------------------

TOKEN = "a-token"


class Cluster:
    """An API server, kubelets and the service between them; speeds are known to the test alone."""

    def __init__(self, api: FakeApi, authority: Authority, speeds: dict[str, float], ending: ExitStack) -> None:
        self.api = api
        self.true = speeds
        self.random = random.Random(2)
        self.kubelets: dict[str, FakeKubelet] = {}
        self.number = 0
        for name in speeds:
            fake = FakeKubelet(name, authority.issue(name, name), token=TOKEN, pressure=0.125)
            self.kubelets[name] = ending.enter_context(fake)
            self.show(name)

    def show(self, name: str, **metadata: Any) -> None:
        shown = node(name, **metadata)
        shown["status"]["addresses"] = [{"type": "InternalIP", "address": "127.0.0.1"}]
        shown["status"]["daemonEndpoints"] = {"kubeletEndpoint": {"Port": self.kubelets[name].port}}
        self.api.put(NODES, name, shown)

    def complete(self, source: KubernetesSource, each: int, *names: str, ahead: float = 0.0) -> None:
        """Let so many pods of each template run on each node and complete; `ahead`: how wrong the nodes' clocks are."""
        runs: list[tuple[str, str, str, float]] = []
        for name in names or tuple(self.true):
            for template, work in WORK.items():
                for _ in range(each):
                    self.number += 1
                    cpu_s = work / self.true[name] * math.exp(self.random.gauss(0.0, 0.05))
                    runs.append((f"uid-{self.number}", name, template, cpu_s))
        for uid, name, _, cpu_s in runs:
            self.kubelets[name].cpu_seconds[uid] = cpu_s
        asked = source.kubelets
        assert asked is not None
        eventually(lambda: all(asked.cpu_times.of(name, uid) for uid, name, _, _ in runs), "CPU times are read")
        start = time.time() - 400.0 + ahead
        for uid, name, template, _ in runs:
            self.api.put(PODS, uid, completed(uid, name, start, 400.0, template=template))
            self.kubelets[name].cpu_seconds.pop(uid)


@pytest.fixture
def run(api: FakeApi, tmp_path: Path) -> Iterator[Callable[..., tuple[Cluster, KubernetesSource, httpx.Client]]]:
    """Start the service over a fake cluster with nodes of these speeds; keywords are those of `KubernetesOptions`."""
    authority = Authority(tmp_path, "kubelet-ca")
    with ExitStack() as ending:

        def start(speeds: dict[str, float], **options: Any) -> tuple[Cluster, KubernetesSource, httpx.Client]:
            cluster = Cluster(api, authority, speeds, ending)
            kubelets = KubeletOptions(interval=0.2, ca_file=authority.certificate, loopback=True)
            values = {"kubelets": kubelets, "learning_pause": 0.05, **options}
            kubeconfig = api.kubeconfig(tmp_path, {"token": TOKEN})
            source = KubernetesSource(KubernetesOptions(kubeconfig=kubeconfig, timing=QUICK, **values))
            app = create_app(Settings(port=0, deadline_ms=2000.0), source)
            background = ending.enter_context(BackgroundService(app))
            client = ending.enter_context(httpx.Client(base_url=background.url, timeout=10.0))
            eventually(lambda: client.get("/readyz").status_code == 200, "listed")
            return cluster, source, client

        yield start


def shown(client: httpx.Client) -> dict[str, dict[str, Any]]:
    """What /v1/nodes says of each node."""
    answer = client.get("/v1/nodes")
    assert answer.status_code == 200, answer.text
    return {it["node"]: it for it in answer.json()["nodes"]}


def test_jobs_on_unlabelled_nodes_show_speeds_and_an_urgent_pod_prefers_the_fast_one(run: Any) -> None:
    cluster, source, client = run({"slow": 0.5, "middle": 1.0, "fast": 2.0})
    assert {it["speed"]["source"] for it in shown(client).values()} == {"default"}
    cluster.complete(source, 4)
    eventually(
        lambda: all(it["speed"]["source"] == "completions" for it in shown(client).values()), "speeds are learned"
    )
    eventually(
        lambda: all((it["speed"]["learned"] or {}).get("completions") == 12 for it in shown(client).values()), "all are"
    )
    for name, found in shown(client).items():
        speed = found["speed"]
        print(
            f"{name}: true {cluster.true[name]}, learned {speed['value']:.3f} ({speed['low']:.3f}-{speed['high']:.3f})"
        )
        assert speed["value"] == pytest.approx(cluster.true[name], rel=0.1)
        assert speed["learned"]["templates"] == 3
        assert speed["not_learned"] is None
        assert found["pressure"]["source"] == "psi"
        assert found["pressure"]["memory"] == 0.125
        assert 0.0 <= found["pressure"]["age_s"] < 30.0
    urgent = pod("urgent", annotations={"maddpg-scheduler.io/urgency": "1.0"})
    scores = {
        it["Host"]: it["Score"] for it in client.post("/prioritize", json=by_names([*cluster.true], urgent)).json()
    }
    assert max(scores, key=lambda name: scores[name]) == "fast"
    decided = client.get("/v1/decisions/uid-urgent").json()
    assert decided["nodes"][0]["speed"]["source"] == "completions"
    assert decided["nodes"][0]["speed"]["value"] == pytest.approx(2.0, rel=0.1)
    assert decided["top"][0]["speed"]["source"] == "completions"
    metrics = client.get("/metrics").text
    assert 'maddpg_node_speeds{source="completions"} 3.0' in metrics
    assert 'maddpg_completions_total{result="measured"} 36.0' in metrics
    assert 'maddpg_speed_evidence_total{event="kept"} 36.0' in metrics
    one = client.get("/v1/nodes/fast").json()
    assert one["speed"]["value"] == shown(client)["fast"]["speed"]["value"]
    assert client.get("/v1/nodes/other").status_code == 404


def test_a_node_that_is_replaced_under_its_name_is_learned_anew(run: Any) -> None:
    cluster, source, client = run({"a": 0.5, "b": 1.0, "c": 2.0})
    cluster.complete(source, 4)
    eventually(lambda: shown(client)["a"]["speed"]["source"] == "completions", "learned")
    cluster.show("a", uid="another machine")
    eventually(lambda: shown(client)["a"]["speed"]["source"] == "default", "forgotten")
    assert shown(client)["a"]["speed"]["value"] == 1.0
    cluster.true["a"] = 2.0
    cluster.complete(source, 4, "a")
    eventually(lambda: shown(client)["a"]["speed"]["source"] == "completions", "learned anew")
    eventually(lambda: (shown(client)["a"]["speed"]["learned"] or {}).get("completions") == 12, "all of it")
    assert shown(client)["a"]["speed"]["value"] == pytest.approx(shown(client)["c"]["speed"]["value"], rel=0.1)


def test_nodes_with_a_clock_that_is_wrong_teach_nothing_false(run: Any) -> None:
    cluster, source, client = run({"a": 0.5, "b": 1.0, "c": 2.0})
    cluster.complete(source, 4)
    eventually(
        lambda: all((it["speed"]["learned"] or {}).get("completions") == 12 for it in shown(client).values()),
        "learned from all of them",
    )
    before = {name: it["speed"]["value"] for name, it in shown(client).items()}
    cluster.complete(source, 4, "a", ahead=7200.0)  # start and end two hours after the reading
    completed_pods = source.completed
    eventually(lambda: completed_pods.counts["uncovered"] == 12, "the readings cover nothing")
    cluster.complete(source, 1, "b")
    eventually(lambda: client.get("/v1/nodes").json()["learning"]["evidence"]["kept"] == 39, "it goes on")
    assert shown(client)["a"]["speed"]["value"] == pytest.approx(before["a"], rel=0.05)


def test_a_kubelet_that_stops_answering_costs_only_its_own_completions(run: Any) -> None:
    cluster, source, client = run({"a": 0.5, "b": 1.0, "c": 2.0})
    cluster.complete(source, 4)
    eventually(lambda: shown(client)["a"]["speed"]["source"] == "completions", "learned")
    cluster.kubelets["a"].status = 500
    cluster.api.put(PODS, "unread", completed("unread", "a", time.time() - 100.0, 100.0))
    eventually(lambda: source.completed.counts["unread"] == 1, "nobody knows its CPU time")
    cluster.complete(source, 2, "b", "c")
    eventually(lambda: client.get("/v1/nodes").json()["learning"]["evidence"]["kept"] == 48, "the others go on")
    assert shown(client)["a"]["speed"]["value"] == pytest.approx(0.5, rel=0.1)


def test_where_no_kubelet_answers_it_says_why(run: Any) -> None:
    cluster, _, client = run({"a": 0.5, "b": 1.0})
    for kubelet in cluster.kubelets.values():
        kubelet.status = 403
    why = "no kubelet answers: 2 forbidden"
    eventually(lambda: client.get("/v1/nodes").json()["learning"]["refused"] == why, "nothing can be learned")
    assert shown(client)["a"]["speed"]["not_learned"] == "no CPU times: its kubelet does not answer (forbidden)"


@pytest.mark.parametrize(
    ("options", "why"),
    [
        pytest.param({"kubelets": None}, "no CPU times: usage_source names no kubelets", id="metrics-server"),
        pytest.param({"learn_speeds": False}, "node_speed_learned is false", id="switched off"),
    ],
)
def test_where_nothing_is_learned_it_says_why(run: Any, options: dict[str, Any], why: str) -> None:
    _, _, client = run({"a": 0.5, "b": 1.0}, **options)
    document = client.get("/v1/nodes").json()
    assert document["learning"]["refused"] == why
    assert {it["speed"]["not_learned"] for it in document["nodes"]} == {why}
