"""Use and pressure from Prometheus, over HTTP, in the format of its query API."""

import json
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from extender.cluster.prometheus import Prometheus, PrometheusOptions
from extender.cluster.usage import NodeUse, UsageError
from policy.errors import InvalidInputError
from tests.control_plane.certificates import Authority, KeyPair

SAMPLED = 1767225600.5
METRICS = {
    "node_cpu_seconds_total": "cpu",
    "node_memory_MemAvailable_bytes": "memory",
    "node_pressure_cpu_waiting_seconds_total": "pressure",
    "timestamp(": "sampled",
}


class FakePrometheus:
    """Answers each query with the series it was given; remembers what was asked."""

    def __init__(self) -> None:
        self.series: dict[str, dict[str, str]] = {
            "cpu": {"n0": "1.5", "n1": "0.25"},
            "memory": {"n0": "2147483648", "n1": "1073741824"},
            "pressure": {"n0": "0.125"},
            "sampled": {"n0": f"{SAMPLED}", "n1": f"{SAMPLED}"},
        }
        self.label = "node"
        self.queries: list[str] = []
        self.authorizations: list[str | None] = []
        self.instead: tuple[int, bytes] | None = None
        self.port = 0

    @contextmanager
    def running(self, certificate: KeyPair | None = None) -> Iterator["FakePrometheus"]:
        server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        if certificate is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate.certificate, certificate.key)
            server.socket = context.wrap_socket(server.socket, server_side=True)
        self.port = server.server_address[1]
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield self
        finally:
            server.shutdown()
            server.server_close()
            thread.join()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/"

    def answer(self, query: str) -> dict[str, Any]:
        name = next(name for metric, name in METRICS.items() if metric in query)
        result = [
            {"metric": {self.label: node}, "value": [SAMPLED + 10.0, value]}
            for node, value in self.series[name].items()
        ]
        return {"status": "success", "data": {"resultType": "vector", "result": result}}

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        prometheus = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                parts = urlsplit(self.path)
                query = parse_qs(parts.query)["query"][0]
                prometheus.queries.append(query)
                prometheus.authorizations.append(self.headers.get("Authorization"))
                status, body = prometheus.instead or (200, json.dumps(prometheus.answer(query)).encode())
                if parts.path != "/api/v1/query":
                    status, body = 404, b"404 page not found"
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name http.server gives it
                """Nothing: the test looks at `queries`."""

        return Handler


@pytest.fixture
def prometheus() -> Iterator[FakePrometheus]:
    with FakePrometheus().running() as server:
        yield server


def reader(prometheus: FakePrometheus, **options: Any) -> Prometheus:
    return Prometheus(PrometheusOptions(prometheus.url, **options))


def test_use_and_pressure_of_every_node(prometheus: FakePrometheus) -> None:
    assert reader(prometheus, window=60.0).read() == [
        NodeUse("n0", cpu=1.5, memory=2.0, pressure=0.125, begin=SAMPLED - 60.0, end=SAMPLED),
        NodeUse("n1", cpu=0.25, memory=1.0, pressure=None, begin=SAMPLED - 60.0, end=SAMPLED),
    ]


def test_the_queries_are_by_node_and_over_the_window(prometheus: FakePrometheus) -> None:
    prometheus.label = "instance"
    assert len(reader(prometheus, node_label="instance", window=90.0).read()) == 2
    assert prometheus.queries == [
        'sum by (instance) (rate(node_cpu_seconds_total{mode!~"idle|iowait|steal"}[90s]))',
        "max by (instance) (node_memory_MemTotal_bytes - node_memory_MemAvailable_bytes)",
        "max by (instance) (rate(node_pressure_cpu_waiting_seconds_total[90s]))",
        "max by (instance) (timestamp(node_memory_MemTotal_bytes))",
    ]


def test_a_port_behind_the_name_is_cut_off(prometheus: FakePrometheus) -> None:
    prometheus.series = {name: {"n0:9100": value["n0"]} for name, value in prometheus.series.items()}
    assert [use.node for use in reader(prometheus).read()] == ["n0"]


