"""Whose a token is, as the API server says (authentication.k8s.io/v1: TokenReview, SelfSubjectReview)."""

from __future__ import annotations

from typing import Final

import msgspec

from extender.cluster.answers import ApiError
from extender.cluster.api import ApiServer
from extender.cluster.source import Reviewed
from extender.errors import UNDECODABLE

API: Final = "/apis/authentication.k8s.io/v1"


class _User(msgspec.Struct):
    username: str = ""
    groups: list[str] | None = None


class _Status(msgspec.Struct):
    authenticated: bool = False
    user: _User = msgspec.field(default_factory=_User)


class _Own(msgspec.Struct, rename="camel"):
    user_info: _User = msgspec.field(default_factory=_User)


class _Review(msgspec.Struct):
    status: _Status


class _OwnReview(msgspec.Struct):
    status: _Own


def reviewed(api: ApiServer, token: str) -> Reviewed:
    """Return whose a token is. Blocks.

    Raises:
        ApiError: the API server refused to say, could not be reached, or answered something else.
    """
    kind = {"apiVersion": "authentication.k8s.io/v1"}
    try:
        answer = api.post(f"{API}/tokenreviews", {**kind, "kind": "TokenReview", "spec": {"token": token}})
        found = msgspec.json.decode(answer, type=_Review).status
        if not found.authenticated or not found.user.username:
            return Reviewed(frozenset())
        answer = api.post(f"{API}/selfsubjectreviews", {**kind, "kind": "SelfSubjectReview"})
        own = msgspec.json.decode(answer, type=_OwnReview).status.user_info.username
    except UNDECODABLE as error:
        raise ApiError(f"{api.url} answered a review of a token with something else") from error
    return Reviewed(frozenset({found.user.username, *(found.user.groups or ())}), found.user.username == own)
