"""Kubernetes resource quantities, "100m" or "1.5Gi", to exact integers; Go's durations, "1m30s", and plain numbers.

Refuses floats on the way of quantities: they drift.

The grammar and the rounding are those of k8s.io/apimachinery/pkg/api/resource/quantity.go: a signed decimal number and
a suffix that is binary (Ki Mi Gi Ti Pi Ei), decimal (n u m k M G T P E) or an exponent (e3, E-2); anything finer than a
billionth is rounded up (away from zero), and anything larger than 2^63 - 1 is capped there.
"""

from __future__ import annotations

import math
import re
from functools import lru_cache
from typing import Final

from policy.errors import InvalidInputError, InvalidQuantityError

NANO: Final = 1_000_000_000
MAX_VALUE: Final = 2**63 - 1
MAX_LENGTH: Final = 128
"""Longer texts are refused: no quantity needs them, and the work grows with the length."""

_SHAPE: Final = re.compile(
    r"([+-]?)([0-9]*)(?:\.([0-9]*))?(Ki|Mi|Gi|Ti|Pi|Ei|n|u|m|k|M|G|T|P|E|[eE][+-]?[0-9]+)?", re.ASCII
)
_BINARY: Final = {"Ki": 10, "Mi": 20, "Gi": 30, "Ti": 40, "Pi": 50, "Ei": 60}
_DECIMAL: Final = {"n": -9, "u": -6, "m": -3, "": 0, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18}
_FARTHEST_EXPONENT: Final = 2 * MAX_LENGTH
"""Exponents beyond are treated as this one: with at most `MAX_LENGTH` digits the result is the cap, or a billionth."""


_NUMBER: Final = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?", re.ASCII)

LONGEST_DURATION: Final = 64
"""Characters; longer ones are refused."""

_UNITS: Final = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "μs": 1e-6, "ns": 1e-9}
"""Seconds of each unit of Go's time.ParseDuration; both letters that look like a micro sign are one."""

_PART: Final = re.compile(r"(\d+\.?\d*|\.\d+)(h|ms|m|s|us|µs|μs|ns)", re.ASCII)
_DURATION: Final = re.compile(rf"0|(?:{_PART.pattern})+", re.ASCII)


@lru_cache(maxsize=4096)
def nano_units(text: str) -> int:
    """The quantity in billionths of its unit (core, byte), exact but for the rounding described above.

    Raises:
        InvalidQuantityError: the text is no quantity.
    """
    match = _SHAPE.fullmatch(text) if len(text) <= MAX_LENGTH else None
    if match is None:
        raise InvalidQuantityError(
            f"quantity {text[:40]!r} does not parse; give a number and a suffix: 500m, 1.5Gi, 2e3"
        )
    sign, whole, fraction, suffix = match[1], match[2], match[3] or "", match[4] or ""
    if not whole and not fraction:
        raise InvalidQuantityError(f"quantity {text!r} has no digits; give a number and a suffix: 500m, 1.5Gi, 2e3")
    digits = int(whole + fraction)
    if suffix in _BINARY:
        digits <<= _BINARY[suffix]
        exponent = 9 - len(fraction)
    else:
        power = _DECIMAL[suffix] if suffix in _DECIMAL else int(suffix[1:])
        exponent = max(-_FARTHEST_EXPONENT, min(_FARTHEST_EXPONENT, power)) + 9 - len(fraction)
    nano: int = digits * 10**exponent if exponent >= 0 else -(-digits // 10**-exponent)
    capped: int = min(nano, MAX_VALUE * NANO)
    return -capped if sign == "-" else capped


def duration(text: str) -> float:
    """Seconds of a Go duration such as "10.062s" or "1m30s". Raises `InvalidInputError` if it is none, or negative."""
    if _DURATION.fullmatch(text[:LONGEST_DURATION]) is None or len(text) > LONGEST_DURATION:
        raise InvalidInputError(f"duration {text[:40]!r} does not parse; give one such as 1m30s")
    return sum(float(number) * _UNITS[unit] for number, unit in _PART.findall(text))


def number(text: str) -> float:
    """The number that a label or annotation gives, blanks around it left out; NaN where it gives none.

    Only what everybody else reads as one: `float` also takes underscores, and digits of other scripts.
    """
    return float(text) if _NUMBER.fullmatch(text.strip()) else math.nan


def within(text: str, least: float, most: float) -> float | None:
    """The number from `least` to `most` that a label or annotation gives; None where it gives none."""
    value = number(text)
    return value if least <= value <= most else None
