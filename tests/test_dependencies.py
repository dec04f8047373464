"""What the product imports is declared: nothing that only happens to come with something else."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
EXTRAS = {"policy": [], "extender": [], "training": ["train", "ray", "ppo"], "helm": []}
"""Packages of the product, and the extras of pyproject.toml that each may need besides the dependencies."""


def plain(name: str) -> str:
    """A distribution's name as PyPI compares it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def imported(package: str) -> Iterator[tuple[str, str]]:
    """Yield file and top-level name of each import of something that is neither ours nor the standard library's."""
    for path in sorted((ROOT / package).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom):
                names = [node.module or ""]
            for top in {name.partition(".")[0] for name in names} - sys.stdlib_module_names - EXTRAS.keys():
                yield str(path.relative_to(ROOT)), top


@pytest.mark.parametrize("package", EXTRAS)
def test_what_is_imported_is_declared(package: str) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = [
        *project["dependencies"],
        *(each for name in EXTRAS[package] for each in project["optional-dependencies"][name]),
    ]
    declared = {plain(re.match(r"[\w.-]+", each)[0]) for each in wanted}  # type: ignore[index]
    providers = packages_distributions()
    # What is not installed, as BenchMARL here, is declared by the name that it is imported by.
    undeclared = {
        found for found in imported(package) if declared.isdisjoint(map(plain, providers.get(found[1], (found[1],))))
    }
    assert undeclared == set()
