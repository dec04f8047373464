"""Structured logs on stderr, one JSON object per line.

Refuses to log what pods carry (environment, annotations), and the text of foreign exceptions: a library may put
headers, tokens or bodies there. Of an exception the log has its kind and the places that it passed.
"""

from __future__ import annotations

import itertools
import logging
import os
import sys
import traceback
from typing import Any, Final, TextIO

import structlog
from structlog.typing import EventDict

from policy.errors import SchedulerError

LEVELS: Final = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}

MOST_PLACES: Final = 12
"""Places and causes of an exception that are logged."""


class _Handler(logging.StreamHandler[TextIO]):
    """Writes to the stream while somebody reads it.

    When the reader is gone, what could not be written stays in the stream's buffer, and the interpreter would fail to
    flush it as it ends: exit code 120 after a clean stop. From then on the log goes nowhere instead.
    """

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - the standard library's name
        if not isinstance(sys.exc_info()[1], BrokenPipeError):
            super().handleError(record)
            return
        nowhere = os.open(os.devnull, os.O_WRONLY)
        try:
            os.dup2(nowhere, self.stream.fileno())
        finally:
            os.close(nowhere)


def configure(level: str, form: str, stream: TextIO | None = None) -> None:
    """Set up logging for the whole process, that of libraries included.

    Args:
        level: least severe level that is written.
        form: `json` or `console`.
        stream: where to; default: stderr.
    """
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    plain = structlog.dev.ConsoleRenderer(colors=False, exception_formatter=structlog.dev.plain_traceback)
    renderer: Any = structlog.processors.JSONRenderer() if form == "json" else plain
    handler = _Handler(stream or sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                _exception_told,
                renderer,
            ],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(LEVELS[level])
    for name in ("uvicorn", "uvicorn.error", "uvicorn.access"):
        library = logging.getLogger(name)
        library.handlers.clear()
        library.propagate = True
    logging.getLogger("uvicorn.access").setLevel(logging.WARNING)
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.processors.StackInfoRenderer(),
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=False,
    )


def kind_of(error: BaseException) -> str:
    """Return what may be published of an error: the text of our own errors, only the class name of all others."""
    return str(error) if isinstance(error, SchedulerError) else type(error).__name__


def places_of(error: BaseException) -> list[str]:
    """Return the places that an error passed, as ``module:line``, the innermost first, at most `MOST_PLACES`."""
    frames = reversed(list(traceback.walk_tb(error.__traceback__)))
    named = (f"{frame.f_globals.get('__name__', '?')}:{line}" for frame, line in frames)
    return list(itertools.islice(named, MOST_PLACES))


def _exception_told(_: object, __: str, entry: EventDict) -> EventDict:
    """Replace an exception in a log entry by its kind, its causes' and the places it passed."""
    found = entry.pop("exc_info", None)
    error = found if isinstance(found, BaseException) else found[1] if isinstance(found, tuple) else sys.exc_info()[1]
    if not found or error is None:
        return entry
    kinds: list[str] = []
    cause: BaseException | None = error
    while cause is not None and len(kinds) < MOST_PLACES:  # a chain may be a circle
        kinds.append(kind_of(cause))
        cause = cause.__cause__ or (None if cause.__suppress_context__ else cause.__context__)
    entry["exception"], entry["raised_at"] = " from ".join(kinds), places_of(error)
    return entry


def get(name: str) -> structlog.stdlib.BoundLogger:
    """The logger of one part of the service."""
    logger: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger(name)
    return logger
