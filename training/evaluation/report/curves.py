"""How training went, small enough to lie beside a bundle: `training.jsonl`, cut from a run's `metrics.jsonl`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from policy.errors import InvalidInputError
from training.files import write_text

CURVE_FILE: Final = "training.jsonl"

KEPT: Final[Mapping[str, tuple[str, ...] | None]] = {
    "rival": None,
    "selection": None,
    "train": ("reward", "critic_loss", "actor_loss", "placement_entropy"),
}
"""Kinds of records that are kept, and which of their values; None keeps all."""

SCORE: Final = "score"

DRIFT: Final = 1.25
"""A run whose last selection score is more than this times its best has drifted away."""


@dataclass(frozen=True, slots=True)
class Curve:
    """One training run."""

    # (updates, mean SLA violation rate over that of the best hand-written rule of the selection suites)
    scores: list[tuple[int, float]]
    rates: dict[str, list[tuple[int, float]]]  # selection suite -> (updates, SLA violation rate)
    finite: bool  # whether every number that training recorded is finite

    @property
    def diverged(self) -> bool:
        """A loss is not finite, or the last selection is no better than the rule, or far from the run's best."""
        if not self.scores:
            return True
        values = [score for _, score in self.scores]
        return not self.finite or values[-1] >= 1.0 or values[-1] > DRIFT * min(values)


def write_curve(metrics: Path, folder: Path) -> Path:
    """Keep what `KEPT` names of a run's metrics beside its bundle; the path written.

    Raises:
        InvalidInputError: the file cannot be read or is not a run's.
    """
    lines = []
    for record in _records(metrics):
        values = KEPT.get(record["kind"], ())
        if values != ():
            kept = record if values is None else {name: record[name] for name in values if name in record}
            lines.append(json.dumps({**_rounded(kept), "kind": record["kind"], "step": record["step"]}, sort_keys=True))
    path = folder / CURVE_FILE
    write_text(path, "".join(f"{line}\n" for line in lines))
    return path


def read_curve(folder: Path) -> Curve | None:
    """The curve that lies beside a bundle; None where there is none.

    Raises:
        InvalidInputError: the file is not one that `write_curve` writes.
    """
    path = folder / CURVE_FILE
    if not path.is_file():
        return None
    scores: list[tuple[int, float]] = []
    rates: dict[str, list[tuple[int, float]]] = {}
    finite = True
    for record in _records(path):
        numbers = {name: value for name, value in record.items() if name not in ("kind", "step")}
        finite &= all(isinstance(value, (int, float)) and np.isfinite(value) for value in numbers.values())
        if record["kind"] == "selection" and SCORE in numbers:
            scores.append((record["step"], float(numbers.pop(SCORE))))
            for name, value in numbers.items():
                rates.setdefault(name, []).append((record["step"], float(value)))
    return Curve(scores, rates, finite)


def _records(path: Path) -> list[dict[str, Any]]:
    try:
        found = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    except (OSError, ValueError) as error:
        raise InvalidInputError(f"{path.name} does not read ({error}); give the metrics.jsonl of a run") from error
    for number, record in enumerate(found, start=1):
        if not isinstance(record, dict) or not isinstance(record.get("step"), int) or "kind" not in record:
            raise InvalidInputError(f"{path.name} line {number} has no kind and step; give the metrics.jsonl of a run")
    return found


def _rounded(record: dict[str, Any]) -> dict[str, Any]:
    return {name: float(f"{value:.5g}") if isinstance(value, float) else value for name, value in record.items()}
