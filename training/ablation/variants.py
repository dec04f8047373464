"""An ablation as a file: a base configuration and what each variant changes in it. Runs nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final

from pydantic import Field

from policy.errors import InvalidInputError
from training.config import TrainingConfig, parse_config
from training.files import Section, read_yaml, validated
from training.simulator.conditions import Condition
from training.simulator.draws import TEST_SEEDS

BASE: Final = "base"
"""Name of the configuration that variants change."""

FIRST_EPISODE: Final = 20_000
"""Place among the test seeds of the first episode played: apart from the study's, so that a part that is chosen by this
table is not chosen on the episodes that judge the policy."""

MOST_EPISODES: Final = 10_000


class PlaySettings(Section):
    """The test episodes that every trained policy plays."""

    scenario: str = "reference"  # name of a versioned scenario, or a .yaml file
    nodes: Annotated[int, Field(ge=1)] | None = None  # nodes per cluster; None keeps the scenario's
    load: Annotated[float, Field(gt=0.0)] = 0.4  # offered load
    episodes: Annotated[int, Field(ge=2, le=MOST_EPISODES)] = 64  # how many

    @property
    def seeds(self) -> range:
        """Seeds of the episodes, a slice of `TEST_SEEDS`."""
        return TEST_SEEDS[FIRST_EPISODE : FIRST_EPISODE + self.episodes]

    @property
    def condition(self) -> Condition:
        """As every policy and rule plays it."""
        return Condition(self.scenario, self.load, self.nodes, self.episodes)


class _Variant(Section):
    about: str
    settings: dict[str, Any]


class _Document(Section):
    base: dict[str, Any]
    variants: dict[Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,62}$")], _Variant]
    play: PlaySettings = PlaySettings()


@dataclass(frozen=True, slots=True)
class Variant:
    """One way to train."""

    name: str  # as in reports and folders
    about: str  # what differs from the base, one line
    settings: Mapping[str, Any]  # what is overridden, as in the file
    config: TrainingConfig  # the whole configuration; its seed is each run's to set


@dataclass(frozen=True, slots=True)
class Variants:
    """What is trained and played."""

    variants: tuple[Variant, ...]  # the base first
    play: PlaySettings  # the episodes that judge them


def load_plan(path: Path) -> Variants:
    """Read an ablation file: ``base``, ``variants`` (name -> ``about``, ``settings``) and ``play``.

    Raises:
        InvalidInputError: it does not read, or the base or a variant is no valid configuration; the message names it.
    """
    source = f"ablation {path}"
    document = validated(_Document, read_yaml(path, source), source, "training/configs/ablations.yaml")
    if BASE in document.variants:
        raise InvalidInputError(f"{source}: variants.{BASE} is the base itself; give it another name")
    every = {BASE: _Variant(about="the configuration that the others change", settings={}), **document.variants}
    variants = [
        Variant(
            name,
            each.about,
            each.settings,
            parse_config({**merged(document.base, each.settings), "name": name}, f"{source}, variant {name}"),
        )
        for name, each in every.items()
    ]
    return Variants(tuple(variants), document.play)


def merged(base: Mapping[str, Any], change: Mapping[str, Any]) -> dict[str, Any]:
    """`base` with `change` laid over it: sections are merged, anything else (lists too) is replaced."""
    result = dict(base)
    for name, value in change.items():
        below = result.get(name)
        result[name] = merged(below, value) if isinstance(below, dict) and isinstance(value, dict) else value
    return result
