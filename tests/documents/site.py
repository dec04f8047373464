"""Builds the documents into a folder named for their version, and reads what stands in the pages: `make docs`.

Folders of other versions in build/docs stay as they are. To publish, copy build/docs as a whole.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tomllib
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from typing import Final

from packaging.version import InvalidVersion, Version

from tests.control_plane.toolchain import REPOSITORY, locked

RELEASE: Final = str(tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"])
SITES: Final = REPOSITORY / "build" / "docs"
SITE: Final = SITES / RELEASE
PAGE: Final = '<!doctype html>\n<html lang="en">\n<meta charset="utf-8">\n<title>maddpg-scheduler</title>\n{}</html>\n'


def build(fresh: bool = True) -> subprocess.CompletedProcess[str]:
    """Build the documents of this version, and the pages that lead to all versions.

    Args:
        fresh: all of them, strictly; else those that have changed since the last time.
    """
    options = ("-E", "-W", "--keep-going") if fresh else ()
    command = (sys.executable, "-m", "sphinx", "-q", *options, "-c", "docs", "-d", "build/doctrees", ".", str(SITE))
    with locked("docs"):
        if fresh:
            shutil.rmtree(SITE, ignore_errors=True)
        SITE.mkdir(parents=True, exist_ok=True)
        lead(SITES)
        return subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)


def lead(sites: Path) -> None:
    """Write index.html, which leads to the newest version in a folder, and versions.html, which lists all of them."""
    found = versions(sites)
    listed = "".join(f'<li><a href="{each}/index.html">{each}</a></li>\n' for each in found)
    moved = f'<meta http-equiv="refresh" content="0; url={found[0]}/index.html">\n'
    to_newest = f'{moved}<a href="{found[0]}/index.html">Documentation</a>\n'
    for name, body in {"index": to_newest, "versions": f"<h1>Versions</h1>\n<ul>\n{listed}</ul>\n"}.items():
        (sites / f"{name}.html").write_text(PAGE.format(body), encoding="utf-8")


def versions(sites: Path) -> list[str]:
    """Return the versions in a folder, newest first; folders that are named for none are left out."""
    found = dict[str, Version]()
    for path in sites.iterdir():
        try:
            found[path.name] = Version(path.name)
        except InvalidVersion:
            continue
    return sorted(found, key=found.__getitem__, reverse=True)


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


if __name__ == "__main__":
    done = build()
    sys.stderr.write(done.stderr)
    if done.returncode == 0:
        print(f"open {SITE.relative_to(REPOSITORY)}/index.html")
    sys.exit(done.returncode)
