"""Interquartile means, bootstrap intervals and the probability of improvement. Pure functions of numbers.

After Agarwal et al., "Deep Reinforcement Learning at the Edge of the Statistical Precipice" (NeurIPS 2021). Values are
``[strata, samples]``: a stratum is one trained policy (or the one rule there is), a sample is one episode; the
bootstrap resamples within each stratum. Where two scorers met the same episodes, pairs are resampled together.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from policy.errors import InvalidInputError

FloatArray = NDArray[np.float64]

RESAMPLES: Final = 2000
TAILS: Final = ((1.0 - 0.95) / 2.0, 1.0 - (1.0 - 0.95) / 2.0)
"""Quantiles at the ends of a 95 % interval."""

BOOTSTRAP_SEED: Final = 20210830
"""Intervals of the same numbers are the same numbers."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """A statistic with its bootstrap interval."""

    value: float  # the statistic of the values themselves
    low: float  # lower end of the 95 % percentile interval
    high: float


def interquartile_mean(values: FloatArray) -> FloatArray:
    """Mean of the middle half of the last axis: a quarter of the weight is cut at each end, fractions included."""
    ordered = np.sort(values, axis=-1)
    count = ordered.shape[-1]
    cut = count / 4.0
    position = np.arange(count)
    weight = np.clip(np.minimum(position + 1 - cut, count - cut - position), 0.0, 1.0)
    result: FloatArray = (ordered * weight).sum(axis=-1) / weight.sum()
    return result


def mean(values: FloatArray) -> FloatArray:
    """Mean of the last axis."""
    result: FloatArray = values.mean(axis=-1)
    return result


def estimate(values: ArrayLike, statistic: Callable[[FloatArray], FloatArray] = mean) -> Estimate:
    """A statistic of all values with its stratified bootstrap interval.

    Args:
        values: ``[samples]`` or ``[strata, samples]``, finite.
        statistic: reduces the last axis; `mean` or `interquartile_mean`.

    Raises:
        InvalidInputError: there are no values, or one is not finite.
    """
    table = _table(values, "values")
    samples = statistic(_resampled(table))
    return _interval(float(statistic(table.ravel())), samples)


def paired_difference(ours: ArrayLike, theirs: ArrayLike) -> Estimate:
    """Mean of ours - theirs over the same episodes; an interval without 0 is a difference."""
    first, second = _pair(ours, theirs)
    return estimate(first - second)


def relative_change(ours: ArrayLike, theirs: ArrayLike) -> Estimate:
    """Mean of ours over mean of theirs, minus 1, episodes resampled in pairs; -0.65 is 65 % less.

    NaN where the mean of theirs is 0.
    """
    first, second = _pair(ours, theirs)
    with np.errstate(divide="ignore", invalid="ignore"):
        samples = _resampled(first).mean(axis=-1) / _resampled(second).mean(axis=-1) - 1.0
        return _interval(float(first.mean() / second.mean() - 1.0), samples)


def gap_closed(ours: ArrayLike, best: ArrayLike, oracle: ArrayLike) -> Estimate:
    """(ours - best) / (oracle - best), of means, episodes resampled together: 0 is the best rule, 1 the oracle.

    NaN where oracle and best have the same mean.
    """
    first, second = _pair(ours, best)
    _, third = _pair(ours, oracle)
    with np.errstate(divide="ignore", invalid="ignore"):
        rule = _resampled(second).mean(axis=-1)
        samples = (_resampled(first).mean(axis=-1) - rule) / (_resampled(third).mean(axis=-1) - rule)
        value = (first.mean() - second.mean()) / (third.mean() - second.mean())
        return _interval(float(value), samples)


def improvement_probability(ours: ArrayLike, theirs: ArrayLike, lower_is_better: bool = True) -> Estimate:
    """Probability that ours is better than theirs in an episode that both met; a tie counts half."""
    first, second = _pair(ours, theirs)
    gain = second - first if lower_is_better else first - second
    return estimate(np.where(gain > 0.0, 1.0, np.where(gain < 0.0, 0.0, 0.5)))


def crossed_estimate(values: ArrayLike, statistic: Callable[[FloatArray], FloatArray] = interquartile_mean) -> Estimate:
    """A statistic of runs x episodes, with an interval over both: another training seed, other episodes.

    Rows and columns are resampled with replacement, each as a whole, since a run is one policy and all runs met the
    same episodes (the pigeonhole bootstrap of Owen, "The pigeonhole bootstrap", Annals of Applied Statistics 2007).
    With few runs the interval is rough, and narrower than it should be.

    Args:
        values: ``[episodes]`` of one rule or ``[runs, episodes]``, finite.
        statistic: reduces the last axis.
    """
    table = _table(values, "values")
    generator = np.random.default_rng(BOOTSTRAP_SEED)
    runs = generator.integers(len(table), size=(RESAMPLES, len(table), 1))
    episodes = generator.integers(table.shape[1], size=(RESAMPLES, 1, table.shape[1]))
    samples = statistic(table[runs, episodes].reshape(RESAMPLES, -1))
    return _interval(float(statistic(table.ravel())), samples)


def crossed_improvement(ours: ArrayLike, theirs: ArrayLike) -> Estimate:
    """Probability that a run of ours has a smaller value than one of theirs in an episode both met; ties count half.

    Over all pairs of runs, as Agarwal et al., section 4.3; runs of either side and episodes are resampled.

    Args:
        ours: ``[runs, episodes]``, finite.
        theirs: ``[other runs, episodes]``, the same episodes.
    """
    first, second = _table(ours, "ours"), _table(theirs, "theirs")
    if first.shape[1] != second.shape[1]:
        raise InvalidInputError(
            f"shapes {first.shape} and {second.shape} are no pairs; evaluate both on the same seeds"
        )
    better = np.sign(second[None, :, :] - first[:, None, :]) / 2.0 + 0.5
    generator = np.random.default_rng(BOOTSTRAP_SEED)
    weights = [generator.multinomial(size, np.full(size, 1.0 / size), RESAMPLES) / size for size in better.shape]
    samples = np.einsum("ra,rb,re,abe->r", *weights, better, optimize=True)
    return _interval(float(better.mean()), samples)


def _interval(value: float, samples: FloatArray) -> Estimate:
    low, high = np.quantile(samples, TAILS)
    return Estimate(value, float(low), float(high))


def _resampled(table: FloatArray) -> FloatArray:
    """`RESAMPLES` draws with replacement within each stratum, ``[RESAMPLES, strata x samples]``.

    Tables of one shape are drawn alike, which keeps pairs together.
    """
    generator = np.random.default_rng(BOOTSTRAP_SEED)
    drawn = generator.integers(table.shape[1], size=(RESAMPLES, *table.shape))
    samples: FloatArray = table[np.arange(len(table))[:, None], drawn].reshape(RESAMPLES, -1)
    return samples


def _table(values: ArrayLike, name: str) -> FloatArray:
    table = np.atleast_2d(np.asarray(values, dtype=np.float64))
    if table.ndim != 2 or table.size == 0 or not np.isfinite(table).all():
        raise InvalidInputError(f"{name} has shape {table.shape}; give finite numbers, [samples] or [strata, samples]")
    return table


def _pair(ours: ArrayLike, theirs: ArrayLike) -> tuple[FloatArray, FloatArray]:
    first, second = _table(ours, "ours"), _table(theirs, "theirs")
    if first.shape[1] != second.shape[1] or second.shape[0] not in (1, first.shape[0]):
        raise InvalidInputError(
            f"shapes {first.shape} and {second.shape} are no pairs; evaluate both on the same seeds"
        )
    return first, np.broadcast_to(second, first.shape)
