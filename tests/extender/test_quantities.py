"""Quantities parse as k8s.io/apimachinery parses them."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extender.quantities import MAX_VALUE, NANO, nano_units
from policy.errors import InvalidQuantityError

SUFFIXES = {
    "n": Fraction(1, 10**9),
    "u": Fraction(1, 10**6),
    "m": Fraction(1, 1000),
    "": Fraction(1),
    **{suffix: Fraction(1000**power) for power, suffix in enumerate("kMGTPE", start=1)},
    **{f"{suffix}i": Fraction(1024**power) for power, suffix in enumerate("KMGTPE", start=1)},
}


@pytest.mark.parametrize(
    ("text", "nano"),
    [
        ("0", 0),
        ("1", NANO),
        ("100m", NANO // 10),
        ("1.5", 3 * NANO // 2),
        (".5", NANO // 2),
        ("5.", 5 * NANO),
        ("+2", 2 * NANO),
        ("-1m", -NANO // 1000),
        ("1Ki", 1024 * NANO),
        ("1.5Gi", 3 * 2**29 * NANO),
        ("1E", 10**18 * NANO),
        ("1e3", 1000 * NANO),
        ("1E3", 1000 * NANO),
        ("12e-1", 6 * NANO // 5),
        ("0.1n", 1),
        ("-0.1n", -1),
        ("1e-400", 1),
        ("1e400", MAX_VALUE * NANO),
        ("9999999E", MAX_VALUE * NANO),
        ("1e99999999999999999999", MAX_VALUE * NANO),
    ],
)
def test_known_quantities(text: str, nano: int) -> None:
    assert nano_units(text) == nano


@pytest.mark.parametrize(
    "text",
    [
        "",
        "m",
        ".",
        "+",
        "1.2.3",
        "1 Gi",
        "1gi",
        "1GiB",
        "1K",
        "0x10",
        "1e",
        "1e1.5",
        "NaN",
        "inf",
        "\u0661",
        "1\n",
        "1" * 200,
    ],
)
def test_what_is_no_quantity_is_refused_by_name(text: str) -> None:
    with pytest.raises(InvalidQuantityError, match="quantity"):
        nano_units(text)


@given(
    sign=st.sampled_from(["", "+", "-"]),
    whole=st.integers(0, 10**9),
    fraction=st.text("0123456789", max_size=12),
    suffix=st.sampled_from(sorted(SUFFIXES)),
)
def test_every_quantity_is_exact_or_rounded_up_to_a_billionth(
    sign: str, whole: int, fraction: str, suffix: str
) -> None:
    number = Fraction(whole) + (Fraction(int(fraction), 10 ** len(fraction)) if fraction else 0)
    exact = number * SUFFIXES[suffix] * NANO
    expected = min(-(-exact.numerator // exact.denominator), MAX_VALUE * NANO)
    found = nano_units(f"{sign}{whole}.{fraction}{suffix}")
    assert found == (-expected if sign == "-" else expected)


@given(st.integers(0, MAX_VALUE), st.integers(-9, 9))
def test_an_exponent_shifts_the_decimal_point(number: int, power: int) -> None:
    exact = number * Fraction(10) ** power * NANO
    assert nano_units(f"{number}e{power}") == min(-(-exact.numerator // exact.denominator), MAX_VALUE * NANO)
