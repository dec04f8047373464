"""What is written by hand is what a JSON encoder would have written, but for blanks."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from extender.cluster.lookup import Named
from extender.cluster.table import ClusterTable
from extender.errors import WireError
from extender.protocol import wire
from extender.protocol.bodies import REMEMBERED, RecentRequests
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


def request(names: list[str], uid: str = "uid-1") -> bytes:
    body = by_names(names)
    body["Pod"]["metadata"]["uid"] = uid
    return json.dumps(body, separators=(",", ":")).encode()


def test_a_list_that_came_before_means_the_nodes_of_now() -> None:
    table = ClusterTable()
    for name in ("a", "b", "c"):
        table.upsert_node(name, 4.0, 8.0)
    recent = RecentRequests(table)

    def named(uid: str) -> Named:
        return recent.named(recent.decode(request(["c", "a", "b", "a", "x"], uid)))

    before = named("uid-1")
    assert before.rows.tolist() == [table.row_of(name) for name in ("c", "a", "b")]
    assert before.unknown == ["x"]
    assert named("uid-1") is named("uid-2") is before
    table.remove_node("c")
    table.upsert_node("x", 4.0, 8.0)
    assert named("uid-1").rows.tolist() == [table.row_of(name) for name in ("a", "b", "x")]
    assert named("uid-2").unknown == ["c"]


def test_a_request_is_decoded_once_for_both_verbs_and_never_taken_for_another() -> None:
    recent = RecentRequests(ClusterTable())
    first = recent.decode(request(["a", "b"], "uid-1"))
    assert recent.decode(request(["a", "b"], "uid-1")) is first
    second, third = recent.decode(request(["a", "b"], "uid-2")), recent.decode(request(["a", "c"], "uid-1"))
    assert (second.pod.metadata.uid, second.names) == ("uid-2", ["a", "b"])
    assert (third.pod.metadata.uid, third.names) == ("uid-1", ["a", "c"])
    assert second.names is first.names, "two pods, one list"
    with pytest.raises(WireError):
        recent.decode(request(["a", "b"], "uid-1")[:-1])


def test_few_requests_are_remembered_and_none_that_brings_whole_nodes() -> None:
    recent = RecentRequests(ClusterTable())
    for turn in range(3 * REMEMBERED):
        asked = recent.decode(request([f"n{turn}", "m"]))
        assert (asked.names, recent.named(asked).unknown) == ([f"n{turn}", "m"], [f"n{turn}", "m"])
    assert len(recent._requests) == len(recent._lists) == REMEMBERED
    whole = {**by_names([]), "NodeNames": None, "Nodes": {"items": [{"metadata": {"name": "a"}}]}}
    assert recent.decode(json.dumps(whole).encode()).names == ["a"]
    assert all(known.names != ["a"] for _, known in recent._requests)


@given(
    rated=st.dictionaries(st.integers(0, 20), st.integers(0, 10), max_size=12),
    unknown=st.lists(letters, max_size=3, unique=True),
    neutral=st.integers(0, 10),
)
def test_a_short_answer_ranks_every_node_alike_and_is_never_empty(
    rated: dict[int, int], unknown: list[str], neutral: int
) -> None:
    rows, priorities = np.array(list(rated), dtype=np.intp), np.array(list(rated.values()), dtype=np.int64)
    kept, above, still_unknown, more = wire.above_zero(rows, priorities, unknown, neutral)
    every = {**rated, **dict.fromkeys(unknown, neutral)}
    named = {**dict(zip(kept.tolist(), above.tolist(), strict=True)), **dict.fromkeys(still_unknown, more)}
    # kube-scheduler takes what is not named to have 0, and from 1.35 on draws among named nodes alone
    assert {host: named.get(host, 0) for host in every} == every
    top = {host for host, score in every.items() if score == max(every.values())}
    assert top <= set(named) <= set(every)
