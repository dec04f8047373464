"""What the proof's containers do: Jobs of fixed work with a time in which they should end, and services under load.

Every program is Python in the extender's image, the same on every node, so that all pods of a template are alike to
whoever looks at the cluster.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from tests.control_plane.access import Manifest
from tests.kind.release import python_container

CALIBRATION_S: Final = 0.5
"""CPU time that is measured to learn how much work a CPU second is."""
LIMIT_CORES: Final = 0.05
"""What the container of a Job may use, and does: six fill a worker."""
SLACK: Final = (1.4, 2.6)
"""Time from creation in which a Job should have ended, over its time on an idle fast node; uniform between the two."""
LABEL: Final = "maddpg-proof"

_PLAIN: Final = "def work():\n    sum(range(1500))"
_COPYING: Final = """held = bytearray(b'x' * (96 << 20))
place = 0
def work():
    global place
    place = (place + (1 << 20)) % (len(held) - (1 << 20))
    bytes(memoryview(held)[place:place + (1 << 20)])"""


@dataclass(frozen=True, slots=True)
class Template:
    """One kind of Job."""

    name: str
    weight: float  # how often it is drawn
    cpu_s: float  # CPU time on a fast node
    cpu: float  # its request, cores
    memory: str  # its request
    work: str = _PLAIN  # defines `work()`, one unit


TEMPLATES: Final = (
    Template("brief", 0.5, 1.0, 0.04, "32Mi"),
    Template("lengthy", 0.3, 3.0, 0.025, "32Mi"),  # uses twice the CPU that it requests
    Template("copying", 0.2, 1.5, 0.03, "64Mi", _COPYING),  # holds more memory than it requests, and reads it
)
"""The Jobs. All use more CPU than they request, so that a worker's quota is used up before its requests are, and no Job
is refused because two schedulers had the same room in mind."""
SERVICE_REPLICAS: Final = 4
SERVICE_RATE: Final = 2.0
"""Requests per second and replica, at constant times, whatever became of those before."""
SERVICE_CPU_S: Final = 0.008
"""CPU time of a request on a fast node."""
SERVICE_BOUND_S: Final = 0.04
"""A request should be answered within this; five times its CPU time."""

_CALIBRATE: Final = """
import time
{work}
def per_second():
    began, units = time.process_time(), 0
    while time.process_time() - began < {seconds}:
        for _ in range(10):
            work()
        units += 10
    return units / (time.process_time() - began)
open('/dev/termination-log', 'w').write(str(per_second()))
"""

_JOB: Final = """
import json, os, time
began = time.time()
{work}
for _ in range(int({units} * {factors}.get(os.environ['NODE'], 1.0))):
    work()
said = {{'began': began, 'ended': time.time(), 'cpu_s': time.process_time()}}
open('/dev/termination-log', 'w').write(json.dumps(said))
"""

_SERVICE: Final = """
import os, time
{work}
units, began, number = int({units} * {factors}.get(os.environ['NODE'], 1.0)), time.time(), 0
while True:
    due = began + number / {rate}
    number += 1
    time.sleep(max(0.0, due - time.time()))
    for _ in range(units):
        work()
    print(round(due, 3), round(time.time() - due, 5), flush=True)
"""


@dataclass(frozen=True, slots=True)
class Arrival:
    """A Job to be created."""

    at_s: float  # since the start of its block
    template: Template
    slack: float


def arrivals(seed: tuple[int, ...], rate: float, seconds: float) -> list[Arrival]:
    """Jobs that arrive as a Poisson process of that rate (per second), the same for the same seed."""
    generator, at, found = np.random.default_rng(seed), 0.0, []
    weights = [template.weight for template in TEMPLATES]
    while (at := at + generator.exponential(1.0 / rate)) < seconds:
        template = TEMPLATES[generator.choice(len(TEMPLATES), p=weights)]
        found.append(Arrival(at, template, float(generator.uniform(*SLACK))))
    return found


@dataclass(frozen=True)
class Workload:
    """Makes the objects, for one cluster."""

    image: str
    factors: Mapping[str, float]  # worker -> work for the same task
    units: Mapping[str, float]  # template -> units of work in a CPU second

    def job(self, name: str, template: Template, **pod: Any) -> Manifest:
        """A Job of that template."""
        program = _JOB.format(
            work=template.work, units=round(template.cpu_s * self.units[template.name]), factors=dict(self.factors)
        )
        resources = {
            "requests": {"cpu": _milli(template.cpu), "memory": template.memory},
            "limits": {"cpu": _milli(LIMIT_CORES)},
        }
        return _job(name, self._pod(program, resources, restartPolicy="Never", **pod))

    def service(self, name: str, **pod: Any) -> Manifest:
        """A Deployment whose replicas answer requests and print how long each took."""
        units = round(SERVICE_CPU_S * self.units[TEMPLATES[0].name])
        program = _SERVICE.format(work=_PLAIN, units=units, factors=dict(self.factors), rate=SERVICE_RATE)
        resources = {"requests": {"cpu": "20m", "memory": "32Mi"}}
        labels = {LABEL: "service", "app": name}
        template = {
            "metadata": {"labels": labels},
            "spec": self._pod(program, resources, terminationGracePeriodSeconds=1, **pod),
        }
        return {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {"name": name, "namespace": "default", "labels": labels},
            "spec": {"replicas": SERVICE_REPLICAS, "selector": {"matchLabels": {"app": name}}, "template": template},
        }

    def _pod(self, program: str, resources: Manifest, **pod: Any) -> Manifest:
        return _pod(self.image, program, resources, **pod)


def calibration(image: str, template: Template, node: str) -> Manifest:
    """A Job on that node that says how many units of a template's work a CPU second is."""
    program = _CALIBRATE.format(work=template.work, seconds=CALIBRATION_S)
    # under the same limit: short pieces of CPU time are dearer than long ones
    resources = {"limits": {"cpu": _milli(LIMIT_CORES)}}
    pod = _pod(image, program, resources, restartPolicy="Never", nodeSelector={"kubernetes.io/hostname": node})
    return _job(f"calibration-{template.name}", pod)


def said(pod: Manifest) -> Any:
    """What the container of an ended pod left behind; None before, or if it left nothing."""
    for status in pod["status"].get("containerStatuses", ()):
        if message := status["state"].get("terminated", {}).get("message"):
            return json.loads(message)
    return None


def _job(name: str, pod: Manifest) -> Manifest:
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": name, "namespace": "default", "labels": {LABEL: "job"}},
        "spec": {"backoffLimit": 0, "template": {"metadata": {"labels": {LABEL: "job"}}, "spec": pod}},
    }


def _pod(image: str, program: str, resources: Manifest, **pod: Any) -> Manifest:
    container = python_container(image, program, resources, "-SEuc")
    return {"automountServiceAccountToken": False, "enableServiceLinks": False, "containers": [container], **pod}


def _milli(cores: float) -> str:
    return f"{cores * 1000:.0f}m"
