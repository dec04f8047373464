"""Where things live: a module's name stands once, a long one says why, and tests/ has the folders of the product."""

from __future__ import annotations

import ast
from collections import defaultdict
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("extender", "helm", "policy", "training")
LONGEST = 350
"""Lines of a module that need no reason."""

SHARED = {
    "cli": "every package's command line; a room's commands join those of its package",
    "errors": "policy's errors are everybody's; the extender's are those of its own",
    "cluster": "the state of a cluster that is decided on, and the simulated cluster of the demo",
    "pods": "pods of Kubernetes in the extender, and pods of the simulator",
    "reference": "each writes a reference of settings: the documentation's, and the chart's",
}
"""Names that several modules have on purpose, and why."""


def modules() -> list[Path]:
    """Every module of the product, relative to the root."""
    found = [path.relative_to(ROOT) for package in PACKAGES for path in (ROOT / package).rglob("*.py")]
    return [path for path in found if path.stem not in ("__init__", "__main__")]


def rooms(folder: Path) -> set[Path]:
    """Every package in a folder, itself included, relative to its parent."""
    return {path.parent.relative_to(folder.parent) for path in folder.rglob("__init__.py")}


def test_the_name_of_a_module_stands_once_in_the_product() -> None:
    named = defaultdict(list)
    for path in modules():
        named[path.stem].append(str(path))
    assert {name: paths for name, paths in named.items() if len(paths) > 1 and name not in SHARED} == {}


def test_a_long_module_says_why_in_its_docstring() -> None:
    silent = []
    for path in modules():
        text = (ROOT / path).read_text(encoding="utf-8")
        said = " ".join((ast.get_docstring(ast.parse(text)) or "").split())
        if text.count("\n") > LONGEST and "The module is long because" not in said:
            silent.append(str(path))
    assert silent == []


def test_a_name_that_is_shared_on_purpose_is_shared() -> None:
    stems = [path.stem for path in modules()]
    assert [name for name in SHARED if stems.count(name) < 2] == []


@pytest.mark.parametrize("package", ["extender", "policy", "training"])
def test_tests_have_the_rooms_of_the_product(package: str) -> None:
    product, tests = rooms(ROOT / package), rooms(ROOT / "tests" / package)
    assert tests - product == set()
    assert {room for room in product - tests if len(room.parts) <= 2} == set()
