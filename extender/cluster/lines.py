"""The lines of an answer that goes on, such as a watch: read as they arrive, or let gather where they come quickly."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from types import TracebackType
from typing import Final, Self

import urllib3

from extender.cluster.answers import ApiError
from extender.errors import kind_of

LONGEST_LINE: Final = 16 * 1024 * 1024
"""Bytes of a watch event; etcd keeps objects below 1.5 MiB."""
QUIET: Final = 0.0005
"""A watch is quiet if its next event takes longer than this to come, seconds; what has arrived already takes less."""
GATHER: Final = 0.01
"""How long events may gather after one that broke the quiet, seconds; see `gathered`."""


class Lines:
    """The lines of an answer that goes on, as they arrive; a context manager. `abort` may come from any thread."""

    def __init__(self, response: urllib3.BaseHTTPResponse) -> None:
        self._response = response

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # What is left of the stream is of no use, so the connection cannot be either.
        self._response.close()

    def __iter__(self) -> Iterator[bytes]:
        """Every line without its end; empty ones are skipped.

        Raises:
            ApiError: the connection was lost or silent for too long, or a line is too long.
        """
        begun = bytearray()
        try:
            for segment in self._response.stream(amt=None, decode_content=False):
                *lines, rest = segment.split(b"\n")
                for line in lines:
                    begun += line
                    if begun:
                        yield bytes(begun)
                    begun.clear()
                begun += rest
                if len(begun) > LONGEST_LINE:
                    raise ApiError(f"the watch sent a line longer than {LONGEST_LINE} bytes")
        except (urllib3.exceptions.HTTPError, OSError, ValueError) as error:
            # ValueError: the response was closed under our hands by `abort`
            raise ApiError(f"the connection was lost: {kind_of(error)}") from error

    def abort(self) -> None:
        """End a read that blocks in another thread, and every later one."""
        try:
            self._response.shutdown()
        except (ValueError, RuntimeError, OSError):
            # No socket any more: the answer has ended by itself.
            return


def gathered(
    lines: Iterable[bytes], wait: Callable[[float], object], timer: Callable[[], float] = time.perf_counter
) -> Iterator[bytes]:
    """The lines; those that come one by one in quick succession are left to gather, and then come together.

    A line after a quiet moment comes at once. The reader then waits a little before it asks for more: each time it is
    woken, this thread, the event loop after it and whoever had the core before lose their caches, which costs more than
    what the event tells. Lines that are there already are never waited for: a full stream is read as fast as it comes.
    """
    asked = timer()
    for line in lines:
        quiet = timer() - asked > QUIET
        yield line
        if quiet:
            wait(GATHER)
        asked = timer()
