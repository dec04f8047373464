"""The experiment: the same arrivals under kube-scheduler alone and under ours, in blocks by turns.

Pairs of blocks have the same arrivals; which of the two schedulers comes first is drawn. What arrives in the first part
of a block meets pods that the other scheduler has placed, and is not counted.
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
from kubernetes import client

from tests.chart.helm import NAMESPACE, RELEASE
from tests.control_plane import access
from tests.control_plane.access import Manifest, connect
from tests.control_plane.workload import Binds
from tests.kind.cluster import Cluster, ClusterError, wait_until
from tests.kind.release import Release
from tests.proof.machines import KINDS, kinds
from tests.proof.work import LABEL, TEMPLATES, Template, Workload, arrivals, calibration, said

SCHEDULERS: Final = {"kube-scheduler": "default-scheduler", "maddpg-scheduler": "maddpg-scheduler"}
"""Arm -> `schedulerName` of its pods."""
USAGE_INTERVAL_S: Final = 10.0
PODS: Final = "/api/v1/namespaces/default/pods"
JOBS: Final = "/apis/batch/v1/namespaces/default/jobs"
DEPLOYMENTS: Final = "/apis/apps/v1/namespaces/default/deployments"
ATTEMPTS: Final = 5
PATIENCE_S: Final = 300.0
"""Longest wait for Jobs, while times alone are measured and after the last block."""
MOST_ROUNDS: Final = 5
"""Rounds in which each template's time alone is measured, at most."""
LEAST_IDLE: Final = 0.1
"""Share of the machine's CPU time that must be left over. In a run that left 0.05, half of all Jobs were late."""


@dataclass(frozen=True)
class Plan:
    """How long, how loaded, how often."""

    pairs: int = 8
    block_s: float = 150.0
    dropped_s: float = 50.0
    """What arrives so soon after the start of a block is not counted."""
    warmup_s: float = 300.0
    """Arrivals before the first block, under kube-scheduler alone, from which ours learns."""
    load: float = 0.45
    """CPU time offered by Jobs over what the nodes can give, both in a fast node's."""
    seed: int = 2

    @property
    def rate(self) -> float:
        """Jobs per second."""
        capacity = sum(kind.cores / kind.factor for kind in KINDS)
        return self.load * capacity / sum(template.weight * template.cpu_s for template in TEMPLATES)

    @property
    def arms(self) -> list[str]:
        """Who schedules in each block."""
        generator, found = np.random.default_rng((self.seed, 0)), []
        for _ in range(self.pairs):
            found += [str(name) for name in generator.permutation(list(SCHEDULERS))]
        return found


@dataclass(slots=True)
class Job:
    """What became of one Job; times in seconds of time.time."""

    block: int  # -1 during the warm-up
    arm: str
    template: str
    slack: float
    nominal_s: float  # from creation to the end on an idle fast node
    counted: bool
    created: float
    bound: float | None = None
    node: str = ""
    began: float | None = None
    ended: float | None = None
    cpu_s: float | None = None
    given_up: float | None = None
    """When the experiment stopped waiting for its end."""

    @property
    def slowdown(self) -> float | None:
        """Time from creation to the end over nominal; of one that was given up, to then, which is less than it took."""
        until = self.given_up if self.ended is None else self.ended
        return None if until is None else (until - self.created) / self.nominal_s

    @property
    def late(self) -> bool:
        """Whether it took longer than it might; one that never ended did."""
        return self.ended is None or self.slowdown is None or self.slowdown > self.slack


@dataclass(frozen=True, slots=True)
class Request:
    """One request to a service."""

    block: int
    arm: str
    node: str
    due: float
    latency_s: float
    counted: bool


@dataclass
class Record:
    """Everything that was seen."""

    plan: Plan
    kinds: dict[str, str]  # worker -> kind
    nominal_s: dict[str, float] = field(default_factory=dict)  # template -> from creation to the end, alone, fast
    jobs: dict[str, Job] = field(default_factory=dict)
    requests: list[Request] = field(default_factory=list)
    nodes: list[dict[str, Any]] = field(default_factory=list)  # /v1/nodes at the end of each block
    idle: float = 0.0  # share of the machine's CPU time that nobody used during the blocks


