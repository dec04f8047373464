"""The state a decision is made from, and the demand it is made for. Refuses to know where either came from."""

from __future__ import annotations

from dataclasses import dataclass, fields
from math import inf
from typing import Final, NamedTuple, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from policy.errors import InvalidInputError

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

REFERENCE_SPEED: Final = 1.0
"""Speed of the reference core; `ClusterState.node_speed` is relative to it."""


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


@dataclass(frozen=True, slots=True)
class ClusterState:
    """What is known of every node: a struct of arrays, one row per node.

    Every array has the same shape ``[..., n]``: serving uses ``[n]``, the simulator ``[clusters, n]``. The arrays are
    float64 so that adding and removing the same pod many times does not drift. Which row is which node is the owner's
    knowledge, not ours.

    Attributes:
        cpu_allocatable: allocatable CPU, cores, > 0.
        memory_allocatable: allocatable memory, GiB, > 0.
        cpu_requested: sum of the CPU requests of the node's pods, cores.
        memory_requested: sum of the memory requests of the node's pods, GiB.
        cpu_used: measured CPU use plus the expected use of pods bound since that measurement, cores.
        memory_used: the same for memory, GiB.
        cpu_pressure: share of time that tasks waited for a CPU, 0..1 (PSI "some"), measured or estimated.
        node_speed: speed per core relative to the reference core (1.0), > 0.
        version: grows whenever anything in the row changes.
    """

    cpu_allocatable: FloatArray
    memory_allocatable: FloatArray
    cpu_requested: FloatArray
    memory_requested: FloatArray
    cpu_used: FloatArray
    memory_used: FloatArray
    cpu_pressure: FloatArray
    node_speed: FloatArray
    version: IntArray

    def __post_init__(self) -> None:
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
        )


COLUMNS: Final = tuple(field.name for field in fields(ClusterState))
"""Names of the columns of a `ClusterState`, looked up once: it is copied and checked several times per decision."""


@dataclass(frozen=True, slots=True)
class PodDemand:
    """What a pod asks for. Equal demands form one class of pods: every node answers them alike.

    Attributes:
        cpu: CPU request, cores, >= 0.
        memory: memory request, GiB, >= 0.
        urgency: how little slowdown the pod's SLA allows, 0..1: one over the allowed slowdown, so 1 allows none,
            0.5 allows twice the ideal time and 0 (best effort) allows any.

    Raises:
        InvalidInputError: a value is out of range or not finite.
    """

    cpu: float
    memory: float
    urgency: float

    def __post_init__(self) -> None:
        if 0.0 <= self.cpu < inf and 0.0 <= self.memory < inf and 0.0 <= self.urgency <= 1.0:
            return
        for name, value, upper in (
            ("cpu", self.cpu, inf),
            ("memory", self.memory, inf),
            ("urgency", self.urgency, 1.0),
        ):
            if not (0.0 <= value <= upper and value < inf):
                raise InvalidInputError(f"PodDemand.{name} is {value}; give a finite number in [0, {upper}]")


@dataclass(frozen=True, slots=True)
class DemandBatch:
    """One pod for each of many clusters: what the simulator asks about at once.

    Attributes:
        cpu: CPU requests, cores, shape ``[..., 1]`` so that it broadcasts against ``[..., n]``.
        memory: memory requests, GiB, same shape.
        urgency: urgencies, 0..1, same shape.
    """

    cpu: FloatArray
    memory: FloatArray
    urgency: FloatArray


Demand = PodDemand | DemandBatch
"""Anything with cpu, memory and urgency that broadcasts against the columns of a `ClusterState`."""
