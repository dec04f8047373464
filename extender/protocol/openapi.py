"""What the four verbs take and answer, as OpenAPI: served beside the operations endpoints, tested, never on their path.

Written by hand because the verbs are plain ASGI (`extender.protocol.verbs`) and their types skip what they do not
read (`extender.protocol.wire`): so does this description, and it allows every other field.

Source: k8s.io/kube-scheduler/extender/v1/types.go.
"""

from __future__ import annotations

from typing import Any, Final

from extender.protocol.wire import LARGEST
from extender.quantities import MAX_LENGTH
from policy.priorities import MAX_PRIORITY

Schema = dict[str, Any]

TEXT: Final[Schema] = {"type": "string"}
TEXTS: Final[Schema] = {"type": "array", "items": TEXT}
_SUFFIX: Final = "(Ki|Mi|Gi|Ti|Pi|Ei|n|u|m|k|M|G|T|P|E|[eE][+-]?[0-9]+)?"
QUANTITY: Final[Schema] = {
    "oneOf": [
        {
            "type": "string",
            "pattern": rf"^([+]?([0-9]+\.?[0-9]*|\.[0-9]+)|-(0+\.?0*|\.0+)){_SUFFIX}$",
            "maxLength": MAX_LENGTH,
        },
        {"type": "number", "minimum": 0},
        {"type": "null"},
    ],
    "example": "500m",
}
ANY_QUANTITY: Final[Schema] = {"type": ["string", "number", "null"], "example": "500m"}
"""Of `/filter`, where every node passes whatever is wrong with the pod's requests."""

FAILURES: Final = {
    "400": "not what kube-scheduler sends; the message names the JSON path",
    "403": "no name of the client certificate is in tls_client_names",
    "404": "the verb is switched off; the message names the setting",
    "405": "not POST",
    "408": "the body did not arrive in time",
    "413": "the body is larger than max_body_bytes, or has more than 100,000 nodes",
    "431": "the head of the request is longer than max_header_bytes",
    "500": "a mistake of the service; its log says more",
    "503": "beyond max_connections, max_requests_in_flight or max_bytes_in_flight; Retry-After says when to ask again",
}


def paths() -> Schema:
    """The OpenAPI path items of the verbs."""
    victims = _object({"Pods": _list(_object({"metadata": _object({"uid": TEXT}, ["uid"])}, ["metadata"]))})
    meta_victims = _object({"Pods": _list(_object({"UID": TEXT}, ["UID"]))})
    for each in (victims, meta_victims):
        each["type"] = ["object", "null"]
        each["properties"]["NumPDBViolations"] = {"type": ["integer", "null"], "minimum": 0, "maximum": LARGEST}
    pod, by_uid = _pod(ANY_QUANTITY), "NodeNameToMetaVictims"
    preempting = [
        _object({"Pod": pod, by_uid: _table(meta_victims)}, ["Pod", by_uid]),  # NodeNameToVictims is not read then
        _object({"Pod": pod, by_uid: {"type": "null"}, "NodeNameToVictims": _table(victims, null=True)}, ["Pod"]),
    ]
    kept = _object({"Pods": {"type": "array", "items": _object({"UID": TEXT}, ["UID"])}}, ["Pods"])
    binding = {name: {"type": "string", "minLength": 1} for name in ("PodName", "PodNamespace", "PodUID", "Node")}
    rated = _object({"Host": TEXT, "Score": {"type": "integer", "minimum": 0, "maximum": MAX_PRIORITY}}, closed=True)
    passed = {
        "Nodes": {"type": ["object", "null"]},
        "NodeNames": _list(TEXT),
        "FailedNodes": {"type": "object"},
        "FailedAndUnresolvableNodes": {"type": "object"},
        "Error": TEXT,
    }
    return {
        "/filter": _verb("filter", "Every node passes.", _arguments(ANY_QUANTITY), _object(passed, closed=True)),
        "/prioritize": _verb(
            "prioritize",
            "A priority for each node asked about, higher is better.",
            _arguments(QUANTITY),
            {"type": "array", "items": rated},
        ),
        "/preempt": _verb(
            "preempt",
            "Every proposed victim is kept.",
            {"anyOf": preempting},
            _object({by_uid: _table(kept)}, closed=True),
        ),
        "/bind": _verb("bind", "Bind the pod; an empty Error means done.", _object(binding, list(binding)), _error()),
    }


def _verb(name: str, meaning: str, body: Schema, answer: Schema) -> Schema:
    responses = {"200": {"description": meaning, "content": _json(answer)}}
    for status, why in FAILURES.items():
        responses[status] = {"description": why, "content": _json(_error())}
    operation = {
        "operationId": name,
        "summary": f"{meaning} On the port of the scheduling verbs.",
        "tags": ["extender/v1"],
        "requestBody": {"required": True, "content": _json(body)},
        "responses": responses,
    }
    return {"post": operation}


def _arguments(quantity: Schema) -> Schema:
    """ExtenderArgs: with names if nodeCacheCapable, else with whole nodes."""
    node = _object({"metadata": _object({"name": TEXT}, ["name"])}, ["metadata"])
    nodes = {"type": ["object", "null"], "properties": {"items": _list(node)}}
    named = _object({"Pod": _pod(quantity), "NodeNames": TEXTS}, ["Pod", "NodeNames"])  # Nodes is not read then
    whole = _object({"Pod": _pod(quantity), "NodeNames": {"type": "null"}, "Nodes": nodes}, ["Pod"])
    return {"anyOf": [named, whole]}


def _pod(quantity: Schema) -> Schema:
    """The fields of a pod that are read."""
    requests = {"type": ["object", "null"], "properties": {"cpu": quantity, "memory": quantity}}
    resources = {"type": ["object", "null"], "properties": {"requests": requests}}
    container = _object({"resources": resources, "restartPolicy": {"type": ["string", "null"]}})
    spec = {
        "containers": _list(container),
        "initContainers": _list(container),
        "overhead": requests,
        "resources": resources,
        "priorityClassName": {"type": ["string", "null"]},
    }
    status = {"phase": {"type": ["string", "null"]}, "qosClass": {"type": ["string", "null"]}}
    metadata = {"name": TEXT, "namespace": TEXT, "uid": TEXT}
    return _object({"metadata": _object(metadata), "spec": _object(spec), "status": _object(status)}, ["metadata"])


def _object(properties: Schema, required: list[str] | None = None, closed: bool = False) -> Schema:
    """An object; a closed one has all of these properties and no others."""
    made: Schema = {"type": "object", "properties": properties, "required": required or []}
    return {**made, "required": list(properties), "additionalProperties": False} if closed else made


def _list(items: Schema) -> Schema:
    return {"type": ["array", "null"], "items": items}


def _table(values: Schema, null: bool = False) -> Schema:
    return {"type": ["object", "null"] if null else "object", "additionalProperties": values}


def _error() -> Schema:
    return _object({"Error": TEXT}, closed=True)


def _json(schema: Schema) -> Schema:
    return {"application/json": {"schema": schema}}
