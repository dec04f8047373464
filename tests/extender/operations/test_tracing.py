"""Spans as a collector gets them: OTLP over HTTP, decoded by a small collector in this process."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from tests.extender.scorers import open_gate
from tests.extender.service import Service, by_names, pod

Run = Callable[..., Service]
TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


class Collector:
    """Takes spans on a loopback port."""

    def __init__(self) -> None:
        self.spans: list[Span] = []
        self.services: set[str] = set()
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                request = ExportTraceServiceRequest.FromString(self.rfile.read(int(self.headers["content-length"])))
                for resource in request.resource_spans:
                    named = {it.key: it.value.string_value for it in resource.resource.attributes}
                    collector.services.add(named["service.name"])
                    for scope in resource.scope_spans:
                        collector.spans.extend(scope.spans)
                self.send_response(200)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the standard library's name
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}/v1/traces"
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True)
        self.thread.start()

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()

    def named(self, name: str) -> Span:
        [span] = [span for span in self.spans if span.name == name]
        return span

    def names(self) -> list[str]:
        return sorted(span.name for span in self.spans)


@pytest.fixture
def collector() -> Iterator[Collector]:
    started = Collector()
    yield started
    started.close()


def traceparent(sampled: bool = True) -> dict[str, str]:
    return {"traceparent": f"00-{TRACE}-{PARENT}-0{int(sampled)}"}


def finish(service: Service) -> None:
    """Stop the service, which sends what waits."""
    service.background.stop()
    service.background._thread.join(30.0)
    assert not service.background._thread.is_alive()


@pytest.mark.parametrize("chunked", [False, True], ids=["from-the-connection", "by-asgi"])
def test_the_work_of_a_request_is_seen_within_the_callers_trace(
    run_service: Run, collector: Collector, chunked: bool
) -> None:
    service = run_service(tracing_endpoint=collector.url, tracing_sample_share=0.0)
    names = service.add_nodes(40)
    if chunked:
        content: Any = iter([json.dumps(by_names(names)).encode()])
        answer = service.http.post("/prioritize", content=content, headers=traceparent())
    else:
        answer = service.http.post("/prioritize", json=by_names(names), headers=traceparent())
    assert len(answer.json()) == 40
    finish(service)
    server = collector.named("POST /prioritize")
    assert (server.trace_id.hex(), server.parent_span_id.hex()) == (TRACE, PARENT)
    assert server.kind == Span.SPAN_KIND_SERVER
    assert collector.services == {"maddpg-extender"}
    for name in ("decode", "encode"):
        assert collector.named(name).parent_span_id == server.span_id
    for name in ("observe", "infer"):
        ours = [span for span in collector.spans if span.name == name]
        assert {span.parent_span_id for span in ours} == {server.span_id}
        rows = [it.value.int_value for span in ours for it in span.attributes if it.key == "maddpg.rows"]
        assert rows == [40], "the row scored ahead after the answer belongs to no request"
    assert {span.trace_id.hex() for span in collector.spans} == {TRACE}
    decode, encode = collector.named("decode"), collector.named("encode")
    infer = next(span for span in collector.spans if span.name == "infer")
    assert server.start_time_unix_nano <= decode.start_time_unix_nano <= decode.end_time_unix_nano
    assert decode.end_time_unix_nano <= infer.start_time_unix_nano <= infer.end_time_unix_nano
    assert infer.end_time_unix_nano <= encode.start_time_unix_nano <= server.end_time_unix_nano


def test_each_request_of_one_connection_has_its_own_trace(
    run_service: Run, collector: Collector, caplog: pytest.LogCaptureFixture
) -> None:
    service = run_service(tracing_endpoint=collector.url, tracing_sample_share=0.0)
    names = service.add_nodes(3)
    service.http.post("/filter", json=by_names(names), headers=traceparent())
    service.http.post("/filter", json=by_names(names))
    other = {"traceparent": f"00-{TRACE[::-1]}-{PARENT}-01"}
    service.http.post("/filter", json=by_names(names), headers=other)
    finish(service)
    assert "different Context" not in caplog.text
    servers = [span.trace_id.hex() for span in collector.spans if span.name == "POST /filter"]
    assert sorted(servers) == sorted([TRACE, TRACE[::-1]]), "the one without a context is not kept at a share of 0"


@pytest.mark.parametrize(
    ("headers", "share", "kept"),
    [
        pytest.param({}, 1.0, True, id="begins-here"),
        pytest.param({}, 0.0, False, id="begins-here-and-is-not-drawn"),
        pytest.param(traceparent(sampled=False), 1.0, False, id="the-caller-does-not-keep-it"),
        pytest.param(traceparent(), 0.0, True, id="the-caller-keeps-it"),
        pytest.param({"traceparent": "00-garbage"}, 1.0, True, id="a-broken-header-counts-as-none"),
    ],
)
def test_the_caller_chooses_and_the_share_where_there_is_none(
    run_service: Run, collector: Collector, headers: dict[str, str], share: float, kept: bool
) -> None:
    service = run_service(tracing_endpoint=collector.url, tracing_sample_share=share, scorer="kube-default")
    service.http.post("/filter", json=by_names(service.add_nodes(3)), headers=headers)
    finish(service)
    assert collector.names() == (["POST /filter", "decode", "encode"] if kept else [])


def test_refused_and_failed_requests_say_so(run_service: Run, collector: Collector) -> None:
    service = run_service(tracing_endpoint=collector.url, tracing_sample_share=1.0, scorer="kube-default")
    service.post("prioritize", b"{")
    service.background.app.engine.decide = None  # type: ignore[method-assign,assignment]
    assert service.post("prioritize", by_names(service.add_nodes(2))).status_code == 500
    finish(service)
    servers = [span for span in collector.spans if span.name == "POST /prioritize"]
    codes = {
        attribute.value.int_value: span.status.code
        for span in servers
        for attribute in span.attributes
        if attribute.key == "http.response.status_code"
    }
    assert codes == {400: Status.STATUS_CODE_UNSET, 500: Status.STATUS_CODE_ERROR}


def test_a_failing_scorer_falls_back_under_tracing_as_without(run_service: Run, collector: Collector) -> None:
    scorer = open_gate(mode="blank")
    service = run_service(loaded=scorer.loaded(), tracing_endpoint=collector.url, tracing_sample_share=1.0)
    service.prioritize(service.add_nodes(3))
    assert service.decision("uid-web")["fallback_reason"] == "non_finite"
    finish(service)
    assert "infer" in collector.names()


def test_a_collector_that_is_away_costs_spans_and_nothing_else(run_service: Run) -> None:
    service = run_service(
        tracing_endpoint="http://127.0.0.1:9/v1/traces", tracing_sample_share=1.0, shutdown_grace_s=2.0
    )
    names = service.add_nodes(3)
    for i in range(20):
        assert len(service.prioritize(names, pod(f"p{i}"))) == 3
    deadline = time.monotonic() + 30.0
    while not service.metric("maddpg_spans_total", result="failed"):
        assert time.monotonic() < deadline, "no failure was counted"
        time.sleep(0.1)
    service.prioritize(names)
    began = time.monotonic()
    finish(service)
    assert time.monotonic() - began < 15.0


def test_spans_taken_are_counted(run_service: Run, collector: Collector) -> None:
    service = run_service(
        tracing_endpoint=collector.url, tracing_sample_share=1.0, scorer="kube-default", housekeeping_interval_s=0.05
    )
    service.post("filter", by_names(service.add_nodes(3)))
    deadline = time.monotonic() + 30.0
    while service.metric("maddpg_spans_total", result="exported") < 3:
        assert time.monotonic() < deadline, "no span was counted"
        time.sleep(0.05)
    assert service.metric("maddpg_spans_total", result="failed") == 0


def test_without_tracing_nothing_of_it_is_even_imported() -> None:
    # FastAPI imports OpenTelemetry's interface where it is installed; what makes and sends spans is the SDK
    code = """
import sys
from extender.app import create_app
from tests.extender.embedded import EmbeddedSource
from extender.transport.connection import VerbConnection
from extender.protocol.verbs import SchedulingVerbs
from extender.settings import Settings
app = create_app(Settings(scorer="kube-default"), EmbeddedSource())
ours = ("opentelemetry.sdk", "opentelemetry.exporter", "opentelemetry.proto", "extender.operations.tracing")
print([name for name in sys.modules if name.startswith(ours)], type(app.verbs) is SchedulingVerbs,
      app.connection is VerbConnection)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout.split() == ["[]", "True", "True"]


def test_no_proxy_is_asked_for_a_collector_on_loopback(
    run_service: Run, collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = run_service(tracing_endpoint=collector.url, tracing_sample_share=1.0)
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")  # where nobody listens
    service.prioritize(service.add_nodes(3), pod("web"))
    finish(service)
    assert "POST /prioritize" in collector.names()
