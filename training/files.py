"""Files that runs share: locks on folders, writes that are whole or not at all, and documents that read or say why."""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, BinaryIO, Final, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from policy.errors import InvalidInputError

LOCK_FILE: Final = ".lock"
POLL_S: Final = 0.1

# ---- locks


class FolderInUseError(InvalidInputError):
    """Another process holds the lock of a folder."""


def lock(folder: Path, patience: float | None = None) -> IO[str]:
    """Return the lock of `folder`, which is made; closing it, or the end of this process, gives it back.

    Args:
        folder: of one run, or of several.
        patience: seconds to wait for another process to leave it; None waits for ever.

    Raises:
        FolderInUseError: another process is in it.
        InvalidInputError: it cannot be written or locked.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = (folder / LOCK_FILE).open("w", encoding="utf-8")
    except OSError as error:
        raise InvalidInputError(f"--out {folder} cannot be written ({error.strerror}); give another folder") from error
    try:
        _acquire(file, folder, patience)
    except BaseException:
        file.close()
        raise
    return file


def _acquire(file: IO[str], folder: Path, patience: float | None) -> None:
    deadline = time.monotonic() + (patience or 0.0)
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if patience is None else fcntl.LOCK_NB))
        except BlockingIOError:
            if time.monotonic() >= deadline:
                raise FolderInUseError(
                    f"--out {folder}: another process is training there; wait for its end, or give another folder"
                ) from None
            time.sleep(POLL_S)
        except OSError as error:
            raise InvalidInputError(
                f"--out {folder} cannot be locked ({error.strerror}); give a folder on a file system with locks"
            ) from error
        else:
            return


def is_locked(folder: Path) -> bool:
    """Return whether a living process holds the lock of `folder`."""
    if not folder.exists():
        return False
    try:
        lock(folder, patience=0.0).close()
    except FolderInUseError:
        return True
    return False


# ---- writes


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """Open a file that takes the place of `path` once it is whole and on disk.

    A crash at any moment, or an exception inside, leaves what was there before. The folder is made. One process writes
    a path at a time; what a killed one left (``.NAME.new``) is written over.

    Raises:
        OSError: it cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(f".{path.name}.new")
    try:
        with fresh.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(path)
    except BaseException:
        fresh.unlink(missing_ok=True)
        raise
    descriptor = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(descriptor)  # makes the rename itself durable
    finally:
        os.close(descriptor)


def remove_leftovers(path: Path) -> None:
    """Remove what writes of `path` left beside it when they were killed; only while nobody writes it."""
    for leftover in path.parent.glob(f".{path.name}.*"):
        leftover.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write `text` to `path`, whole or not at all.

    Raises:
        InvalidInputError: it cannot be written.
    """
    try:
        with replacing(path) as file:
            file.write(text.encode())
    except OSError as error:
        raise InvalidInputError(
            f"{path} cannot be written ({error.strerror}); check the folder and free space"
        ) from error


def write_json(path: Path, document: object) -> None:
    """Write `document` to `path` as JSON, whole or not at all.

    Raises:
        InvalidInputError: it cannot be written.
    """
    write_text(path, json.dumps(document, indent=1, sort_keys=True) + "\n")


# ---- documents

Kind = TypeVar("Kind")


def read_yaml(path: Path, name: str, hint: str = "give an existing file") -> Any:
    """Return what a YAML file holds.

    Args:
        path: of the file.
        name: of the document in errors, such as ``configuration runs/a.yaml``.
        hint: what to do where there is no such file.

    Raises:
        InvalidInputError: it cannot be read, or is not YAML.
    """
    try:
        return yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InvalidInputError(f"cannot read {name} ({error.strerror}); {hint}") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # ValueError: also a date that is none
        raise InvalidInputError(f"{name} is not YAML: {error}") from error


def read_json(path: Path, hint: str) -> dict[str, Any]:
    """Return the JSON object that a file holds.

    Args:
        path: of the file.
        hint: what to do where there is none.

    Raises:
        InvalidInputError: it cannot be read, or is no JSON object.
    """
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InvalidInputError(f"{path} does not read ({error}); {hint}") from error
    if not isinstance(document, dict):
        raise InvalidInputError(f"{path} is not a JSON object; {hint}")
    return document


def validated(kind: type[Kind], document: object, name: str, example: str) -> Kind:
    """Return a parsed document as an instance of `kind`, which pydantic validates.

    Args:
        kind: a model, or a dataclass of pydantic.
        document: what a file holds.
        name: of the document in errors.
        example: a file to start from.

    Raises:
        InvalidInputError: it is no mapping, or does not validate; the message names every offending field.
    """
    if not isinstance(document, dict):
        raise InvalidInputError(f"{name} is not a mapping; start from {example}")
    try:
        return TypeAdapter(kind).validate_python(document)
    except ValidationError as error:
        problems = [f"{_field(document, item['loc'])}: {item['msg']}" for item in error.errors()]
        raise InvalidInputError(f"{name}: " + "; ".join(problems)) from error


def _field(document: Any, place: Iterable[int | str]) -> str:
    """The dotted name of a place in a document; items of a list that have a name are called by it."""
    words = []
    for part in place:
        try:
            document = document[part]
        except (KeyError, IndexError, TypeError):  # what is lacking, or pydantic's name of a type
            document = None
        named = isinstance(part, int) and isinstance(document, dict) and document.get("name")
        words.append(str(named or part))
    return ".".join(words) or "settings"


class Section(BaseModel):
    """Part of a document: it never changes, and a field that it does not know is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")
