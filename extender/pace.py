"""How fast a thread may work beside the event loop: in short pieces, with rests, so that no request waits for it.

Threads share one interpreter. One that works without a rest makes the event loop, and with it kube-scheduler, wait for
its turn each time that a request arrives.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from typing import Final, TypeVar

T = TypeVar("T")

PIECE_S: Final = 0.0001
"""How long a thread works at a time."""

SHARE: Final = 0.25
"""Share of the time that it works."""

REST_S: Final = PIECE_S / SHARE - PIECE_S

SWITCH_S: Final = 0.0005
"""Longest that a thread keeps the interpreter while the event loop waits for it; Python's default is ten times that.
For work that knows no pieces."""


def unhurried(items: Iterable[T]) -> Iterator[T]:
    """Yield the items, resting after every `PIECE_S` of work on them; for threads, never on the event loop."""
    end = time.perf_counter() + PIECE_S
    for item in items:
        yield item
        if time.perf_counter() >= end:
            time.sleep(REST_S)
            end = time.perf_counter() + PIECE_S
