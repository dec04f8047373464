"""A sequence of pages holds what a list would, whatever is taken out of it and in which order."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extender.history import pages
from extender.history.pages import Pages

Change = tuple[str, int]
changes = st.lists(st.tuples(st.sampled_from(["add", "add", "remove", "drop oldest"]), st.integers(0, 1000)))


@given(steps=changes, before=st.integers(0, 60), size=st.integers(1, 5))
def test_it_holds_what_a_list_holds(steps: list[Change], before: int, size: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pages, "PAGE", size)
        sequence: Pages[str] = Pages()
        model: dict[int, str] = {}
        for step, number in steps:
            if step == "add":
                place = sequence.add(f"item {len(model)} {number}")
                assert place > max(model, default=-1)
                model[place] = f"item {len(model)} {number}"
            elif model:
                place = min(model) if step == "drop oldest" else sorted(model)[number % len(model)]
                assert sequence.oldest() == model[min(model)]
                sequence.remove(place)
                del model[place]
        newest = sorted(model.items(), reverse=True)
        assert list(sequence.newest_first()) == newest
        assert list(sequence.newest_first(before)) == [each for each in newest if each[0] < before]


def test_an_empty_one_has_no_oldest() -> None:
    with pytest.raises(LookupError):
        Pages[int]().oldest()


def test_it_may_be_read_while_it_changes() -> None:
    sequence: Pages[int] = Pages()
    for number in range(3 * pages.PAGE):
        sequence.add(number)
    reader = sequence.newest_first()
    read = [next(reader)[1] for _ in range(10)]
    for _ in range(2 * pages.PAGE):
        sequence.remove(sequence.oldest())
        sequence.add(0)
    read += [item for _, item in reader]
    assert read[: pages.PAGE] == list(reversed(range(2 * pages.PAGE, 3 * pages.PAGE))), "the page that was begun"
