"""Use and pressure from Prometheus, over HTTP, in the format of its query API."""

import base64
import json
import os
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from extender.cluster import prometheus as reading
from extender.cluster.prometheus import Prometheus, PrometheusOptions
from extender.cluster.series import without_port
from extender.cluster.usage import Answer, NodeUse, UsageError
from policy.errors import InvalidInputError
from tests.control_plane.certificates import Authority, KeyPair

SAMPLED = 1767225600.5
METRICS = {
    "topk(": "labels",
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
            "labels": {},
        }
        self.label = "node"
        self.more: dict[str, Any] = {}
        """What else an answer says, such as warnings."""
        self.odd: list[Any] = []
        """Series put in front of the others."""
        self.headers: list[dict[str, str]] = []
        self.queries: list[str] = []
        self.authorizations: list[str | None] = []
        self.instead: tuple[int, bytes] | None = None
        self.refused = ""
        """Metric about which nothing is answered."""
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
        return {"status": "success", "data": {"resultType": "vector", "result": self.odd + result}, **self.more}

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        prometheus = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                parts = urlsplit(self.path)
                query = parse_qs(parts.query)["query"][0]
                prometheus.queries.append(query)
                prometheus.authorizations.append(self.headers.get("Authorization"))
                prometheus.headers.append(dict(self.headers.items()))
                status, body = prometheus.instead or (200, json.dumps(prometheus.answer(query)).encode())
                if prometheus.refused and prometheus.refused in query:
                    status, body = 422, b'{"status": "error", "errorType": "execution", "error": "too many samples"}'
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
    assert reader(prometheus, window=60.0).read() == Answer(
        [
            NodeUse("n0", cpu=1.5, memory=2.0, pressure=0.125, begin=SAMPLED - 60.0, end=SAMPLED),
            NodeUse("n1", cpu=0.25, memory=1.0, pressure=None, begin=SAMPLED - 60.0, end=SAMPLED),
        ]
    )


def test_the_queries_take_one_scrape_of_a_node_and_are_over_the_window(prometheus: FakePrometheus) -> None:
    """Sums over the series of one scrape, of which `without` leaves all labels that tell one from another."""
    prometheus.label = "instance"
    assert len(reader(prometheus, node_label="instance", window=90.0).read().uses) == 2
    assert prometheus.queries == [
        'max by (instance) (sum without (cpu, mode) (rate(node_cpu_seconds_total{mode!~"idle|iowait|steal"}[90s])))',
        "max by (instance) (node_memory_MemTotal_bytes - node_memory_MemAvailable_bytes)",
        "max by (instance) (timestamp(node_memory_MemTotal_bytes))",
        "max by (instance) (rate(node_pressure_cpu_waiting_seconds_total[90s]))",
    ]


@pytest.mark.parametrize(
    "selector",
    ['cluster="ours", zone=~"eu-.*"', '{cluster="ours", zone=~"eu-.*"}', ' { cluster="ours", zone=~"eu-.*", } '],
)
def test_a_selector_narrows_every_series(prometheus: FakePrometheus, selector: str) -> None:
    reader(prometheus, selector=selector).read()
    ours = 'cluster="ours", zone=~"eu-.*"'
    busy = f'node_cpu_seconds_total{{mode!~"idle|iowait|steal", {ours}}}'
    assert prometheus.queries == [
        f"max by (node) (sum without (cpu, mode) (rate({busy}[120s])))",
        f"max by (node) (node_memory_MemTotal_bytes{{{ours}}} - node_memory_MemAvailable_bytes{{{ours}}})",
        f"max by (node) (timestamp(node_memory_MemTotal_bytes{{{ours}}}))",
        f"max by (node) (rate(node_pressure_cpu_waiting_seconds_total{{{ours}}}[120s]))",
    ]


@pytest.mark.parametrize(
    ("label", "node"),
    [
        ("n0", "n0"),
        ("n0:9100", "n0"),
        ("n0.example.com:9100", "n0.example.com"),
        ("10.0.0.1:9100", "10.0.0.1"),
        ("[fd00::1]:9100", "fd00::1"),
        ("[fd00::1]", "fd00::1"),
        ("fd00::1", "fd00::1"),
        ("", ""),
    ],
)
def test_a_port_behind_the_name_is_cut_off(label: str, node: str) -> None:
    assert without_port(label) == node


