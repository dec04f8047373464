"""JSON in which members are null: Go takes them for absent, whatever their type, and msgspec takes few types for it."""

from __future__ import annotations

from typing import Any, Final, TypeVar

import msgspec

from extender.errors import UNDECODABLE

T = TypeVar("T")

LARGEST: Final = 256 * 1024
"""Bytes of an object that is decoded without its nulls: as Python objects it takes twenty times its bytes."""


def decode(decoder: msgspec.json.Decoder[T], raw: bytes | msgspec.Raw) -> T:
    """Decode an object; one that is refused because of members that are null is decoded without them.

    Raises:
        msgspec.DecodeError, UnicodeDecodeError, RecursionError: it does not decode either way; see `UNDECODABLE`.
    """
    try:
        return decoder.decode(raw)
    except msgspec.ValidationError:
        stripped = _without_nulls(bytes(raw))
        if stripped is None:
            raise
        return decoder.decode(stripped)


def _without_nulls(raw: bytes) -> bytes | None:
    """Return the object without members that are null; None if it has none, or is too large."""
    if len(raw) > LARGEST or b"null" not in raw:
        return None
    try:
        return msgspec.json.encode(_stripped(msgspec.json.decode(raw)))
    except UNDECODABLE:
        return None


def _stripped(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _stripped(each) for key, each in value.items() if each is not None}
    return [_stripped(each) for each in value] if isinstance(value, list) else value
