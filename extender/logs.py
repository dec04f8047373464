"""Structured logs on stderr, one JSON object per line.

Refuses to log what pods carry (environment, annotations), and the text of foreign exceptions: a library may put
headers, tokens or bodies there. Of an exception the log has its kind and the places that it passed.
"""

from __future__ import annotations

import itertools
import logging
import os
import sys
import threading
import traceback
from types import TracebackType
from typing import Any, Final, TextIO

import structlog
from structlog.typing import EventDict

from extender.errors import kind_of

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


def log_uncaught() -> None:
    """Log exceptions that nobody catches, on any thread; the interpreter would print their texts."""
    sys.excepthook = _uncaught
    threading.excepthook = _uncaught_in_thread


def places_of(error: BaseException) -> list[str]:
    """Return the places that an error passed, as ``module:line``, the innermost first, at most `MOST_PLACES`."""
    frames = reversed(list(traceback.walk_tb(error.__traceback__)))
    named = (f"{frame.f_globals.get('__name__', '?')}:{line}" for frame, line in frames)
    return list(itertools.islice(named, MOST_PLACES))


def _exception_told(_: object, __: str, entry: EventDict) -> EventDict:
    """Replace an exception in a log entry by its kind, its causes' and the places it passed."""
    if entry.get("logger") == "asyncio":
        # The lines after the first are what a task, a future or a handle looks like, exceptions included.
        entry["event"] = str(entry["event"]).partition("\n")[0]
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


def _uncaught(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    if isinstance(error, KeyboardInterrupt):
        sys.__excepthook__(kind, error, trace)
    else:
        get(__name__).critical("ended by an unexpected failure", exc_info=error)


def _uncaught_in_thread(raised: threading.ExceptHookArgs) -> None:
    if raised.exc_value is not None and not isinstance(raised.exc_value, SystemExit):
        name = raised.thread.name if raised.thread is not None else "?"
        get(__name__).error("a thread ended by an unexpected failure", thread=name, exc_info=raised.exc_value)


def get(name: str) -> structlog.stdlib.BoundLogger:
    """The logger of one part of the service."""
    logger: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger(name)
    return logger
