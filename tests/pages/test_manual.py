"""The built documents in a real browser: they fit a phone and load from disk alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.documents.site import SITE, build
from tests.pages.browser import page_of

PHONE = {"width": 375, "height": 812}


@pytest.fixture(scope="module")
def documents() -> list[Path]:
    """Every built page."""
    done = build(fresh=False)
    assert done.returncode == 0, done.stderr
    return [path for path in sorted(SITE.rglob("*.html")) if path.name != "index.html"]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_document_fits_a_phone(browser: Any, documents: list[Path], screenshots: Path, scheme: str) -> None:
    wide, asked = [], set()
    with page_of(browser, viewport=PHONE, color_scheme=scheme) as page:
        page.on("request", lambda request: asked.add(request.url.partition(":")[0]))
        for document in documents:
            page.goto(document.as_uri(), wait_until="load")
            if page.evaluate("document.documentElement.scrollWidth") > PHONE["width"]:
                wide.append(str(document.relative_to(SITE)))
            if document.stem in ("how-it-works", "operations"):
                page.screenshot(path=screenshots / f"manual-{document.stem}-phone-{scheme}.png")
    assert (wide, asked - {"data"}) == ([], {"file"})


def test_the_front_page_leads_to_the_table_of_contents(browser: Any, documents: list[Path]) -> None:
    with page_of(browser) as page:
        page.goto((SITE / "index.html").as_uri())
        page.wait_for_url("**/docs/README.html")
        page.get_by_role("link", name="Ten-minute start").first.click()
        assert page.title().startswith("Ten-minute start")
