"""Use and CPU pressure of nodes from Prometheus, which scrapes node-exporter. Refuses to know any other exporter.

Four instant queries are asked for every node at once (https://prometheus.io/docs/prometheus/latest/querying/api/):

- cpu: cores that were busy, neither idle, nor waiting for a disk, nor taken by the hypervisor;
- memory: total less available;
- pressure: share of time in which some task waited for a CPU (PSI "some"), absent where the kernel does not collect it;
- sampled: when the node was scraped, because an answer is stamped with the time of the question.

A node is one machine, however often its series are stored: under two jobs, two addresses, by two replicas of
Prometheus. What one scrape brought is summed, and of several scrapes the largest sum counts. Clusters that share a
store are told apart by a selector. Neither secrets nor what Prometheus says in its own words is published.
"""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import urllib3

from extender.cluster.authorities import verifying_context
from extender.cluster.identity import (
    CredentialError,
    basic,
    bearer,
    header_text,
    read_text,
    read_token,
)
from extender.cluster.series import Values, values_of
from extender.cluster.usage import Answer, NodeUse, UsageError
from extender.errors import CertificateError, kind_of
from extender.pods import GIB
from extender.settings import SELECTOR_PATTERN, URL_SETTINGS
from extender.urls import secret_problem
from policy.errors import InvalidInputError

TIMEOUT: Final = urllib3.Timeout(connect=5.0, read=10.0)
LONGEST_S: Final = 30.0
"""Seconds that the body of an answer may take."""
CHUNK: Final = 64 * 1024
LONGEST_ANSWER: Final = 64 * 1024 * 1024
"""Bytes of one answer; a series takes some 100."""
MOST_LABELS: Final = 10
"""Names of labels that a message shows."""

MEMORY: Final = "node_memory_MemTotal_bytes"

_HEADER_NAME: Final = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_OF_THE_CONNECTION: Final = frozenset(
    {"host", "connection", "content-length", "transfer-encoding", "te", "upgrade", "keep-alive", "expect"}
)


@dataclass(frozen=True, slots=True)
class PrometheusOptions:
    """Where Prometheus is, how its series name nodes, and who asks.

    All files are read for each question, because they rotate.
    """

    url: str  # its base, such as ``https://prometheus.monitoring:9090``
    node_label: str = "node"  # label whose value is the node's name; a port behind it is cut off
    window: float = 120.0  # seconds over which rates are taken; at least two scrapes must lie in it
    selector: str = ""  # matchers that the series must meet, such as ``cluster="ours"``; empty: none
    ca_file: Path | None = None  # certificates to trust instead of the system's; TLS is always verified
    token_file: Path | None = None
    # username, password_file: who asks, and the file with the password
    username: str | None = None
    password_file: Path | None = None
    headers_file: Path | None = None  # file with headers, one ``Name: value`` per line

    def __post_init__(self) -> None:
        if (problem := secret_problem(self.url, URL_SETTINGS["prometheus_url"])) is not None:
            raise InvalidInputError(f"Prometheus URL {problem}")
        if not (self.node_label.isascii() and self.node_label.isidentifier()):
            raise InvalidInputError(f"Prometheus node label is {self.node_label!r}; give a label name such as node")
        if not self.window >= 1.0:
            raise InvalidInputError(f"Prometheus window is {self.window}; give at least one second")
        if self.selector and re.fullmatch(SELECTOR_PATTERN, self.selector) is None:
            raise InvalidInputError('Prometheus selector is no list of matchers; give one such as cluster="ours"')


