"""The pages with many nodes, decisions and requests: quick for who looks, and without a price for kube-scheduler."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import numpy as np

from tests.bench.client import KeepAliveClient, extender_args, node_names
from tests.bench.latency import Server, running
from tests.bench.operations import NAMES as ASKED
from tests.bench.report import Result
from tests.pages.browser import Launch, page_of
from tests.pages.conftest import FIGURES

LARGEST_REQUEST: Final = 20_000
"""Nodes that a request may name, `max_nodes`."""

ROUNDS: Final = 7
BLOCK_S: Final = 10.0
"""Long enough for each page to be refreshed twice."""

OPEN: Final = ("", "decisions", "decisions?search=web")
"""The three pages that are open: all of them live."""

FAR_BEYOND: Final = 3.0
"""A ratio of p99 that no busy machine explains. The goal is 1.1."""

AFTER_SWAP: Final = """([id, value]) => new Promise((done) => {
    const begun = performance.now();
    document.body.addEventListener("htmx:afterSettle", () => done(performance.now() - begun), { once: true });
    const field = document.getElementById(id);
    field.value = value;
    if (field.matches("select")) field.dispatchEvent(new Event("change", { bubbles: true }));
    else field.closest("form").requestSubmit();
})"""
"""Milliseconds from a change of a field until the answer stands on the page."""

BLOCKED: Final = """() => new Promise((done) => {
    let longest = 0;
    new PerformanceObserver((list) => {
        for (const task of list.getEntries()) longest = Math.max(longest, task.duration);
    }).observe({ type: "longtask", buffered: true });
    setTimeout(() => done(longest), 100);
})"""
"""Longest task of the browser's main thread so far, in milliseconds; 0 where none took over 50."""


@contextmanager
def serving(nodes: int, decisions: int) -> Iterator[tuple[Server, str]]:
    """A service in a process of its own, and where its pages are; ten decisions are about as many nodes as can be."""
    names = node_names(min(nodes, LARGEST_REQUEST))
    with running(sys.executable, "-m", "tests.bench.service", str(nodes), str(decisions)) as server:
        with KeepAliveClient(server.port) as client:
            for index in reversed(range(10)):
                client.exchange(client.prepare("/prioritize", extender_args(names, index)))
        yield server, f"http://127.0.0.1:{server.port}/dashboard/"


def uid(index: int) -> str:
    """Of the pod that the client of the benchmarks asks about."""
    return f"00000000-0000-4000-8000-{index:012d}"


def painted_s(page: Any) -> float:
    """Seconds until the first contentful paint."""
    page.wait_for_function("() => performance.getEntriesByName('first-contentful-paint').length > 0")
    return float(page.evaluate("performance.getEntriesByName('first-contentful-paint')[0].startTime")) / 1000.0


def test_five_thousand_nodes_and_ten_thousand_decisions(browser: Any) -> None:
    with serving(5_000, 10_000) as (_, url), page_of(browser) as page:
        for name in ("", "decisions", "nodes", f"decisions/{uid(0)}"):
            page.goto(url + name)
            title = "why" if uid(0) in name else name or "now"
            FIGURES.append(Result(f"first paint of /{title}, 5,000 nodes", painted_s(page), "s", at_most=1.0))
        pager = page.locator("section[aria-labelledby=ranking] .pager")
        assert "Page 1 of 100" in pager.inner_text()
        pager.get_by_role("link", name="Last").click()
        last = page.locator("section[aria-labelledby=ranking] tbody tr").last.get_by_role("link").inner_text()
        took = page.evaluate(AFTER_SWAP, ["node", last])
        assert f"{last} was number 5000 of 5000 nodes" in page.locator("#answer").inner_text()
        FIGURES.append(Result("why not the last of 5,000 nodes", took, "ms", at_most=100.0))
        page.goto(f"{url}nodes")
        assert "5,000 of 5,000 nodes" in page.locator("main").inner_text()
        page.get_by_role("link", name="Last").click()
        assert "Page 100 of 100" in page.locator(".pager").inner_text()
        page.goto(f"{url}nodes")
        took = page.evaluate(AFTER_SWAP, ["size", "large"])
        FIGURES.append(Result("another pod on /nodes, 5,000 nodes", took, "ms", at_most=100.0))
        page.goto(f"{url}decisions")
        took = page.evaluate(AFTER_SWAP, ["search", "web"])
        FIGURES.append(Result("a search on /decisions, 10,000 decisions", took, "ms", at_most=100.0))


