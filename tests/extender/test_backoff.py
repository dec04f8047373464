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


def test_growth_is_forgotten_after_a_quiet_time_alone() -> None:
    now = 0.0
    backoff = Backoff(random.Random(1), first=1.6, longest=30.0, forgotten_after=120.0, timer=lambda: now)
    for _ in range(10):
        last = backoff.delay()
        now += last
    assert 15.0 <= last <= 30.0
    now += 119.0 - last
    assert backoff.delay() >= 15.0, "119 seconds of work forget nothing"
    now += 121.0
    assert 0.8 <= backoff.delay() <= 1.6


@pytest.mark.parametrize(("first", "longest"), [(0.0, 1.0), (2.0, 1.0), (-1.0, 1.0)])
def test_delays_that_make_no_sense_are_refused(first: float, longest: float) -> None:
    with pytest.raises(InvalidInputError, match="give 0 < first <= longest"):
        Backoff(random.Random(1), first, longest)
