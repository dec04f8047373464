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
    """What is tried besides what decides."""

    shadow: Shadow | None  # scores the same requests; None if nothing does
    comparison: Comparison | None  # of the arms of an experiment; None if there is none
    refused: dict[str, str | None]  # why a candidate is not tried, by the setting that names it

    @property
    def experiment(self) -> Experiment | None:
        """The experiment; None if there is none."""
        return None if self.comparison is None else self.comparison.experiment

    @classmethod
    def of(
        cls, settings: Settings, decisions: Callable[[], Iterable[Decision]], failures: Failures, span: Span
    ) -> Trials:
        """Return what the settings ask for."""
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
