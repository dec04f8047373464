"""One cluster as its operator would list it: nodes by name, running pods, the last measurement. Nothing hidden."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from training.simulator.draws import FloatArray


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What a list of nodes and pods and the metrics API would show, for one cluster of n nodes and m running pods.

    Attributes:
        pod: arrival number of each running pod, ``[m]``.
        node: row of its node, ``[m]``.
        cpu: its CPU request, cores, ``[m]``.
        memory: its memory request, GiB, ``[m]``.
        bound_at: when it was bound, seconds, ``[m]``.
        measured_at: time of the last scrape, seconds.
        cpu_used: CPU use measured then, cores, ``[n]``.
        memory_used: memory use measured then, GiB, ``[n]``.
        pressure: CPU pressure measured then, 0..1, ``[n]``; None in a cluster without PSI.
    """

    pod: NDArray[np.int64]
    node: NDArray[np.int64]
    cpu: FloatArray
    memory: FloatArray
    bound_at: FloatArray
    measured_at: float
    cpu_used: FloatArray
    memory_used: FloatArray
    pressure: FloatArray | None
