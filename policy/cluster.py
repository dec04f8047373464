"""The state a decision is made from, and the demand it is made for. Refuses to know where either came from."""

from __future__ import annotations

from dataclasses import dataclass, fields
from math import inf
from typing import Any, Final, NamedTuple, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from policy.errors import InvalidInputError

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

REFERENCE_SPEED: Final = 1.0
"""Speed of the reference core; `ClusterState.node_speed` is relative to it."""

NONZERO_CPU: Final = 0.1
"""Cores that scores count for a container that does not say how much CPU it requests.

kube-scheduler counts the same, "so that zero-request pods will not all be scheduled to the node with the smallest
in-use request": kubernetes pkg/scheduler/util/pod_resources.go, `DefaultMilliCPURequest`.
"""

NONZERO_MEMORY: Final = 200.0 / 1024.0
"""GiB that scores count for a container that does not say how much memory it requests; see `NONZERO_CPU`."""

EXPECTED_USE_RATIO: Final = 0.65
"""Expected use over request of a pod not measured yet.

Middle of use over limit without and with autopilot, 0.54 and 0.77 (Rzadca et al., "Autopilot", EuroSys 2020: slack of
46 % and 23 %).
"""

UNMEASURED_MEMORY_RATIO: Final = 0.95
"""Memory used over requested that the memory bound expects of the pods of a node that was never measured.

Middle of what training draws, 0.5 to 1.4 (`training.simulator.deviations`). More than `EXPECTED_USE_RATIO`, because
what the bound keeps off is a pod that is killed.
"""

_AS_REQUESTED: Final[Any] = None
"""Default of a non-zero request: the request itself."""

_NONE: Final[Any] = None
"""Default of a column that is the same everywhere."""


class Node(NamedTuple):
    """One node's row of a `ClusterState`, as floats; the same names, the same units."""

    cpu_allocatable: float
    memory_allocatable: float
    cpu_requested: float
    memory_requested: float
    cpu_used: float
    memory_used: float
    cpu_pressure: float
    node_speed: float
    cpu_nonzero: float
    memory_nonzero: float
    memory_unseen: float
    memory_ratio: float


