"""Answers of the API server that refuse something, as errors that may be published.

Their messages say status and reason, which Kubernetes enumerates. The text of a Status is kept apart, for whoever
asked: a server, or a proxy in between, may write into it what it was sent.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from http import HTTPStatus
from typing import Final, NamedTuple

import msgspec

from extender.cluster.decoding import published_reason
from extender.errors import UNDECODABLE, SourceError

UNREACHED: Final = 0
"""Status of a request that got no answer."""
UNAUTHORIZED: Final = 401
FORBIDDEN: Final = 403
GONE: Final = 410
TOO_MANY: Final = 429

LONGEST_REASON: Final = 300
"""Characters of what a server says that are kept."""
LONGEST_PATIENCE: Final = 60.0
"""Most seconds of Retry-After that are believed."""
ANONYMOUS: Final = "system:anonymous"
"""Who a request without credentials is, where the API server lets such in; it then answers 403 and not 401."""

_UNPRINTABLE: Final = re.compile(r"[^\x20-\x7e]+")


class ApiError(SourceError):
    """The API server refused a request or could not be reached.

    Attributes:
        status: HTTP status; `UNREACHED` if there was no answer.
        retry_after: seconds the server asks to wait, or None.
        said: the message of its Status, for whoever asked, and not to be published; "" if there is none.
        anonymous: whether the server took the request for one without credentials.
    """

    def __init__(
        self,
        message: str,
        status: int = UNREACHED,
        retry_after: float | None = None,
        said: str = "",
        *,
        anonymous: bool = False,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.retry_after = retry_after
        self.said = said
        self.anonymous = anonymous

    @property
    def told(self) -> str:
        """What whoever asked may hear: the server's own message, too."""
        return f"{self}: {self.said}" if self.said else str(self)


class Answer(NamedTuple):
    """What of an answer tells why it refuses: status, body (its beginning), Retry-After."""

    status: int
    body: bytes
    retry_after: str | None = None


class _Status(msgspec.Struct):
    """A metav1.Status, as far as an error needs it."""

    kind: str = ""
    reason: str | None = None
    message: str | None = None


def refusal(asked: str, server: str, answer: Answer, secrets: Iterable[str | None]) -> ApiError:
    """Return the error that an answer is.

    Args:
        asked: method and path.
        server: whose answer it is.
        answer: see there.
        secrets: texts that were sent, which are masked in what the server says.
    """
    said = _decoded(answer.body)
    message = (said.message or "") if said.kind == "Status" else ""
    reason = (published_reason(said.reason) if said.kind == "Status" else "") or _phrase(answer.status)
    hint = {
        UNAUTHORIZED: "; the credentials are not accepted",
        FORBIDDEN: "; the identity that it sees has no right to it",
    }.get(answer.status, "")
    return ApiError(
        " ".join(filter(None, (server, "answered", str(answer.status), reason, "to", asked))) + hint,
        answer.status,
        _seconds(answer.retry_after),
        _masked(message, secrets),
        anonymous=answer.status == FORBIDDEN and ANONYMOUS in message,
    )


def _decoded(body: bytes) -> _Status:
    """The Status that a body is; an empty one if it is none: a proxy in between may answer anything."""
    try:
        return msgspec.json.decode(body, type=_Status)
    except UNDECODABLE:
        return _Status()


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return ""


def _masked(message: str, secrets: Iterable[str | None]) -> str:
    """A server's message without secrets, and without what no terminal should see."""
    for secret in secrets:
        if secret:
            message = message.replace(secret, "***")
    return _UNPRINTABLE.sub(" ", message)[:LONGEST_REASON]


def _seconds(header: str | None) -> float | None:
    """Retry-After in seconds; dates, which the API server never sends, count as absent."""
    if header is None or not (header.isascii() and header.isdecimal()):
        return None
    return min(float(header), LONGEST_PATIENCE)
