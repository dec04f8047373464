"""Spans of a request for OpenTelemetry: decode, observe, infer, encode under one of the server. Refuses to be global.

Where tracing is off this module and the SDK are not imported, and the verbs, the connection and the engine are what
they are without it: nothing asks whether to trace. Where it is on, their traced twins take their places.

The server's span continues the trace that the caller's `traceparent` header names (https://www.w3.org/TR/trace-context)
and is kept if that one is; a trace that begins here is kept for a share of the requests. Rows are observed and inferred
only where a request needs preferences that are not kept, so many requests have no such spans.

Spans leave in batches from a thread of the SDK, with bounded memory: a collector that is away costs spans, not answers.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from contextvars import ContextVar
from typing import Any, Final, ParamSpec, TypeVar
from urllib.parse import urlsplit

import requests
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased
from opentelemetry.trace import SpanKind, StatusCode, Tracer, get_current_span
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from extender.protocol.verbs import Answer, Receive, SchedulingVerbs, Scope, Send
from extender.proxies import is_loopback
from extender.supervision import Failures
from extender.transport.connection import VerbConnection

P = ParamSpec("P")
T = TypeVar("T")

EXPORT_TIMEOUT_S: Final = 5.0
"""Longest that one batch is offered to the collector, retries included."""

BATCH_DELAY_S: Final = 1.0
"""Spans leave this often."""

MOST_WAITING: Final = 4096
"""Spans that may wait; further ones are dropped."""

_HEADERS: Final = (b"traceparent", b"tracestate")
_Headers = Iterable[tuple[bytes, bytes]]
_headers: ContextVar[_Headers] = ContextVar("headers", default=())
"""Headers of the request that is being answered."""

_NO_SPAN: Final = nullcontext()
_propagator: Final = TraceContextTextMapPropagator()


class Tracing:
    """Makes spans and sends them.

    Args:
        endpoint: URL that takes OTLP over HTTP, such as ``http://collector:4318/v1/traces``.
        share: of the traces that begin here, those that are kept, 0..1.
        grace_s: longest that `stop` waits for the collector, seconds.

    Attributes:
        exporter: sends the spans, and counts them.
    """

    def __init__(self, endpoint: str, share: float, grace_s: float, version: str, failures: Failures) -> None:
        self._grace_s = grace_s
        session = requests.Session()
        # the environment's proxies would be asked for loopback
        session.trust_env = not is_loopback(urlsplit(endpoint).hostname or "")
        exporter = OTLPSpanExporter(endpoint=endpoint, timeout=EXPORT_TIMEOUT_S, session=session)
        self.exporter = _CountingExporter(exporter, failures)
        resource = Resource.create({"service.name": "maddpg-extender", "service.version": version})
        sampler = ParentBased(TraceIdRatioBased(share))
        self._provider = TracerProvider(sampler=sampler, resource=resource, shutdown_on_exit=False)
        self._provider.add_span_processor(
            BatchSpanProcessor(
                self.exporter,
                max_queue_size=MOST_WAITING,
                schedule_delay_millis=BATCH_DELAY_S * 1000.0,
                export_timeout_millis=EXPORT_TIMEOUT_S * 1000.0,
            )
        )
        self.tracer: Tracer = self._provider.get_tracer("extender", version)

    def span(self, name: str, scorer: str, rows: int) -> AbstractContextManager[object]:
        """Encloses a part of a scorer's work; what is scored after an answer belongs to no request and has no span."""
        if not get_current_span().get_span_context().is_valid:
            return _NO_SPAN
        attributes: dict[str, str | int] = {"maddpg.scorer": scorer, "maddpg.rows": rows}
        return self.tracer.start_as_current_span(name, attributes=attributes)

    def stop(self) -> bool:
        """Send what waits; returns whether that was done within `grace_s` seconds. Afterwards spans go nowhere."""
        # a daemon thread, because the SDK may wait longer than we have
        thread = threading.Thread(target=self._provider.shutdown, name="tracing-end", daemon=True)
        thread.start()
        thread.join(self._grace_s)
        return not thread.is_alive()


class TracedVerbs(SchedulingVerbs):
    """The verbs, each answer under a span of the server; made by a class that `by` binds to a tracer."""

    tracer: Tracer

    @classmethod
    def by(cls, tracer: Tracer) -> type[TracedVerbs]:
        """Return the class whose verbs make their spans with this tracer."""
        return type(cls.__name__, (cls,), {"tracer": tracer})

    def __init__(self, **parts: Any) -> None:
        super().__init__(**parts)
        tracer = self.tracer
        self._decode = _spanned(tracer, "decode", self._decode)
        self._encode = _spanned(tracer, "encode", self._encode)
        self._encode_filter = _spanned(tracer, "encode", self._encode_filter)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request that comes by ASGI."""
        _headers.set(scope["headers"])
        await super().__call__(scope, receive, send)

    async def answer(self, verb: str, body: bytes, received: float) -> Answer:
        """Answer under a span that began when the request arrived."""
        # what comes from the connection is begun in its context and goes on in a task's
        # (`extender.transport.coroutine`): waiting once puts the whole span into the task
        await asyncio.sleep(0)
        began = time.time_ns() - int((self.timer() - received) * 1e9)
        carrier = {name.decode(): value.decode("latin-1") for name, value in _headers.get() if name in _HEADERS}
        with self.tracer.start_as_current_span(
            f"POST /{verb}", _propagator.extract(carrier, Context()), SpanKind.SERVER, start_time=began
        ) as span:
            answer = await super().answer(verb, body, received)
            span.set_attributes(
                {
                    "http.request.method": "POST",
                    "http.route": f"/{verb}",
                    "http.request.body.size": len(body),
                    "http.response.status_code": answer.status,
                    "http.response.body.size": len(answer.body),
                }
            )
            if answer.status >= 500:
                span.set_status(StatusCode.ERROR)
        return answer


class TracedConnection(VerbConnection):
    """A connection that lets `TracedVerbs` see the headers of a request that does not come by ASGI."""

    def _learn(self, data: bytes) -> None:
        """Every head is parsed: it may name a trace."""

    def on_message_complete(self) -> None:
        """Answer: the task that does so starts with a copy of this context."""
        token = _headers.set(self.headers)
        try:
            super().on_message_complete()
        finally:
            _headers.reset(token)


class _CountingExporter(SpanExporter):
    """An exporter that counts the spans that the collector took, and those that it did not."""

    def __init__(self, exporter: SpanExporter, failures: Failures) -> None:
        self.exported = 0
        self.failed = 0
        self._exporter = exporter
        self._failures = failures
        failures.expect("tracing")

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Send one batch."""
        try:
            result = self._exporter.export(spans)
        except Exception as error:  # the SDK would log its text, which may hold headers
            self._failures.record("tracing", error)
            result = SpanExportResult.FAILURE
        if result is SpanExportResult.SUCCESS:
            self.exported += len(spans)
        else:
            self.failed += len(spans)
        return result

    def shutdown(self) -> None:
        """Send no more."""
        self._exporter.shutdown()


def _spanned(tracer: Tracer, name: str, call: Callable[P, T]) -> Callable[P, T]:
    def spanned(*args: P.args, **kwargs: P.kwargs) -> T:
        with tracer.start_as_current_span(name):
            return call(*args, **kwargs)

    return spanned
