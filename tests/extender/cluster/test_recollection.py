"""What was learned outlives a restart, and a record that is of no use spoils nothing."""

from __future__ import annotations

import dataclasses
import sqlite3
from pathlib import Path
from typing import Any

import msgspec
import pytest

from extender.cluster.estimation import RECORD
from extender.cluster.recollection import LONGEST_AGE_S, RecollectionError, recalled, saved
from extender.history.store import DecisionStore
from extender.supervision import Failures
from policy.completions import KEPT_COMPLETIONS, KeptCompletion
from tests.extender.cluster.test_estimation import Learning, machine

TRUE = {"a": 0.5, "b": 1.0, "c": 2.0}


class Memory:
    """A keeper that forgets with the process."""

    def __init__(self, record: bytes | None = None) -> None:
        self.record = record

    def keep(self, name: str, record: bytes) -> None:
        assert name == RECORD
        self.record = record

    def kept(self, name: str) -> bytes | None:
        return self.record if name == RECORD else None


def record() -> bytes:
    """What a process wrote that had learned the speeds of three nodes."""
    memory, learning = Memory(), Learning(TRUE)
    learning.speeds.remember(memory)
    learning.complete(12)
    learning.now += 400.0
    learning.fit()
    assert memory.record is not None
    return memory.record


class Restarted(Learning):
    """A process that takes a record back before it sees any node."""

    def __init__(self, taken: bytes, **of: Any) -> None:
        super().__init__({})
        self.speeds.remember(Memory(taken))
        self.true = TRUE
        for name in TRUE:
            self.show(name, of.get(name, machine()))


def test_speeds_are_known_again_after_a_restart() -> None:
    restarted = Restarted(record())
    restarted.fit()
    for name, speed in TRUE.items():
        assert restarted.source(name) == "completions"
        assert restarted.speed(name) == pytest.approx(speed, rel=0.1)
        assert restarted.table.basis_of(name).completions == 12


def test_completions_of_another_machine_are_not_taken_back() -> None:
    restarted = Restarted(record(), a=machine("another"))
    restarted.fit()
    assert restarted.source("a") == "default"
    assert restarted.source("b") == restarted.source("c") == "completions"


def test_nodes_that_are_gone_meanwhile_are_let_go() -> None:
    restarted = Restarted(record())
    restarted.speeds.keep_only(set(TRUE))
    assert not restarted.speeds._recalled


def test_ages_grow_by_the_time_between_and_never_shrink() -> None:
    written = saved([("a", [KeptCompletion("t", 1.0, 100.0), KeptCompletion("t", 2.0, 50.0)])], {"a": "m"}, at=1000.0)
    assert recalled(written, 1500.0) == {"a": ("m", [("t", 1.0, 600.0), ("t", 2.0, 550.0)])}
    assert recalled(written, 0.0) == {"a": ("m", [("t", 1.0, 100.0), ("t", 2.0, 50.0)])}
    assert recalled(written, 1000.0 + LONGEST_AGE_S) == {"a": ("m", [])}


def test_nodes_that_are_gone_are_not_written() -> None:
    assert recalled(saved([("a", [KeptCompletion("t", 1.0, 1.0)])], {}, 0.0), 0.0) == {}


NODE = ["a", "m", [0], [1.0], [1.0]]


def changed(**change: Any) -> bytes:
    return msgspec.msgpack.encode({"version": 1, "at": 0.0, "templates": ["t"], "nodes": [NODE], **change})


@pytest.mark.parametrize(
    "broken",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"\xff" * 100, id="garbage"),
        pytest.param(record()[:-3], id="cut"),
        pytest.param(changed(version=2), id="another version"),
        pytest.param(changed(at=float("nan")), id="no time"),
        pytest.param(changed(templates=[]), id="unknown template"),
        pytest.param(changed(nodes=[["a", "m", [-1], [1.0], [1.0]]]), id="negative template"),
        pytest.param(changed(nodes=[["a", "m", [0], [1.0, 2.0], [1.0]]]), id="unequal columns"),
        pytest.param(changed(nodes=[["a", "m", [0], [float("nan")], [1.0]]]), id="no CPU time"),
        pytest.param(changed(nodes=[["a", "m", [0], [99.0], [1.0]]]), id="an absurd CPU time"),
        pytest.param(changed(nodes=[["a", "m", [0], [1.0], [-1.0]]]), id="a negative age"),
        pytest.param(
            changed(nodes=[["a", "m", *([0] * (KEPT_COMPLETIONS + 1) for _ in range(3))]]), id="too many completions"
        ),
    ],
)
def test_a_record_of_no_use_is_refused_and_nothing_of_it_is_taken(broken: bytes) -> None:
    with pytest.raises(RecollectionError):
        recalled(broken, 0.0)
    learning = Learning({})
    learning.speeds.remember(Memory(broken))
    assert not learning.speeds._recalled
    assert list(recalled(changed(), 0.0)) == ["a"]


@pytest.fixture
def store(tmp_path: Path) -> DecisionStore:
    return DecisionStore(tmp_path / "ledger.sqlite", 100, 86400.0, Failures())


def test_the_ledgers_file_keeps_records_beside_decisions(store: DecisionStore) -> None:
    assert store.kept("speeds") is None
    for content in (b"first", b"second"):
        store.keep("speeds", content)
        assert store.kept("speeds") == content
    assert store.stop()
    again = DecisionStore(store.path, 100, 86400.0, Failures())
    assert again.kept("speeds") == b"second"
    assert again.kept("others") is None


def test_a_file_that_takes_nothing_costs_the_record_alone(store: DecisionStore) -> None:
    with sqlite3.connect(store.path) as connection:
        connection.execute("DROP TABLE records")
    store.keep("speeds", b"a")
    assert store.kept("speeds") is None
    assert dataclasses.asdict(store.counts)["failures"] == 1
    assert store.stop()
