"""One fault at a time under a steady stream of pods from a real kube-scheduler: every pod is bound once, none is lost.

The short ones are part of `make test`; `make faults` runs all of them, with more pods. Beside these, test_outage.py
kills the extender, hangs it and takes the API server away, and test_mutual_tls.py exchanges certificates.
"""

import os
import resource
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Thread

import pytest
import urllib3
from kubernetes import client

from policy.bundle import shipped_bundle_path
from tests.bench.report import Result
from tests.control_plane import access
from tests.control_plane.access import Manifest
from tests.control_plane.cluster import METRIC_RESOLUTION_S, ControlPlane
from tests.control_plane.extender_process import Decision, Extender, running_extender
from tests.control_plane.scheduler import PROFILE, Scheduler, kube_scheduler, shipped_configuration
from tests.control_plane.workload import Binds, create, create_nodes, node, pod

Record = Callable[[Result], None]

ALL = bool(os.environ.get("FAULTS"))
PODS = 250 if ALL else 100
RATE = 10.0
"""Pods a second."""
AFTERWARDS = 10
"""Pods made once the fault is over: each must find a service that is well."""
BOUND_S = 150.0
"""Time for all pods to be bound; the machine may be busy."""


@dataclass
class Scene:
    """What a fault happens to."""

    cluster: ControlPlane
    extender: Extender
    scheduler: Scheduler
    binds: Binds

    def bound(self, share: float) -> None:
        """Wait until that share of the stream is bound."""
        eventually(lambda: len(self.binds.bound) >= share * PODS, f"{share:.0%} of the pods are bound", BOUND_S)


@dataclass
class Survived:
    """What became of the pods.

    Attributes:
        decisions: by pod, of the process that runs at the end.
        slowest_s: the longest that a pod of the stream waited.
    """

    decisions: dict[str, Decision]
    slowest_s: float


def eventually(condition: Callable[[], bool], what: str, timeout_s: float = 60.0) -> float:
    """Seconds until the condition holds."""
    started = time.monotonic()
    while not condition():
        if time.monotonic() - started > timeout_s:
            raise TimeoutError(f"not within {timeout_s:.0f} s: {what}")
        time.sleep(0.1)
    return time.monotonic() - started


@contextmanager
def stream(cluster: ControlPlane, pods: list[Manifest]) -> Iterator[dict[str, float]]:
    """Create the pods at RATE while the block runs, and the rest at its end; an API server that is away is asked again.

    Yields when each was created.
    """
    created: dict[str, float] = {}
    errors: list[Exception] = []

    def feed() -> None:
        began = time.monotonic()
        for number, each in enumerate(pods):
            time.sleep(max(0.0, began + number / RATE - time.monotonic()))
            for attempt in range(600):
                try:
                    create(cluster.api, [each], threads=1)
                except (client.ApiException, urllib3.exceptions.HTTPError, OSError) as error:
                    if isinstance(error, client.ApiException) and error.status == 409 and attempt:
                        break  # an earlier attempt was not answered and has succeeded
                    if attempt == 599:
                        errors.append(error)
                        return
                    time.sleep(0.1)
                else:
                    break
            created[each["metadata"]["name"]] = time.monotonic()

    thread = Thread(target=feed, name="stream", daemon=True)
    thread.start()
    yield created
    thread.join()
    if errors:
        raise errors[0]


def survive(
    cluster: ControlPlane,
    record: Record,
    name: str,
    fault: Callable[[Scene], None],
    program: tuple[str, ...] = ("extender",),
    **settings: object,
) -> Survived:
    """Let the fault happen in the middle of a stream; every pod must be bound, and be where it was seen to be bound.

    Args:
        cluster: without nodes or pods.
        record: where figures go.
        name: of the fault, for the figures.
        fault: does it and takes it back.
        program: module and first arguments of the extender's process.
        settings: of the extender.
    """
    create_nodes(cluster.api, [node(f"node-{number}", cpu="64") for number in range(10)])
    during, after = (
        [pod(f"{kind}-{number}", cpu="100m", scheduler=PROFILE) for number in range(count)]
        for kind, count in (("during", PODS), ("after", AFTERWARDS))
    )
    everything = [each["metadata"]["name"] for each in (*during, *after)]
    with (
        running_extender(cluster, program=program, deadline_ms=500, **settings) as extender,
        kube_scheduler(cluster, shipped_configuration(extender.url)) as scheduler,
        Binds(cluster.api) as binds,
    ):
        scene = Scene(cluster, extender, scheduler, binds)
        with stream(cluster, during) as created:
            scene.bound(0.2)
            fault(scene)
        binds.wait(everything[:PODS], timeout_s=BOUND_S)
        create(cluster.api, after)
        bound = binds.wait(everything, timeout_s=BOUND_S)
        eventually(lambda: extender.metric("maddpg_pods") == len(everything), "it knows where every pod is")
        eventually(lambda: not any(each.startswith("after") for each in _unseen(extender)), "outcomes are known")
        decisions = extender.decisions()
    listed = access.request(cluster.api, "GET", "/api/v1/namespaces/default/pods")["items"]
    where = {each["metadata"]["name"]: each["spec"].get("nodeName") for each in listed}
    slowest = max(bound[each].at - at for each, at in created.items())
    record(Result(f"{name}: bound of {len(everything)}", len(bound), "pods", at_least=len(everything)))
    record(Result(f"{name}: the longest a pod waited", slowest, "s"))
    assert where == {each: bind.node for each, bind in bound.items()}, "a pod was lost, or is not where it was bound"
    fresh = [decisions[each["metadata"]["name"]] for each in after]
    assert {each["fallback_reason"] for each in fresh} == {None}, "it has not recovered"
    assert {each["unknown_nodes"] for each in fresh} == {0}
    return Survived(decisions, slowest)


