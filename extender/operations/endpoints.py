"""Health, metrics and decisions over HTTP, for operators. Refuses to change anything."""

from __future__ import annotations

from functools import partial
from typing import Annotated, Any, Final, Literal

from fastapi import FastAPI, HTTPException, Query, Request, Response
from fastapi.openapi.utils import get_openapi
from fastapi.responses import JSONResponse
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.types import ASGIApp, Receive, Scope, Send

from extender.errors import BusyError, LedgerError, kind_of
from extender.operations.assembly import SCRAPE_PATIENCE_S, Assembly
from extender.operations.documents import Documents, encode
from extender.operations.federation import ONE, Replicas
from extender.operations.guard import Guard, Guarded
from extender.operations.metrics import Metrics
from extender.operations.probes import Probes
from extender.operations.schemas import describe
from extender.operations.search import CURSOR, Search
from extender.protocol.openapi import paths
from extender.protocol.wire import LARGEST

Answers = dict[int | str, dict[str, Any]]
Replica = Literal["all", "this"]

MOST_DECISIONS: Final = 1000
"""Decisions in one answer, about 1.2 KB each."""

MOST_NODES: Final = 500
"""Nodes in one answer, about 0.9 KB each."""


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
BUSY: Final[Answers] = {503: _described(REASON, why="other answers are being put together; Retry-After says when")}
UNREADABLE: Final[Answers] = {
    503: _described(REASON, why="other answers are being put together, or the ledger's file cannot be read, and why")
}
DOCUMENT: Final[Answers] = {200: _described({})}
"""`extender.operations.schemas` says the rest."""
NOT_FOUND: Final[Answers] = {404: _described(REASON, why="nothing is known of it")}


