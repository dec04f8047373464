"""Pods from a trace: the openb format, and a CSV of our own. Drops what no node could take, and says how much.

Our own format is a CSV with a header and one row for each pod, in order of arrival::

    arrival,class,cpu,memory,duration
    0.0,LS,4.0,16.0,540.0

arrival: seconds from the start, not falling. class: name of a pod class of the scenario, which gives the pod its SLA,
its kind and its use. cpu: cores requested. memory: GiB requested. duration: seconds on an idle reference core.
A request of 0 means that the pod requests none: it needs no room, and schedulers count `policy.cluster.NONZERO_CPU`
and `NONZERO_MEMORY` for it.

openb is Alibaba's GPU cluster trace of 2023 (alibaba/clusterdata, cluster-trace-gpu-v2023): `cpu_milli`,
`memory_mib`, `qos`,
`creation_time`, `scheduled_time` and `deletion_time` are read. Pods never scheduled have no duration and are skipped.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from policy.errors import InvalidInputError
from training.simulator.draws import FloatArray
from training.simulator.scenarios import Scenario

GRAIN: Final = 0.125
"""Requests are whole multiples of this (cores, GiB), a power of two, so that sums of requests are exact."""

OWN_COLUMNS: Final = ("arrival", "class", "cpu", "memory", "duration")
OPENB_COLUMNS: Final = ("qos", "cpu_milli", "memory_mib", "creation_time", "scheduled_time", "deletion_time")


@dataclass(frozen=True, slots=True)
class Trace:
    """The pods of a trace, ``[pods]`` each, in order of arrival.

    Attributes:
        gap: time since the pod before, over the mean gap: the rhythm of the trace without its pace.
        kind: row of the scenario's pod class.
        cpu: CPU request, cores; 0 where the pod requests none.
        memory: memory request, GiB; 0 where the pod requests none.
        duration: seconds on an idle reference core.
        skipped: rows of the file that are not here: no duration, no class, or too large for every node class.
    """

    gap: FloatArray
    kind: NDArray[np.int64]
    cpu: FloatArray
    memory: FloatArray
    duration: FloatArray
    skipped: int

    def __len__(self) -> int:
        """Number of pods."""
        return len(self.gap)


def load_trace(scenario: Scenario) -> Trace:
    """The trace that the scenario names, fitted to its classes, its largest node and its time scale.

    Gaps above `Arrivals.longest_gap` mean gaps are cut, and durations are scaled and cut as `Arrivals` says: an
    episode is minutes, a trace months.

    Raises:
        InvalidInputError: the file cannot be read, lacks a column, or leaves no pod.
    """
    settings = scenario.arrivals
    rows = _read(_find(settings.trace))
    names = {pod.name: number for number, pod in enumerate(scenario.pod_classes)}
    widest = max(node.cores for node in scenario.node_classes)
    largest = max(node.memory for node in scenario.node_classes)
    kept = [row for row in rows if row[1] in names and row[2] <= widest and row[3] <= largest and row[4] > 0.0]
    if len(kept) < 2:
        raise InvalidInputError(
            f"trace {settings.trace!r} leaves {len(kept)} pods of the classes {sorted(names)} that fit a node; need two"
        )
    arrival = np.array([row[0] for row in kept])
    gap = np.diff(arrival, prepend=arrival[0])
    if (gap < 0.0).any():
        fallen = int(np.argmax(gap < 0.0))
        raise InvalidInputError(f"trace {settings.trace!r}: pod {fallen} arrives before the one above; sort the rows")
    gap = np.minimum(gap, settings.longest_gap * gap.mean()) if gap.any() else np.ones(len(kept))
    duration = np.array([row[4] for row in kept]) * settings.duration_scale
    return Trace(
        gap=gap / gap.mean(),
        kind=np.array([names[row[1]] for row in kept], dtype=np.int64),
        cpu=_grains(np.array([row[2] for row in kept])),
        memory=_grains(np.array([row[3] for row in kept])),
        duration=np.clip(duration, settings.duration_range[0], settings.duration_range[1]),
        skipped=len(rows) - len(kept),
    )


Row = tuple[float, str, float, float, float]
"""Arrival, class, CPU, memory and duration of one pod; duration 0 where the trace has none."""


def _find(name: str) -> Path:
    beside = Path(str(resources.files("training.simulator"))) / "scenarios" / name
    return beside if name and beside.is_file() else Path(name)


def _read(path: Path) -> list[Row]:
    """Every row of the file, in order of arrival if it is openb, in order of the file if it is ours."""
    try:
        with path.open(encoding="utf-8", newline="") as file:
            reader = csv.DictReader(file)
            columns = set(reader.fieldnames or ())
            if columns.issuperset(OPENB_COLUMNS):
                return sorted((_openb(row, reader.line_num) for row in reader), key=lambda row: row[0])
            if columns.issuperset(OWN_COLUMNS):
                return [_own(row, reader.line_num) for row in reader]
    except OSError as error:
        raise InvalidInputError(
            f"trace {str(path)!r} cannot be read ({error.strerror}); give the path of a CSV"
        ) from error
    raise InvalidInputError(f"trace {path.name} has columns {sorted(columns)}; give {OWN_COLUMNS} or {OPENB_COLUMNS}")


def _own(row: dict[str, str], line: int) -> Row:
    return (
        _number(row, "arrival", line),
        row["class"],
        _number(row, "cpu", line),
        _number(row, "memory", line),
        _number(row, "duration", line),
    )


def _openb(row: dict[str, str], line: int) -> Row:
    created = _number(row, "creation_time", line)
    begun = _number(row, "scheduled_time", line) if row["scheduled_time"] else None
    ended = _number(row, "deletion_time", line) if row["deletion_time"] else None
    duration = ended - begun if begun is not None and ended is not None else 0.0
    return (
        created,
        row["qos"],
        _number(row, "cpu_milli", line) / 1000.0,
        _number(row, "memory_mib", line) / 1024.0,
        max(duration, 0.0),
    )


def _number(row: dict[str, str], name: str, line: int) -> float:
    try:
        value = float(row[name])
    except (TypeError, ValueError) as error:
        raise InvalidInputError(f"trace line {line}: {name} is {row[name]!r}; give a number") from error
    if not (np.isfinite(value) and value >= 0.0):
        raise InvalidInputError(f"trace line {line}: {name} is {value}; give a finite number that is not negative")
    return value


def _grains(values: FloatArray) -> FloatArray:
    """Requests rounded up to `GRAIN`, at least one; no request stays none."""
    result: FloatArray = np.where(values > 0.0, np.maximum(np.ceil(values / GRAIN - 1e-9), 1.0) * GRAIN, 0.0)
    return result
