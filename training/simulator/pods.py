"""The pods that are in each cluster now: slots, so that many clusters fit one array. Grows; never drops one."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, Final, Self

import numpy as np
from numpy.typing import NDArray

from training.simulator.draws import FloatArray
from training.simulator.workload import ArrivalTable

NOWHERE: Final = -1
"""Node of a pod that is pending."""


@dataclass(slots=True)
class Pods:
    """Struct of arrays over ``[clusters, slots]``. A free slot has `occupied` False and infinite times."""

    occupied: NDArray[np.bool_]  # whether the slot holds a pod
    number: NDArray[np.int64]  # which pod of its cluster it is, in order of arrival
    node: NDArray[np.int64]  # row of its node, or `NOWHERE`
    lane: NDArray[np.int64]  # flat position of its node and class in ``[clusters, n, w]``; 0 if pending
    kind: NDArray[np.int64]  # row of its class
    cpu: FloatArray  # CPU request, cores
    memory: FloatArray  # memory request, GiB
    cpu_use: FloatArray  # CPU use while it runs, before the workload's drift, cores
    memory_use: FloatArray  # memory use while it runs, GiB
    work: FloatArray  # reference seconds of one unit
    units: NDArray[np.int64]  # units of work left, the current one included
    slack: FloatArray  # allowed slowdown; 0 is best effort
    arrived: FloatArray  # time it arrived, seconds
    deadline: FloatArray  # time the current unit has to be done; infinite for best effort
    per_budget: FloatArray  # 1 / (slack x work): turns seconds of lateness into allowances; 0 for best effort
    finish_at: FloatArray  # progress of its lane at which the unit is done; infinite while pending
    bound_at: FloatArray  # time it was bound, seconds
    cpu_began: FloatArray  # `Nodes.cpu_time` of its node then
    retry_at: FloatArray  # earliest time of its next scheduling attempt; infinite unless it waits in the queue
    backoff: FloatArray  # seconds it waits after its next failed attempt
    lateness: FloatArray  # lateness so far, in allowances
    violated: NDArray[np.bool_]  # whether its SLA is violated
    decided: NDArray[np.bool_]  # whether its SLA is decided: violated, or a first unit done
    unit_began: FloatArray  # time the current unit began: arrival, or for a service the end of the unit before, seconds

    @classmethod
    def empty(cls, clusters: int, slots: int) -> Self:
        """Free slots."""
        values: dict[str, NDArray[Any]] = {}
        for item in fields(cls):
            fill, kind = _FREE.get(item.name, (0.0, np.float64))
            values[item.name] = np.full((clusters, slots), fill, dtype=kind)
        return cls(**values)

    def grow(self) -> None:
        """Double the number of slots."""
        more = type(self).empty(*self.occupied.shape)
        for item in fields(self):
            setattr(self, item.name, np.concatenate([getattr(self, item.name), getattr(more, item.name)], axis=1))

    def enqueue(
        self, rows: NDArray[np.int64], numbers: NDArray[np.int64], table: ArrivalTable, first_backoff: float
    ) -> NDArray[np.int64]:
        """Put pod `numbers` of clusters `rows` (one each) into free slots, pending; returns the slots."""
        slots: NDArray[np.int64] = np.argmin(self.occupied[rows], axis=1)
        if self.occupied[rows, slots].any():
            self.grow()
            slots = np.argmin(self.occupied[rows], axis=1)
        at = (rows, slots)
        source = (rows, numbers)
        work, slack, arrived = table.work[source], table.slack[source], table.time[source]
        limited = slack > 0.0
        budget = slack * work
        self.occupied[at] = True
        self.number[at] = numbers
        self.node[at] = NOWHERE
        self.lane[at] = 0
        self.kind[at] = table.kind[source]
        self.cpu[at] = table.cpu[source]
        self.memory[at] = table.memory[source]
        self.cpu_use[at] = table.cpu_use[source]
        self.memory_use[at] = table.memory_use[source]
        self.work[at] = work
        self.units[at] = table.units[source]
        self.slack[at] = slack
        self.arrived[at] = arrived
        self.deadline[at] = np.where(limited, arrived + budget, np.inf)
        self.per_budget[at] = np.where(limited, 1.0 / np.where(limited, budget, 1.0), 0.0)
        self.backoff[at] = first_backoff
        self.lateness[at] = 0.0
        self.violated[at] = False
        self.decided[at] = False
        self.unit_began[at] = arrived
        return slots

    def free(self, flat: NDArray[np.intp]) -> None:
        """Give up the slots at these flat positions."""
        self.occupied.reshape(-1)[flat] = False
        self.node.reshape(-1)[flat] = NOWHERE
        for name in ("deadline", "finish_at", "retry_at"):
            getattr(self, name).reshape(-1)[flat] = np.inf


_FREE: Final = {
    "occupied": (False, np.bool_),
    "violated": (False, np.bool_),
    "decided": (False, np.bool_),
    "number": (0, np.int64),
    "node": (NOWHERE, np.int64),
    "lane": (0, np.int64),
    "kind": (0, np.int64),
    "units": (0, np.int64),
    "deadline": (np.inf, np.float64),
    "finish_at": (np.inf, np.float64),
    "retry_at": (np.inf, np.float64),
}
"""What a free slot holds where that is not 0.0."""
