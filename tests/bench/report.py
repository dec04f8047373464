"""Benchmark results: a list of {name, value, unit, goal, pass}, as JSON and as a table."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table


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


def publish(title: str, results: list[Result], path: Path) -> None:
    """Write `path` and print the table."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = [{"name": r.name, "value": r.value, "unit": r.unit, "goal": r.goal, "pass": r.passed} for r in results]
    path.write_text(json.dumps(rows, indent=1) + "\n")
    table = Table(title=title, caption=str(path))
    for column in ("figure", "value", "unit", "goal", ""):
        table.add_column(column, justify="right" if column in ("value", "goal") else "left")
    for result in results:
        verdict = {True: "[green]pass", False: "[red]missed", None: ""}[result.passed]
        table.add_row(result.name, f"{result.value:.4g}", result.unit, result.goal or "", verdict)
    Console(width=120).print(table)