def operations_app(
    *,
    probes: Probes,
    metrics: Metrics,
    documents: Documents,
    others: Replicas,
    version: str,
    guard: Guard | None = None,
) -> FastAPI:
    """Health, metrics, and under `/v1/` what decides, what it decided, and what is tried beside it.

    `/openapi.json` describes these and the scheduling verbs.

    Args:
        probes: alive and ready.
        metrics: written out.
        documents: what decides, what it decided and what is tried.
        others: asked for what this replica does not remember.
        version: of the service.
        guard: decides who may read; None: everybody may.
    """
    app = FastAPI(title="maddpg-scheduler", version=version, docs_url=None, redoc_url=None, openapi_url=None)
    app.add_middleware(HeadAsGet)
    if guard is not None:
        app.add_middleware(Guarded, guard=guard)
    answers = Assembly(metrics.traffic.refused)
    scrapes = Assembly(metrics.traffic.refused, SCRAPE_PATIENCE_S)

    def asked(replicas: Replica) -> Replicas:
        return others if replicas == "all" else ONE

    @app.get("/healthz", response_class=Response, responses=ALIVE)
    async def healthz() -> Response:
        """200 while the event loop turns."""
        return JSONResponse({"alive": True})

    @app.get("/readyz", response_class=Response, responses=READY)
    async def readyz() -> Response:
        """200 when the cluster has been listed; else 503 with the reasons."""
        reasons = probes.unready()
        return JSONResponse({"ready": not reasons, "reasons": reasons}, status_code=503 if reasons else 200)

    @app.get("/metrics", response_class=Response, responses=EXPOSITION | BUSY)
    async def exposition() -> Response:
        """Metrics for Prometheus. Scrapes at the same time share one answer."""
        metrics.settle()
        return Response(await scrapes.shared("metrics", metrics.exposition), media_type=CONTENT_TYPE_LATEST)

    @app.get("/v1/policy")
    async def policy() -> dict[str, Any]:
        """What decides, and what became of the bundles seen since."""
        return documents.policy()

    @app.get("/v1/shadow")
    async def shadow() -> dict[str, Any]:
        """How far the shadow's candidate agrees with what decides; `candidate` is null where there is none."""
        return documents.shadow()

    @app.get("/v1/experiment", response_class=Response, responses=DOCUMENT | BUSY)
    async def experiment() -> Response:
        """What the experiment came to; `candidate` is null where there is none."""
        return _json(await answers.shared("experiment", lambda: encode(documents.experiment())))

    @app.get("/v1/observed")
    async def observed() -> dict[str, Any]:
        """What we would have chosen for the pods that others placed; `pods` is null where nothing is observed."""
        return documents.observed()

    @app.get("/v1/nodes", response_class=Response, responses=DOCUMENT | BUSY)
    async def nodes(
        limit: Annotated[int, Query(ge=1, le=MOST_NODES)] = 100,
        after: Annotated[int, Query(ge=0, le=LARGEST)] = 0,
    ) -> Response:
        """What is known of each node, and how it is known: speed and evidence, use, requests, pressure.

        Where there are more nodes, `next` is what `after` must be to go on with them; else it is null.
        """
        page = documents.inventory.take(after, limit)
        return _json(await answers.of(partial(documents.nodes, page)))

    @app.get("/v1/nodes/{name}", response_class=Response, responses=DOCUMENT | NOT_FOUND | BUSY)
    async def node(name: str) -> Response:
        """What is known of one node."""
        page = documents.inventory.take_one(name)
        if page is None:
            raise HTTPException(404, f"no node {name[:253]} is known")
        return _json(await answers.of(partial(documents.node, page)))

    @app.get("/v1/decisions", response_class=Response, responses=DOCUMENT | UNREADABLE)
    async def decisions(
        limit: Annotated[int, Query(ge=1, le=MOST_DECISIONS)] = 100,
        before: Annotated[str, Query(pattern=CURSOR)] = "",
        namespace: str | None = None,
        name: str | None = None,
        search: Annotated[str, Query(max_length=253)] = "",
        replicas: Replica = "all",
    ) -> Response:
        """The latest decisions of all replicas, newest first, and counts of this one since its start.

        Where more are remembered, `next` is what `before` must be to go on with them; else it is null. `search` has
        words that must stand in the pod, its namespace or UID, its node, scorer or state. With `replicas=this` no
        other replica is asked.
        """
        wanted = Search(limit, before, namespace, name, search)
        heard = await asked(replicas).listing(wanted)
        return _json(await answers.of(partial(documents.decisions, wanted, heard, places=replicas == "this")))

    @app.get("/v1/report", response_class=Response, responses=DOCUMENT | BUSY)
    async def report() -> Response:
        """How well deciding has gone, over the decisions remembered."""
        return _json(await answers.shared("report", lambda: encode(documents.report())))

    @app.get("/v1/decisions/{uid}", response_class=Response, responses=DOCUMENT | NOT_FOUND | UNREADABLE)
    async def decision(
        uid: str,
        why_not: str | None = None,
        ranking: Annotated[int | None, Query(ge=1, le=LARGEST)] = None,
        replicas: Replica = "all",
    ) -> Response:
        """Why the pod of this UID was rated as it was, and why the node `why_not` was not preferred.

        Where kube-scheduler did not ask this replica about the pod, the others are asked, unless `replicas` is `this`:
        `replica` then says which one remembers, and `silent` which did not answer. `ranking` is the page of the ranking
        of all nodes to tell as well.
        """
        own = await answers.of(partial(documents.explained, uid, why_not, ranking))
        told, silent = await asked(replicas).best(own, uid, why_not, ranking)
        if told is None:
            why = f"no decision is remembered for pod {uid}; it may be older than the ledger holds{silent}"
            raise HTTPException(404, why)
        return _json(encode(told))

    @app.get("/v1/decisions/{uid}/case", response_class=Response, responses=DOCUMENT | NOT_FOUND | BUSY)
    async def case(uid: str, replicas: Replica = "all") -> Response:
        """The decision about the pod of this UID with all its nodes: `maddpg-extender replay` decides it again.

        Other replicas are asked as for the decision.
        """
        own = await answers.of(partial(documents.case, uid))
        found, silent = await asked(replicas).case(own, documents.asked(uid), uid)
        if not found:
            why = f"the nodes of a decision for pod {uid} are not remembered; ask sooner after it{silent}"
            raise HTTPException(404, why)
        return _json(found)

    @app.exception_handler(BusyError)
    @app.exception_handler(LedgerError)
    async def unavailable(request: Request, error: Exception) -> Response:
        return JSONResponse({"detail": kind_of(error)}, 503, {"Retry-After": "1"})

    def described() -> dict[str, Any]:
        if app.openapi_schema is None:
            schema = get_openapi(title=app.title, version=app.version, routes=app.routes)
            describe(schema)
            schema["paths"] |= paths()
            app.openapi_schema = schema
        return app.openapi_schema

    app.openapi = described  # type: ignore[method-assign]  # FastAPI's documented way to extend the description
    description = encode(described())

    @app.get("/openapi.json", include_in_schema=False)
    async def openapi() -> Response:
        return _json(description)

    return app


class HeadAsGet:
    """Answers HEAD wherever GET is answered, in the same words; uvicorn leaves the body out.

    Args:
        app: answers.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] == "http" and scope["method"] == "HEAD":
            scope = {**scope, "method": "GET"}
        await self._app(scope, receive, send)


def _json(content: bytes) -> Response:
    return Response(content, media_type="application/json")
