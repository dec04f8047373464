"""The highest load that a scorer holds: where its SLA violations cross a limit, between the loads that were played."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from training.evaluation.protocol import SLA
from training.evaluation.statistics import BOOTSTRAP_SEED, RESAMPLES, TAILS, FloatArray
from training.evaluation.study import Study

LIMIT: Final = 0.05
"""SLA violations that the highest load stays under."""


@dataclass(frozen=True, slots=True)
class Highest:
    """A load with its interval; None where even the lowest load played is above the limit."""

    value: float | None
    low: float | None  # lower end of the 95 % interval
    high: float | None


def crossing(loads: FloatArray, rates: FloatArray, limit: float = LIMIT) -> FloatArray:
    """Load at which rates first reach the limit, linear between neighbours; NaN where the first is not below it.

    The highest load played where none reaches it: more was not tried.

    Args:
        loads: ascending, ``[loads]``.
        rates: ``[..., loads]``.
        limit: SLA violation rate.
    """
    above = rates >= limit
    at = np.argmax(above, axis=-1)
    before = np.maximum(at - 1, 0)
    right = np.take_along_axis(rates, at[..., None], -1)[..., 0]
    left = np.take_along_axis(rates, before[..., None], -1)[..., 0]
    with np.errstate(divide="ignore", invalid="ignore"):
        found = loads[before] + (limit - left) / (right - left) * (loads[at] - loads[before])
    return np.where(above.any(axis=-1), np.where(at == 0, np.nan, found), loads[-1])


def highest_load(study: Study, scorer: str) -> Highest:
    """On large clusters; episodes are resampled together at all loads, since they are the same episodes."""
    sweep = study.large_sweep()
    table = _table(study, scorer)
    loads = np.array(list(sweep))
    value = float(crossing(loads, table.mean(axis=0)))
    samples = np.sort(np.nan_to_num(crossing(loads, _means(table)), nan=-1.0))
    low, high = np.quantile(samples, TAILS, method="nearest")
    return Highest(_known(value), _known(low), _known(high))


def load_ratio(study: Study, ours: str, theirs: str) -> Highest:
    """Highest load of ours over that of theirs, resampled in pairs; None where theirs, or ours, has none."""
    loads = np.array(list(study.large_sweep()))
    first, second = _table(study, ours), _table(study, theirs)
    value = float(crossing(loads, first.mean(axis=0)) / crossing(loads, second.mean(axis=0)))
    samples = crossing(loads, _means(first)) / crossing(loads, _means(second))
    samples = samples[np.isfinite(samples)]
    if not len(samples) or not np.isfinite(value):
        return Highest(None, None, None)
    low, high = np.quantile(samples, TAILS)
    return Highest(value, float(low), float(high))


def best_rule_by_load(study: Study) -> str:
    """The rule that holds the highest load; where none holds any, the one with the fewest violations at the lowest."""
    lowest = next(iter(study.large_sweep().values()))
    return max(study.rules_at(lowest), key=lambda name: highest_load(study, name).value or 0.0)


def _table(study: Study, scorer: str) -> FloatArray:
    """SLA violation rates, ``[episodes, loads]``."""
    return np.stack([study.values(label, scorer, SLA) for label in study.large_sweep().values()], axis=-1)


def _means(table: FloatArray) -> FloatArray:
    """Means over resampled episodes, ``[RESAMPLES, loads]``."""
    drawn = np.random.default_rng(BOOTSTRAP_SEED).integers(len(table), size=(RESAMPLES, len(table)))
    means: FloatArray = table[drawn].mean(axis=1)
    return means


def _known(value: float) -> float | None:
    return float(value) if np.isfinite(value) and value > 0.0 else None
