"""Use of nodes from metrics-server, through the API server (metrics.k8s.io/v1beta1). Has no CPU pressure: not measured.

Source of the fields: k8s.io/metrics/pkg/apis/metrics/v1beta1/types.go. A measurement covers [timestamp - window,
timestamp]. Items are decoded one by one, so that one that does not decode costs itself alone.
"""

from __future__ import annotations

from collections import Counter
from typing import Final

import msgspec

from extender.cluster.answers import ApiError
from extender.cluster.api import ApiServer
from extender.cluster.status import seconds
from extender.cluster.usage import Answer, NodeUse, UsageError
from extender.errors import UNDECODABLE, kind_of
from extender.pods import GIB
from extender.quantities import NANO, duration, nano_units
from policy.errors import InvalidInputError, InvalidQuantityError

PATH: Final = "/apis/metrics.k8s.io/v1beta1/nodes"


class _Metadata(msgspec.Struct, frozen=True):
    name: str = ""


class _Usage(msgspec.Struct, frozen=True):
    cpu: str | int | float | None = None
    memory: str | int | float | None = None


class _NodeMetrics(msgspec.Struct, frozen=True):
    metadata: _Metadata = _Metadata()
    timestamp: str | None = None
    window: str | None = None
    usage: _Usage | None = None


class _NodeMetricsList(msgspec.Struct, frozen=True):
    items: list[msgspec.Raw] | None = None


_LIST: Final = msgspec.json.Decoder(_NodeMetricsList)
_ITEM: Final = msgspec.json.Decoder(_NodeMetrics)


class MetricsServer:
    """Reads metrics-server."""

    name = "metrics-server"
    names_nodes_by = "metadata.name of metrics.k8s.io"

    def __init__(self, api: ApiServer) -> None:
        self._api = api

    def read(self) -> Answer:
        """See `extender.cluster.usage.UsageReader`."""
        try:
            answer = _LIST.decode(self._api.get(PATH))
        except ApiError as error:
            raise UsageError(f"metrics-server: {error}") from error
        except UNDECODABLE as error:
            raise UsageError(f"metrics-server sent what does not decode: {kind_of(error)}") from error
        read = [_read(item) for item in answer.items or ()]
        return Answer([it for it in read if isinstance(it, NodeUse)], Counter(it for it in read if isinstance(it, str)))

    def close(self) -> None:
        """Nothing: the connections are the API server's."""


def _read(raw: msgspec.Raw) -> NodeUse | str:
    """A measurement, or why the item is none: one of `extender.cluster.usage.REASONS`."""
    try:
        item = _ITEM.decode(raw)
    except UNDECODABLE:
        return "undecodable"
    usage = item.usage
    if not item.metadata.name or usage is None or usage.cpu is None or usage.memory is None:
        return "incomplete"
    if item.timestamp is None or item.window is None:
        return "incomplete"
    end = seconds(item.timestamp)
    if end is None:
        return "time"
    try:
        begin = end - duration(item.window)
    except InvalidInputError:
        return "time"
    try:
        cpu, memory = (nano_units(it if isinstance(it, str) else repr(it)) / NANO for it in (usage.cpu, usage.memory))
    except InvalidQuantityError:
        return "value"
    return NodeUse(item.metadata.name, cpu=cpu, memory=memory / GIB, pressure=None, begin=begin, end=end)
