"""Benchmark results: a list of {name, value, unit, goal, pass}, as JSON and as a table."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

Row = dict[str, Any]
"""A result as it stands in the file."""


@dataclass(frozen=True, slots=True)
class Result:
    """One figure. A figure without a goal is printed beside the others and cannot fail."""

    name: str
    value: float
    unit: str
    at_most: float | None = None
    at_least: float | None = None

    @property
    def goal(self) -> str | None:
        """The goal in words; None where there is none."""
        if self.at_most is not None:
            return f"<= {self.at_most:g}"
        return None if self.at_least is None else f">= {self.at_least:g}"

    @property
    def passed(self) -> bool | None:
        """Whether the goal is met; None where there is none."""
        if self.at_most is not None:
            return self.value <= self.at_most
        return None if self.at_least is None else self.value >= self.at_least

    @property
    def row(self) -> Row:
        """As it stands in the file."""
        return {"name": self.name, "value": self.value, "unit": self.unit, "goal": self.goal, "pass": self.passed}


def publish(title: str, results: Iterable[Result], path: Path) -> None:
    """Write `path` and print the table."""
    rows = [result.row for result in results]
    _write(rows, path)
    show(title, rows, path)


def merge(results: Iterable[Result], path: Path) -> None:
    """Write `results` into the list in `path`; a figure of the same name that stands there gives way."""
    fresh = {result.name: result.row for result in results}
    kept = [fresh.pop(row["name"], row) for row in read(path)]
    _write([*kept, *fresh.values()], path)


def read(path: Path) -> list[Row]:
    """The list in `path`; empty if there is no such file."""
    return list(json.loads(path.read_text())) if path.exists() else []


def show(title: str, rows: Iterable[Row], path: Path) -> None:
    """Print a table."""
    table = Table(title=title, caption=str(path))
    for column in ("figure", "value", "unit", "goal", ""):
        table.add_column(column, justify="right" if column in ("value", "goal") else "left")
    for row in rows:
        verdict = {True: "[green]pass", False: "[red]missed", None: ""}[row["pass"]]
        table.add_row(row["name"], f"{row['value']:.4g}", row["unit"], row["goal"] or "", verdict)
    Console(width=120).print(table)


def _write(rows: list[Row], path: Path) -> None:
    """In one step: a run that is ended in the middle leaves the former list."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_suffix(".new")
    draft.write_text(json.dumps(rows, indent=1) + "\n")
    draft.replace(path)