def test_two_ports_of_one_machine_are_one_machine(prometheus: FakePrometheus) -> None:
    for name, low, high in (("cpu", "1", "2"), ("memory", f"{2 << 30}", f"{3 << 30}"), ("sampled", "7", "9")):
        prometheus.series[name] = {"n0:9100": high, "n0:9101": low}
    prometheus.series["pressure"] = {}
    assert reader(prometheus).read() == Answer([NodeUse("n0", 2.0, 3.0, None, 9.0 - 120.0, 9.0)])


@pytest.mark.parametrize(
    ("odd", "reason"),
    [
        pytest.param({"metric": {"instance": "x"}, "value": [1, "1"]}, "incomplete", id="no-label"),
        pytest.param({"metric": {"node": "x"}, "value": [1]}, "undecodable", id="short"),
        pytest.param({"metric": {"node": "x"}, "value": [1, "NaN"]}, "value", id="nan"),
        pytest.param({"metric": {"node": "x"}, "value": [1, "-Inf"]}, "value", id="infinite"),
        pytest.param({"metric": {"node": "x"}, "value": [1, "1_0"]}, "value", id="what-python-alone-reads"),
        pytest.param({"metric": {"node": "x"}, "histogram": [1, {}]}, "undecodable", id="histogram"),
        pytest.param({"metric": {"node": 7}, "value": [1, "1"]}, "undecodable", id="label-that-is-no-text"),
        pytest.param(None, "undecodable", id="null"),
    ],
)
def test_a_series_that_is_odd_costs_itself_alone(prometheus: FakePrometheus, odd: Any, reason: str) -> None:
    prometheus.odd = [odd]
    answer = reader(prometheus).read()
    assert [use.node for use in answer.uses] == ["n0", "n1"]
    assert answer.ignored == {reason: 4}


def test_a_failed_query_for_pressure_costs_pressure_alone(prometheus: FakePrometheus) -> None:
    prometheus.refused = "node_pressure_cpu_waiting_seconds_total"
    answer = reader(prometheus).read()
    assert [(use.node, use.pressure) for use in answer.uses] == [("n0", None), ("n1", None)]
    assert answer.partial
    prometheus.refused = "node_cpu_seconds_total"
    with pytest.raises(UsageError, match="422"):
        reader(prometheus).read()


@pytest.mark.parametrize("more", [{"warnings": ["store 7: Bearer x"]}, {"isPartial": True}])
def test_an_answer_that_may_lack_something_is_marked(prometheus: FakePrometheus, more: dict[str, Any]) -> None:
    prometheus.more = more
    assert reader(prometheus).read().partial
    prometheus.more = {"warnings": [], "isPartial": False, "infos": ["fine"]}
    assert not reader(prometheus).read().partial


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
    assert [use.node for use in reader(prometheus).read().uses] == nodes


def test_no_series_at_all_is_an_error_that_says_what_to_look_at(prometheus: FakePrometheus) -> None:
    prometheus.series = {name: {} for name in prometheus.series}
    with pytest.raises(UsageError, match="no series node_memory_MemTotal_bytes; does it scrape node-exporter"):
        reader(prometheus).read()
    with pytest.raises(UsageError, match=r'no series .* with cluster="ours" \(prometheus_selector\);'):
        reader(prometheus, selector='cluster="ours"').read()


def test_a_label_that_no_series_has_is_an_error_that_names_it_and_those_that_there_are(
    prometheus: FakePrometheus,
) -> None:
    prometheus.label = "kubernetes_node"
    prometheus.series["labels"] = {"n0": "1"}
    with pytest.raises(
        UsageError, match=r"has the label 'node' \(prometheus_node_label\); its labels are kubernetes_node"
    ):
        reader(prometheus).read()


def test_no_rate_is_an_error_that_names_the_window(prometheus: FakePrometheus) -> None:
    prometheus.series["cpu"] = {}
    with pytest.raises(UsageError, match="two scrapes must lie in prometheus_window_s"):
        reader(prometheus).read()


