"""One cluster as its operator would list it: nodes by name, running pods, the last measurement. Nothing hidden."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from training.simulator.draws import FloatArray


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What a list of nodes and pods and the metrics API would show, for one cluster of n nodes and m running pods."""

    pod: NDArray[np.int64]  # arrival number of each running pod, ``[m]``
    node: NDArray[np.int64]  # row of its node, ``[m]``
    cpu: FloatArray  # its CPU request, cores, ``[m]``
    memory: FloatArray  # its memory request, GiB, ``[m]``
    bound_at: FloatArray  # when it was bound, seconds, ``[m]``
    measured_at: float  # time of the last scrape, seconds
    cpu_used: FloatArray  # CPU use measured then, cores, ``[n]``
    memory_used: FloatArray  # memory use measured then, GiB, ``[n]``
    pressure: FloatArray | None  # CPU pressure measured then, 0..1, ``[n]``; None in a cluster without PSI
