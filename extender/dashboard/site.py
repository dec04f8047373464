"""The pages over HTTP: what is asked for, and what keeps browsers and the verbs safe. Refuses to change anything."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable
from functools import cache, partial
from importlib import resources
from typing import Annotated, Any, Final, Literal

from fastapi import APIRouter, FastAPI, Query, Request, Response
from fastapi.responses import RedirectResponse, StreamingResponse

from extender.dashboard.content import SORTS, Content
from extender.dashboard.listings import html_of, reasoned
from extender.dashboard.rendering import Pages
from extender.errors import BusyError, LedgerError, kind_of
from extender.history.ranking import PAGE
from extender.operations.assembly import Assembly
from extender.operations.federation import Replicas
from extender.operations.manual import manual
from extender.operations.search import CURSOR, Search

ROOT: Final = "/dashboard/"

STREAMS: Final = 32
"""Browsers that are told of changes at the same time; others are not told, and see them when they ask."""

STREAM_S: Final = 300.0
"""How long one is told before it must ask again."""

TICK_S: Final = 1.0
"""How often it is looked whether anything changed."""

OTHERS_TICKS: Final = 5
"""After how many of these a page is renewed that other replicas may have something new for."""

KINDS: Final = {"css": "text/css", "js": "text/javascript", "svg": "image/svg+xml"}

HEADERS: Final = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-store",
}

Text = Annotated[str, Query(max_length=253)]
Page = Annotated[int, Query(ge=1, le=1_000_000)]


def add(app: FastAPI, content: Content, others: Replicas, refused: Callable[[str], None]) -> None:
    """Add the pages to the operations endpoints.

    Args:
        app: answers at the operations port.
        content: what stands on the pages.
        others: asked for what this replica does not remember.
        refused: told "busy" for each request that found no turn.
    """
    answers = Assembly(refused)
    files = _files()
    pages = Pages({name: digest for name, (_, _, digest) in files.items()}, content.version)
    router = APIRouter(include_in_schema=False)
    streams: set[object] = set()

    def busy(request: Request, error: Exception) -> Response:
        why = pages.failure(kind_of(error), request.url.path)
        return Response(why, 503, {**HEADERS, "Retry-After": "1"}, "text/html")

    async def page(request: Request, name: str, build: Callable[[], dict[str, Any]]) -> Response:
        """A page, or the part of it that htmx asked for; put together in a thread."""
        try:
            made = await answers.of(partial(pages.render, name, build, request.url.path, part_of(request)))
        except (BusyError, LedgerError) as error:
            return busy(request, error)
        return Response(made, 200, HEADERS, "text/html")

    @router.get("/")
    @router.get("/dashboard")
    async def entrance() -> Response:
        return RedirectResponse("dashboard/", 307, HEADERS)  # relative: a proxy may serve us below a path of its own

    @router.get(ROOT)
    async def now(request: Request) -> Response:
        moment = content.moment()
        rows = await content.rows() if moment.pending else None
        return await page(request, "now", partial(content.now, moment, rows))

    @router.get(ROOT + "decisions")
    async def decisions(
        request: Request, search: Text = "", before: Annotated[str, Query(pattern=CURSOR)] = ""
    ) -> Response:
        wanted = Search(PAGE, before, search=search)
        return await page(request, "decisions", partial(content.decisions, wanted, await others.listing(wanted)))

    @router.get(ROOT + "decisions/{uid}")
    async def why(
        request: Request, uid: str, node: Text = "", number: Annotated[Page, Query(alias="page")] = 1
    ) -> Response:
        other = node.strip() or None
        part = part_of(request)

        def build() -> tuple[dict[str, Any] | None, bytes]:
            """This replica's explanation, and the page where no other has to be asked: both in one turn."""
            own = content.explained(uid, other, number)
            if own is None or others.asked_for(own):
                return own, b""
            return own, pages.render("why", partial(reasoned, own), request.url.path, part)

        try:
            own, made = await answers.of(build)
        except (BusyError, LedgerError) as error:
            return busy(request, error)
        if made:
            return Response(made, 200, HEADERS, "text/html")
        told, silent = await others.best(own, uid, other, number)
        if told is None:
            why = f"nothing is remembered of this pod{silent}"
            return Response(pages.failure(why, request.url.path), 404, HEADERS, "text/html")
        return await page(request, "why", partial(reasoned, told))

    @router.get(ROOT + "nodes")
    async def nodes(
        request: Request,
        size: Literal["small", "medium", "large"] = "medium",
        urgency: Literal["low", "medium", "high"] = "medium",
        sort: str = "-preference",
        search: Text = "",
        number: Annotated[Page, Query(alias="page")] = 1,
    ) -> Response:
        sort = sort if sort.removeprefix("-") in SORTS else "-preference"
        return await page(
            request, "nodes", partial(content.nodes, await content.rows(), size, urgency, sort, search.strip(), number)
        )

    @router.get(ROOT + "policy")
    async def policy(request: Request) -> Response:
        return await page(request, "policy", partial(content.policy, await content.rows()))

    @router.get(ROOT + "trials")
    async def trials(request: Request) -> Response:
        return await page(request, "trials", content.trials)

    @router.get(ROOT + "settings")
    async def settings(request: Request) -> Response:
        return await page(request, "settings", content.settings)

    @router.get(ROOT + "metrics")
    async def measured(request: Request) -> Response:
        return await page(request, "metrics", content.measured)

    @cache
    def described() -> dict[str, Any]:
        return {"api": html_of(manual(app.openapi(), 1))}

    @router.get(ROOT + "api")
    async def api(request: Request) -> Response:
        return await page(request, "api", described)

    @router.get("/docs")
    async def docs() -> Response:
        return RedirectResponse("dashboard/api", 307, HEADERS)

    @router.get(ROOT + "series.json")
    async def series() -> Response:
        try:
            return Response(await answers.shared("series", content.series), 200, HEADERS, "application/json")
        except BusyError as error:
            return Response(kind_of(error), 503, {**HEADERS, "Retry-After": "1"})

    @router.get(ROOT + "events")
    async def events() -> Response:
        """Tell the browser when something changed, by server-sent events."""
        if len(streams) >= STREAMS:
            return Response("too many pages are live; reload to see changes", 503, {**HEADERS, "Retry-After": "30"})
        return StreamingResponse(_changes(content, streams, others.any), 200, HEADERS, "text/event-stream")

    @router.get(ROOT + "static/{name}")
    async def static(name: str) -> Response:
        if name not in files:
            return Response("no such file", 404, HEADERS)
        body, kind, _ = files[name]
        return Response(body, 200, {**HEADERS, "Cache-Control": "public, max-age=86400, immutable"}, kind)

    app.include_router(router)


