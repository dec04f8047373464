"""Logs are JSON, those of libraries too, and hold no text of foreign exceptions."""

from __future__ import annotations

import io
import json
import logging
from typing import Any, Final

import pytest

from extender import logs
from extender.errors import SourceError, kind_of

SECRET: Final = "Bearer eyJ.secret"


def logged(form: str = "json") -> io.StringIO:
    stream = io.StringIO()
    logs.configure("info", form, stream)
    return stream


def fail(depth: int = 0) -> None:
    if depth:
        fail(depth - 1)
    raise ValueError(SECRET) from OSError(SECRET)


@pytest.mark.parametrize("form", ["json", "console"])
@pytest.mark.parametrize("library", [False, True], ids=["ours", "a library's"])
def test_an_exception_is_logged_by_its_kind_and_where_it_passed(form: str, library: bool) -> None:
    stream = logged(form)
    try:
        fail()
    except ValueError:
        if library:
            logging.getLogger("uvicorn.error").exception("it failed")
        else:
            logs.get("ours").exception("it failed")
    text = stream.getvalue()
    assert SECRET not in text
    for part in ("it failed", "ValueError", "OSError", f"{__name__}:"):
        assert part in text


def test_an_exception_as_json_has_its_causes_and_its_innermost_place_first() -> None:
    stream = logged()
    try:
        fail(depth=50)
    except ValueError as error:
        logs.get("ours").error("it failed", exc_info=error)
    entry: dict[str, Any] = json.loads(stream.getvalue())
    assert entry["exception"] == "ValueError from OSError"
    assert 0 < len(entry["raised_at"]) <= logs.MOST_PLACES
    assert all(place.startswith(f"{__name__}:") for place in entry["raised_at"])


def test_a_chain_of_causes_that_is_a_circle_ends() -> None:
    stream = logged()
    first, second = ValueError(SECRET), KeyError(SECRET)
    first.__cause__, second.__cause__ = second, first
    logs.get("ours").error("it failed", exc_info=first)
    assert json.loads(stream.getvalue())["exception"].startswith("ValueError from KeyError from ValueError")


@pytest.mark.parametrize("wish", [True, False, None, (None, None, None)])
def test_there_may_be_no_exception(wish: Any) -> None:
    stream = logged()
    logs.get("ours").error("nothing failed", exc_info=wish)
    assert "exception" not in json.loads(stream.getvalue())


def test_the_text_of_our_own_errors_is_kept() -> None:
    assert kind_of(SourceError("the kubeconfig names no cluster")) == "the kubeconfig names no cluster"
    assert kind_of(ValueError(SECRET)) == "ValueError"
