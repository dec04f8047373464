"""Writes what follows from the chart's values.yaml: values.schema.json, and the table in README.md.

values.yaml is the one source: a comment that begins with `# --` is the meaning of the key below it; a line
`# @schema {...}` adds to the schema that the default's type gives. Objects accept the keys shown and no others.
`# @schema settings` stands for the settings of the service, which extender/settings.py defines.

    python -m helm.reference           writes both files
    python -m helm.reference --check   fails, and names what is out of date
"""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer
import yaml

from extender.settings import Settings

CHART = Path(__file__).resolve().parent / "maddpg-scheduler"
BEGIN, END = "<!-- values: begin -->", "<!-- values: end -->"
OWNED = frozenset(
    {
        "host",
        "operations_host",
        "port",
        "operations_port",
        "peers",
        "bundle_path",
        "kubeconfig",
        "kube_context",
        "scheduler_name",
    }
    | {"tls_cert_file", "tls_key_file", "tls_client_ca_file", "tls_client_names", "operations_tls"}
    | {"operations_client_ca_file", "operations_client_names"}
)
"""Settings that templates/_settings.tpl decides, or that make no sense in a pod."""

Schema = dict[str, Any]


class ChartReferenceError(ValueError):
    """values.yaml has a key without a meaning, or a comment that does not read; the message names the path."""


@dataclass(frozen=True)
class Value:
    """One leaf of values.yaml.

    Attributes:
        path: its keys.
        default: its value.
        meaning: the comment above it.
        narrowed: what `@schema` adds.
    """

    path: tuple[str, ...]
    default: Any
    meaning: str
    narrowed: Schema

    @property
    def name(self) -> str:
        """As `--set` takes it."""
        return ".".join(self.path)


def read_values(text: str) -> list[Value]:
    """Every documented key, in order; a key without a comment must be a group of such keys.

    Raises:
        ChartReferenceError: a leaf without a meaning, or an `@schema` that is not JSON.
    """
    lines = text.splitlines()
    return list(_walk(yaml.compose(text), yaml.safe_load(text), (), lines))


def _walk(
    node: yaml.Node | None, values: Mapping[str, Any], path: tuple[str, ...], lines: list[str]
) -> Iterator[Value]:
    if not isinstance(node, yaml.MappingNode):
        raise ChartReferenceError(f"{'.'.join(path) or 'values.yaml'}: needs a comment that begins with `# --`")
    for key, child in node.value:
        here = (*path, key.value)
        meaning, narrowed = _comment(lines, key.start_mark.line, ".".join(here))
        default = values[key.value]
        if meaning:
            yield Value(here, default, meaning, narrowed)
        else:
            yield from _walk(child, default, here, lines)


def _comment(lines: list[str], key_line: int, name: str) -> tuple[str, Schema]:
    """The meaning and the narrowing in the comment that ends just above a line."""
    first = key_line
    while first > 0 and lines[first - 1].strip().startswith("#"):
        first -= 1
    block = [line.strip().removeprefix("#").strip() for line in lines[first:key_line]]
    narrowed: Schema = {}
    for line in block:
        if line == "@schema settings":
            narrowed = settings_schema()
        elif line.startswith("@schema"):
            try:
                narrowed |= json.loads(line.removeprefix("@schema"))
            except ValueError as error:
                raise ChartReferenceError(f"{name}: its @schema is not JSON: {error}") from error
    words = [line for line in block if not line.startswith("@schema")]
    starts = [number for number, line in enumerate(words) if line.startswith("-- ")]
    if not starts:
        return "", narrowed
    return " ".join(words[starts[-1] :]).removeprefix("-- "), narrowed


def settings_schema() -> Schema:
    """The settings of the service that a user of the chart may set, with their limits and meanings."""
    full = Settings.model_json_schema()
    chosen = {name: _setting(field) for name, field in full["properties"].items() if name not in OWNED}
    return {"properties": chosen, "additionalProperties": False}


