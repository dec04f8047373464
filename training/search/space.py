"""What a hyperparameter search may draw: settings by dotted name, with bounds or choices. Draws and trains nothing."""

from __future__ import annotations

import json
from collections.abc import Mapping
from decimal import Decimal
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Final, Self

from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from pydantic import Field, model_validator

from policy.errors import InvalidInputError
from training.config import TrainingConfig, parse_config
from training.files import Section, read_yaml, validated

FIXED: Final = {
    "name": "it changes nothing that is learned",
    "seed": "the best of many seeds is luck; --seed is the search's own",
    "selection": "it is the yardstick that trials are compared by",
}
"""Top-level settings that no search draws, and why."""

Count = Annotated[int, Field(ge=1)]
Number = int | Annotated[float, Field(allow_inf_nan=False)]


class Draw(Section):
    """How one setting is drawn: between bounds, or from choices."""

    low: Number | None = None  # smallest value
    high: Number | None = None  # largest value. A setting that is a whole number is drawn as one.
    log: bool = False  # uniform in the logarithm, for what spans orders of magnitude
    step: Number | None = None  # only values a whole number of steps above `low`
    # the values themselves; lists and mappings too, such as ``[[128, 128], [256, 256]]``
    choices: Annotated[tuple[Any, ...], Field(min_length=1)] | None = None

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.choices is not None:
            if self.low is not None or self.high is not None or self.step is not None or self.log:
                raise ValueError("choices stand alone; drop low, high, log and step, or drop choices")
            if any(value in self.choices[:index] for index, value in enumerate(self.choices)):
                raise ValueError(f"choices {list(self.choices)} hold a value twice; drop one")
            return self
        if self.low is None or self.high is None:
            raise ValueError("give low and high, or choices")
        if self.low >= self.high:
            raise ValueError(f"low {self.low:g} is not below high {self.high:g}; swap them")
        if self.log and self.low <= 0:
            raise ValueError(f"low {self.low:g} has no logarithm; give one above 0, or drop log")
        if self.step is not None:
            if self.log:
                raise ValueError("step and log exclude each other; drop one")
            if self.step <= 0 or (_exact(self.high) - _exact(self.low)) % _exact(self.step):
                raise ValueError(
                    f"high {self.high:g} is not low {self.low:g} plus whole steps of {self.step:g}; move it"
                )
        return self

    def samples(self) -> tuple[Any, ...]:
        """Values that must all be valid for the setting: every choice, or both bounds."""
        return self.choices if self.choices is not None else (self.low, self.high)

    def distribution(self, now: object) -> BaseDistribution:
        """As Optuna draws it, where the base configuration holds `now`.

        Raises:
            ValueError: bounds for what is not a number, or fractions for what is a whole one.
        """
        if self.choices is not None:
            return CategoricalDistribution([_encoded(value) for value in self.choices])
        if self.low is None or self.high is None or isinstance(now, bool) or not isinstance(now, int | float | None):
            raise ValueError(f"it is {now!r}, which is no number; give choices")
        numbers = (self.low, self.high) if self.step is None else (self.low, self.high, self.step)
        if isinstance(now, int) or (now is None and all(isinstance(number, int) for number in numbers)):
            if any(number != int(number) for number in numbers):
                raise ValueError(f"it is the whole number {now}; give whole bounds and steps")
            return IntDistribution(int(self.low), int(self.high), log=self.log, step=int(self.step or 1))
        step = None if self.step is None else float(self.step)
        return FloatDistribution(float(self.low), float(self.high), log=self.log, step=step)

    def decoded(self, drawn: object) -> object:
        """The setting's value for what Optuna drew."""
        if self.choices is None:
            return drawn
        return next(value for value in self.choices if _encoded(value) == drawn)


class PrunerConfig(Section):
    """When a trial is stopped: its best score so far is worse than the median of the others' at the same selection."""

    startup_trials: Count = 4  # completed trials before any is stopped
    warmup_selections: Annotated[int, Field(ge=0)] = 1  # selections that every trial may make before it is stopped


class SearchSpace(Section):
    """A search: what is drawn, and how."""

    random_trials: Count = 8  # trials drawn at random before the sampler (TPE) learns from them
    pruner: PrunerConfig = PrunerConfig()
    # dotted names of settings of `training.config`, such as ``optimiser.actor_rate`` or ``arenas.0.batch``
    fields: Annotated[dict[str, Draw], Field(min_length=1)]

    def distributions(self, base: TrainingConfig) -> dict[str, BaseDistribution]:
        """Every field as Optuna draws it, in the order of their names, which is the order of the draws.

        Raises:
            InvalidInputError: a field is no setting, is not to be searched, or a value that may be drawn is invalid.
        """
        document = base.model_dump(mode="json")
        found: dict[str, BaseDistribution] = {}
        for name in sorted(self.fields):
            draw, top = self.fields[name], name.partition(".")[0]
            if top in FIXED:
                raise InvalidInputError(f"fields.{name}: {top} is not searched, since {FIXED[top]}; drop it")
            try:
                found[name] = draw.distribution(_get(document, name))
                for value in draw.samples():
                    _with(base, {name: value})
            except ValueError as error:
                raise InvalidInputError(f"fields.{name}: {error}") from error
        return found

    def configure(self, base: TrainingConfig, drawn: Mapping[str, Any]) -> TrainingConfig:
        """`base` with what Optuna drew.

        Raises:
            InvalidInputError: the values do not go together.
        """
        return _with(base, {name: self.fields[name].decoded(value) for name, value in drawn.items()})


def load_space(path: Path) -> SearchSpace:
    """Read a search space.

    Raises:
        InvalidInputError: it does not read, parse or validate; the message names every offending field.
    """
    return validated(SearchSpace, read_yaml(path, f"search space {path}"), str(path), "training/configs/search.yaml")


def _with(base: TrainingConfig, overrides: Mapping[str, object]) -> TrainingConfig:
    """`base` with other values at dotted names, validated."""
    document = base.model_dump(mode="json")
    for name, value in overrides.items():
        above, _, last = name.rpartition(".")
        container = _get(document, above) if above else document
        if isinstance(container, list):
            container[int(last)] = value
        else:
            container[last] = value
    return parse_config(document, ", ".join(f"{name} = {value!r}" for name, value in overrides.items()))


def _get(document: dict[str, Any], name: str) -> Any:
    """What a configuration holds at a dotted name; raises `ValueError` where it holds nothing."""
    node: Any = document
    for part in name.split("."):
        keys: list[str] = [str(i) for i in range(len(node))] if isinstance(node, list) else []
        if isinstance(node, dict):
            keys = list(node)
        if part not in keys:
            close = get_close_matches(part, keys, n=1)
            hint = f"did you mean {close[0]}?" if close else f"there are {', '.join(keys) or 'none below it'}"
            raise ValueError(f"{part} is no setting; {hint}")
        node = node[int(part)] if isinstance(node, list) else node[part]
    return node


def _encoded(value: object) -> bool | int | float | str | None:
    """A choice as Optuna stores it: plain values as they are, lists and mappings as JSON."""
    return value if isinstance(value, bool | int | float | str | None) else json.dumps(value, sort_keys=True)


def _exact(number: float) -> Decimal:
    """Without the rounding of binary fractions, so that 0.3 is three steps of 0.1."""
    return Decimal(str(number))