class Prometheus:
    """Reads Prometheus."""

    name = "prometheus"

    def __init__(self, options: PrometheusOptions) -> None:
        self._options = options
        self._base = options.url.rstrip("/")
        self._authorities: bytes | None = None
        self._http: urllib3.PoolManager | None = None

    @property
    def names_nodes_by(self) -> str:
        """What gives a node's name."""
        return f"the label {self._options.node_label!r} (prometheus_node_label)"

    def queries(self) -> Mapping[str, str]:
        """The PromQL of each quantity, by name."""
        options = self._options
        largest, over = f"max by ({options.node_label})", f"[{round(options.window)}s]"
        matchers = options.selector.strip().strip("{}").strip().rstrip(",")
        only = f"{{{matchers}}}" if matchers else ""
        busy = ", ".join(filter(None, ('mode!~"idle|iowait|steal"', matchers)))
        return {
            "cpu": f"{largest} (sum without (cpu, mode) (rate(node_cpu_seconds_total{{{busy}}}{over})))",
            "memory": f"{largest} ({MEMORY}{only} - node_memory_MemAvailable_bytes{only})",
            "pressure": f"{largest} (rate(node_pressure_cpu_waiting_seconds_total{only}{over}))",
            "sampled": f"{largest} (timestamp({MEMORY}{only}))",
            "labels": f"topk(1, {MEMORY}{only})",
        }

    def read(self) -> Answer:
        """See `extender.cluster.usage.UsageReader`. Nodes without CPU, memory or time of sampling are left out."""
        queries, headers, http = self.queries(), self._headers(), self._pool()
        read = {name: self._ask(http, queries[name], headers) for name in ("cpu", "memory", "sampled")}
        if not read["sampled"].by_node:
            raise UsageError(self._nameless(self._ask(http, queries["labels"], headers)))
        if not read["cpu"].by_node:
            raise UsageError(
                "Prometheus has no rate of node_cpu_seconds_total: at least two scrapes must lie in prometheus_window_s"
            )
        cpu, memory, sampled = (each.by_node for each in read.values())
        try:
            read["pressure"] = self._ask(http, queries["pressure"], headers)
        except UsageError:  # use is worth having without it
            read["pressure"] = Values({}, partial=True)
        pressure = read["pressure"].by_node
        whole = cpu.keys() & memory.keys() & sampled.keys()
        ignored = sum((each.ignored for each in read.values()), Counter[str]())
        ignored["incomplete"] += len((cpu.keys() | memory.keys() | sampled.keys()) - whole)
        uses = [
            NodeUse(
                node=node,
                cpu=cpu[node],
                memory=memory[node] / GIB,
                pressure=pressure.get(node),
                begin=sampled[node] - self._options.window,
                end=sampled[node],
            )
            for node in sorted(whole)
        ]
        return Answer(uses, +ignored, any(each.partial for each in read.values()))

    def close(self) -> None:
        """Close idle connections."""
        if self._http is not None:
            self._http.clear()

    def _nameless(self, found: Values) -> str:
        """Why no series names a node, with the labels that there are."""
        selector = f" with {self._options.selector} (prometheus_selector)" if self._options.selector else ""
        if not found.labels:
            return f"Prometheus has no series {MEMORY}{selector}; does it scrape node-exporter?"
        labels = ", ".join(sorted(found.labels - {"__name__"})[:MOST_LABELS])
        return f"no series {MEMORY}{selector} has {self.names_nodes_by}; its labels are {labels or 'none'}"

    def _ask(self, http: urllib3.PoolManager, query: str, headers: Mapping[str, str]) -> Values:
        """Values of one query."""
        try:
            response = http.request(
                "GET",
                f"{self._base}/api/v1/query",
                fields={"query": query},
                headers=headers,
                retries=False,
                redirect=False,
                preload_content=False,
            )
            try:
                body = _read(response)
            finally:
                response.release_conn()
        except (urllib3.exceptions.HTTPError, OSError, ValueError) as error:
            raise UsageError(f"cannot reach Prometheus at {self._base}: {kind_of(error)}") from error
        return values_of(response.status, body, self._options.node_label)

    def _pool(self) -> urllib3.PoolManager:
        """The connections; new ones where the authorities have changed."""
        file = self._options.ca_file
        try:
            authorities = None if file is None else file.read_bytes()
            if self._http is None or authorities != self._authorities:
                self.close()
                context = verifying_context(authorities, f"prometheus_ca_file {file}")
                self._http = urllib3.PoolManager(timeout=TIMEOUT, ssl_context=context)
                self._authorities = authorities
        except (OSError, ValueError) as error:
            raise UsageError(f"prometheus_ca_file {file} cannot be read: {kind_of(error)}") from error
        except CertificateError as error:
            raise UsageError(str(error)) from error
        return self._http

    def _headers(self) -> dict[str, str]:
        """Who asks."""
        options = self._options
        try:
            headers = {} if options.headers_file is None else read_headers(options.headers_file)
            if options.token_file is not None:
                _add(headers, bearer(read_token(options.token_file)), options.headers_file)
            if options.username is not None and options.password_file is not None:
                password = read_text(options.password_file, "prometheus_password_file").strip("\r\n")
                _add(headers, basic(options.username, password), options.headers_file)
        except CredentialError as error:
            raise UsageError(f"nothing is asked of Prometheus without its credentials: {error}") from error
        return headers


def _read(response: urllib3.BaseHTTPResponse) -> bytes:
    """The body of an answer, which may neither drip for ever nor be endless."""
    body, until = bytearray(), time.monotonic() + LONGEST_S
    while chunk := response.read1(CHUNK):
        body += chunk
        if len(body) > LONGEST_ANSWER or time.monotonic() > until:
            response.close()
            raise UsageError(f"Prometheus answered more than {LONGEST_ANSWER} bytes, or for more than {LONGEST_S:g} s")
    return bytes(body)


def read_headers(path: Path) -> dict[str, str]:
    """Read headers from a file with one ``Name: value`` per line; blank lines and those with a # in front are skipped.

    Raises:
        CredentialError: it cannot be read, or a line is no header; the message names the line and not what is in it.
    """
    headers: dict[str, str] = {}
    for number, line in enumerate(read_text(path, "the headers file").splitlines(), start=1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        name, colon, value = line.partition(":")
        name, where = name.strip(), f"the headers file {path}, line {number},"
        if not colon or _HEADER_NAME.fullmatch(name) is None:
            raise CredentialError(f"{where} is no header; write Name: value")
        if name.lower() in _OF_THE_CONNECTION:
            raise CredentialError(f"{where} sets a header that belongs to the connection")
        if name.lower() in {each.lower() for each in headers}:
            raise CredentialError(f"{where} sets a header again; give each once")
        headers[name] = header_text(value, where)
    return headers


def _add(headers: dict[str, str], authorization: str, file: Path | None) -> None:
    if "authorization" in {name.lower() for name in headers}:
        raise CredentialError(f"the headers file {file} has an Authorization besides the one of the settings; keep one")
    headers["Authorization"] = authorization