def _setting(field: Mapping[str, Any]) -> Schema:
    """One property without what only pydantic reads. A default is left out: the service knows its own."""
    unit = f" ({field['unit']})" if field.get("unit") else ""
    kept = {key: value for key, value in field.items() if key not in {"title", "default", "unit", "format"}}
    return {**kept, "description": f"{field['description']}{unit}"}


def schema(values: list[Value]) -> Schema:
    """A JSON schema that accepts exactly these keys."""
    root: Schema = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Values of the chart maddpg-scheduler",
        "type": "object",
        "additionalProperties": False,
        # helm puts `global` into the values of every chart, and a parent chart's condition reads `enabled` there
        "properties": {
            "global": {"type": ["object", "null"]},
            "enabled": {"type": "boolean", "description": "For the condition of a parent chart; read by nobody else."},
        },
    }
    for value in values:
        group = root
        for key in value.path[:-1]:
            if key not in group["properties"]:
                group["properties"][key] = {"type": "object", "additionalProperties": False, "properties": {}}
                group.setdefault("required", []).append(key)  # helm takes out what is null
            group = group["properties"][key]
        group["properties"][value.path[-1]] = _leaf(value)
        if _is_needed(value):
            group.setdefault("required", []).append(value.path[-1])
    return root


def _is_needed(value: Value) -> bool:
    """Whether templates need the value: a number, a truth value, or a text of a certain form that may not be empty."""
    if isinstance(value.default, str):
        return bool(value.default and value.narrowed)
    return isinstance(value.default, (bool, int, float))


def _leaf(value: Value) -> Schema:
    # bool before int: True is an int
    for kind, name in (
        (bool, "boolean"),
        (int, "integer"),
        (float, "number"),
        (str, "string"),
        (list, "array"),
        (dict, "object"),
    ):
        if isinstance(value.default, kind):
            closed = {"additionalProperties": False} if name == "object" else {}
            return {"type": name, "description": value.meaning, **closed, **value.narrowed}
    raise ChartReferenceError(f"{value.name}: a default of type {type(value.default).__name__} says no type")


def table(values: list[Value]) -> str:
    """The values as a table in Markdown."""
    rows = [
        f"| `{value.name}` | `{json.dumps(value.default)}` | {_cell(value.meaning)}{_choices(value)} |"
        for value in values
    ]
    return "\n".join(["| value | default | meaning |", "|---|---|---|", *rows])


def _choices(value: Value) -> str:
    """The words a value may be, where the meaning does not name them all."""
    missing = [word for word in value.narrowed.get("enum", ()) if f"`{word}`" not in value.meaning]
    return f" One of {', '.join(f'`{word}`' for word in value.narrowed['enum'])}." if missing else ""


def _cell(text: str) -> str:
    return re.sub(r"\s+", " ", text).replace("|", "\\|")


def render(chart: Path = CHART) -> dict[Path, str]:
    """What each generated file should hold."""
    values = read_values((chart / "values.yaml").read_text(encoding="utf-8"))
    readme = chart / "README.md"
    before, _, rest = readme.read_text(encoding="utf-8").partition(BEGIN)
    _, found, after = rest.partition(END)
    if not found:
        raise ChartReferenceError(f"{readme.name}: needs the lines {BEGIN} and {END}")
    return {
        chart / "values.schema.json": json.dumps(schema(values), indent=2, ensure_ascii=False) + "\n",
        readme: f"{before}{BEGIN}\n{table(values)}\n{END}{after}",
    }


app = typer.Typer(pretty_exceptions_enable=False)


@app.command()
def main(
    *,
    check: Annotated[bool, typer.Option("--check", help="Write nothing; fail where a file is out of date.")] = False,
) -> None:
    """Write the chart's values.schema.json and the table of values in its README.md."""
    stale = {path: text for path, text in render().items() if not path.exists() or path.read_text("utf-8") != text}
    for path, text in stale.items():
        if check:
            typer.echo(f"{path.name} is out of date: run `make reference`", err=True)
        else:
            path.write_text(text, encoding="utf-8")
            typer.echo(f"wrote {path.name}")
    if check and stale:
        raise typer.Exit(1)


if __name__ == "__main__":
    app()
