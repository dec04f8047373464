"""Pods from a trace: the openb format, and a CSV of our own. Drops what no node could take, and says how much.

A file is UTF-8, with or without a byte order mark, and with any line ends. Everything else is refused by its line.

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
import io
import re
from collections.abc import Callable, Iterator
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
LARGEST_FILE: Final = 1 << 30
"""Bytes; a month of openb is 1 MB."""
LARGEST_NUMBER: Final = 1e30
"""Far above any time or request, and far enough below the largest float that sums stay finite."""

NUMBER: Final = re.compile(r"\+?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)
"""What `float` reads too, without its words (nan, inf), underscores and negative numbers."""

SIGNATURES: Final = (
    (b"\x1f\x8b", "compressed with gzip"),
    (b"BZh", "compressed with bzip2"),
    (b"\xfd7zXZ\x00", "compressed with xz"),
    (b"\x28\xb5\x2f\xfd", "compressed with zstd"),
    (b"\x04\x22\x4d\x18", "compressed with lz4"),
    (b"\x1f\x9d", "compressed with compress"),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive"),
    (b"PK\x03\x04", "a zip archive, as workbooks of spreadsheets are"),
    (b"PAR1", "Parquet"),
    (b"\xff\xfe\x00\x00", "UTF-32"),
    (b"\x00\x00\xfe\xff", "UTF-32"),
    (b"\xff\xfe", "UTF-16"),
    (b"\xfe\xff", "UTF-16"),
)
"""First bytes of files that are no UTF-8, the longer before the shorter, and what such a file is."""

OPENB_COLUMNS: Final = ("qos", "cpu_milli", "memory_mib", "creation_time", "scheduled_time", "deletion_time")


@dataclass(frozen=True, slots=True)
class Trace:
    """The pods of a trace, ``[pods]`` each, in order of arrival."""

    gap: FloatArray  # time since the pod before, over the mean gap: the rhythm of the trace without its pace
    kind: NDArray[np.int64]  # row of the scenario's pod class
    cpu: FloatArray  # CPU request, cores; 0 where the pod requests none
    memory: FloatArray  # memory request, GiB; 0 where the pod requests none
    duration: FloatArray  # seconds on an idle reference core
    skipped: int  # rows of the file that are not here: no duration, no class, or too large for every node class

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
        raise InvalidInputError(
            f"trace {settings.trace!r}, line {kept[fallen][5]}: arrival is before that of the pod above; sort the rows"
        )
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


Row = tuple[float, str, float, float, float, int]
"""Arrival, class, CPU, memory and duration of one pod, and the line it ends in; duration 0 where the trace has none."""


def _find(name: str) -> Path:
    beside = Path(str(resources.files("training.simulator"))) / "scenarios" / name
    return beside if name and beside.is_file() else Path(name)


def _read(path: Path) -> list[Row]:
    """Every row of the file, in order of arrival if it is openb, in order of the file if it is ours."""
    reader = csv.DictReader(io.StringIO(_text(path), newline=""), strict=True)
    try:
        header = reader.fieldnames = [name.strip() for name in reader.fieldnames or ()]
        if set(header).issuperset(OPENB_COLUMNS):
            return sorted(_rows(reader, path.name, OPENB_COLUMNS, _openb), key=lambda row: row[0])
        if set(header).issuperset(OWN_COLUMNS):
            return list(_rows(reader, path.name, OWN_COLUMNS, _own))
    except csv.Error as error:
        raise InvalidInputError(
            f"trace {path.name}, line {reader.reader.line_num}: is no CSV ({error}); check its quotation marks"
        ) from error
    shown = ", ".join(repr(name[:30]) for name in header[:12])
    raise InvalidInputError(
        f"trace {path.name} has the columns {shown or '(none)'}; separate columns by commas, and give "
        f"{', '.join(OWN_COLUMNS)} or {', '.join(OPENB_COLUMNS)}"
    )


def _text(path: Path) -> str:
    try:
        with path.open("rb") as file:
            content = file.read(LARGEST_FILE + 1)
    except (OSError, ValueError) as error:  # ValueError: a null byte in the name
        reason = (isinstance(error, OSError) and error.strerror) or type(error).__name__
        raise InvalidInputError(f"trace {str(path)!r} cannot be read ({reason}); give the path of a CSV") from error
    for signature, kind in SIGNATURES:
        if content.startswith(signature):
            raise InvalidInputError(f"trace {path.name} is {kind}; give a CSV in UTF-8")
    if len(content) > LARGEST_FILE:
        raise InvalidInputError(f"trace {path.name} has more than {LARGEST_FILE} bytes; give a part of it")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise InvalidInputError(
            f"trace {path.name}, line {line}: byte 0x{content[error.start]:02x} is no UTF-8; save the file as UTF-8"
        ) from error
    if "\0" in text:
        line = text.count("\n", 0, text.index("\0")) + 1
        raise InvalidInputError(f"trace {path.name}, line {line}: has a null byte; save the file as a CSV in UTF-8")
    return text


def _rows(
    reader: csv.DictReader[str], file: str, wanted: tuple[str, ...], row_of: Callable[[dict[str, str], str, int], Row]
) -> Iterator[Row]:
    """Each row that holds anything, as `row_of` makes it of the wanted cells and of where they stand."""
    for name in wanted:
        if (reader.fieldnames or []).count(name) > 1:
            raise InvalidInputError(f"trace {file} has the column {name} twice; remove one of them")
    for row in reader:
        where = f"trace {file}, line {reader.line_num}"
        beyond = row.pop(None, [])  # where the reader puts cells without a column
        if not any(cell and cell.strip() for cell in (*row.values(), *beyond)):
            continue
        if any(cell.strip() for cell in beyond):
            raise InvalidInputError(
                f"{where}: has more cells than the header; write decimals with a point, not a comma"
            )
        missing = next((name for name, cell in row.items() if cell is None), None)
        if missing is not None:
            raise InvalidInputError(f"{where}: {missing or 'the last column'} is missing; is the file cut off?")
        yield row_of({name: row[name].strip() for name in wanted}, where, reader.line_num)


def _own(row: dict[str, str], where: str, line: int) -> Row:
    return (
        _number(row, "arrival", where),
        row["class"],
        _number(row, "cpu", where),
        _number(row, "memory", where),
        _number(row, "duration", where),
        line,
    )


def _openb(row: dict[str, str], where: str, line: int) -> Row:
    created = _number(row, "creation_time", where)
    begun = _number(row, "scheduled_time", where) if row["scheduled_time"] else None
    ended = _number(row, "deletion_time", where) if row["deletion_time"] else None
    duration = ended - begun if begun is not None and ended is not None else 0.0
    return (
        created,
        row["qos"],
        _number(row, "cpu_milli", where) / 1000.0,
        _number(row, "memory_mib", where) / 1024.0,
        max(duration, 0.0),
        line,
    )


def _number(row: dict[str, str], name: str, where: str) -> float:
    text = row[name]
    if not NUMBER.fullmatch(text):
        raise InvalidInputError(f"{where}: {name} is {text[:40]!r}; give a number of at least 0, such as 1.5")
    if float(text) > LARGEST_NUMBER:
        raise InvalidInputError(f"{where}: {name} is {text[:40]!r}; give at most {LARGEST_NUMBER:g}")
    return float(text)


def _grains(values: FloatArray) -> FloatArray:
    """Requests rounded up to `GRAIN`, at least one; no request stays none."""
    result: FloatArray = np.where(values > 0.0, np.maximum(np.ceil(values / GRAIN - 1e-9), 1.0) * GRAIN, 0.0)
    return result
