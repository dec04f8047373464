"""Binaries are built once, built anew when a pin changes, and a build that fails says why."""

import dataclasses
import shutil
from pathlib import Path

import pytest

from tests.control_plane import binaries, toolchain
from tests.control_plane.binaries import Module, build
from tests.control_plane.toolchain import BuildError, find_go, parse_version


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, go: Path) -> Path:
    """An empty cache of binaries; the toolchain is found in the usual one."""
    path = tmp_path / "cache"
    monkeypatch.setattr(binaries, "find_go", lambda _needed: go)
    monkeypatch.setenv("CONTROL_PLANE_CACHE", str(path))
    return path


@pytest.fixture
def module(tmp_path: Path) -> Module:
    """A Go program of the test's own."""
    source = tmp_path / "source"
    shutil.copytree(binaries.DONOTHING.directory, source)
    return dataclasses.replace(binaries.DONOTHING, directory=source)


@pytest.mark.parametrize(
    ("text", "version"),
    [
        pytest.param("go1.26.8", (1, 26, 8), id="release"),
        pytest.param("1.26.0", (1, 26, 0), id="go directive"),
        pytest.param("go1.27rc1", (1, 27), id="candidate is older than its release"),
    ],
)
def test_go_versions_compare_as_numbers(text: str, version: tuple[int, ...]) -> None:
    assert parse_version(text) == version


def test_go_without_a_version_is_refused() -> None:
    with pytest.raises(BuildError, match="install a released Go"):
        parse_version("devel +abcdef")


@pytest.mark.parametrize("pinned", binaries.ALL, ids=lambda pinned: pinned.name)
def test_every_module_pins_its_version_and_sums(pinned: Module) -> None:
    assert pinned.pinned is None or pinned.version.count(".") == 2
    assert pinned.pinned is None or (pinned.directory / "go.sum").stat().st_size > 0
    assert pinned.go <= parse_version("1.26.6"), "requirements/go.txt pins this Go: raise it too"


def test_pinned_go_is_the_one_the_modules_are_checked_against() -> None:
    assert "\ngo-bin==1.26.6 " in toolchain.PINNED.read_text()


def test_second_build_takes_what_the_first_one_made(cache: Path, module: Module) -> None:
    first = build(module)
    made = (first / "donothing").stat()
    assert build(module) == first
    assert (first / "donothing").stat().st_mtime_ns == made.st_mtime_ns
    assert sorted(path.name for path in cache.iterdir()) == sorted([first.name, "donothing.lock"])


@pytest.mark.parametrize("changed", ["go.mod", "main.go"])
def test_changed_input_is_built_anew(cache: Path, module: Module, changed: str) -> None:
    before = build(module)
    with (module.directory / changed).open("a") as file:
        file.write("\n// changed\n")
    assert build(module) != before
    assert before.parent == cache


def test_failed_build_leaves_nothing_and_quotes_the_compiler(cache: Path, module: Module) -> None:
    (module.directory / "main.go").write_text("package main\n\nfunc main() { undefined() }\n")
    with pytest.raises(BuildError, match="undefined: undefined"):
        build(module)
    assert [path.name for path in cache.iterdir()] == ["donothing.lock"]


def test_module_newer_than_any_go_here_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(toolchain, "_pinned_go", lambda: Path("go"))
    monkeypatch.setattr(toolchain, "go_version", lambda _go: (1, 26, 6))
    with pytest.raises(BuildError, match=r"Go 9\.0 is needed but requirements/go\.txt pins 1\.26\.6"):
        find_go((9, 0))


def test_unknown_module_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        binaries.main(["nonsense"])
    assert "no module nonsense: there are etcd" in capsys.readouterr().err
