"""Health, metrics and decisions over HTTP, for operators. Refuses to change anything."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any, Final

from fastapi import FastAPI, HTTPException, Query, Response
from fastapi.openapi.utils import get_openapi
from fastapi.responses import JSONResponse
from prometheus_client import CONTENT_TYPE_LATEST

from extender.engine import Engine
from extender.errors import LedgerError
from extender.history.aggregate import performance
from extender.history.explain import explanation, summary
from extender.history.ledger import Decision, Ledger
from extender.operations.documents import Documents
from extender.operations.metrics import Metrics
from extender.operations.probes import Probes
from extender.protocol.openapi import paths

if TYPE_CHECKING:
    from extender.history.store import DecisionStore  # imported only where it is used

Answers = dict[int | str, dict[str, Any]]


def _described(schema: dict[str, Any], media_type: str = "application/json", why: str = "") -> dict[str, Any]:
    """An answer in the API's description."""
    return {"description": why, "content": {media_type: {"schema": schema}}}


ALIVE: Final[Answers] = {200: _described({"type": "object", "properties": {"alive": {"type": "boolean"}}}, why="alive")}
READINESS: Final = {
    "type": "object",
    "required": ["ready", "reasons"],
    "properties": {"ready": {"type": "boolean"}, "reasons": {"type": "array", "items": {"type": "string"}}},
}
READY: Final[Answers] = {200: _described(READINESS, why="ready"), 503: _described(READINESS, why="not ready, and why")}
EXPOSITION: Final[Answers] = {200: _described({"type": "string"}, "text/plain", "metrics")}
REASON: Final = {"type": "object", "required": ["detail"], "properties": {"detail": {"type": "string"}}}
UNREADABLE: Final[Answers] = {503: _described(REASON, why="the ledger's file cannot be read, and why")}
NOT_FOUND: Final[Answers] = {404: _described(REASON, why="no such decision")}


def operations_app(
    *,
    probes: Probes,
    metrics: Metrics,
    ledger: Ledger,
    store: DecisionStore | None,
    engine: Engine,
    documents: Documents,
    version: str,
    kubernetes: str,
) -> FastAPI:
    """Health, metrics, and under `/v1/` what decides, what it decided, and what is tried beside it.

    `/openapi.json` describes these and the scheduling verbs.

    Args:
        probes: alive and ready.
        metrics: written out.
        ledger: decisions.
        store: the ledger's file; None where there is none.
        engine: knows the scorers in use.
        documents: what decides and what is tried.
        version: of the service.
        kubernetes: minor version of Kubernetes whose kube-default explanations tell.
    """
    app = FastAPI(title="maddpg-scheduler", version=version, docs_url=None, redoc_url=None)

    @app.get("/healthz", response_class=Response, responses=ALIVE)
    async def healthz() -> Response:
        """200 while the event loop turns."""
        return JSONResponse({"alive": True})

    @app.get("/readyz", response_class=Response, responses=READY)
    async def readyz() -> Response:
        """200 when the cluster has been listed; else 503 with the reasons."""
        reasons = probes.unready()
        return JSONResponse({"ready": not reasons, "reasons": reasons}, status_code=503 if reasons else 200)

    @app.get("/metrics", response_class=Response, responses=EXPOSITION)
    async def exposition() -> Response:
        """Metrics for Prometheus, written in a thread so that no decision waits for them."""
        return Response(await metrics.exposition(), media_type=CONTENT_TYPE_LATEST)

    @app.get("/v1/policy")
    async def policy() -> dict[str, Any]:
        """What decides, and what became of the bundles seen since."""
        return documents.policy()

    @app.get("/v1/shadow")
    async def shadow() -> dict[str, Any]:
        """How far the shadow's candidate agrees with what decides; `candidate` is null where there is none."""
        return documents.shadow()

    @app.get("/v1/experiment")
    async def experiment() -> dict[str, Any]:
        """What the experiment came to; `candidate` is null where there is none. Put together in a thread."""
        return await asyncio.to_thread(documents.experiment)

    @app.get("/v1/decisions", responses=UNREADABLE)
    async def decisions(
        limit: Annotated[int, Query(ge=1, le=10_000)] = 100,
        namespace: str | None = None,
        name: str | None = None,
    ) -> dict[str, Any]:
        """The latest decisions, newest first, and counts since the start."""
        found: list[dict[str, Any]] = []
        for decision in ledger.latest():
            if len(found) == limit:
                break
            if namespace in (None, decision.namespace) and name in (None, decision.name):
                found.append(summary(decision))
        if not found and store is not None and namespace is not None and name is not None:
            past = await _stored(store.find, namespace, name)
            found.extend([] if past is None else [summary(past)])
        return {
            "counts": ledger.counts.document(),
            "decisions": found,
        }

    @app.get("/v1/report")
    async def report() -> dict[str, Any]:
        """How well deciding has gone, over the decisions remembered; put together in a thread."""
        return await asyncio.to_thread(performance, ledger.latest(), ledger.counts)

    @app.get("/v1/decisions/{uid}", responses=NOT_FOUND | UNREADABLE)
    async def decision(uid: str) -> dict[str, Any]:
        """Why the pod of this UID was rated as it was."""
        found = ledger.get(uid)
        if found is None and store is not None:
            found = await _stored(store.get, uid)
        if found is None:
            raise HTTPException(404, f"no decision is remembered for pod {uid}; it may be older than the ledger holds")
        return await asyncio.to_thread(explanation, found, engine.scorer_of(found), kubernetes)

    def described() -> dict[str, Any]:
        if app.openapi_schema is None:
            schema = get_openapi(title=app.title, version=app.version, routes=app.routes)
            schema["paths"] |= paths()
            app.openapi_schema = schema
        return app.openapi_schema

    app.openapi = described  # type: ignore[method-assign]  # FastAPI's documented way to extend the description
    return app


async def _stored(read: Callable[..., Decision | None], *of: str) -> Decision | None:
    """A decision from the ledger's file, read in a thread; 503 where the file cannot be read."""
    try:
        return await asyncio.to_thread(read, *of)
    except LedgerError as error:
        raise HTTPException(503, str(error)) from error
