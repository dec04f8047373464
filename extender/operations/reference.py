"""Settings and metrics as Markdown tables, for docs/operations.md. The CLI prints them, or writes them there."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence

from pydantic.fields import FieldInfo

from extender.operations.metrics import FAMILIES
from extender.settings import Settings
from policy.errors import InvalidInputError


def settings_table() -> str:
    """Name, default, unit and meaning of every setting."""
    rows = [(f"`{name}`", f"`{default}`", unit, meaning) for name, default, unit, meaning in describe()]
    return _table(("setting", "default", "unit", "meaning"), rows)


def describe() -> list[tuple[str, str, str, str]]:
    """Name, default, unit and meaning of every setting."""
    return [
        (name, _shown(field.default), _unit(field), field.description or "")
        for name, field in Settings.model_fields.items()
    ]


def metrics_table() -> str:
    """Name, type, labels and meaning of every metric."""
    return _table(
        ("metric", "type", "labels", "meaning"),
        [(f"`{each.name}`", each.kind, ", ".join(each.labels), each.documentation) for each in FAMILIES],
    )


def renewed(document: str) -> str:
    """Return the document with its tables under "## Settings" and "## Metrics" as they are now.

    Raises:
        InvalidInputError: it has no such heading with a table below.
    """
    for heading, table in (("Settings", settings_table()), ("Metrics", metrics_table())):
        begin = re.search(rf"^## {heading}\n\n(?:\|.*\n)+", document, re.MULTILINE)
        if begin is None:
            raise InvalidInputError(f"there is no table under a heading `## {heading}`")
        document = f"{document[: begin.start()]}## {heading}\n\n{table}\n{document[begin.end() :]}"
    return document


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def _unit(field: FieldInfo) -> str:
    extra = field.json_schema_extra
    return str(extra["unit"]) if isinstance(extra, dict) else ""


def _shown(default: object) -> str:
    if default is None:
        return "empty"
    return json.dumps(default) if isinstance(default, dict | bool | tuple) else str(default)
