"""What Prometheus answers to an instant query: values by node. Pure; one series that is odd costs itself alone."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec

from extender.cluster.usage import UsageError
from extender.errors import UNDECODABLE, kind_of
from extender.quantities import number

_ERROR_TYPE: Final = re.compile(r"[a-z_]{1,40}")


@dataclass(frozen=True, slots=True)
class Values:
    """What one query gave."""

    by_node: Mapping[str, float]
    # series that gave none, by reason; see `extender.cluster.usage.REASONS`
    ignored: Counter[str] = field(default_factory=Counter)
    labels: frozenset[str] = frozenset()
    partial: bool = False  # whether the system says that its answer may lack something


class _Series(msgspec.Struct, frozen=True):
    metric: dict[str, str]
    value: tuple[float, str]


class _Vector(msgspec.Struct, frozen=True, rename="camel"):
    result_type: str = "vector"
    result: list[msgspec.Raw] | None = None


class _Answer(msgspec.Struct, frozen=True, rename="camel"):
    status: str
    data: _Vector | None = None
    error_type: str = ""
    warnings: Any = None
    is_partial: Any = None
    """Of VictoriaMetrics; others say it in a warning."""


_ANSWER: Final = msgspec.json.Decoder(_Answer)
_SERIES: Final = msgspec.json.Decoder(_Series)


def values_of(status: int, body: bytes, node_label: str) -> Values:
    """Return the values in an answer.

    Raises:
        UsageError: it is no instant vector; the message has nothing of what the server says in its own words.
    """
    try:
        answer = _ANSWER.decode(body)
    except UNDECODABLE as error:
        raise UsageError(f"Prometheus answered {status} and no result{_hint(status)} ({kind_of(error)})") from error
    if status != 200 or answer.status != "success" or answer.data is None:
        kind = answer.error_type if _ERROR_TYPE.fullmatch(answer.error_type) else "no reason given"
        raise UsageError(f"Prometheus answered {status}: {kind}{_hint(status)}")
    if answer.data.result_type != "vector":
        raise UsageError("Prometheus answered with something else than an instant vector")
    by_node: dict[str, float] = {}
    ignored: Counter[str] = Counter()
    labels: set[str] = set()
    for raw in answer.data.result or ():
        try:
            series = _SERIES.decode(raw)
        except UNDECODABLE:
            ignored["undecodable"] += 1
            continue
        labels |= series.metric.keys()
        name, value = without_port(series.metric.get(node_label, "")), number(series.value[1])
        if not name:
            ignored["incomplete"] += 1
        elif not math.isfinite(value):
            ignored["value"] += 1
        else:
            # Two labels that differ in their port alone name one machine.
            by_node[name] = max(value, by_node.get(name, value))
    return Values(by_node, ignored, frozenset(labels), bool(answer.warnings) or answer.is_partial is True)


def without_port(label: str) -> str:
    """Return the host of a label that may have a port: ``n:9100``, ``[fd00::1]:9100``, ``fd00::1``."""
    if label.startswith("["):
        return label[1:].partition("]")[0]
    return label.partition(":")[0] if label.count(":") == 1 else label


def _hint(status: int) -> str:
    if status in (401, 403):
        return "; see prometheus_token_file, prometheus_username and prometheus_headers_file (tenants: X-Scope-OrgID)"
    if 300 <= status < 400:
        return "; it redirects: give prometheus_url the address that it redirects to"
    return ""