async def _changes(content: Content, streams: set[object], others: bool) -> AsyncIterator[str]:
    """Yield an event whenever a decision is made or its pod moves on; now and then where others may have decided."""
    key, known = object(), content.changes()
    streams.add(key)
    try:
        yield "retry: 5000\n\n"
        for tick in range(int(STREAM_S / TICK_S)):
            await asyncio.sleep(TICK_S)
            if content.stopping:
                return
            if (now := content.changes()) != known or (others and tick % OTHERS_TICKS == OTHERS_TICKS - 1):
                known = now
                yield "event: changed\ndata: 1\n\n"
            elif tick % 15 == 0:
                yield ": nothing new\n\n"  # proxies close what is silent
    finally:
        streams.discard(key)


def part_of(request: Request) -> str:
    """Id of the element that htmx wants to replace; empty where a browser asks for the whole page."""
    return request.headers.get("hx-target", "") if request.headers.get("hx-request") == "true" else ""


def _files() -> dict[str, tuple[bytes, str, str]]:
    """Content, type and digest of each static file; read once."""
    found = {}
    for file in (resources.files("extender.dashboard") / "static").iterdir():
        kind = KINDS.get(file.name.rpartition(".")[2])
        if kind is not None:
            body = file.read_bytes()
            found[file.name] = body, kind, hashlib.sha256(body).hexdigest()[:12]
    return found
