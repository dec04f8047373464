"""What is written by hand is what a JSON encoder would have written, but for blanks."""

from __future__ import annotations

import json

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from extender.cluster.table import ClusterTable
from extender.protocol import wire
from extender.protocol.lists import REMEMBERED, NameLists
from tests.extender.service import by_names

letters = st.text(st.characters(codec="utf-8"), max_size=12)
names = letters | st.integers(60, 260).map(lambda length: "n" * length)


@given(
    hosts=st.lists(st.tuples(names, st.integers(0, 10)), max_size=12),
    renamed=st.lists(st.tuples(st.integers(0, 11), names), max_size=6),
    asked=st.lists(st.integers(0, 11), unique=True),
    unknown=st.lists(letters, max_size=3),
    neutral=st.integers(0, 10),
)
def test_every_host_asked_about_gets_its_priority_whatever_its_name(
    hosts: list[tuple[str, int]],
    renamed: list[tuple[int, str]],
    asked: list[int],
    unknown: list[str],
    neutral: int,
) -> None:
    encoder = wire.HostEncoder()
    called = [name for name, _ in hosts]
    for row, name in enumerate(called):
        encoder.set_host(row, name)
    for row, name in renamed:
        if row < len(called):
            called[row] = name
            encoder.set_host(row, name)
    rows = [row for row in asked if row < len(hosts)]
    priorities = [hosts[row][1] for row in rows]
    answer = encoder.encode(np.array(rows, dtype=np.intp), np.array(priorities, dtype=np.int64), unknown, neutral)
    wanted = [(called[row], priority) for row, priority in zip(rows, priorities, strict=True)]
    wanted += [(name, neutral) for name in unknown]
    got = [(entry["Host"], entry["Score"]) for entry in json.loads(answer)]
    assert sorted(got) == sorted(wanted)
    assert all(set(entry) == {"Host", "Score"} for entry in json.loads(answer))


def request(names: list[str]) -> wire.SchedulingRequest:
    return wire.decode_scheduling(json.dumps(by_names(names), separators=(",", ":")).encode())


def test_a_list_that_came_before_means_the_nodes_of_now() -> None:
    table = ClusterTable()
    for name in ("a", "b", "c"):
        table.upsert_node(name, 4.0, 8.0)
    lists = NameLists(table)

    def rows() -> tuple[list[int], list[str]]:
        asked = request(["c", "a", "b", "a", "x"])
        lists.decode(asked.names_json)
        named = lists.named(asked)
        return named.rows.tolist(), list(named.unknown)

    before = [table.row_of(name) for name in ("c", "a", "b")]
    assert rows() == rows() == (before, ["x"])
    assert lists.named(request(["c", "a", "b", "a", "x"])) is lists.named(request(["c", "a", "b", "a", "x"]))
    table.remove_node("c")
    table.upsert_node("x", 4.0, 8.0)
    assert rows() == ([table.row_of(name) for name in ("a", "b", "x")], ["c"])


def test_few_lists_are_remembered() -> None:
    table = ClusterTable()
    lists = NameLists(table)
    for turn in range(3 * REMEMBERED):
        asked = request([f"n{turn}", "m"])
        assert lists.decode(asked.names_json) == [f"n{turn}", "m"]
        lists.named(asked)
    assert len(lists._names) == len(lists._named) == REMEMBERED
