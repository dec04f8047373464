"""A simulated cluster as a source of state: nodes, pods, late measurements; a pod that is bound really runs in it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Final

import numpy as np

from extender.cluster.account import SpeedBasis
from extender.cluster.source import Binding
from extender.cluster.table import ClusterTable
from extender.errors import BindError
from extender.supervision import Supervisor
from training.simulator.scenarios import Scenario
from training.simulator.simulation import Simulator

NAMESPACE: Final = "demo"
MIB: Final = 1024


class SimulatedCluster:
    """One simulated cluster, kept in a `ClusterTable` exactly as a Kubernetes source would keep a real one.

    Args:
        scenario: what is simulated.
        seed: of the episode; another simulator with the same seed meets the same arrivals.
        load: offered work over speed-weighted capacity.
        epoch: what time 0 of the simulation is on the table's clock, seconds since the epoch.
    """

    def __init__(self, scenario: Scenario, seed: int, load: float, epoch: float = 1e6) -> None:
        self.simulator = Simulator(scenario, 1, seed)
        self.simulator.reset(seed, load=load)
        self._epoch = epoch
        self._table: ClusterTable | None = None
        self._shown: set[str] = set()
        self.violations = 0
        """Pods whose SLA was violated so far."""
        self.lateness = 0.0
        """Lateness accrued so far, in allowances."""
        classes = [
            next(c.name for c in scenario.node_classes if (c.cores, c.memory, c.speed) == row)
            for row in zip(*(column[0].tolist() for column in self._columns()), strict=True)
        ]
        self.names = [f"{name}-{row}" for row, name in enumerate(classes)]

    def now(self) -> float:
        """Time of the simulation on the table's clock, seconds since the epoch."""
        return self._epoch + float(self.simulator.now[0])

    # ---- what a kube-scheduler would know

    def pod(self) -> dict[str, Any]:
        """The pod to be placed now, as kube-scheduler would send it."""
        demand = self.simulator.demand
        kind = self.simulator.scenario.pod_classes[int(self.simulator.pod_class[0])].name
        number = int(self.simulator.pod_number[0])
        requests = {
            "cpu": f"{round(float(demand.cpu[0, 0]) * 1000)}m",
            "memory": f"{round(float(demand.memory[0, 0]) * MIB)}Mi",
        }
        return {
            "metadata": {
                "name": f"{kind}-{number}",
                "namespace": NAMESPACE,
                "uid": _uid(number),
                "labels": {"app": kind},
                "annotations": {"maddpg-scheduler.io/urgency": repr(float(demand.urgency[0, 0]))},
            },
            "spec": {
                "schedulerName": "maddpg-scheduler",
                "containers": [{"name": kind, "image": "demo", "resources": {"requests": requests}}],
            },
            "status": {"phase": "Pending", "qosClass": "Burstable"},
        }

    def feasible(self) -> list[str]:
        """Names of the nodes that pass kube-scheduler's own filters for this pod."""
        return [self.names[row] for row in np.flatnonzero(self.simulator.feasible[0])]

    def place(self, row: int) -> None:
        """Bind the pod whose turn it is to the node of this row; time then passes until the next one arrives."""
        self._step(row)

    def leave_pending(self) -> None:
        """No node fits: the pod waits in the queue with back-off, and the next one is considered."""
        self._step(-1)

    # ---- ClusterSource

    async def start(self, table: ClusterTable, supervisor: Supervisor) -> None:
        """Fill the table with the nodes; nothing runs in the background."""
        self._table = table
        cores, memory, speed = (column[0].tolist() for column in self._columns())
        for name, cpu, size, each in zip(self.names, cores, memory, speed, strict=True):
            table.upsert_node(name, cpu, size, each, basis=SpeedBasis("label"))
        self._show()

    async def stop(self) -> None:
        """Leave the table as it is."""
        self._table = None

    @property
    def synced(self) -> bool:
        """Whether the table holds the cluster."""
        return self._table is not None

    def waiting_for(self) -> tuple[str, ...]:
        """What keeps `synced` false."""
        return () if self.synced else ("the simulated cluster has not started",)

    def staleness(self) -> Mapping[str, float | None]:
        """Seconds of simulated time since each input was current."""
        measured = float(self.simulator.now[0]) - self.simulator.snapshot().measured_at
        return {"nodes": 0.0, "pods": 0.0, "usage": measured}

    def counts(self) -> Mapping[tuple[str, str], int]:
        """Nothing happens to a source inside the process."""
        return {}

    async def bind(self, binding: Binding) -> None:
        """Bind the pod to be placed now; time then passes until the next one arrives.

        Raises:
            BindError: it is not that pod's turn, or the node does not take it.
        """
        if binding.uid != _uid(int(self.simulator.pod_number[0])):
            raise BindError(f"pod {binding.namespace}/{binding.name} is not the one to be placed now")
        if binding.node not in self.feasible():
            raise BindError(f"node {binding.node} is unknown, or the pod does not fit on it")
        self._step(self.names.index(binding.node))

    # ---- inside

    def _columns(self) -> tuple[Any, Any, Any]:
        state = self.simulator.state
        return state.cpu_allocatable, state.memory_allocatable, state.node_speed

    def _step(self, row: int) -> None:
        result = self.simulator.step(np.array([row]))
        self.violations += int(result.violations[0])
        self.lateness += float(result.lateness[0])
        if self._table is not None:
            self._show()

    def _show(self) -> None:
        """Bring the table up to date, as the watches of nodes, pods and metrics would."""
        table = self._table
        if table is None:
            return
        seen = self.simulator.snapshot()
        running = dict(zip(map(_uid, seen.pod.tolist()), range(len(seen.pod)), strict=True))
        for uid in self._shown - running.keys():
            table.pod_removed(uid, "succeeded")
        for uid in running.keys() - self._shown:
            at = running[uid]
            table.pod_bound(
                uid,
                self.names[seen.node[at]],
                float(seen.cpu[at]),
                float(seen.memory[at]),
                self._epoch + float(seen.bound_at[at]),
            )
        self._shown = set(running)
        for row, name in enumerate(self.names):
            pressure = None if seen.pressure is None else float(seen.pressure[row])
            table.set_usage(
                name,
                float(seen.cpu_used[row]),
                float(seen.memory_used[row]),
                pressure,
                # the simulator measures first and binds then, at the same moment: such a pod is not measured yet
                math.nextafter(self._epoch + seen.measured_at, -math.inf),
                by="simulator",
            )


def _uid(number: int) -> str:
    return f"00000000-0000-4000-8000-{number:012d}"
