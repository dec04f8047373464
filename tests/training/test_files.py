"""Locks, writes that are whole or not at all, and documents that say why they do not read."""

from __future__ import annotations

from pathlib import Path

import pytest

from policy.errors import InvalidInputError
from training.files import (
    FolderInUseError,
    Section,
    is_locked,
    lock,
    read_json,
    read_yaml,
    replacing,
    validated,
    write_json,
    write_text,
)


class Settings(Section):
    """A document of two fields."""

    rate: float
    name: str = "x"


def test_one_process_holds_a_folder_until_it_lets_go(tmp_path: Path) -> None:
    folder = tmp_path / "made" / "here"
    assert not is_locked(folder)
    assert not folder.exists()
    with lock(folder):
        assert is_locked(folder)
        with pytest.raises(FolderInUseError, match="another process is training there"):
            lock(folder, patience=0.0)
    assert not is_locked(folder)


def test_a_write_that_fails_leaves_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "new folder" / "a.txt"
    write_text(path, "before")

    def fail() -> None:
        with replacing(path) as file:
            file.write(b"half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert path.read_text() == "before"
    assert [each.name for each in path.parent.iterdir()] == ["a.txt"]
    write_json(path, {"b": 1, "a": 2})
    assert read_json(path, "") == {"a": 2, "b": 1}


def test_a_file_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InvalidInputError, match=r"file/a.json cannot be written"):
        write_json(tmp_path / "file" / "a.json", {})


@pytest.mark.parametrize(
    ("content", "message"),
    [
        pytest.param(None, r"cannot read settings \(No such file or directory\); look again", id="missing"),
        pytest.param(b"a: [", "settings is not YAML", id="broken"),
        pytest.param(b"\xff\xfe\xff", "settings is not YAML", id="not text"),
        pytest.param(b"[" * 10_000, "settings is not YAML", id="deep"),
        pytest.param(b"rate: 2026-13-45", "settings is not YAML", id="no date"),
        pytest.param(b"- 1", "settings is not a mapping; start from example.yaml", id="a list"),
        pytest.param(b"{}", "settings: rate: Field required", id="lacking"),
        pytest.param(b"{rate: 1, nme: y}", "settings: nme: Extra inputs are not permitted", id="unknown"),
    ],
)
def test_a_document_says_why_it_does_not_read(content: bytes | None, message: str, tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InvalidInputError, match=message):
        validated(Settings, read_yaml(path, "settings", "look again"), "settings", "example.yaml")


@pytest.mark.parametrize(("text", "message"), [("{", "does not read"), ("[]", "is not a JSON object")])
def test_json_says_why_it_does_not_read(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(InvalidInputError, match=rf"a.json {message}.*; make it"):
        read_json(tmp_path / "a.json", "make it")
