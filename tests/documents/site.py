"""The documents as Sphinx builds them: `make docs`, and what stands in the pages."""

from __future__ import annotations

import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from typing import Final

from tests.control_plane.toolchain import REPOSITORY, locked

SITE: Final = REPOSITORY / "build" / "docs"


def build(fresh: bool) -> subprocess.CompletedProcess[str]:
    """Build the pages into `SITE`; all of them, or those that have changed since the last time."""
    options = ("-E", "-W", "--keep-going") if fresh else ()
    command = (sys.executable, "-m", "sphinx", "-q", *options, "-c", "docs", "-d", "build/doctrees", ".", str(SITE))
    with locked("docs"):
        if fresh:
            shutil.rmtree(SITE, ignore_errors=True)
        return subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)


@dataclass(eq=False)
class Page(HTMLParser):
    """What a page shows, links to and loads."""

    text: list[str] = field(default_factory=list)  # in order
    anchors: set[str] = field(default_factory=set)  # what a link may end with after #
    links: list[str] = field(default_factory=list)  # where readers may go
    loads: list[str] = field(default_factory=list)  # what a browser fetches

    def __post_init__(self) -> None:
        super().__init__()

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        """Note what an element refers to."""
        known = {name: value or "" for name, value in attributes}
        if "id" in known:
            self.anchors.add(known["id"])
        if "src" in known:
            self.loads.append(known["src"])
        if "href" in known:
            followed = tag == "a" or known.get("rel") in ("index", "search", "next", "prev", "author", "copyright")
            (self.links if followed else self.loads).append(known["href"])

    def handle_data(self, data: str) -> None:
        """Note a text."""
        self.text.append(data)


def read() -> dict[Path, Page]:
    """Return every built page by its path."""
    pages = {}
    for path in sorted(SITE.rglob("*.html")):
        pages[path] = Page()
        pages[path].feed(path.read_text(encoding="utf-8"))
    return pages
