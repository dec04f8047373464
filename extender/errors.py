"""Errors of the service, under the tree of `policy.errors`, and what may be published of everybody else's."""

from __future__ import annotations

import json
import os
import re
import socket
import ssl
import tomllib
from typing import Final

import msgspec

from policy.errors import InvalidInputError, SchedulerError, ScoringError

_TOML_POSITION: Final = re.compile(r"\(at line \d+, column \d+\)")

UNDECODABLE: Final = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""What msgspec raises at bytes from elsewhere: malformed or of other types, no UTF-8, nested too deeply."""

DEEPEST: Final = 4
"""Exceptions that are looked into, one inside the other, for what the operating system said."""


def kind_of(error: BaseException) -> str:
    """Return what may be published of an error: the text of our own ones, the kind of all others.

    Texts of foreign exceptions may hold whatever their library worked on: a header with a token, a line of a file, a
    URL with a password. Logs, answers, readiness and metrics therefore never get them. Of a foreign exception this
    returns its class, and what is known to hold no content: the meaning of an error number, OpenSSL's verdict about a
    certificate, the position at which a text does not parse. An exception that wraps an operating system's error
    (those of urllib3 do) is told with that.
    """
    told = _told(error)
    if told is not None:
        return told
    inner: BaseException | None = error
    for _ in range(DEEPEST):
        inner = _inside(inner) if inner is not None else None
        if inner is not None and (told := _told(inner)) is not None and not isinstance(inner, SchedulerError):
            return f"{type(error).__name__}: {told}"
    return type(error).__name__


def _told(error: BaseException) -> str | None:
    """What may be published of this exception alone; None where that is its class and nothing more."""
    name = type(error).__name__
    if isinstance(error, SchedulerError):
        return str(error)
    if isinstance(error, msgspec.MsgspecError):
        return str(error)  # names types, our own fields and positions, never values
    if isinstance(error, json.JSONDecodeError):
        return f"{error.msg} (line {error.lineno}, column {error.colno})"
    if isinstance(error, UnicodeDecodeError):
        return f"{name}: not {error.encoding} at byte {error.start}"
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"certificate verify failed: {error.verify_message}"
    if isinstance(error, ssl.SSLError):
        return f"{name}: {error.reason}" if error.reason else None
    if isinstance(error, socket.gaierror):
        return f"{name}: {'unknown host name' if error.errno == socket.EAI_NONAME else 'name resolution failed'}"
    if isinstance(error, OSError) and error.errno is not None:
        return os.strerror(error.errno)
    if isinstance(error, tomllib.TOMLDecodeError):
        return f"{name} {''.join(_TOML_POSITION.findall(str(error))[-1:])}".strip()
    sqlite = getattr(error, "sqlite_errorname", None)
    if sqlite is not None:
        return f"{name} ({sqlite})"
    mark = getattr(error, "problem_mark", None)  # of PyYAML
    if mark is not None:
        return f"{name} (line {mark.line + 1}, column {mark.column + 1})"
    return None


def _inside(error: BaseException) -> BaseException | None:
    """The exception that this one was made from."""
    for each in (getattr(error, "reason", None), *error.args, error.__cause__):
        if isinstance(each, BaseException):
            return each
    return None


class SettingsError(InvalidInputError):
    """Settings are refused; the message names each field, what is wrong with it and where it came from."""


class CertificateError(SettingsError):
    """Certificates or keys cannot serve; the message names the setting, the file and what to do."""


class SchedulerConfigError(InvalidInputError):
    """A kube-scheduler's configuration does not read; the message says where."""


class WireError(InvalidInputError):
    """A request body is not what kube-scheduler sends; the message names the JSON path.

    Attributes:
        status: HTTP status of the answer.
    """

    def __init__(self, message: str, status: int = 400) -> None:
        super().__init__(message)
        self.status = status


class BusyError(SchedulerError):
    """An answer for operators cannot be put together now: others' are in the way."""


class UrgencyError(InvalidInputError):
    """A pod's urgency annotation does not parse; the message names it."""


class DecisionLateError(ScoringError):
    """The scorer did not answer within the deadline."""


class ScorerBusyError(ScoringError):
    """The scorer still works on a request whose deadline has passed; it is not given another."""


class NoScorerError(ScoringError):
    """No scorer is loaded."""


class BreakerOpenError(ScoringError):
    """The scorer kept failing, and is left alone for a while."""


class StaleClusterError(ScoringError):
    """What is known of nodes or pods is too old to decide from."""


class StaleUsageError(ScoringError):
    """Measured use is too old to decide from."""


class SourceError(SchedulerError):
    """The cluster cannot be watched: configuration, credentials or the API server."""


class BindError(SchedulerError):
    """The API server refused to bind a pod; the message is what kube-scheduler will show."""


class NoteError(SchedulerError):
    """What was to be said on a pod could not be written; the message says why."""


class OwnershipError(SchedulerError):
    """A `ClusterTable` was changed outside the thread that owns it: a mistake of the program, not of its input."""


class ClientError(SchedulerError):
    """A running service cannot be asked, or answers what no such service does; the message says what to do."""


class EvidenceError(SchedulerError):
    """Too little was seen for an estimate; the message says what is missing, as a sentence without its full stop."""


class PeerError(SchedulerError):
    """Another replica did not answer, or answered what none does; the message says why."""


class CaseError(InvalidInputError):
    """An exported decision cannot be read, or cannot be decided again; the message says why."""


class DemoError(SchedulerError):
    """The demo cannot go on: the service answered what kube-scheduler would not take."""


class LedgerError(SchedulerError):
    """The file of the durable ledger cannot be used or read; the message names it and what to do."""