class Switchback:
    """Plays a plan on a cluster."""

    def __init__(self, cluster: Cluster, image: str, plan: Plan, say: Callable[[str], None] = print) -> None:
        self._cluster, self._image, self._plan, self._say = cluster, image, plan, say
        self._truth = kinds(cluster)
        self._api: client.ApiClient = connect(cluster.kubeconfig)
        self.record = Record(plan, {name: kind.name for name, kind in self._truth.items()})
        self._release = Release(
            cluster,
            image,
            mode="sidecar",
            kubelet={"enabled": True, "insecureSkipTLSVerify": True},
            settings={"usage_interval_s": USAGE_INTERVAL_S},
        )

    def run(self) -> Record:
        """Calibrate, let ours learn, and play the blocks."""
        plan, offset = self._plan, time.time() - time.monotonic()
        with self._installed(), Binds(self._api) as binds:
            workload = self._calibrated()
            before = _machine_time()
            self._block(workload, -1, "kube-scheduler", plan.warmup_s, (plan.seed, 1))
            _enough(_idle_since(before))
            before = _machine_time()
            for number, arm in enumerate(plan.arms):
                self._block(workload, number, arm, plan.block_s, (plan.seed, 2, number // 2))
            self.record.idle = _idle_since(before)
            deadline = time.monotonic() + PATIENCE_S
            while self._unfinished() and time.monotonic() < deadline:
                time.sleep(2.0)
                self._collect()
            self._collect()
            for name in self._unfinished():
                self.record.jobs[name].given_up = time.time()
            for pod, bind in binds.bound.items():
                if job := self.record.jobs.get(pod.rpartition("-")[0]):
                    job.bound, job.node = bind.at + offset, bind.node
        return self.record

    @contextmanager
    def _installed(self) -> Iterator[None]:
        """The chart as users install it, on the control plane, where it takes no worker's CPU."""
        role = "node-role.kubernetes.io/control-plane"
        self._release.values["pods"] = {
            "nodeSelector": {role: ""}, "tolerations": [{"key": role, "operator": "Exists"}],
        }  # fmt: skip
        self._release.install()
        yield
        self._release.helm("uninstall", RELEASE, "--wait", "--timeout", "120s")
        self._cluster.kubectl("delete", "namespace", NAMESPACE, "--wait", "--timeout=60s")

    def _calibrated(self) -> Workload:
        """How much work a CPU second is, and how long each template takes alone on a fast node."""
        fast = [name for name, kind in self._truth.items() if kind.name == "fast"]
        units = {}
        for template in TEMPLATES:  # one after the other: alone
            (found,) = self._ended([calibration(self._image, template, fast[0])])
            units[template.name] = float(said(found))
        workload = Workload(self._image, {name: kind.factor for name, kind in self._truth.items()}, units)
        self.record.nominal_s = {each.name: self._alone(workload, each, fast) for each in TEMPLATES}
        self._say(f"units per CPU second {units}, alone on a fast node {self.record.nominal_s}")
        return workload

    def _alone(self, workload: Workload, template: Template, fast: Sequence[str]) -> float:
        """Seconds from creation to the end on fast nodes where nothing else runs, once a round agrees with one before.

        A cluster that has just come up is slower: in one run the first round took 40 s, and later Jobs 22 s.
        """
        before: list[float] = []
        for number in range(MOST_ROUNDS):
            jobs = [
                workload.job(
                    f"{template.name}-{number}{place}", template, nodeSelector={"kubernetes.io/hostname": name}
                )
                for place, name in enumerate(fast)
            ]
            created = time.time()
            taken: float = statistics.median(said(pod)["ended"] - created for pod in self._ended(jobs))
            self._say(f"{template.name} alone on a fast node, round {number + 1}: {taken:.1f} s")
            if alike := [other for other in before if agree(other, taken)]:
                return (alike[-1] + taken) / 2.0
            before.append(taken)
        raise ClusterError(
            f"{template.name} took another time in each of {MOST_ROUNDS} rounds alone on fast nodes, "
            f"{', '.join(f'{each:.0f}' for each in before)} s: end what else runs"
        )

    def _ended(self, jobs: list[Manifest]) -> list[Manifest]:
        """Create Jobs, wait until their pods have ended, delete them, and return the pods."""
        for job in jobs:
            send(self._api, "POST", JOBS, job)
        names = [job["metadata"]["name"] for job in jobs]
        found: list[Manifest] = []

        def all_ended() -> bool:
            pods = [
                pod
                for name in names
                for pod in request(self._api, "GET", f"{PODS}?labelSelector=job-name%3D{name}")["items"]
            ]
            for pod in pods:
                if pod["status"]["phase"] == "Failed":
                    raise ClusterError(f"pod {pod['metadata']['name']} failed: {pod['status']}")
            found[:] = [pod for pod in pods if said(pod) is not None]
            return len(found) == len(jobs)

        wait_until(all_ended, f"{', '.join(names)} end", PATIENCE_S)
        for name in names:
            self._delete(name)
        return found

    def _block(self, workload: Workload, number: int, arm: str, seconds: float, seed: tuple[int, ...]) -> None:
        scheduler, plan = SCHEDULERS[arm], self._plan
        service = f"service-{number + 1}"
        start = time.monotonic()
        send(self._api, "POST", DEPLOYMENTS, workload.service(service, schedulerName=scheduler))
        for each in arrivals(seed, plan.rate, seconds):
            while (left := start + each.at_s - time.monotonic()) > 5.0:
                time.sleep(left - 5.0)
            time.sleep(max(0.0, left))
            self._create(workload, each.template, number, arm, each.slack, each.at_s >= plan.dropped_s)
        time.sleep(max(0.0, start + seconds - time.monotonic()))
        self._read_services(number, arm, service, time.time() - seconds + plan.dropped_s)
        send(self._api, "DELETE", f"{DEPLOYMENTS}/{service}?propagationPolicy=Background")
        self._collect()
        pod = self._release.ready("scheduler")[0]  # in mode sidecar, the extender is in kube-scheduler's pod
        self.record.nodes.append({"block": number, **self._release.ask(pod, "/v1/nodes")})
        done = [job for job in self.record.jobs.values() if job.block == number and job.ended is not None]
        self._say(f"block {number} {arm}: {len(done)} ended, {sum(job.late for job in done)} late")

    def _create(
        self, workload: Workload, template: Template, block: int, arm: str, slack: float, counted: bool
    ) -> None:
        name = f"{template.name}-{1000 + len(self.record.jobs)}"
        nominal = self.record.nominal_s[template.name]
        self.record.jobs[name] = Job(
            block, arm, template.name, slack, nominal, counted and block >= 0, created=time.time()
        )
        send(self._api, "POST", JOBS, workload.job(name, template, schedulerName=SCHEDULERS[arm]))

    def _read_services(self, block: int, arm: str, name: str, since: float) -> None:
        for pod in request(self._api, "GET", f"{PODS}?labelSelector=app%3D{name}")["items"]:
            if pod["status"]["phase"] != "Running":
                continue
            log = send(self._api, "GET", f"{PODS}/{pod['metadata']['name']}/log").decode()
            for line in log.splitlines():
                due, latency = map(float, line.split())
                node = pod["spec"]["nodeName"]
                self.record.requests.append(Request(block, arm, node, due, latency, block >= 0 and due >= since))

    def _unfinished(self) -> list[str]:
        return [name for name, job in self.record.jobs.items() if job.ended is None]

    def _collect(self) -> None:
        """Take down what has ended, and delete it."""
        for pod in request(self._api, "GET", f"{PODS}?labelSelector={LABEL}%3Djob")["items"]:
            name = pod["metadata"]["labels"].get("job-name", "")
            job = self.record.jobs.get(name)
            if job is None or job.ended is not None or (found := said(pod)) is None:
                continue
            job.began, job.ended, job.cpu_s = found["began"], found["ended"], found["cpu_s"]
            job.node = pod["spec"]["nodeName"]
            self._delete(name)

    def _delete(self, name: str) -> None:
        send(self._api, "DELETE", f"{JOBS}/{name}?propagationPolicy=Background")


def send(api: client.ApiClient, method: str, path: str, body: Manifest | None = None) -> bytes:
    """`tests.control_plane.access.send`, again where a busy etcd answered too late."""
    attempt = 1
    while True:
        try:
            return access.send(api, method, path, body)
        except client.ApiException as error:
            if attempt > 1 and error.status == {"POST": 409, "DELETE": 404}.get(method):
                return b""  # the one before was carried out
            if (error.status or 500) < 500 or attempt == ATTEMPTS:
                raise
        attempt += 1
        time.sleep(1.0)


def request(api: client.ApiClient, method: str, path: str) -> Any:
    """The JSON that `send` gets."""
    return json.loads(send(api, method, path))


def agree(one: float, other: float) -> bool:
    """Whether two times differ by a twentieth of the larger at most."""
    return abs(one - other) <= 0.05 * max(one, other)


def _enough(idle: float) -> None:
    """Give up early where the machine has too little CPU to spare for nodes to get their quotas."""
    if idle < LEAST_IDLE:
        raise ClusterError(
            f"nobody used {idle:.1%} of the machine's CPU during the warm-up; workers may miss their quotas below "
            f"{LEAST_IDLE:.0%}: end what else runs, or lower --load"
        )


def _idle_since(before: tuple[float, float]) -> float:
    """Share of the machine's CPU time that nobody used since `_machine_time` was `before`."""
    idle, total = (end - start for start, end in zip(before, _machine_time(), strict=True))
    return idle / total


def _machine_time() -> tuple[float, float]:
    """CPU time of the whole machine since it started: idle, and all."""
    values = [float(value) for value in Path("/proc/stat").read_text().split(maxsplit=9)[1:9]]
    return values[3] + values[4], sum(values)
