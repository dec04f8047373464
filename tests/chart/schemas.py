"""JSON schemas for kubeconform, made of what a running API server says of itself at /openapi/v2."""

import json
from pathlib import Path
from typing import Any

from kubernetes import client

from tests.control_plane.access import request

LOCATION = "{{ .ResourceKind }}-{{ .Group }}-{{ .ResourceAPIVersion }}.json"
"""How kubeconform finds the schema of a kind in that folder; it writes kinds in lower case."""

_REFERENCE = "#/definitions/"


def write_schemas(api: client.ApiClient, folder: Path) -> int:
    """Write a schema of every kind that the API server serves; returns how many."""
    described = request(api, "GET", "/openapi/v2")["definitions"]
    strict = {name: _strict(schema) for name, schema in described.items()}
    written = 0
    for name, schema in described.items():
        for kind in schema.get("x-kubernetes-group-version-kind", ()):
            whole = {
                "$ref": f"{_REFERENCE}{name}",
                "definitions": {used: strict[used] for used in _used(name, described)},
            }
            group = kind["group"] or kind["version"]  # kubeconform takes the v1 of Pods for their group
            (folder / f"{kind['kind'].lower()}-{group}-{kind['version']}.json").write_text(json.dumps(whole))
            written += 1
    return written


def _strict(schema: Any) -> Any:
    """The same schema, but a field that is not in it is an error, and what may be a number or a text may be both."""
    if isinstance(schema, list):
        return [_strict(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    if schema.get("format") == "int-or-string" or schema.get("x-kubernetes-int-or-string"):
        return {"type": ["string", "integer"]}
    result = {key: _strict(value) for key, value in schema.items()}
    open_ended = "additionalProperties" in schema or schema.get("x-kubernetes-preserve-unknown-fields")
    if isinstance(schema.get("properties"), dict) and not open_ended:
        result["additionalProperties"] = False
    return result


def _used(name: str, described: dict[str, Any]) -> set[str]:
    """The names of all definitions that one refers to, itself among them."""
    found: set[str] = set()
    waiting = [name]
    while waiting:
        current = waiting.pop()
        if current in found:
            continue
        found.add(current)
        waiting += _references(described[current])
    return found


def _references(schema: Any) -> list[str]:
    if isinstance(schema, list):
        return [name for each in schema for name in _references(each)]
    if not isinstance(schema, dict):
        return []
    here = schema.get("$ref")
    own = [here.removeprefix(_REFERENCE)] if isinstance(here, str) else []
    return own + [name for each in schema.values() for name in _references(each)]