def _unseen(extender: Extender) -> list[str]:
    """Pods decided upon whose bind the extender has not seen."""
    return [name for name, each in extender.decisions().items() if not (each["outcome"] or {}).get("node")]


@pytest.mark.timeout(400, func_only=True)
def test_disk_full_under_the_ledger(cluster: ControlPlane, record: Record, tmp_path: Path) -> None:
    """No byte can be written to any file, the log included, as on a full disk (the limit raises EFBIG for ENOSPC)."""
    heard: dict[str, float] = {}

    def written(extender: Extender, result: str) -> float:
        return extender.metric("maddpg_ledger_writes_total", result=result)

    def full(scene: Scene) -> None:
        pid = scene.extender.process.pid
        eventually(lambda: written(scene.extender, "written") > 0, "something was written")
        _, hard = resource.prlimit(pid, resource.RLIMIT_FSIZE)
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (0, hard))
        scene.bound(0.6)
        eventually(lambda: written(scene.extender, "failures") > 0, "writing has failed")
        heard["waiting"] = scene.extender.metric("maddpg_ledger_waiting")
        assert scene.extender.ready()
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (hard, hard))
        eventually(lambda: scene.extender.metric("maddpg_ledger_waiting") == 0, "what waited was written", 90.0)
        heard["dropped"] = written(scene.extender, "dropped")

    survived = survive(cluster, record, "disk full", full, ledger_path=tmp_path / "ledger.sqlite")
    record(Result("disk full: decisions that waited for it", heard["waiting"], "decisions", at_least=1))
    record(Result("disk full: decisions the ledger lost", heard["dropped"], "decisions", at_most=0))
    assert heard["waiting"] >= 1
    assert heard["dropped"] == 0
    assert len(survived.decisions) == PODS + AFTERWARDS


