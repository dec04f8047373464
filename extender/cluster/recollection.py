"""Completions of nodes as bytes, so that what was learned outlives a restart. Pure.

A node's completions are taken back only by the same machine: see `extender.cluster.machines.Machine.identity`. Ages are
kept, not times, since a monotonic clock begins anew; the time that passed meanwhile is that of the clock on the wall.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Final, Protocol

import msgspec

from extender.errors import UNDECODABLE
from policy.completions import KEPT_COMPLETIONS, KeptCompletion
from policy.errors import SchedulerError

VERSION: Final = 1
LONGEST_AGE_S: Final = 30 * 86400.0
"""Older completions weigh nothing any more."""


class Keeper(Protocol):
    """Keeps records over restarts, by name; may be called from any thread, and may wait for a disk."""

    def keep(self, name: str, record: bytes) -> None:
        """Keep a record in place of the former one."""
        ...

    def kept(self, name: str) -> bytes | None:
        """Return a record; None where there is none that can be read."""
        ...


class RecollectionError(SchedulerError):
    """The bytes are no completions that this version can take back."""


class SavedNode(msgspec.Struct, frozen=True, array_like=True):
    """One node: its name and identity, and for each completion template, log CPU seconds and age in seconds."""

    name: str
    identity: str
    template: list[int]
    log_cpu: list[float]
    age_s: list[float]


class _Saved(msgspec.Struct, frozen=True):
    version: int
    at: float
    templates: list[str]
    nodes: list[msgspec.Raw]
    """One by one, so that no call keeps the interpreter for long."""


_DECODER: Final = msgspec.msgpack.Decoder(_Saved)
_NODE: Final = msgspec.msgpack.Decoder(SavedNode)
_ENCODER: Final = msgspec.msgpack.Encoder()


def saved(kept: Iterable[tuple[str, list[KeptCompletion]]], identities: Mapping[str, str], at: float) -> bytes:
    """Write completions by node; nodes without an identity are left out.

    Args:
        kept: name of each node, and its completions.
        identities: of the machines, by name of the node.
        at: now, seconds since the epoch.
    """
    numbers: dict[str, int] = {}
    nodes = [
        msgspec.Raw(
            _ENCODER.encode(
                SavedNode(
                    name,
                    identities[name],
                    [numbers.setdefault(it.template, len(numbers)) for it in completions],
                    [round(it.log_cpu, 4) for it in completions],
                    [round(it.age_s, 1) for it in completions],
                )
            )
        )
        for name, completions in kept
        if name in identities
    ]
    return _ENCODER.encode(_Saved(VERSION, at, list(numbers), nodes))


def recalled(record: bytes, now: float) -> dict[str, tuple[str, list[KeptCompletion]]]:
    """Read what `saved` wrote: identity and completions by name of the node, oldest first.

    Args:
        record: the bytes.
        now: seconds since the epoch.

    Raises:
        RecollectionError: they do not decode, are of another version, or hold what cannot be.
    """
    try:
        found = _DECODER.decode(record)
        nodes = [_NODE.decode(raw) for raw in found.nodes]
    except UNDECODABLE as error:
        raise RecollectionError("they do not decode") from error
    if found.version != VERSION:
        raise RecollectionError(f"they are of version {found.version}, and this program knows {VERSION}")
    if not math.isfinite(found.at):
        raise RecollectionError("their time is no number")
    passed = max(now - found.at, 0.0)
    result: dict[str, tuple[str, list[KeptCompletion]]] = {}
    for node in nodes:
        if not len(node.template) == len(node.log_cpu) == len(node.age_s) <= KEPT_COMPLETIONS:
            raise RecollectionError(f"node {node.name[:60]!r} has columns of unequal length, or too many completions")
        if not all(0 <= it < len(found.templates) for it in node.template):
            raise RecollectionError(f"node {node.name[:60]!r} has an unknown template")
        if not all(abs(it) < 30.0 for it in node.log_cpu) or not all(it >= 0.0 for it in node.age_s):
            raise RecollectionError(f"node {node.name[:60]!r} has a CPU time or an age that cannot be")
        completions = [
            KeptCompletion(found.templates[template], log_cpu, age + passed)
            for template, log_cpu, age in zip(node.template, node.log_cpu, node.age_s, strict=True)
            if age + passed <= LONGEST_AGE_S
        ]
        result[node.name] = node.identity, sorted(completions, key=lambda it: -it.age_s)
    return result
