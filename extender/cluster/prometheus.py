"""Use and CPU pressure of nodes from Prometheus, which scrapes node-exporter. Refuses to know any other exporter.

Four instant queries are asked for every node at once (https://prometheus.io/docs/prometheus/latest/querying/api/):

- cpu: cores that were busy, neither idle, nor waiting for a disk, nor taken by the hypervisor;
- memory: total less available;
- pressure: share of time in which some task waited for a CPU (PSI "some"), absent where the kernel does not collect it;
- sampled: when the node was scraped, because an answer is stamped with the time of the question.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec
import urllib3

from extender.cluster.usage import NodeUse, UsageError
from extender.pods import GIB
from policy.errors import InvalidInputError

TIMEOUT: Final = urllib3.Timeout(connect=5.0, read=10.0)
LONGEST_REASON: Final = 300
"""Characters of an error's text that are kept."""


class _Series(msgspec.Struct, frozen=True):
    metric: dict[str, str]
    value: tuple[float, str]


class _Vector(msgspec.Struct, frozen=True):
    result: list[_Series]


class _Answer(msgspec.Struct, frozen=True):
    status: str
    data: _Vector | None = None
    error: str = ""


_DECODER: Final = msgspec.json.Decoder(_Answer)


@dataclass(frozen=True, slots=True)
class PrometheusOptions:
    """Where Prometheus is and how its series name nodes.

    Attributes:
        url: its base, such as ``https://prometheus.monitoring:9090``.
        node_label: label whose value is the node's name; a port behind it is cut off.
        window: seconds over which rates are taken; at least two scrapes must lie in it.
        ca_file: certificates to trust instead of the system's; TLS is always verified.
        token_file: file with a bearer token, read for each question because tokens rotate.

    Raises:
        InvalidInputError: a value does not fit.
    """

    url: str
    node_label: str = "node"
    window: float = 120.0
    ca_file: Path | None = None
    token_file: Path | None = None

    def __post_init__(self) -> None:
        if not self.url.startswith(("http://", "https://")):
            raise InvalidInputError(f"Prometheus URL is {self.url!r}; begin it with http:// or https://")
        if not self.node_label.isidentifier():
            raise InvalidInputError(f"Prometheus node label is {self.node_label!r}; give a label name such as node")
        if not self.window >= 1.0:
            raise InvalidInputError(f"Prometheus window is {self.window}; give at least one second")


class Prometheus:
    """Reads Prometheus.

    Args:
        options: see there.
    """

    def __init__(self, options: PrometheusOptions) -> None:
        self._options = options
        self._url = f"{options.url.rstrip('/')}/api/v1/query"
        self._http = urllib3.PoolManager(
            timeout=TIMEOUT, retries=False, ca_certs=str(options.ca_file) if options.ca_file else None
        )

    def queries(self) -> Mapping[str, str]:
        """The PromQL of each quantity, by name."""
        by, over = f"by ({self._options.node_label})", f"[{round(self._options.window)}s]"
        return {
            "cpu": f'sum {by} (rate(node_cpu_seconds_total{{mode!~"idle|iowait|steal"}}{over}))',
            "memory": f"max {by} (node_memory_MemTotal_bytes - node_memory_MemAvailable_bytes)",
            "pressure": f"max {by} (rate(node_pressure_cpu_waiting_seconds_total{over}))",
            "sampled": f"max {by} (timestamp(node_memory_MemTotal_bytes))",
        }

    def read(self) -> Sequence[NodeUse]:
        """See `extender.cluster.usage.UsageReader`. Nodes without CPU, memory or time of sampling are left out.

        Raises:
            UsageError: Prometheus cannot be reached, refuses a query, or its answer does not decode.
        """
        values = {name: self._ask(query) for name, query in self.queries().items()}
        cpu, memory, pressure, sampled = (values[name] for name in ("cpu", "memory", "pressure", "sampled"))
        return [
            NodeUse(
                node=node,
                cpu=cpu[node],
                memory=memory[node] / GIB,
                pressure=pressure.get(node),
                begin=end - self._options.window,
                end=end,
            )
            for node, end in sampled.items()
            if node in cpu and node in memory
        ]

    def close(self) -> None:
        """Close idle connections."""
        self._http.clear()

    def _ask(self, query: str) -> dict[str, float]:
        """Value of one query by node."""
        try:
            response = self._http.request("GET", self._url, fields={"query": query}, headers=self._headers())
            answer = _DECODER.decode(response.data)
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise UsageError(f"cannot reach Prometheus at {self._options.url}: {error}"[:LONGEST_REASON]) from error
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise UsageError(f"Prometheus answered {response.status} and no result: {error}") from error
        if response.status != 200 or answer.status != "success" or answer.data is None:
            raise UsageError(f"Prometheus answered {response.status}: {answer.error or 'no reason given'}")
        values = {}
        for series in answer.data.result:
            value = _number(series.value[1])
            name = series.metric.get(self._options.node_label, "").partition(":")[0]
            if name and math.isfinite(value):
                values[name] = value
        return values

    def _headers(self) -> dict[str, str]:
        if self._options.token_file is None:
            return {}
        return {"Authorization": f"Bearer {self._options.token_file.read_text(encoding='utf-8').strip()}"}


def _number(text: str) -> float:
    """A sample's value, which Prometheus sends as text; NaN if it is none."""
    try:
        return float(text)
    except ValueError:
        return math.nan