@dataclass(frozen=True, slots=True)
class ClusterState:
    """What is known of every node: a struct of arrays, one row per node.

    Every array has the same shape ``[..., n]``: serving uses ``[n]``, the simulator ``[clusters, n]``. The arrays are
    float64 so that adding and removing the same pod many times does not drift. Which row is which node is the owner's
    knowledge, not ours.
    """

    cpu_allocatable: FloatArray  # allocatable CPU, cores, > 0
    memory_allocatable: FloatArray  # allocatable memory, GiB, > 0
    # sum of the CPU requests of the node's pods, cores: what kube-scheduler filters by, and leaves for more pods
    cpu_requested: FloatArray
    memory_requested: FloatArray  # sum of the memory requests of the node's pods, GiB
    cpu_used: FloatArray  # measured CPU use plus the expected use of pods bound since that measurement, cores
    memory_used: FloatArray  # the same for memory, GiB
    cpu_pressure: FloatArray  # share of time that tasks waited for a CPU, 0..1 (PSI "some"), measured or estimated
    node_speed: FloatArray  # speed per core relative to the reference core (1.0), > 0
    version: IntArray  # grows whenever anything in the row changes
    # sum of the non-zero CPU requests of the node's pods, cores: what scores count, as kube-scheduler's
    # `NodeInfo.NonZeroRequested`. A container that does not say counts as `NONZERO_CPU`. Default: the requests.
    cpu_nonzero: FloatArray = _AS_REQUESTED
    memory_nonzero: FloatArray = _AS_REQUESTED  # the same for memory, GiB, with `NONZERO_MEMORY`
    # the part of `memory_nonzero` that pods bound since the measurement request, GiB: what they use is not known yet.
    # Default: none.
    memory_unseen: FloatArray = _NONE
    # memory that the node's pods were measured to use, over what they request: what to expect of one that is not
    # measured yet; see `policy.shortage.use_ratio`. Default: 1.
    memory_ratio: FloatArray = _NONE

    def __post_init__(self) -> None:
        if self.cpu_nonzero is _AS_REQUESTED:
            object.__setattr__(self, "cpu_nonzero", self.cpu_requested)
        if self.memory_nonzero is _AS_REQUESTED:
            object.__setattr__(self, "memory_nonzero", self.memory_requested)
        if self.memory_unseen is _NONE:
            object.__setattr__(self, "memory_unseen", np.zeros(self.memory_requested.shape))
        if self.memory_ratio is _NONE:
            object.__setattr__(self, "memory_ratio", np.ones(self.memory_requested.shape))
        shape = self.cpu_allocatable.shape
        if not (
            shape
            == self.memory_allocatable.shape
            == self.cpu_requested.shape
            == self.memory_requested.shape
            == self.cpu_used.shape
            == self.memory_used.shape
            == self.cpu_pressure.shape
            == self.node_speed.shape
            == self.version.shape
            == self.cpu_nonzero.shape
            == self.memory_nonzero.shape
            == self.memory_unseen.shape
            == self.memory_ratio.shape
        ):
            column = next(name for name in COLUMNS if getattr(self, name).shape != shape)
            raise InvalidInputError(
                f"ClusterState.{column} has shape {getattr(self, column).shape}; "
                f"give it the shape of cpu_allocatable, {shape}"
            )

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape shared by every column, ``[..., n]``."""
        return self.cpu_allocatable.shape

    def __len__(self) -> int:
        """Number of nodes: the length of the last axis."""
        return int(self.cpu_allocatable.shape[-1])

    def take(self, rows: NDArray[np.intp]) -> Self:
        """Copy of the given rows of the last axis, in that order; shape ``[..., len(rows)]``."""
        return type(self)(*(getattr(self, column).take(rows, axis=-1) for column in COLUMNS))

    def only(self) -> Node:
        """The numbers of the only node; raises `ValueError` unless the columns hold one number each."""
        return Node(
            self.cpu_allocatable.item(),
            self.memory_allocatable.item(),
            self.cpu_requested.item(),
            self.memory_requested.item(),
            self.cpu_used.item(),
            self.memory_used.item(),
            self.cpu_pressure.item(),
            self.node_speed.item(),
            self.cpu_nonzero.item(),
            self.memory_nonzero.item(),
            self.memory_unseen.item(),
            self.memory_ratio.item(),
        )

    @classmethod
    def idle(
        cls,
        cpu_allocatable: ArrayLike,
        memory_allocatable: ArrayLike,
        node_speed: ArrayLike = REFERENCE_SPEED,
    ) -> Self:
        """A state without pods; the arguments broadcast to one shape ``[..., n]`` (cores, GiB, relative speed)."""
        cpu, memory, speed = np.broadcast_arrays(
            *(np.asarray(column, dtype=np.float64) for column in (cpu_allocatable, memory_allocatable, node_speed))
        )
        return cls(
            cpu_allocatable=cpu.copy(),
            memory_allocatable=memory.copy(),
            cpu_requested=np.zeros(cpu.shape),
            memory_requested=np.zeros(cpu.shape),
            cpu_used=np.zeros(cpu.shape),
            memory_used=np.zeros(cpu.shape),
            cpu_pressure=np.zeros(cpu.shape),
            node_speed=speed.copy(),
            version=np.zeros(cpu.shape, dtype=np.int64),
            cpu_nonzero=np.zeros(cpu.shape),
            memory_nonzero=np.zeros(cpu.shape),
            memory_unseen=np.zeros(cpu.shape),
            memory_ratio=np.ones(cpu.shape),
        )


COLUMNS: Final = tuple(field.name for field in fields(ClusterState))
"""Names of the columns of a `ClusterState`, looked up once: it is copied and checked several times per decision."""


@dataclass(frozen=True, slots=True)
class PodDemand:
    """What a pod asks for. Equal demands form one class of pods: every node answers them alike.

    Raises:
        InvalidInputError: a value is out of range or not finite.
    """

    cpu: float  # CPU request, cores, >= 0
    memory: float  # memory request, GiB, >= 0
    # how little slowdown the pod's SLA allows, 0..1: one over the allowed slowdown, so 1 allows none, 0.5 allows
    # twice the ideal time and 0 (best effort) allows any
    urgency: float
    # non-zero CPU request, cores, >= 0: what scores count; see `ClusterState`. Default: `cpu`.
    cpu_nonzero: float = _AS_REQUESTED
    memory_nonzero: float = _AS_REQUESTED  # the same for memory, GiB. Default: `memory`.
    # non-zero CPU request of the containers and the overhead, cores, >= 0, without what the pod requests as a
    # whole: what kube-scheduler's LeastAllocated adds for this pod. Default: `cpu_nonzero`.
    cpu_contained: float = _AS_REQUESTED
    memory_contained: float = _AS_REQUESTED  # the same for memory, GiB. Default: `memory_nonzero`.

    def __post_init__(self) -> None:
        # written out, and not in a loop over names: a demand is made for every pod that is asked about
        if self.cpu_nonzero is _AS_REQUESTED:
            object.__setattr__(self, "cpu_nonzero", self.cpu)
        if self.memory_nonzero is _AS_REQUESTED:
            object.__setattr__(self, "memory_nonzero", self.memory)
        if self.cpu_contained is _AS_REQUESTED:
            object.__setattr__(self, "cpu_contained", self.cpu_nonzero)
        if self.memory_contained is _AS_REQUESTED:
            object.__setattr__(self, "memory_contained", self.memory_nonzero)
        if (
            0.0 <= self.cpu < inf
            and 0.0 <= self.memory < inf
            and 0.0 <= self.urgency <= 1.0
            and 0.0 <= self.cpu_nonzero < inf
            and 0.0 <= self.memory_nonzero < inf
            and 0.0 <= self.cpu_contained < inf
            and 0.0 <= self.memory_contained < inf
        ):
            return
        for item in fields(self):
            value, upper = getattr(self, item.name), 1.0 if item.name == "urgency" else inf
            if not (0.0 <= value <= upper and value < inf):
                raise InvalidInputError(f"PodDemand.{item.name} is {value}; give a finite number in [0, {upper}]")


@dataclass(frozen=True, slots=True)
class DemandBatch:
    """One pod for each of many clusters: what the simulator asks about at once."""

    cpu: FloatArray  # CPU requests, cores, shape ``[..., 1]`` so that it broadcasts against ``[..., n]``
    memory: FloatArray  # memory requests, GiB, same shape
    urgency: FloatArray  # urgencies, 0..1, same shape
    cpu_nonzero: FloatArray = _AS_REQUESTED  # non-zero CPU requests, cores, same shape. Default: `cpu`.
    memory_nonzero: FloatArray = _AS_REQUESTED  # non-zero memory requests, GiB, same shape. Default: `memory`.

    def __post_init__(self) -> None:
        if self.cpu_nonzero is _AS_REQUESTED:
            object.__setattr__(self, "cpu_nonzero", self.cpu)
        if self.memory_nonzero is _AS_REQUESTED:
            object.__setattr__(self, "memory_nonzero", self.memory)

    @property
    def cpu_contained(self) -> FloatArray:
        """As in `PodDemand`: these pods request nothing as a whole."""
        return self.cpu_nonzero

    @property
    def memory_contained(self) -> FloatArray:
        """As in `PodDemand`: these pods request nothing as a whole."""
        return self.memory_nonzero

    def take(self, rows: NDArray[np.intp]) -> Self:
        """The pods of the given clusters, rows of the first axis, in that order."""
        return type(self)(*(getattr(self, item.name)[rows] for item in fields(self)))


Demand = PodDemand | DemandBatch
"""Anything with the fields of a `PodDemand` that broadcasts against the columns of a `ClusterState`."""
