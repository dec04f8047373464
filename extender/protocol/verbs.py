"""The four verbs: decode, ask, encode; and as an ASGI application that reads a bounded body. Refuses to decide.

Not FastAPI routes, because kube-scheduler waits for every microsecond of this path and nothing here needs validation
beyond `extender.protocol.wire`; `extender.operations.endpoints` are FastAPI. Ordinary requests do not even come by ASGI
but from `extender.transport.connection`.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, Protocol

from extender import logs
from extender.cluster.source import Binding, ClusterSource
from extender.engine import Engine
from extender.errors import BindError, WireError
from extender.history.ledger import Decision
from extender.protocol import wire
from extender.protocol.bodies import RecentRequests
from extender.settings import Settings
from extender.verdict import Verdict
from policy.errors import InvalidInputError, SchedulerError

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

VERBS: Final = ("filter", "prioritize", "preempt", "bind")
BROKEN_OFF: Final = "the connection broke off before the whole body had arrived"
PATHS: Final = {f"/{verb}": verb for verb in VERBS}

_log = logs.get(__name__)


@dataclass(frozen=True, slots=True)
class Answer:
    """What goes back."""

    status: int  # HTTP status
    body: bytes
    close: bool = False  # whether the connection must be closed after it
    retry_after_s: int = 0  # when to ask again, seconds; 0: not said
    # what is left to do once the answer is on its way, before anything else happens
    after: Callable[[], None] | None = None


Verb = Callable[[bytes, float], Awaitable[Answer]]


class Observer(Protocol):
    """Is told what the verbs do; called on the event loop."""

    def answered(self, verb: str, code: int, seconds: float) -> None:
        """One request was answered with this HTTP status, so long after it arrived."""
        ...

    def decided(self, decision: Decision) -> None:
        """One decision was made."""
        ...

    def bind_failed(self) -> None:
        """The API server refused to bind a pod."""
        ...


class SchedulingVerbs:
    """Answers the verbs; an ASGI application for `PATHS`.

    Args:
        hosts: writes priorities; follows the rows of the engine's table.
        timer: monotonic seconds, the engine's timer.

    Attributes:
        by_url: the verbs that are enabled, by the URL a request for them names.
        timer: monotonic seconds; `received` is by it.
    """

    def __init__(
        self,
        *,
        engine: Engine,
        source: ClusterSource,
        hosts: wire.HostEncoder,
        observer: Observer,
        settings: Settings,
        timer: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._engine = engine
        self._source = source
        self._observer = observer
        self.max_body_bytes = settings.max_body_bytes
        self.body_timeout_s = settings.body_timeout_s
        self._every_node = settings.answer_every_node
        self.timer = timer
        self._recent = RecentRequests(engine.table)
        self._decode = self._recent.decode
        self._encode = hosts.encode
        self._encode_filter = wire.encode_filter
        self.by_url = {f"/{verb}".encode(): verb for verb in VERBS if getattr(settings, f"enable_{verb}")}
        self._verbs: dict[str, Verb] = {
            "filter": self._filter,
            "prioritize": self._prioritize,
            "preempt": self._preempt,
            "bind": self._bind,
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request whose path is in `PATHS`, as an ASGI application."""
        received = self.timer()
        verb = PATHS[scope["path"]]
        try:
            body = await self._body(verb, scope, receive)
        except WireError as error:
            answer = self.refused(error)
        else:
            answer = await self.answer(verb, body, received)
        headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(answer.body))]
        if answer.close:
            headers.append((b"connection", b"close"))
        if answer.status == 405:
            headers.append((b"allow", b"POST"))  # RFC 9110, 15.5.6
        self.answered(verb, answer, received)  # before others can change what it is about: sending may wait
        await send({"type": "http.response.start", "status": answer.status, "headers": headers})
        await send({"type": "http.response.body", "body": answer.body})

    async def answer(self, verb: str, body: bytes, received: float) -> Answer:
        """Answer the body of one request; never raises.

        Args:
            verb: one of those enabled.
            body: the whole of it.
            received: when the request arrived, by `timer`.
        """
        try:
            return await self._verbs[verb](body, received)
        except WireError as error:
            return self.refused(error)
        except InvalidInputError as error:
            return Answer(400, wire.encode_error(str(error)))
        except Exception:
            _log.exception("request failed", verb=verb)
            return Answer(500, wire.encode_error("internal error; the log of the extender says more"))

    def refused(self, error: WireError) -> Answer:
        """The answer to a request that cannot be read; what else comes over its connection cannot be told apart."""
        return Answer(error.status, wire.encode_error(str(error)), close=error.status in (408, 413))

    def answered(self, verb: str, answer: Answer, received: float) -> None:
        """Count a request, and do what its answer left; call it once, when the answer is on its way."""
        self._observer.answered(verb, answer.status, self.timer() - received)
        if answer.after is not None:
            try:
                answer.after()
            except Exception:
                _log.exception("what an answer left to do failed", verb=verb)

    def broken_off(self) -> Answer:
        """The answer that nobody is left to read."""
        return self.refused(WireError(BROKEN_OFF))

    def too_slow(self) -> WireError:
        """The body did not arrive in time."""
        return WireError(f"the body did not arrive within {self.body_timeout_s:g} s", status=408)

    async def _body(self, verb: str, scope: Scope, receive: Receive) -> bytes:
        """The whole body.

        Raises:
            WireError: the verb is switched off (404), the method is not POST (405), or the body is too large (413), too
                slow (408) or breaks off (400).
        """
        if verb not in self.by_url.values():
            raise WireError(f"the verb {verb} is switched off; set enable_{verb} to true to answer it", status=404)
        if scope["method"] != "POST":
            raise WireError(f"/{verb} takes POST, not {scope['method']}", status=405)
        for name, value in scope["headers"]:
            if name == b"content-length" and value.isdigit() and int(value) > self.max_body_bytes:
                raise self.too_large()
        parts: list[bytes] = []
        size = 0
        try:
            async with asyncio.timeout(self.body_timeout_s):
                while True:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        raise WireError(BROKEN_OFF)
                    part = message.get("body", b"")
                    size += len(part)
                    if size > self.max_body_bytes:
                        raise self.too_large()
                    parts.append(part)
                    if not message.get("more_body", False):
                        return b"".join(parts)
        except TimeoutError as error:
            raise self.too_slow() from error

    def too_large(self) -> WireError:
        """The body is larger than it may be."""
        return WireError(
            f"the body is larger than {self.max_body_bytes} bytes; set nodeCacheCapable, or raise max_body_bytes",
            status=413,
        )

    async def _filter(self, body: bytes, received: float) -> Answer:
        """Every node passes. What else goes wrong with the pod is no reason to keep it from being placed."""
        request = self._decode(body)
        self._engine.table.withdraw(request.pod.metadata.uid)  # asked again: the former attempt failed
        if len(request.names) == 1:
            try:
                decision = self._engine.note_only_feasible(request.pod, request.names[0], "filter", received)
                self._observer.decided(decision)
            except SchedulerError as error:
                _log.warning("only feasible node not recorded", error=str(error), pod=request.pod.metadata.uid)
            return Answer(200, self._encode_filter(request))
        return Answer(200, self._encode_filter(request), after=partial(self._look_ahead, request))

    def _look_ahead(self, request: wire.SchedulingRequest) -> None:
        """kube-scheduler is about to ask for priorities of these nodes; a pod it should not ask about is told then."""
        with contextlib.suppress(SchedulerError):
            self._engine.look_ahead(request.pod, self._recent.named(request))

    async def _prioritize(self, body: bytes, received: float) -> Answer:
        request = self._decode(body)
        verdict = await self._engine.decide(request.pod, self._recent.named(request), received)
        rated = verdict.rows, verdict.priorities, verdict.unknown, self._engine.settings.unknown_node_priority
        hosts = self._encode(*(rated if self._every_node else wire.above_zero(*rated)))
        return Answer(200, hosts, after=partial(self._finish, verdict))

    def _finish(self, verdict: Verdict) -> None:
        self._observer.decided(self._engine.finish(verdict))

    async def _preempt(self, body: bytes, received: float) -> Answer:
        request = wire.decode_preemption(body)
        self._engine.table.withdraw(request.uid)  # it was placed nowhere
        return Answer(200, wire.encode_preemption(request))

    async def _bind(self, body: bytes, received: float) -> Answer:
        """Bind, and believe it at once: the watch shows it some milliseconds later."""
        binding = wire.decode_binding(body)
        try:
            await self._source.bind(binding)
        except BindError as error:
            self._observer.bind_failed()
            self._engine.table.withdraw(binding.uid)
            self._engine.ledger.bind_failed(binding.uid, str(error))
            _log.warning("bind failed", pod=f"{binding.namespace}/{binding.name}", node=binding.node, error=str(error))
            return Answer(200, wire.encode_error(str(error)))
        self._assume(binding)
        return Answer(200, wire.encode_error(""))

    def _assume(self, binding: Binding) -> None:
        decision = self._engine.ledger.get(binding.uid)
        if decision is not None:
            asked = decision.demand
            requests = asked.cpu, asked.memory, asked.cpu_nonzero, asked.memory_nonzero
            self._engine.table.assume(binding.uid, binding.node, *requests, certain=True)


async def not_here(scope: Scope, send: Send) -> None:
    """Answer 404 to anything but a verb, where operations have their own port."""
    if scope["type"] != "http":
        return
    body = b'{"Error":"not found; operations endpoints are on their own port"}'
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": 404, "headers": headers})
    await send({"type": "http.response.body", "body": body})
