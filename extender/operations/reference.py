"""Settings and metrics as Markdown tables: what docs/operations.md must contain, word for word. Printed by the CLI."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from extender.operations.metrics import Metrics
from extender.settings import describe


def settings_table() -> str:
    """Name, default, unit and meaning of every setting."""
    rows = [(f"`{name}`", f"`{default}`", unit, meaning) for name, default, unit, meaning in describe()]
    return _table(("setting", "default", "unit", "meaning"), rows)


def metrics_table() -> str:
    """Name, type, labels and meaning of every metric."""
    return _table(
        ("metric", "type", "labels", "meaning"),
        [(f"`{name}`", kind, labels, meaning) for name, kind, labels, meaning in Metrics().describe()],
    )


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)
