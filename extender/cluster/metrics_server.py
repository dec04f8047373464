"""Use of nodes from metrics-server, through the API server (metrics.k8s.io/v1beta1). Has no CPU pressure: not measured.

Source of the fields: k8s.io/metrics/pkg/apis/metrics/v1beta1/types.go. A measurement covers [timestamp - window,
timestamp].
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import datetime
from typing import Final

import msgspec

from extender.cluster.api import ApiError, ApiServer
from extender.cluster.usage import NodeUse, UsageError
from extender.pods import GIB
from extender.quantities import NANO, nano_units
from policy.errors import InvalidQuantityError

PATH: Final = "/apis/metrics.k8s.io/v1beta1/nodes"

_DURATION: Final = re.compile(r"(?:(\d+)h)?(?:(\d+)m(?!s))?(?:(\d*\.?\d+)s)?(?:(\d*\.?\d+)ms)?")


class _Metadata(msgspec.Struct, frozen=True):
    name: str


class _Usage(msgspec.Struct, frozen=True):
    cpu: str
    memory: str


class _NodeMetrics(msgspec.Struct, frozen=True):
    metadata: _Metadata
    timestamp: str
    window: str
    usage: _Usage


class _NodeMetricsList(msgspec.Struct, frozen=True):
    items: list[_NodeMetrics]


_DECODER: Final = msgspec.json.Decoder(_NodeMetricsList)


class MetricsServer:
    """Reads metrics-server.

    Args:
        api: the API server that passes the question on.
    """

    def __init__(self, api: ApiServer) -> None:
        self._api = api

    def read(self) -> Sequence[NodeUse]:
        """See `extender.cluster.usage.UsageReader`.

        Raises:
            UsageError: there is no metrics-server, it has nothing yet, or its answer does not decode.
        """
        try:
            answer = _DECODER.decode(self._api.get(PATH))
            return [_reading(item) for item in answer.items]
        except ApiError as error:
            raise UsageError(f"metrics-server: {error}") from error
        except (msgspec.DecodeError, UnicodeDecodeError, InvalidQuantityError, ValueError) as error:
            raise UsageError(f"metrics-server sent what does not decode: {error}") from error

    def close(self) -> None:
        """Nothing: the connections are the API server's."""


def duration(text: str) -> float:
    """Seconds of a Go duration such as "10.062s" or "1m30s".

    Raises:
        ValueError: it is none.
    """
    match = _DURATION.fullmatch(text)
    if match is None or not text:
        raise ValueError(f"duration {text[:40]!r} does not parse")
    hours, minutes, seconds, milliseconds = (float(part or 0.0) for part in match.groups())
    return 3600.0 * hours + 60.0 * minutes + seconds + milliseconds / 1000.0


def _reading(item: _NodeMetrics) -> NodeUse:
    end = datetime.fromisoformat(item.timestamp).timestamp()
    return NodeUse(
        node=item.metadata.name,
        cpu=nano_units(item.usage.cpu) / NANO,
        memory=nano_units(item.usage.memory) / NANO / GIB,
        pressure=None,
        begin=end - duration(item.window),
        end=end,
    )
