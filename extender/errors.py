"""Errors of the service, under the tree of `policy.errors`. Refuses to hold behaviour beyond carrying a message."""

from policy.errors import InvalidInputError, SchedulerError, ScoringError


class SettingsError(InvalidInputError):
    """Settings are refused; the message names each field, what is wrong with it and where it came from."""


class CertificateError(SettingsError):
    """Certificates or keys cannot serve; the message names the setting, the file and what to do."""


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


class DemoError(SchedulerError):
    """The demo cannot go on: the service answered what kube-scheduler would not take."""


class LedgerError(SchedulerError):
    """The file of the durable ledger cannot be used or read; the message names it and what to do."""