@pytest.mark.timeout(400, func_only=True)
def test_corrupt_bundle_is_refused_and_the_old_policy_serves_on(
    cluster: ControlPlane, record: Record, tmp_path: Path
) -> None:
    bundle = shutil.copytree(shipped_bundle_path(), tmp_path / "bundle")
    model = bundle / "actor.onnx"
    good = model.read_bytes()
    seen: dict[str, float] = {}

    def replace(content: bytes) -> None:
        draft = tmp_path / "draft"
        draft.write_bytes(content)
        draft.replace(model)

    def swap(scene: Scene) -> None:
        replace(good[: len(good) // 2])
        eventually(lambda: scene.extender.metric("maddpg_policy_refusals_total") > 0, "it was refused")
        assert scene.extender.ready(), "the old one serves, so it stays ready"
        scene.bound(0.6)
        seen["swaps"] = scene.extender.metric("maddpg_policy_swaps_total")
        replace(good)

    survived = survive(cluster, record, "corrupt bundle", swap, bundle_path=bundle, bundle_reload_s=0.2)
    reasons = [each["fallback_reason"] for each in survived.decisions.values()]
    record(Result("corrupt bundle: decisions by the fallback", len(reasons) - reasons.count(None), "decisions"))
    assert seen["swaps"] == 0
    assert {each["scorer"] for each in survived.decisions.values() if each["fallback_reason"] is None} != set()
    assert set(reasons) <= {None, "late", "busy"}, "a swap that was refused made a decision fail"


@pytest.mark.timeout(400, func_only=True)
def test_clock_jumps_forward_and_back(cluster: ControlPlane, record: Record, tmp_path: Path) -> None:
    file = tmp_path / "shift"
    assumed: list[float] = []

    def jump(scene: Scene) -> None:
        for shift, share in ((3600.0, 0.4), (-7200.0, 0.6), (0.0, 0.8)):
            file.write_text(str(shift))
            scene.bound(share)
            assert scene.extender.ready()
        # an assumption that nothing confirms must end, whatever the clock has done since it was made
        eventually(lambda: scene.extender.metric("maddpg_assumed_placements") <= PODS / 4, "assumptions end")
        assumed.append(scene.extender.metric("maddpg_assumed_placements"))

    program = ("tests.control_plane.shifted_clock", str(file))
    survived = survive(cluster, record, "clock jump", jump, program=program, assumed_time_limit_s=5)
    times = [each["at"] for each in survived.decisions.values()]
    record(Result("clock jump: spread of the decisions' times", max(times) - min(times), "s", at_least=10_000))
    assert max(times) - min(times) > 10_000, "the service never saw the jump"
    assert assumed


@pytest.mark.long
@pytest.mark.timeout(400, func_only=True)
def test_metrics_server_goes_away_and_comes_back(cluster: ControlPlane, record: Record) -> None:
    figures: dict[str, float] = {}

    def failures(scene: Scene) -> float:
        return scene.extender.metric("maddpg_source_events_total", input="usage", event="failures")

    def away(scene: Scene) -> None:
        sources = {node["used"]["source"] for node in scene.extender.nodes()}
        assert sources <= {"metrics-server", "requests"}, "KWOK's nodes have no kubelet that may be asked"
        before = failures(scene)
        cluster.metrics_server.kill()
        eventually(lambda: failures(scene) >= before + 3, "its absence is counted")
        scene.bound(0.8)
        assert scene.extender.ready(), "use is expected from requests meanwhile"
        cluster.metrics_server.start()
        cluster.metrics_server.wait()
        gone = time.monotonic()
        eventually(
            lambda: (
                0 <= scene.extender.metric("maddpg_input_staleness_seconds", input="usage") < 2 * METRIC_RESOLUTION_S
            ),
            "use is measured again",
            120.0,
        )
        figures["back"] = time.monotonic() - gone

    # metrics-server measures every METRIC_RESOLUTION_S: a limit of as much would pass again and again while all is well
    limit_s = 3 * METRIC_RESOLUTION_S
    survive(cluster, record, "metrics-server gone", away, usage_interval_s=1, usage_time_limit_s=limit_s)
    record(Result("metrics-server back: use is measured again after", figures["back"], "s"))


@pytest.mark.long
@pytest.mark.timeout(400, func_only=True)
def test_etcd_is_slow(cluster: ControlPlane, record: Record) -> None:
    """Stopped for 0.7 of every second, for 15 s: each write of the API server takes as long."""

    def slow(scene: Scene) -> None:
        until = time.monotonic() + 15.0
        try:
            while time.monotonic() < until:
                cluster.etcd.pause()
                time.sleep(0.7)
                cluster.etcd.resume()
                time.sleep(0.3)
        finally:
            cluster.etcd.resume()
        assert scene.extender.ready()

    survive(cluster, record, "etcd slow", slow)


@pytest.mark.long
@pytest.mark.timeout(400, func_only=True)
def test_process_is_frozen(cluster: ControlPlane, record: Record) -> None:
    def freeze(scene: Scene) -> None:
        scene.extender.process.pause()
        time.sleep(20.0)
        scene.extender.process.resume()
        eventually(scene.extender.ready, "it is ready again")

    survive(cluster, record, "frozen for 20 s", freeze)


@pytest.mark.long
@pytest.mark.timeout(400, func_only=True)
def test_process_is_killed(cluster: ControlPlane, record: Record) -> None:
    def kill(scene: Scene) -> None:
        scene.extender.process.kill()
        scene.bound(0.6)
        scene.extender.process.start()
        scene.extender.process.wait()

    survive(cluster, record, "SIGKILL and return", kill)


@pytest.mark.long
@pytest.mark.timeout(400, func_only=True)
def test_api_server_restarts(cluster: ControlPlane, record: Record) -> None:
    def restart(scene: Scene) -> None:
        cluster.stop_api_server()
        time.sleep(2.0)
        assert scene.extender.ready()
        cluster.start_api_server()
        # client-go's own watches may stay away for more than a minute; one that lost its lease would start anew
        scene.scheduler.restart()
        for process in (cluster.controller_manager, cluster.kwok):
            process.stop()
            process.start()
            process.wait()

    survive(cluster, record, "API server restart", restart)
