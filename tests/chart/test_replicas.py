"""Two extenders behind a Service, one of them killed again and again under load: no pod is lost and none waits.

CHART_KILL_SECONDS and CHART_KILL_EVERY_S make it as long as you like: 180 and 10, say, for three minutes.
"""

import os
import re
import ssl
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.chart.audit import AuditedControlPlane
from tests.chart.forwarder import Forwarder
from tests.chart.installation import SERVICE, Installation, installed
from tests.control_plane.access import send
from tests.control_plane.scheduler import PROFILE
from tests.control_plane.workload import Binds, create, pod

LASTS_S = float(os.environ.get("CHART_KILL_SECONDS", "12"))
EVERY_S = float(os.environ.get("CHART_KILL_EVERY_S", "3"))
BATCH = 25
LONGEST_CYCLE_S = "1.024"
"""A bucket of kube-scheduler's histogram, just above the httpTimeout of the chart."""


@pytest.fixture
def installation(control_plane: AuditedControlPlane, nodes: None, home: Path, tmp_path: Path) -> Iterator[Installation]:
    with installed(control_plane, home, tmp_path, SERVICE) as made:
        yield made


@pytest.mark.timeout(LASTS_S + 120)
def test_replica_that_is_killed_again_and_again_loses_no_pod(installation: Installation) -> None:
    deployed, account = installation.deployed, installation.extender_account
    made: list[str] = []
    kills = 0
    with (
        deployed.extender(account) as one,
        deployed.extender(account) as other,
        Forwarder([one.port, other.port]) as service,
        deployed.scheduler(installation.scheduler_account, service.url),
        Binds(installation.api) as binds,
    ):

        def place(meanwhile: Callable[[], None] = lambda: None) -> None:
            """Create a batch of pods, and see all of it bound."""
            names = [f"pod-{len(made) + number}" for number in range(BATCH)]
            create(installation.api, [pod(name, scheduler=PROFILE, cpu="10m") for name in names])
            made.extend(names)
            meanwhile()
            binds.wait(names, 15.0)
            # the nodes hold 110 pods each
            for name in names:
                send(installation.api, "DELETE", f"/api/v1/namespaces/default/pods/{name}?gracePeriodSeconds=0")

        def kill_in_turn() -> None:
            nonlocal next_kill, kills
            if time.monotonic() >= next_kill:
                victim = (one, other)[kills % 2].process
                victim.kill()
                victim.start()  # as the kubelet does; it is not waited for
                next_kill, kills = next_kill + EVERY_S, kills + 1

        began = time.monotonic()
        next_kill = began + EVERY_S
        while time.monotonic() - began < LASTS_S:
            place(kill_in_turn)
        one.process.wait()
        other.process.wait()
        place()
        metrics = _scheduler_metrics(installation)
        asked = [each.get("/v1/decisions?limit=1")[1]["counts"]["decisions"] for each in (one, other)]
    print(f"{len(made)} pods bound while {kills} replicas were killed in {LASTS_S:.0f} s; asked since: {asked}")
    assert kills >= LASTS_S // EVERY_S - 1
    assert sum(asked) >= BATCH, "once both are back, they are asked"
    assert set(binds.bound) >= set(made)
    cycles, short = _cycles(metrics)
    assert cycles >= len(made)
    assert short == cycles, "a scheduling cycle took longer than one unanswered call"


def _scheduler_metrics(installation: Installation) -> str:
    """kube-scheduler's own, as the cluster's administrator reads them."""
    token = re.search(r"token: (\S+)", installation.plane.kubeconfig("admin").read_text())
    assert token
    context = ssl.create_default_context(cafile=installation.plane.endpoint.authority)
    call = urllib.request.Request(
        f"{installation.deployed.scheduler_url}/metrics", headers={"Authorization": f"Bearer {token[1]}"}
    )
    with urllib.request.urlopen(call, context=context) as answer:
        return str(answer.read().decode())


def _cycles(metrics: str) -> tuple[float, float]:
    """How many scheduling cycles placed a pod, and how many of them were not too long."""
    name = "scheduler_scheduling_attempt_duration_seconds"
    chosen = [line for line in metrics.splitlines() if line.startswith(name) and 'result="scheduled"' in line]
    total = [float(line.rsplit(" ", 1)[1]) for line in chosen if line.startswith(f"{name}_count")]
    short = [float(line.rsplit(" ", 1)[1]) for line in chosen if f'le="{LONGEST_CYCLE_S}"' in line]
    assert total, "kube-scheduler shows its cycles"
    return sum(total), sum(short)
