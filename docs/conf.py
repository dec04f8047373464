"""How Sphinx builds the documents: `make docs`.

The source folder is the repository and not docs/, so links between Markdown files are the same on a code host and in
the built pages. docs/README.md is the table of contents. A page gets what is generated where it has a comment
`<!-- generated: NAME ... -->`.
"""

from __future__ import annotations

import importlib
import inspect
import re
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from sphinx.application import Sphinx

ROOT: Final = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from extender.app import create_app  # noqa: E402
from extender.operations.manual import manual  # noqa: E402
from extender.settings import Settings  # noqa: E402
from tests.extender.embedded import EmbeddedSource  # noqa: E402

project = "maddpg-scheduler"
release = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
root_doc = "docs/README"
include_patterns = ["*.md", "docs/**.md", "helm/*/README.md", "policy/models/default/*.md"]
exclude_patterns = [".*", "build", "runs"]  # not even looked into
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
myst_heading_anchors = 4
nitpicky = True
nitpick_ignore_regex = [
    # there is no network to look these up in
    ("py:.*", r"(collections|gymnasium|numpy|pathlib|pettingzoo|typing)\..*"),
    ("py:class", r"ArrayLike|FloatArray|IntArray|Preferences"),
    ("py:class", r"training\.simulator\.scenarios\.Scenario"),  # docs/own-data.md and the source describe its fields
    ("py:exc", r"\w+"),  # docstrings name errors without their module
]
autodoc_member_order = "bysource"
autodoc_type_aliases = {name: name for name in ("ArrayLike", "FloatArray", "IntArray", "Preferences")}
python_maximum_signature_line_length = 100
html_theme = "furo"
html_title = f"{project} {release}"
html_copy_source = False
html_domain_indices = False
html_sidebars = {
    "**": [
        *(f"sidebar/{part}.html" for part in ("brand", "search", "scroll-start", "navigation", "scroll-end")),
        "versions.html",
    ]
}
html_additional_pages = {"index": "start.html"}
templates_path = ["templates"]

RECORDS: Final = "docs/decisions/README"
SECTION: Final = re.compile(r"^## (.+)\n\n((?:- .*\n)+)", re.MULTILINE)
PAGE: Final = re.compile(r"^- \[(.+?)\]\((.+?)\.md\)", re.MULTILINE)
GENERATED: Final = re.compile(r"^<!-- generated: (\w+) ?(.*) -->$", re.MULTILINE)


def navigation(contents: str) -> str:
    """Return what the sidebar shows: the sections of the table of contents with their pages."""
    trees = []
    for caption, pages in SECTION.findall(contents):
        entries = "\n".join(f"{title} <{page}>" for title, page in PAGE.findall(pages))
        trees.append(f"```{{toctree}}\n:hidden:\n:caption: {caption}\n\n{entries}\n```\n")
    return "\n".join(trees)


def commands(program: str) -> str:
    """Return every command of a program with its options, as Typer describes them."""
    name, module = program.split()
    described = subprocess.run(
        [sys.executable, "-m", "typer", module, "utils", "docs", "--name", name],
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    return re.sub("^#", "##", described.stdout, flags=re.MULTILINE)


def endpoints(_: str) -> str:
    """Return every endpoint and every answer, from what the service has at /openapi.json."""
    return manual(create_app(Settings(scorer="kube-default"), EmbeddedSource()).operations.openapi())


def members(names: str) -> str:
    """Return directives that describe classes and functions from their docstrings."""
    directives = []
    for name in names.split():
        module, _, short = name.rpartition(".")
        kind = "class" if inspect.isclass(getattr(importlib.import_module(module), short)) else "function"
        directives.append(f".. auto{kind}:: {name}\n" + "   :members:\n" * (kind == "class"))
    return "```{eval-rst}\n" + "\n".join(directives) + "```\n"


PARTS: Final[dict[str, Callable[[str], str]]] = {"commands": commands, "endpoints": endpoints, "members": members}


def complete(_app: Sphinx, page: str, source: list[str]) -> None:
    """Add to a page what only built pages have."""
    source[0] = GENERATED.sub(lambda found: PARTS[found[1]](found[2]), source[0])
    if page == root_doc:
        source[0] += navigation(source[0])
    if page == RECORDS:
        source[0] += "\n```{toctree}\n:hidden:\n:glob:\n\n0*\n```\n"


def plain(_app: Sphinx, _what: str, _name: str, _object: Any, _options: Any, signature: str, result: str) -> Any:
    """Return a signature with the names of type aliases within others, which autodoc wraps."""
    return (re.sub(r"TypeAliasForwardRef\('(\w+)'\)", r"\1", signature), result) if signature else None


def setup(app: Sphinx) -> None:
    """Register with Sphinx."""
    app.connect("autodoc-process-signature", plain)
    app.connect("source-read", complete)
