"""A port without sockets, for tests that feed a connection by hand."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from extender.transport.budget import ByteBudget
from extender.transport.port import ConnectionLimits, Port
from extender.transport.turns import Turns

WIDE: dict[str, Any] = {
    "header_timeout_s": 10.0,
    "max_header_bytes": 1024,
    "body_timeout_s": 10.0,
    "answer_timeout_s": 10.0,
    "max_connections": 10,
    "max_requests": 10,
}


def port(
    refused: Callable[[str], None] = lambda reason: None, verbs: frozenset[str] = frozenset(), **limits: Any
) -> Port:
    """What connections share, with these limits and wide ones else."""
    return Port(ConnectionLimits(**(WIDE | limits)), ByteBudget(1 << 20), Turns(), verbs, refused)
