"""The API's description as Markdown: for the built documents, and for the dashboard's page. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

Schema = dict[str, Any]


def manual(document: Schema, level: int = 3) -> str:
    """Return every endpoint with its parameters and answers, then every answer with its properties.

    Args:
        document: OpenAPI.
        level: of the headings.
    """
    mark = "#" * level
    lines = [line for path, item in document["paths"].items() for line in _endpoint(mark, path, item)]
    for name, schema in sorted(document["components"]["schemas"].items()):
        lines += [f"{mark} {name}\n", schema.get("description", "").partition("\n\n")[0].replace("\n", " "), ""]
        lines += ["| property | type |\n| --- | --- |"]
        for key, each in schema.get("properties", {}).items():
            lines.append(f"| `{key}` | {_kind(each)}{'' if key in schema.get('required', ()) else ' (optional)'} |")
        lines.append("")
    return "\n".join(lines)


def _endpoint(mark: str, path: str, item: Schema) -> Iterator[str]:
    for method, operation in item.items():
        yield f"{mark} `{method.upper()} {path}`\n\n{operation.get('description') or operation['summary']}\n"
        if parameters := operation.get("parameters"):
            yield "| parameter | in | type | default |\n| --- | --- | --- | --- |"
            for each in parameters:
                default = each["schema"].get("default", "required" if each["required"] else "")
                yield f"| `{each['name']}` | {each['in']} | {_kind(each['schema'], 'null')} | {default} |"
            yield ""
        if "requestBody" in operation:
            yield f"Body:\n\n{_fields(operation['requestBody']['content']['application/json']['schema'])}\n"
        yield "| status | meaning | answer |\n| --- | --- | --- |"
        for status, answer in operation["responses"].items():
            content = answer.get("content", {})
            told = ", ".join(_kind(each["schema"]) if "json" in name else name for name, each in content.items())
            yield f"| {status} | {answer['description']} | {told} |"
        yield ""


def _fields(schema: Schema) -> str:
    """Return the fields of the forms that a body may have."""
    forms = schema.get("anyOf", [schema])
    return "\n".join(
        "- "
        + ", ".join(f"`{name}`" + (" (required)" if name in form["required"] else "") for name in form["properties"])
        for form in forms
    )


def _kind(schema: Schema, without: str = "") -> str:
    """Return a type with its limits, in words.

    Args:
        schema: of the type.
        without: a type that goes without saying.
    """
    if "$ref" in schema:
        return str(schema["$ref"].rpartition("/")[2])
    kinds = [_kind(each) for each in schema.get("anyOf") or schema.get("oneOf") or ()] or _types(schema)
    choices = schema.get("enum", [schema["const"]] if "const" in schema else [])
    limits = [
        f"{word} {schema[key]}"
        for key, word in (("minimum", "from"), ("maximum", "to"), ("maxLength", "at most"))
        if key in schema and abs(schema[key]) < 2**53
    ]
    told = [f"one of {', '.join(map(str, choices))}"] if choices else []
    return " ".join([" or ".join(kind for kind in kinds if kind != without), *limits, *told])


def _types(schema: Schema) -> list[str]:
    found = schema.get("type", "any")
    kinds = [found] if isinstance(found, str) else list(found)
    if "items" in schema:
        return [f"list of {_kind(schema['items'])}" if kind == "array" else kind for kind in kinds]
    if schema.get("additionalProperties"):
        return [f"object of {_kind(schema['additionalProperties'])}" if kind == "object" else kind for kind in kinds]
    return kinds