@pytest.mark.parametrize(
    ("answer", "complaint"),
    [
        pytest.param(
            (400, b'{"status":"error","errorType":"bad_data","error":"parse error"}'), "400: bad_data$", id="refused"
        ),
        pytest.param(
            (200, b'{"status":"error","errorType":"timeout","error":"x"}'), "200: timeout$", id="error-with-200"
        ),
        pytest.param((503, b"<html>no healthy upstream</html>"), "answered 503 and no result", id="proxy"),
        pytest.param((200, b""), "answered 200 and no result", id="empty"),
        pytest.param((200, b'{"status":"success"}'), "no reason given", id="no-data"),
        pytest.param((200, b'{"status":"error","errorType":"Bearer x"}'), "200: no reason given$", id="no-type"),
        pytest.param(
            (200, b'{"status":"success","data":{"resultType":"matrix","result":[]}}'), "instant vector", id="matrix"
        ),
        pytest.param(
            (200, b'{"status":"success","data":{"resultType":"scalar","result":[1,"1"]}}'),
            "instant vector",
            id="scalar",
        ),
        pytest.param((307, b""), "it redirects: give prometheus_url", id="redirect"),
        pytest.param(
            (401, b"no"), "prometheus_token_file, prometheus_username and prometheus_headers", id="refused-us"
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
    token.write_bytes(b"\xef\xbb\xbf second\r\n")
    asking.read()
    assert prometheus.authorizations == ["Bearer first"] * 4 + ["Bearer second"] * 4
    token.unlink()
    with pytest.raises(UsageError, match=r"without its credentials: .*token cannot be read: No such file"):
        asking.read()
    assert len(prometheus.queries) == 8, "nothing is asked without"


@pytest.mark.parametrize(
    ("content", "why"),
    [
        pytest.param(b"s3cr3t\n# rotated", "more than a token", id="two-lines"),
        pytest.param("s3cr\u20193t".encode(), "more than a token", id="typographic"),
        pytest.param(b"s3cr3t\xff", "not text in UTF-8", id="no-text"),
        pytest.param("s3cr3t".encode("utf-16"), "not text in UTF-8", id="utf-16"),
        pytest.param(b" \n", "holds no token", id="empty"),
        pytest.param(b"s3cr3t" * 200_000, "longer than", id="endless"),
    ],
)
def test_a_token_file_that_holds_no_token_is_told_by_its_kind(
    prometheus: FakePrometheus, tmp_path: Path, content: bytes, why: str
) -> None:
    token = tmp_path / "token"
    token.write_bytes(content)
    with pytest.raises(UsageError, match=why) as raised:
        reader(prometheus, token_file=token).read()
    assert "s3cr" not in str(raised.value)
    assert prometheus.queries == []


def test_a_pipe_and_a_folder_in_the_place_of_a_token_file_are_told(prometheus: FakePrometheus, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    for name, why in (("pipe", "holds no token"), ("folder", "Is a directory")):
        with pytest.raises(UsageError, match=why):
            reader(prometheus, token_file=tmp_path / name).read()


@pytest.mark.parametrize(("setting", "value"), [("LONGEST_S", 0.0), ("LONGEST_ANSWER", 10)])
def test_an_answer_that_never_ends_is_given_up(
    prometheus: FakePrometheus, monkeypatch: pytest.MonkeyPatch, setting: str, value: float
) -> None:
    monkeypatch.setattr(reading, setting, value)
    with pytest.raises(UsageError, match="answered more than"):
        reader(prometheus).read()


def test_user_and_password_are_sent(prometheus: FakePrometheus, tmp_path: Path) -> None:
    (tmp_path / "password").write_text("p\u00e4ss:w ord\n", encoding="utf-8")
    reader(prometheus, username="reader", password_file=tmp_path / "password").read()
    sent = base64.b64decode(prometheus.authorizations[0].removeprefix("Basic "))  # type: ignore[union-attr]
    assert sent.decode() == "reader:p\u00e4ss:w ord"


def test_headers_of_a_file_are_sent_and_read_again(prometheus: FakePrometheus, tmp_path: Path) -> None:
    headers = tmp_path / "headers"
    headers.write_text("# for the store\n\nX-Scope-OrgID: team-a|team-b\nAuthorization:  Token abc \n")
    asking = reader(prometheus, headers_file=headers)
    asking.read()
    assert prometheus.headers[0]["X-Scope-OrgID"] == "team-a|team-b"
    assert prometheus.authorizations[0] == "Token abc"
    headers.write_text("X-Scope-OrgID: team-c")
    asking.read()
    assert prometheus.headers[-1]["X-Scope-OrgID"] == "team-c"
    assert prometheus.authorizations[-1] is None


@pytest.mark.parametrize(
    ("content", "why"),
    [
        pytest.param("s3cr3t", "line 1, is no header", id="no-colon"),
        pytest.param("X-A: 1\nX B: s3cr3t", "line 2, is no header", id="name"),
        pytest.param("X-A:", "line 1, holds what no HTTP header may", id="no-value"),
        pytest.param("X-A: s3cr\u20193t", "line 1, holds what no HTTP header may", id="typographic"),
        pytest.param("Host: s3cr3t", "belongs to the connection", id="host"),
        pytest.param("X-A: 1\nx-a: s3cr3t", "line 2, sets a header again", id="twice"),
    ],
)
def test_a_headers_file_that_is_none_is_told_by_its_line(
    prometheus: FakePrometheus, tmp_path: Path, content: str, why: str
) -> None:
    (tmp_path / "headers").write_text(content, encoding="utf-8")
    with pytest.raises(UsageError, match=why) as raised:
        reader(prometheus, headers_file=tmp_path / "headers").read()
    assert "s3cr" not in str(raised.value)


def test_two_authorizations_are_refused(prometheus: FakePrometheus, tmp_path: Path) -> None:
    (tmp_path / "headers").write_text("authorization: Token abc")
    (tmp_path / "token").write_text("abc")
    with pytest.raises(UsageError, match="keep one"):
        reader(prometheus, headers_file=tmp_path / "headers", token_file=tmp_path / "token").read()


def test_an_authority_that_rotates_is_read_again(tmp_path: Path) -> None:
    old, new = Authority(tmp_path, "old"), Authority(tmp_path, "new")
    trusted = tmp_path / "trusted.crt"
    trusted.write_bytes(old.certificate.read_bytes())
    with FakePrometheus().running(new.issue("prometheus", "127.0.0.1")) as prometheus:
        asking = Prometheus(PrometheusOptions(f"https://127.0.0.1:{prometheus.port}", ca_file=trusted))
        with pytest.raises(UsageError, match="certificate verify failed"):
            asking.read()
        trusted.write_text("being written")
        with pytest.raises(UsageError, match="no certificate in PEM"):
            asking.read()
        trusted.write_bytes(new.certificate.read_bytes())
        assert len(asking.read().uses) == 2
        trusted.unlink()
        with pytest.raises(UsageError, match="cannot be read: No such file"):
            asking.read()


def test_certificates_are_verified(tmp_path: Path) -> None:
    authority, other = Authority(tmp_path, "ca"), Authority(tmp_path, "other")
    with FakePrometheus().running(authority.issue("prometheus", "127.0.0.1")) as prometheus:
        url = f"https://127.0.0.1:{prometheus.port}"
        assert len(Prometheus(PrometheusOptions(url, ca_file=authority.certificate)).read().uses) == 2
        for distrusting in (PrometheusOptions(url), PrometheusOptions(url, ca_file=other.certificate)):
            with pytest.raises(UsageError, match="certificate verify failed"):
                Prometheus(distrusting).read()


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        pytest.param({"url": "prometheus:9090"}, "begin it with http", id="url"),
        pytest.param({"url": "http://:9090"}, "give a host", id="no-host"),
        pytest.param({"url": "http://reader:s3cr3t@p"}, "prometheus_password_file", id="password"),
        pytest.param({"url": "http://s3cr3t@p"}, "prometheus_password_file", id="user"),
        pytest.param({"url": "http://p/?key=s3cr3t"}, "prometheus_headers_file", id="query"),
        pytest.param({"url": "http://p", "selector": "ours"}, "list of matchers", id="selector"),
        pytest.param({"url": "http://p", "selector": 'a="b"} or x{c="d"'}, "list of matchers", id="two-selectors"),
        pytest.param({"url": "http://p", "selector": 'a="b'}, "list of matchers", id="open-quote"),
        pytest.param({"url": "http://p", "node_label": 'x"} or vector(1)'}, "label name", id="label"),
        pytest.param({"url": "http://p", "window": 0.0}, "at least one second", id="window"),
    ],
)
def test_options_that_do_not_fit_are_refused(options: dict[str, Any], complaint: str) -> None:
    with pytest.raises(InvalidInputError, match=complaint) as raised:
        PrometheusOptions(**options)
    assert "s3cr3t" not in str(raised.value)