@pytest.mark.parametrize(
    ("series", "nodes"),
    [
        pytest.param("cpu", ["n0"], id="no-cpu"),
        pytest.param("memory", ["n0"], id="no-memory"),
        pytest.param("sampled", ["n0"], id="never-sampled"),
    ],
)
@pytest.mark.parametrize("value", [None, "NaN", "+Inf", "garbage"])
def test_a_node_that_is_only_half_known_is_left_out(
    prometheus: FakePrometheus, series: str, nodes: list[str], value: str | None
) -> None:
    if value is None:
        del prometheus.series[series]["n1"]
    else:
        prometheus.series[series]["n1"] = value
    assert [use.node for use in reader(prometheus).read()] == nodes


def test_no_series_at_all_is_no_use_and_no_error(prometheus: FakePrometheus) -> None:
    prometheus.series = {name: {} for name in prometheus.series}
    assert reader(prometheus).read() == []


@pytest.mark.parametrize(
    ("answer", "complaint"),
    [
        pytest.param(
            (400, b'{"status":"error","errorType":"bad_data","error":"parse error"}'), "400: parse error", id="refused"
        ),
        pytest.param((200, b'{"status":"error","error":"query timed out"}'), "query timed out", id="error-with-200"),
        pytest.param((503, b"<html>no healthy upstream</html>"), "answered 503 and no result", id="proxy"),
        pytest.param((200, b""), "answered 200 and no result", id="empty"),
        pytest.param((200, b'{"status":"success"}'), "no reason given", id="no-data"),
        pytest.param(
            (200, b'{"status":"success","data":{"result":[{"metric":{},"value":[1]}]}}'), "no result", id="short-value"
        ),
    ],
)
def test_an_answer_that_is_none_says_what_came(
    prometheus: FakePrometheus, answer: tuple[int, bytes], complaint: str
) -> None:
    prometheus.instead = answer
    with pytest.raises(UsageError, match=complaint):
        reader(prometheus).read()


def test_an_absent_prometheus_is_an_error_that_names_it(prometheus: FakePrometheus) -> None:
    with pytest.raises(UsageError, match=r"cannot reach Prometheus at http://127\.0\.0\.1:1:"):
        Prometheus(PrometheusOptions("http://127.0.0.1:1")).read()


def test_a_rotated_token_is_sent(prometheus: FakePrometheus, tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("first\n")
    asking = reader(prometheus, token_file=token)
    asking.read()
    token.write_text("second\n")
    asking.read()
    assert prometheus.authorizations == ["Bearer first"] * 4 + ["Bearer second"] * 4
    token.unlink()
    with pytest.raises(UsageError, match="token"):
        asking.read()


def test_certificates_are_verified(tmp_path: Path) -> None:
    authority, other = Authority(tmp_path, "ca"), Authority(tmp_path, "other")
    with FakePrometheus().running(authority.issue("prometheus", "127.0.0.1")) as prometheus:
        url = f"https://127.0.0.1:{prometheus.port}"
        assert len(Prometheus(PrometheusOptions(url, ca_file=authority.certificate)).read()) == 2
        for distrusting in (PrometheusOptions(url), PrometheusOptions(url, ca_file=other.certificate)):
            with pytest.raises(UsageError, match="certificate verify failed"):
                Prometheus(distrusting).read()


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        pytest.param({"url": "prometheus:9090"}, "begin it with http", id="url"),
        pytest.param({"url": "http://p", "node_label": 'x"} or vector(1)'}, "label name", id="label"),
        pytest.param({"url": "http://p", "window": 0.0}, "at least one second", id="window"),
    ],
)
def test_options_that_do_not_fit_are_refused(options: dict[str, Any], complaint: str) -> None:
    with pytest.raises(InvalidInputError, match=complaint):
        PrometheusOptions(**options)
