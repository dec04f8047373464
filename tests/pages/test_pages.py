"""The pages in a real Chromium: complete, quiet, readable by everybody, and able to answer."""

from __future__ import annotations

import http.server
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from tests.extender.service import pod
from tests.pages.browser import page_of
from tests.pages.conftest import restartable
from tests.pages.simulation import Simulated

PAGES = {
    "now": "Now",
    "decisions": "Decisions",
    "why": "Why ",
    "nodes": "Nodes",
    "policy": "Policy",
    "trials": "Trials",
    "settings": "Settings",
    "metrics": "Metrics",
    "api": "API",
}
"""Each page and how its heading begins."""

WIDTHS = {360: 740, 1920: 1080}
"""Widths of a phone and of a large screen, with their heights."""

BETWEEN = (480, 768, 1024, 1280)
"""Other widths at which nothing may stand outside the window."""

SMALLEST_PX = 12.0
"""Least size of letters on a phone."""

SIZES = """() => {
    const sizes = [];
    const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    while (texts.nextNode()) {
        const within = texts.currentNode.parentElement;
        if (!texts.currentNode.data.trim() || !within.checkVisibility()) continue;
        sizes.push(parseFloat(getComputedStyle(within).fontSize));
    }
    return sizes;
}"""
"""Sizes of all letters that can be seen, in pixels."""


def address(simulated: Simulated, name: str) -> str:
    if name == "why":
        latest = next(simulated.service.app.ledger.latest())
        return f"{simulated.url}decisions/{latest.uid}"
    return simulated.url + {"now": ""}.get(name, name)


FITS = "document.documentElement.scrollWidth <= innerWidth"
"""Whether nothing stands outside the window to the right; tables scroll within themselves."""


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", PAGES)
def test_a_page_is_complete_quiet_and_readable_by_everybody(
    simulated: Simulated, browser: Any, axe_script: str, screenshots: Path, name: str, scheme: str
) -> None:
    for width, height in WIDTHS.items():
        with page_of(browser, viewport={"width": width, "height": height}, color_scheme=scheme) as page:
            page.goto(address(simulated, name), wait_until="load")
            assert page.locator("h1").inner_text().startswith(PAGES[name])
            if name == "now":
                page.wait_for_selector(".chart .uplot")
            assert page.evaluate(FITS), f"{width} px is too narrow"
            if width == min(WIDTHS):
                assert min(page.evaluate(SIZES)) >= SMALLEST_PX
            page.screenshot(path=screenshots / f"{name}-{scheme}-{width}.png", full_page=name != "settings")
            # through the driver, as Content-Security-Policy lets no other script in
            page.evaluate(axe_script)
            found = page.evaluate("axe.run()")["violations"]
            told = [(each["id"], [node["html"] for node in each["nodes"]][:3]) for each in found]
            assert told == []
            for other in BETWEEN if width == max(WIDTHS) else ():
                page.set_viewport_size({"width": other, "height": height})
                page.wait_for_function(f"() => innerWidth === {other} && {FITS}", timeout=5000)


def test_a_decision_is_found_explained_and_asked_about_its_last_node(simulated: Simulated, browser: Any) -> None:
    wanted = list(simulated.service.app.ledger.latest())[60]
    assert wanted.contenders is not None
    names = wanted.contenders.recall().names
    with page_of(browser) as page:
        page.goto(simulated.url)
        page.get_by_role("link", name="Decisions").click()
        page.get_by_label("Pod, namespace, node").fill(wanted.name)
        page.locator("tbody tr").nth(0).get_by_role("link", name=f"{wanted.namespace}/{wanted.name}").wait_for()
        page.wait_for_function("() => document.querySelectorAll('tbody tr').length < 50")
        page.get_by_role("link", name=f"{wanted.namespace}/{wanted.name}", exact=True).click()
        assert page.locator("h1").inner_text() == f"Why {names[0]} for {wanted.namespace}/{wanted.name}"
        said = page.locator(".sentences").first.inner_text()
        assert f"{names[0]} is best" in said
        assert "kube-default of Kubernetes 1.37 would have preferred" in said
        page.get_by_label("Node", exact=True).fill(names[-1])
        page.get_by_role("button", name="Ask").click()
        answer = page.locator("#answer").inner_text()
        assert f"{names[-1]} was number {len(names)} of {len(names)} nodes" in answer
        ranked = page.locator("section[aria-labelledby=ranking] tbody tr")
        assert ranked.count() == min(len(names), 50)
        with page.expect_download() as download:
            page.get_by_role("link", name="Export").click()
        assert download.value.suggested_filename == f"decision-{wanted.number}.json"


def test_live_pages_show_new_decisions_by_themselves_until_live_is_off(simulated: Simulated, browser: Any) -> None:
    with page_of(browser) as page:
        page.goto(f"{simulated.url}decisions")
        first = page.locator("tbody th a").first
        before = first.inner_text()
        simulated.placed(20)
        changed = "(before) => document.querySelector('tbody th a').innerText !== before"
        page.wait_for_function(changed, arg=before, timeout=15000)
        page.get_by_label("Live").uncheck()
        before = first.inner_text()
        simulated.placed(20)
        page.wait_for_timeout(4000)
        assert first.inner_text() == before


def test_a_live_page_shows_the_first_change_at_once_and_later_ones_together(simulated: Simulated, browser: Any) -> None:
    refreshes: list[float] = []
    with page_of(browser) as page:
        page.on("request", lambda it: refreshes.append(time.monotonic()) if "hx-request" in it.headers else None)
        page.goto(f"{simulated.url}decisions")
        page.wait_for_timeout(5500)
        refreshes.clear()
        begun = time.monotonic()
        for _ in range(14):
            simulated.placed(5)
            page.wait_for_timeout(500)
        assert refreshes[0] - begun < 2.5
        assert len(refreshes) <= 3
        assert min(later - earlier for earlier, later in pairwise(refreshes)) > 4.5


