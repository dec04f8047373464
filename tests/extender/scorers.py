"""Scorers that behave as badly as a test needs."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field

import numpy as np

from extender.scorer.load import LoadedScorer
from policy.cluster import ClusterState, Demand
from policy.errors import ScoringError
from policy.scorers import Preferences


@dataclass
class Controlled:
    """Prefers fast nodes; does as told meanwhile.

    Attributes:
        gate: scoring waits until it is set.
        mode: `well`, `nan`, `raises`, `breaks`, `exits` or `short`.
        calls: numbers of rows it was asked about.
    """

    name: str = "controlled"
    local: bool = True
    mode: str = "well"
    gate: threading.Event = field(default_factory=threading.Event)
    calls: list[int] = field(default_factory=list)
    threads: set[str] = field(default_factory=set)

    def preferences(self, state: ClusterState, demand: Demand) -> Preferences:
        """As the mode says."""
        self.calls.append(len(state))
        self.threads.add(threading.current_thread().name)
        if not self.gate.wait(20.0):
            raise TimeoutError("the test never opened the gate")
        if self.mode == "raises":
            raise ScoringError("told to fail")
        if self.mode == "breaks":
            raise ZeroDivisionError("told to break")
        if self.mode == "exits":
            raise SystemExit("told to end")
        if self.mode == "short":
            return state.node_speed[:-1]
        result = state.node_speed.copy()
        if self.mode in ("nan", "blank"):
            result[: 1 if self.mode == "nan" else None] = np.nan
        return result

    def loaded(self) -> LoadedScorer:
        """As `create_app` takes it."""
        return LoadedScorer(self, 0.1, "")


def open_gate(**changes: object) -> Controlled:
    """One that answers at once."""
    scorer = Controlled(**changes)  # type: ignore[arg-type]
    scorer.gate.set()
    return scorer
