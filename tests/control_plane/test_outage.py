"""What fails around the service costs no pod: the API server goes away, the extender is killed, hangs, comes back."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from threading import Event, Thread

import httpx
import pytest

from tests.bench.report import Result
from tests.control_plane import access
from tests.control_plane.access import Manifest
from tests.control_plane.cluster import ControlPlane
from tests.control_plane.extender_process import Extender, asking, running_extender
from tests.control_plane.scheduler import PROFILE, kube_scheduler, shipped_configuration
from tests.control_plane.workload import Binds, create, create_nodes, node, pod

Record = Callable[[Result], None]

AWAY_S = 30.0
RECOVERY_S = 15.0
"""Time to be right again: the longest wait between two attempts, 10 s, and a list."""


def _nodes(count: int) -> list[Manifest]:
    """Half of them fast."""
    return [
        node(f"node-{number}", labels={"maddpg-scheduler.io/speed": "1.5" if number % 2 else "0.8"})
        for number in range(count)
    ]


def _pods(prefix: str, count: int) -> list[Manifest]:
    return [pod(f"{prefix}-{number}", cpu="250m", memory="512Mi", scheduler=PROFILE) for number in range(count)]


def _names(objects: list[Manifest]) -> list[str]:
    return [each["metadata"]["name"] for each in objects]


def _staleness(extender: Extender) -> dict[str, float]:
    return {name: extender.metric("maddpg_input_staleness_seconds", input=name) for name in ("nodes", "pods", "usage")}


def _eventually(condition: Callable[[], bool], what: str, timeout_s: float) -> float:
    """Seconds until the condition holds."""
    started = time.monotonic()
    while not condition():
        if time.monotonic() - started > timeout_s:
            raise TimeoutError(f"not within {timeout_s:.0f} s: {what}")
        time.sleep(0.1)
    return time.monotonic() - started


@dataclass
class Asked:
    """Every answer that a client which never stops asking has got."""

    answers: int = 0
    slowest_s: float = 0.0
    wrong: list[str] = field(default_factory=list)


@contextmanager
def _asking_all_the_time(extender: Extender, names: list[str], interval_s: float = 0.1) -> Iterator[Asked]:
    """Ask for priorities of these nodes, each time for a new pod, until the block ends."""
    asked, stopping = Asked(), Event()

    def ask() -> None:
        with httpx.Client(base_url=extender.url, timeout=5.0, trust_env=False) as client:
            while not stopping.wait(interval_s):
                body = asking(pod(f"asked-{asked.answers}", cpu="100m"), names)
                started = time.monotonic()
                try:
                    problem = _problem(client.post("/prioritize", json=body), names)
                except httpx.HTTPError as error:
                    problem = repr(error)
                asked.slowest_s = max(asked.slowest_s, time.monotonic() - started)
                asked.answers += 1
                if problem:
                    asked.wrong.append(f"answer {asked.answers}: {problem}")

    thread = Thread(target=ask, name="asking", daemon=True)
    thread.start()
    try:
        yield asked
    finally:
        stopping.set()
        thread.join()


def _problem(answer: httpx.Response, names: list[str]) -> str:
    """What is wrong with an answer of /prioritize; empty if nothing is."""
    if answer.status_code != 200:
        return f"status {answer.status_code}: {answer.text[:200]}"
    hosts = answer.json()
    if {host["Host"] for host in hosts} != set(names):
        return f"other hosts than asked about: {hosts}"
    if not all(type(host["Score"]) is int and 0 <= host["Score"] <= 10 for host in hosts):
        return f"a score is no integer in 0..10: {hosts}"
    scores = sorted((host["Score"] for host in hosts), reverse=True)
    return "" if scores and scores[:1] != scores[1:2] else f"no node is rated above all others: {hosts}"


@pytest.mark.timeout(150, func_only=True)
def test_scores_go_on_while_the_api_server_is_away(cluster: ControlPlane, record: Record) -> None:
    names = [f"node-{number}" for number in range(6)]
    create_nodes(cluster.api, _nodes(6))
    before, after = _pods("before", 20), _pods("after", 20)
    with (
        running_extender(cluster, usage_interval_s=5) as extender,
        kube_scheduler(cluster, shipped_configuration(extender.url)) as scheduler,
        Binds(cluster.api) as binds,
    ):
        pid = extender.process.pid
        create(cluster.api, before)
        binds.wait(_names(before))
        # until usage is measured and every bind is seen, so that each input has an age
        _eventually(lambda: all(age >= 0.0 for age in _staleness(extender).values()), "usage was measured", 60.0)
        with _asking_all_the_time(extender, names) as asked:
            cluster.stop_api_server()
            gone = time.monotonic()
            ready_all_along = True
            while time.monotonic() - gone < AWAY_S:
                ready_all_along &= extender.ready()
                time.sleep(0.5)
            stale = _staleness(extender)
            failures = extender.metric("maddpg_source_events_total", event="failures")
            cluster.start_api_server()
            # made and deleted before the extender can have connected again: the list or the resumed watch shows it
            create(cluster.api, [node("node-new")])
            access.request(cluster.api, "DELETE", "/api/v1/nodes/node-5?gracePeriodSeconds=0")
            returned = time.monotonic()
            _eventually(
                lambda: _known(extender, "node-new") and not _known(extender, "node-5"),
                "nodes are repaired",
                RECOVERY_S,
            )
            repaired = time.monotonic() - returned
            _eventually(lambda: max(_staleness(extender).values()) < AWAY_S - 5.0, "every input is current again", 60.0)
            current = time.monotonic() - returned
        # client-go's own watches may now stay away for more than a minute. A real kube-scheduler or controller manager
        # has lost its lease meanwhile, ended, and been started again; without an election they go on, so we do it.
        scheduler.restart()
        for process in (cluster.controller_manager, cluster.kwok):
            process.stop()
            process.start()
            process.wait()
        create(cluster.api, after)
        binds.wait(_names(after), timeout_s=60)
        decided = extender.decisions()
        assert extender.process.pid == pid, "the process ended and was started again"
    record(Result("API server away 30 s: answers meanwhile", asked.answers, "answers", at_least=100))
    record(Result("API server away 30 s: wrong answers", len(asked.wrong), "answers", at_most=0))
    record(Result("API server away 30 s: slowest answer", asked.slowest_s * 1000, "ms"))
    for name, age in stale.items():
        record(Result(f"API server away 30 s: staleness of {name}", age, "s", at_least=AWAY_S - 5.0))
    record(Result("API server back: nodes repaired after", repaired, "s", at_most=RECOVERY_S))
    record(Result("API server back: every input current after", current, "s"))
    assert asked.wrong == []
    assert asked.answers >= 100
    assert ready_all_along, "it can answer from what it knows, so it stays ready (extender.operations.probes)"
    assert min(stale.values()) >= AWAY_S - 5.0
    assert failures >= 2, "both watches have failed and are counted"
    assert decided.keys() >= set(_names(after))


def _known(extender: Extender, name: str) -> bool:
    """Whether the extender knows that node; asking leaves an assumed placement behind, which expires."""
    answer = extender.post("prioritize", asking(pod(f"knows-{name}", cpu="1m", memory="1Mi"), [name]))
    answer.raise_for_status()
    return bool(extender.decisions()[f"knows-{name}"]["unknown_nodes"] == 0)


@pytest.mark.timeout(120, func_only=True)
def test_no_pod_is_lost_when_the_extender_is_killed_under_load(cluster: ControlPlane, record: Record) -> None:
    create_nodes(cluster.api, _nodes(20))
    first, down, again, last = (_pods(prefix, count) for prefix, count in zip("abcd", (100, 100, 80, 20), strict=True))
    with (
        running_extender(cluster) as extender,
        kube_scheduler(cluster, shipped_configuration(extender.url)),
        Binds(cluster.api) as binds,
    ):
        pid = extender.process.pid
        load = Thread(target=create, args=(cluster.api, first))
        load.start()
        _eventually(lambda: len(binds.bound) >= 30, "the first pods are bound", 30.0)
        pending = len(first) - len(binds.bound)
        asked_before = extender.counts()["decisions"]
        extender.process.kill()
        load.join()
        create(cluster.api, down)
        binds.wait(_names(first + down), timeout_s=60)
        extender.process.start()
        for each in again:  # some find it down, some find it knowing nothing yet, some find it ready
            create(cluster.api, [each], threads=1)
            time.sleep(0.04)
        binds.wait(_names(again), timeout_s=60)
        extender.process.wait()
        restarted = extender.process.pid
        create(cluster.api, last)
        bound = binds.wait(_names(first + down + again + last), timeout_s=60)
        _eventually(lambda: extender.metric("maddpg_pods") == 300, "the restarted extender knows all pods", 10.0)
        decided = extender.decisions()
        unknown = {name: each["unknown_nodes"] for name, each in decided.items() if name.startswith("d-")}
    asked_again = len(decided.keys() & set(_names(again)))
    assert restarted != pid
    assert pending > 0, "the load was over before the kill"
    assert asked_before >= 30
    assert not decided.keys() & set(_names(down)), "nobody can have answered for these"
    assert unknown == dict.fromkeys(_names(last), 0)
    record(Result("extender killed with pods waiting", pending, "pods", at_least=1))
    record(Result("extender killed and restarted: bound of 300", len(bound), "pods", at_least=300))
    record(Result("of 80 pods that arrived while it started, asked about", asked_again, "pods", at_least=1))
    assert asked_again >= 1


@pytest.mark.timeout(90, func_only=True)
def test_extender_that_hangs_delays_pods_by_the_http_timeout_only(cluster: ControlPlane, record: Record) -> None:
    create_nodes(cluster.api, _nodes(4))
    hung, resumed = _pods("hung", 2), _pods("resumed", 5)
    with (
        running_extender(cluster) as extender,
        kube_scheduler(cluster, shipped_configuration(extender.url)),
        Binds(cluster.api) as binds,
    ):
        extender.process.pause()
        started = time.monotonic()
        create(cluster.api, hung)
        bound = binds.wait(_names(hung), timeout_s=30)
        extender.process.resume()
        create(cluster.api, resumed)
        binds.wait(_names(resumed), timeout_s=30)
        _eventually(lambda: extender.decisions().keys() >= set(_names(resumed)), "it is asked again", 10.0)
    slowest = (max(bind.at for bind in bound.values()) - started) / len(hung)
    record(Result("extender that hangs: delay per pod (httpTimeout 1 s, one call)", slowest, "s", at_most=3.0))
    assert 1.0 <= slowest <= 3.0
