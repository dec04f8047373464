"""Content to HTML. Every text is escaped where it stands; the exceptions are made of Markdown by `listings`."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, Final

import jinja2
from jinja2 import StrictUndefined
from markupsafe import Markup

from extender.pace import unhurried

TABS: Final = (
    ("now", "", "Now"),
    ("decisions", "decisions", "Decisions"),
    ("nodes", "nodes", "Nodes"),
    ("policy", "policy", "Policy"),
    ("trials", "trials", "Trials"),
    ("settings", "settings", "Settings"),
    ("metrics", "metrics", "Metrics"),
    ("api", "api", "API"),
)
"""Page, address below the dashboard, and title."""

PART: Final = "part"
"""Id of the element that htmx replaces, and name of the block that fills it; pages without one are sent whole."""


class _Environment(jinja2.Environment):
    """Jinja's, but `row.name` reads an item of a dict at once, and first: half the time of a table went into that."""

    def getattr(self, obj: Any, attribute: str) -> Any:
        return obj[attribute] if type(obj) is dict and attribute in obj else super().getattr(obj, attribute)


class Pages:
    """Renders pages.

    Args:
        digests: of the static files, by name: a changed file gets another address.
        version: of the service.
    """

    def __init__(self, digests: Mapping[str, str], version: str) -> None:
        self._environment = _Environment(
            loader=jinja2.PackageLoader("extender.dashboard"),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
            auto_reload=False,
        )
        self._environment.filters |= {"age": age, "clock": clock, "percent": percent, "number": number}
        self._environment.globals |= {"digests": digests, "version": version, "tabs": TABS}

    def render(self, name: str, build: Callable[[], dict[str, Any]], path: str, part: str) -> bytes:
        """Return a page, or only the part of it that htmx replaces; piece by piece, at a thread's pace.

        Args:
            name: of the page.
            build: puts its content together.
            path: that was asked for: addresses on the page are relative to it.
            part: id of the element that is to be replaced; empty: the whole page.
        """
        content = build()
        template = self._environment.get_template(f"{name}.html")
        values = {**content, "tab": "decisions" if name == "why" else name, "root": _root(path)}
        if part == PART and PART in template.blocks:
            pieces = template.blocks[PART](template.new_context(values))
        else:
            pieces = template.generate(values)
        return "".join(unhurried(pieces)).encode()

    def failure(self, why: str, path: str) -> bytes:
        """Return a page that says why there is none."""
        template = self._environment.get_template("failure.html")
        return template.render({"why": why, "tab": "", "root": _root(path)}).encode()


def _root(path: str) -> str:
    """The dashboard's own address, relative to a path below it."""
    below = path.partition("/dashboard/")[2]
    return "../" * below.count("/") or "./"


def age(seconds: float | None) -> str:
    """A time span in words."""
    if seconds is None or seconds != seconds:
        return "never"
    for limit, unit, size in ((120.0, "s", 1.0), (7200.0, "min", 60.0), (172800.0, "h", 3600.0)):
        if seconds < limit:
            return f"{seconds / size:.{1 if seconds < 10 else 0}f} {unit}"
    return f"{seconds / 86400.0:.0f} days"


def clock(at: float) -> Markup:
    """A moment, with its date for machines."""
    told = datetime.fromtimestamp(at, UTC).isoformat(" ", "seconds")[:19]
    shown = told[11:] if time.time() - at < 43200.0 else told[:16]
    return Markup(f'<time datetime="{told[:10]}T{told[11:]}Z" title="{told} UTC">{shown}</time>')  # noqa: S704  # nosec B704 - digits


def percent(share: float | None) -> str:
    """A share as a percentage."""
    return "unknown" if share is None else f"{100.0 * share:.0f} %"


def number(value: float | None, digits: int = 3) -> str:
    """A number with so many decimals; none where there is none."""
    if value is None or value != value:
        return "n/a"
    return f"{value:,.0f}" if float(value).is_integer() and abs(value) < 1e15 else f"{value:.{digits}f}"