def test_fifty_thousand_rows_freeze_neither_the_browser_nor_the_verbs(browser: Any) -> None:
    with serving(50_000, 50_000) as (server, url), asking(server) as seconds, page_of(browser) as page:
        for name, told in (
            ("", "10"),
            ("decisions", "50,000 decisions are remembered"),
            ("decisions?search=old-30000", "old-30000"),
            ("nodes", "50,000 of 50,000 nodes"),
            (f"decisions/{uid(0)}", "Page 1 of 400"),
        ):
            begun = time.perf_counter()
            page.goto(url + name)
            took = time.perf_counter() - begun
            assert told in page.locator("main").inner_text()
            title = "why" if uid(0) in name else name or "now"
            longest = page.evaluate(BLOCKED)
            FIGURES.append(Result(f"/{title}, 50,000 rows, until it stands", took, "s", at_most=5.0))
            FIGURES.append(Result(f"/{title}, 50,000 rows, longest task in the browser", longest, "ms", at_most=200.0))
            assert longest < 1000.0
    title = f"/prioritize, {ASKED} names, slowest while pages of 50,000 rows are made"
    FIGURES.append(Result(title, max(seconds) * 1e3, "ms"))
    assert max(seconds) < 1.0


def test_kube_scheduler_does_not_wait_for_open_pages(launch: Launch) -> None:
    """Blocks with and without open pages take turns. The browser gives way: in life it runs on another machine."""
    with serving(5_000, 10_000) as (server, url), KeepAliveClient(server.port) as client:
        names, turn = node_names(ASKED), 100

        def p99_ms() -> float:
            nonlocal turn
            seconds, end = list[float](), time.perf_counter() + BLOCK_S
            while time.perf_counter() < end:
                turn += 1
                seconds.append(client.exchange(client.prepare("/prioritize", extender_args(names, turn)))[0])
            return float(np.quantile(seconds, 0.99)) * 1e3

        def open_pages() -> Any:
            context = browser.new_context()
            for name in OPEN:
                page = context.new_page()
                page.goto(url + name)
                page.get_by_label("Live").wait_for()
            return context

        p99_ms()
        browser = launch(gives_way=True)
        alone, together = [p99_ms()], list[float]()
        for _ in range(ROUNDS):
            context = open_pages()
            together.append(p99_ms())
            context.close()
            alone.append(p99_ms())
        browser.close()
    # each block with pages has one without before and after it, so that a drift of the machine cancels
    ratios = np.array(together) / np.sqrt(np.array(alone[:-1]) * np.array(alone[1:]))
    title = f"/prioritize, {ASKED} names, p99"
    FIGURES.append(Result(f"{title} with no page open", float(np.median(alone)), "ms"))
    ratio = float(np.median(ratios))
    FIGURES.append(Result(f"{title} with {len(OPEN)} pages open over p99 with none", ratio, "x", at_most=1.1))
    assert ratio < FAR_BEYOND, ratios


@contextmanager
def asking(server: Server) -> Iterator[list[float]]:
    """The seconds of each `/prioritize` that a client asks for, a hundred per second, while the block lasts."""
    seconds, over = list[float](), threading.Event()

    def ask() -> None:
        with KeepAliveClient(server.port) as client:
            index = 1000
            while not over.wait(0.01):
                index += 1
                body = extender_args(node_names(ASKED), index)
                seconds.append(client.exchange(client.prepare("/prioritize", body))[0])

    thread = threading.Thread(target=ask, name="kube-scheduler")
    thread.start()
    try:
        yield seconds
    finally:
        over.set()
        thread.join()
