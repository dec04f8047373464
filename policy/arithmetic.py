"""The two arithmetics in which the formulas of this package are written once: numpy's for many nodes, Python's for one.

One row is scored after every decision; in arrays of length one each step of a formula costs ten times what it costs in
floats. Both are IEEE 754 double precision and round alike, so a node's numbers do not depend on how many nodes were
asked about (a property test compares them bit for bit). Refuses to hold a formula.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

import numpy as np

from policy.cluster import FloatArray

Number = TypeVar("Number", float, FloatArray)


@dataclass(frozen=True, slots=True)
class Arithmetic(Generic[Number]):
    """What a formula needs beside the operators; a NaN given first stays one in both arithmetics."""

    maximum: Callable[[Number, float], Number]  # as `minimum`, of a number and a bound, the bound second
    minimum: Callable[[Number, float], Number]
    absolute: Callable[[Number], Number]  # without the sign
    root: Callable[[Number], Number]  # square root, which IEEE 754 rounds exactly


ARRAYS: Final[Arithmetic[FloatArray]] = Arithmetic(np.maximum, np.minimum, np.abs, np.sqrt)
FLOATS: Final[Arithmetic[float]] = Arithmetic(max, min, abs, math.sqrt)
