"""Kinds of episodes: a scenario, how loaded it is, and how large. Plays nothing."""

from __future__ import annotations

from dataclasses import dataclass

from training.simulator.deviations import find_scenario
from training.simulator.knowledge import LABELLED, Knowledge, knowledge
from training.simulator.scenarios import Scenario


@dataclass(frozen=True, slots=True)
class Condition:
    """Episodes of one kind."""

    scenario: str | Scenario  # name of a scenario or variant, path of a .yaml file, or the scenario itself
    load: float | None = None  # offered load; None lets each episode draw its own from the scenario
    nodes: int | None = None  # nodes per cluster; None keeps the scenario's
    episodes: int = 64  # how many; from which seed on is up to whoever plays them
    told: str = LABELLED  # what schedulers are told: a name of `training.simulator.knowledge`

    @property
    def label(self) -> str:
        """For example ``unlabelled reference-50@0.4``, without what is the scenario's own and what is usual."""
        scenario = self.scenario if isinstance(self.scenario, str) else self.scenario.name
        size = "" if self.nodes is None else f"-{self.nodes}"
        load = "" if self.load is None else f"@{self.load:g}"
        told = "" if self.told == LABELLED else f"{self.told} "
        return f"{told}{scenario}{size}{load}"

    @property
    def knowledge(self) -> Knowledge:
        """What schedulers are told.

        Raises:
            InvalidInputError: nothing is known by that name.
        """
        return knowledge(self.told)

    def sized(self) -> Scenario:
        """Return the scenario with the condition's number of nodes.

        Raises:
            InvalidInputError: the scenario is unknown, or nodes is below 1.
        """
        scenario = find_scenario(self.scenario) if isinstance(self.scenario, str) else self.scenario
        return scenario if self.nodes in (None, scenario.nodes) else scenario.resized(self.nodes)
