"""The constants of a rule, by cross-entropy search on selection seeds. Refuses to see a test seed.

`maddpg-train tune-rule` prints them. Equal arguments give equal constants on any machine with the same numpy.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from policy.errors import InvalidInputError
from policy.heuristics import Heuristic, MarginalCost, SufficientSpeed
from training.evaluation.protocol import SLA, play
from training.simulator.draws import SELECTION_SEEDS, FloatArray, episode_seeds
from training.simulator.scenarios import Scenario

LOADS: Final = (0.25, 0.35, 0.45, 0.55)
"""Offered loads that a rule is tuned for, one after the other in every set of episodes."""

RATE_FLOOR: Final = 2e-3
"""Added to a rate before its logarithm: hardly any violations at one load must not outweigh the others."""

ELITE_SHARE: Final = 0.25
SMOOTHING: Final = 0.7
"""Share of the way that mean and deviation move to those of the elite in a generation."""

FIRST_DEVIATION: Final = 0.25
"""Standard deviation of the first draws, over the width of a constant's range."""


@dataclass(frozen=True, slots=True)
class Tunable:
    """A rule with the ranges that its constants are searched in."""

    rule: Callable[..., Any]  # makes the rule from its constants
    ranges: Mapping[str, tuple[float, float]]  # field -> smallest and largest value


TUNABLE: Final[dict[str, Tunable]] = {
    "marginal-cost": Tunable(
        MarginalCost,
        {
            "least_urgency": (0.1, 0.5),
            "margin": (1.0, 1.6),
            "width": (0.03, 0.25),
            "pressure": (0.0, 2.0),
            "slope": (0.2, 0.9),
            "knee": (0.3, 0.75),
            "harm": (0.0, 0.4),
            "speed_price": (0.0, 0.4),
            "use_price": (0.0, 0.4),
        },
    ),
    "sufficient-speed": Tunable(
        SufficientSpeed,
        {
            "least_urgency": (0.1, 0.5),
            "safe_margin": (1.0, 1.8),
            "headroom_weight": (0.0, 1.0),
            "spared_speed_weight": (0.0, 1.0),
        },
    ),
}
"""Rules whose constants were found here, by name."""


@dataclass(frozen=True, slots=True)
class Found:
    """What a search found."""

    constants: dict[str, float]  # field -> value
    rates: dict[float, float]  # load -> share of SLAs violated, on episodes that the search did not use
    score: float  # mean over loads of log(rate + RATE_FLOOR), on the same episodes; lower is better


def tune(
    name: str,
    scenario: Scenario,
    *,
    seed: int = 1,
    generations: int = 14,
    population: int = 24,
    episodes: int = 8,
    watch: Callable[[int, float], None] = lambda _generation, _score: None,
) -> Found:
    """Search the constants of the rule with the fewest SLA violations over `LOADS`.

    Every generation meets new episodes, the same for all of its candidates. What is returned is the mean of the last
    generation's distribution.

    Args:
        name: of the rule, a key of `TUNABLE`.
        scenario: what is played.
        seed: of the draws.
        generations: how many, >= 1.
        population: candidates of a generation, >= 4.
        episodes: for each load and candidate, >= 1.
        watch: told each generation and the best score in it.

    Raises:
        InvalidInputError: the rule is not tunable, a number is too small, or the selection seeds do not suffice.
    """
    if name not in TUNABLE:
        raise InvalidInputError(f"rule {name!r} has no constants to tune; choose one of {sorted(TUNABLE)}")
    if generations < 1 or population < 4 or episodes < 1:
        raise InvalidInputError(
            f"generations {generations}, population {population}, episodes {episodes}: give at least 1, 4 and 1"
        )
    tunable = TUNABLE[name]
    low, high = np.array(list(tunable.ranges.values())).T
    mean, deviation = (low + high) / 2.0, (high - low) * FIRST_DEVIATION
    generator = np.random.default_rng(seed)
    used = episodes * len(LOADS)
    if (generations + 4) * used > len(SELECTION_SEEDS):
        raise InvalidInputError(f"{generations} generations of {used} episodes need more than the selection seeds")

    def rates(candidates: FloatArray, first: int, each: int) -> FloatArray:
        """SLA violation rates ``[candidates, loads]``; all play side by side, a set of clusters for each."""
        seeds = episode_seeds(SELECTION_SEEDS[first : first + each * len(LOADS)])
        columns = np.repeat(candidates, len(seeds), axis=0).T[..., None]  # as constants ``[clusters, 1]``
        rule = Heuristic(name, tunable.rule(**dict(zip(tunable.ranges, columns, strict=True))))
        clusters = len(candidates) * each
        played = play(rule, scenario, np.tile(seeds, len(candidates)), np.tile(LOADS, clusters))[SLA]
        shares: FloatArray = np.nanmean(played.reshape(len(candidates), each, len(LOADS)), axis=1)
        return shares

    for generation in range(generations):
        drawn = generator.normal(mean, deviation, (population, len(mean)))
        drawn = np.clip(np.vstack([mean, drawn[1:]]), low, high)
        scores = _scores(rates(drawn, generation * used, episodes))
        elite = drawn[np.argsort(scores, kind="stable")[: max(2, round(ELITE_SHARE * population))]]
        mean = mean + SMOOTHING * (elite.mean(axis=0) - mean)
        deviation = deviation + SMOOTHING * (elite.std(axis=0) - deviation)
        watch(generation, float(scores.min()))
    constants = np.round(mean, 3)
    held_out = rates(constants[None], generations * used, 4 * episodes)[0]
    return Found(
        dict(zip(tunable.ranges, constants.tolist(), strict=True)),
        dict(zip(LOADS, held_out.tolist(), strict=True)),
        float(_scores(held_out)),
    )


def _scores(rates: FloatArray) -> FloatArray:
    """Mean over loads, the last axis, of the logarithm of the rates, with `RATE_FLOOR`."""
    scores: FloatArray = np.log(rates + RATE_FLOOR).mean(axis=-1)
    return scores
