"""Delays grow, stay bounded, spread out, and begin small again after a success."""

import random

import pytest

from extender.backoff import Backoff
from policy.errors import InvalidInputError


def test_delays_double_up_to_the_longest_each_cut_by_at_most_half() -> None:
    backoff = Backoff(random.Random(1), first=1.0, longest=5.0)
    delays = [backoff.delay() for _ in range(6)]
    for delay, nominal in zip(delays, (1.0, 2.0, 4.0, 5.0, 5.0, 5.0), strict=True):
        assert nominal / 2.0 <= delay <= nominal
    assert len(set(delays)) == 6


def test_a_success_begins_small_again() -> None:
    backoff = Backoff(random.Random(1), first=1.0, longest=60.0)
    for _ in range(5):
        backoff.delay()
    backoff.reset()
    assert backoff.delay() <= 1.0


@pytest.mark.parametrize(("first", "longest"), [(0.0, 1.0), (2.0, 1.0), (-1.0, 1.0)])
def test_delays_that_make_no_sense_are_refused(first: float, longest: float) -> None:
    with pytest.raises(InvalidInputError, match="give 0 < first <= longest"):
        Backoff(random.Random(1), first, longest)
