"""What `/v1/policy`, `/v1/shadow` and `/v1/experiment` answer, as JSON."""

from __future__ import annotations

from typing import Any

from extender.engine import Engine
from extender.scorer.reload import BundleReloader
from extender.trials.candidates import Trials


class Documents:
    """Describes what decides and what is tried.

    Args:
        engine: decides.
        reloader: follows the bundle; None where a heuristic decides.
        trials: candidates.
    """

    def __init__(self, *, engine: Engine, reloader: BundleReloader | None, trials: Trials) -> None:
        self._engine = engine
        self._reloader = reloader
        self._trials = trials

    def policy(self) -> dict[str, Any]:
        """Return what decides, and what became of the bundles seen since the start."""
        scoring, serving, breaker = self._engine.scoring, None, None
        if scoring is not None:
            loaded = scoring.loaded
            serving = {"scorer": loaded.scorer.name, "temperature": loaded.temperature, **loaded.identity()}
            breaker = {"state": scoring.breaker.state.value, "opened": scoring.breaker.opened}
        return {
            "fallback": self._engine.fallback.name,
            "serving": serving,
            "breaker": breaker,
            "bundle": None if self._reloader is None else self._reloader.status(),
        }

    def shadow(self) -> dict[str, Any]:
        """Return how far the shadow's candidate agrees; why there is none, where one was wanted."""
        if (shadow := self._trials.shadow) is None:
            return {"candidate": None, "refused": self._trials.refused["shadow"]}
        return {**shadow.status(), "refused": None}

    def experiment(self) -> dict[str, Any]:
        """Compare the experiment's arms and return the result; why there is none, where one was wanted. Slow."""
        if (comparison := self._trials.comparison) is None:
            return {"candidate": None, "refused": self._trials.refused["experiment"]}
        experiment = comparison.experiment
        return {
            "experiment": experiment.key,
            "candidate": experiment.candidate.identity(),
            "share": experiment.share,
            "salt": experiment.salt,
            "refused": None,
            **comparison.update(),
        }