def test_an_answer_leaves_the_field_that_asked_alone(simulated: Simulated, browser: Any) -> None:
    with page_of(browser) as page:
        for name, field in (("decisions", "search"), ("nodes", "search"), ("why", "node")):
            page.goto(address(simulated, name))
            asked = page.locator(f"#{field}")
            asked.evaluate("(field) => { field.dataset.same = 'yes'; }")
            asked.fill("small")
            with page.expect_response(lambda it: "hx-request" in it.request.headers):
                asked.press("Enter")
            page.wait_for_function("() => location.search.includes('small')")
            assert asked.get_attribute("data-same") == "yes"
            assert asked.input_value() == "small"
        assert page.evaluate("document.activeElement.id") == "answer"


def test_the_keyboard_alone_is_enough(simulated: Simulated, browser: Any) -> None:
    with page_of(browser) as page:
        page.goto(simulated.url)
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.className") == "skip"
        page.keyboard.press("Enter")
        assert page.evaluate("document.activeElement.id") == "content"
        page.goto(simulated.url)
        for _ in range(4):
            page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.innerText") == "Nodes"
        page.keyboard.press("Enter")
        page.wait_for_url("**/nodes")
        page.get_by_role("link", name="Speed").focus()
        page.keyboard.press("Enter")
        page.wait_for_url("**sort=speed")
        assert page.locator("th[aria-sort=ascending]").inner_text().startswith("Speed")


def test_another_kind_of_pod_is_judged_at_once(simulated: Simulated, browser: Any) -> None:
    with page_of(browser) as page:
        page.goto(f"{simulated.url}nodes")
        before = page.locator("tbody").inner_text()
        page.get_by_label("Pod").select_option("large")
        page.wait_for_url("**size=large**")
        page.wait_for_function("(text) => document.querySelector('tbody').innerText !== text", arg=before)


def test_it_works_below_the_path_of_a_proxy(simulated: Simulated, browser: Any) -> None:
    with _proxy(simulated.service.operations_url, "/a/b") as url, page_of(browser) as page:
        page.goto(f"{url}/a/b/")
        page.wait_for_url("**/a/b/dashboard/")
        page.wait_for_selector(".chart .uplot")
        page.get_by_role("link", name="Decisions").click()
        page.locator("tbody th a").first.click()
        page.wait_for_url("**/a/b/dashboard/decisions/*")
        page.get_by_role("link", name="Nodes").click()
        page.wait_for_url("**/a/b/dashboard/nodes")


def test_a_page_says_that_the_service_is_away_and_goes_on_once_it_is_back(browser: Any, tmp_path: Path) -> None:
    with restartable(tmp_path / "ledger.sqlite") as start, page_of(browser, "ERR_|series.json|events") as page:
        with start() as service:
            service.prioritize(service.add_nodes(3), pod("before"))
            url = f"{service.background.operations_url}/dashboard/decisions"
            page.goto(url)
            page.get_by_role("link", name="default/before").wait_for()
        page.get_by_role("status").filter(has_text="The page is not live").wait_for(timeout=20000)
        assert page.get_by_role("link", name="default/before").is_visible()
        with start() as service:
            page.wait_for_function("() => document.getElementById('connection').innerText === ''", timeout=20000)
            names = service.add_nodes(3)
            service.prioritize(names, pod("after"))
            page.get_by_role("link", name="default/after").wait_for(timeout=20000)
            page.get_by_role("link", name="default/before").wait_for()  # remembered on disk
            assert page.url == url


def test_a_request_without_an_answer_is_said(browser: Any, tmp_path: Path) -> None:
    with restartable(None) as start, page_of(browser, "ERR_|^htmx:") as page:
        with start() as service:
            service.add_nodes(3)
            page.goto(f"{service.background.operations_url}/dashboard/nodes")
        page.get_by_label("Pod").select_option("large")
        page.get_by_role("status").filter(has_text="did not answer the last request").wait_for(timeout=20000)
        with start() as service:
            service.add_nodes(4)
            page.get_by_label("Pod").select_option("small")
            page.get_by_text("4 of 4 nodes").wait_for(timeout=20000)
            assert page.locator("#connection").inner_text() == ""


@contextmanager
def _proxy(upstream: str, prefix: str) -> Iterator[str]:
    """A reverse proxy that serves another server below a path."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if not self.path.startswith(prefix):
                self.send_error(404)
                return

            class Stay(urllib.request.HTTPRedirectHandler):
                def redirect_request(self, *_: Any) -> None:
                    return None

            request = urllib.request.Request(upstream + self.path.removeprefix(prefix))
            try:
                with urllib.request.build_opener(Stay).open(request) as answer:
                    self._answer(answer.status, answer)
            except urllib.error.HTTPError as answer:
                self._answer(answer.code, answer)
            except OSError:
                self.close_connection = True

        def _answer(self, status: int, answer: Any) -> None:
            self.send_response(status)
            for name in ("Content-Type", "Location", "Content-Security-Policy"):
                if answer.headers[name]:
                    self.send_header(name, answer.headers[name])
            self.end_headers()
            while chunk := answer.read1():
                self.wfile.write(chunk)
                self.wfile.flush()

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the standard library's name
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    server.handle_error = lambda *_: None  # type: ignore[method-assign]  # browsers hang up
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
