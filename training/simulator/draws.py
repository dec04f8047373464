"""Counter-based random numbers: a draw is a function of (seed, stream, index) and of nothing else.

That gives common random numbers for free: what arrives, and when a node slows down, does not depend on what a scheduler
did before, on how many clusters are simulated side by side, or on the order of the draws. The mixing function is the
finaliser of SplitMix64 (Steele, Lea and Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014).
"""

from __future__ import annotations

from enum import IntEnum
from typing import Any, Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

FloatArray = NDArray[np.float64]
Seeds = NDArray[np.uint64]

_GOLDEN: Final = np.uint64(0x9E3779B97F4A7C15)
_FIRST: Final = np.uint64(0xBF58476D1CE4E5B9)
_SECOND: Final = np.uint64(0x94D049BB133111EB)
_SHIFTS: Final = (np.uint64(30), np.uint64(27), np.uint64(31))
_TOP_BIT: Final = np.uint64(1 << 63)
_MANTISSA_SHIFT: Final = np.uint64(11)
_TO_UNIT: Final = 2.0**-53


class Stream(IntEnum):
    """One independent sequence of draws for each thing that is random."""

    CLUSTER = 1
    NODE_CLASS = 2
    LOAD = 3
    ARRIVAL_GAP = 4
    ARRIVAL_PHASE = 5
    ARRIVAL_BURST = 6
    POD_CLASS = 7
    POD_CPU = 8
    POD_MEMORY = 9
    POD_DURATION = 10
    POD_SLACK = 11
    POD_CPU_USE = 12
    POD_MEMORY_USE = 13
    POD_LIFETIME = 14
    SCRAPE_INTERVAL = 15
    PRESSURE_SOURCE = 16
    PRESSURE_NOISE = 17
    USE_NOISE = 18
    DECAY = 19
    WORKLOAD_USE = 20
    INTERFERENCE = 21
    NODE_LOSS = 22
    TRACE_OFFSET = 23
    TIES = 24
    TEMPLATE = 25
    POD_TEMPLATE = 26
    DEADLINE = 27
    LABEL_ERROR = 28
    LABEL_WRONG = 29
    LABEL_MISSING = 30
    URGENCY_LABEL = 31
    THROTTLED = 32
    MEMORY_USE = 33
    POD_UNREQUESTED = 34


def mix(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """SplitMix64's finaliser, elementwise; same shape."""
    mixed = (values ^ (values >> _SHIFTS[0])) * _FIRST
    mixed = (mixed ^ (mixed >> _SHIFTS[1])) * _SECOND
    return mixed ^ (mixed >> _SHIFTS[2])


def cluster_seeds(seed: int, clusters: int) -> Seeds:
    """One seed for each of many clusters, uint64 ``[clusters]``, from one number; all of them at least 2^63.

    So nothing that is simulated from one number, as all training is, meets an episode that is named by its own seed.
    """
    start = mix(np.array([seed % 2**64], dtype=np.uint64))
    return mix(start + np.arange(1, clusters + 1, dtype=np.uint64) * _GOLDEN) | _TOP_BIT


SELECTION_SEEDS: Final = range(1_000_000_000)
"""Seeds of the episodes that choose between policies and rules."""

TEST_SEEDS: Final = range(1_000_000_000, 2_000_000_000)
"""Seeds of the episodes that judge the chosen one. Nothing is ever chosen by them."""


def episode_seeds(seeds: range) -> Seeds:
    """A slice of `SELECTION_SEEDS` or `TEST_SEEDS` as `Simulator.reset` takes it: uint64, one for each cluster."""
    return np.asarray(seeds, dtype=np.uint64)


def uniform(seeds: Seeds, stream: Stream, index: ArrayLike) -> FloatArray:
    """Uniform draws from [0, 1): the shapes of `seeds` and of `index` broadcast."""
    counter = np.asarray(index).astype(np.uint64) * _GOLDEN
    keyed = mix(seeds + np.full(1, int(stream), dtype=np.uint64) * _FIRST)
    bits = mix(keyed + counter) >> _MANTISSA_SHIFT
    return bits.astype(np.float64) * _TO_UNIT


def exponential(seeds: Seeds, stream: Stream, index: ArrayLike) -> FloatArray:
    """Exponential draws of mean 1, shapes as `uniform`."""
    result: FloatArray = -np.log1p(-uniform(seeds, stream, index))
    return result


def normal(seeds: Seeds, stream: Stream, index: NDArray[np.integer[Any]]) -> FloatArray:
    """Standard normal draws (Box-Muller), shapes as `uniform`."""
    doubled = 2 * np.asarray(index)
    radius = np.sqrt(-2.0 * np.log1p(-uniform(seeds, stream, doubled)))
    return radius * np.cos(2.0 * np.pi * uniform(seeds, stream, doubled + 1))
