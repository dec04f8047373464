"""Whose a token is, asked of an API server: what it says counts, and nothing else."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from extender.cluster.answers import ApiError
from extender.cluster.api import ApiServer
from extender.cluster.reviews import API, reviewed
from extender.cluster.source import Reviewed
from tests.extender.cluster.fake_api import FakeApi, status

OWN = {"status": {"userInfo": {"username": "system:serviceaccount:maddpg:extender"}}}
TOKEN = "token-of-a-reader"  # no secret


@pytest.fixture
def api() -> Iterator[FakeApi]:
    with FakeApi().running() as running:
        yield running


def asked(api: FakeApi, directory: Path, said: Any, own: Any = OWN) -> Reviewed:
    """What comes of these answers to the two reviews."""
    api.answers[f"{API}/tokenreviews"] = lambda: (201, json.dumps(said).encode(), {})
    api.answers[f"{API}/selfsubjectreviews"] = lambda: (201, json.dumps(own).encode(), {})
    return reviewed(ApiServer(api.kubeconfig(directory)), TOKEN)


def test_a_token_is_somebodys_or_nobodys(api: FakeApi, tmp_path: Path) -> None:
    ann = {"username": "ann", "groups": ["readers", "system:authenticated"]}
    assert asked(api, tmp_path, {"status": {"authenticated": True, "user": ann}}) == Reviewed(
        frozenset({"ann", "readers", "system:authenticated"})
    )
    for nobody in (
        {"status": {"authenticated": False, "error": "token expired"}},
        {"status": {}},
        {"status": {"user": ann}},
        {"status": {"authenticated": True}},
    ):
        assert asked(api, tmp_path, nobody) == Reviewed(frozenset())


def test_our_own_token_is_known_as_such(api: FakeApi, tmp_path: Path) -> None:
    said = {"status": {"authenticated": True, "user": {"username": OWN["status"]["userInfo"]["username"]}}}
    assert asked(api, tmp_path, said).own
    assert not asked(api, tmp_path, said, {"status": {"userInfo": {"username": "system:anonymous"}}}).own


@pytest.mark.parametrize("said", [[], {"status": None}, {"status": {"authenticated": "yes"}}, {}], ids=repr)
def test_an_answer_of_something_else_lets_nobody_in(api: FakeApi, tmp_path: Path, said: Any) -> None:
    with pytest.raises(ApiError, match="something else") as refused:
        asked(api, tmp_path, said)
    assert TOKEN not in str(refused.value)


def test_a_refusal_is_told_without_the_token(api: FakeApi, tmp_path: Path) -> None:
    api.answers[f"{API}/tokenreviews"] = lambda: (403, status(403, "Forbidden", f"no {TOKEN}"), {})
    with pytest.raises(ApiError, match="403 Forbidden to POST") as refused:
        reviewed(ApiServer(api.kubeconfig(tmp_path)), TOKEN)
    assert TOKEN not in str(refused.value)
