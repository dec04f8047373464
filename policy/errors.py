"""The exception tree. Refuses to hold behaviour: one class for each kind of thing that can go wrong."""


class SchedulerError(Exception):
    """Root of every error this project raises on purpose."""


class InvalidInputError(SchedulerError, ValueError):
    """A value from outside does not fit; the message names the field and the fix."""


class InvalidQuantityError(InvalidInputError):
    """A Kubernetes resource quantity does not parse."""


class BundleError(SchedulerError):
    """A policy bundle is refused; `field` names the part of it that disagrees.

    Attributes:
        field: dotted name of the offending manifest field or file, for example ``model.sha256``.
    """

    def __init__(self, field: str, message: str) -> None:
        super().__init__(f"policy bundle refused: {field}: {message}")
        self.field = field


class ScoringError(SchedulerError):
    """A scorer could not produce one finite preference for each node."""


class NonFinitePreferenceError(ScoringError):
    """A scorer produced NaN or infinity, which would be undecodable on the wire."""
