"""The candidates that the settings name, ready to be tried; a bad one is refused, and serving goes on without it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from extender.history.ledger import Decision
from extender.scorer.load import try_candidate
from extender.scorer.question import Span
from extender.scorer.scoring import Hooks
from extender.settings import Settings
from extender.supervision import Failures
from extender.trials.comparison import Comparison
from extender.trials.experiment import Experiment
from extender.trials.shadow import Shadow


@dataclass(frozen=True, slots=True)
class Trials:
    """What is tried besides what decides.

    Attributes:
        shadow: scores the same requests; None if nothing does.
        comparison: of the arms of an experiment; None if there is none.
        refused: why a candidate is not tried, by the setting that names it.
    """

    shadow: Shadow | None
    comparison: Comparison | None
    refused: dict[str, str | None]

    @property
    def experiment(self) -> Experiment | None:
        """The experiment; None if there is none."""
        return None if self.comparison is None else self.comparison.experiment

    @classmethod
    def of(
        cls, settings: Settings, decisions: Callable[[], Iterable[Decision]], failures: Failures, span: Span
    ) -> Trials:
        """Return what the settings ask for.

        Args:
            settings: name the candidates.
            decisions: all that are remembered now.
            failures: told of what a candidate was not expected to do.
            span: encloses the parts of a candidate's work.
        """
        shadow, no_shadow = try_candidate(settings.shadow, settings)
        trial, no_trial = try_candidate(settings.experiment, settings)
        comparison = None
        if trial is not None:
            hooks = Hooks(span=span, role="candidate of the experiment")
            experiment = Experiment(trial, settings.experiment_share, settings.experiment_salt, hooks)
            comparison = Comparison(experiment, decisions)
        return cls(
            shadow=None if shadow is None else Shadow(shadow, failures, settings.range_tolerance),
            comparison=comparison,
            refused={"shadow": no_shadow, "experiment": no_trial},
        )
