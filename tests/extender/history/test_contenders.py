"""A remembered decision knows all its nodes as they were, and what is told of them is what brute force finds."""

from __future__ import annotations

import asyncio
from collections import deque
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from extender.case import read, replayed, written
from extender.cluster.lookup import find
from extender.cluster.table import ClusterTable
from extender.engine import Engine
from extender.errors import CaseError
from extender.history import sentences
from extender.history.contenders import Contenders, Recollection
from extender.history.counterfactual import CHANGEABLE, _with
from extender.history.explain import CHOICES, Hindsight
from extender.history.ledger import MIB, Decision, Ledger
from extender.history.store import decoded, encoded
from extender.history.timeline import Epoch, Timeline
from extender.pods import Pod
from extender.protocol.wire import decode_scheduling
from extender.scorer.load import LoadedScorer, load_heuristic, load_policy
from extender.settings import Settings
from policy import heuristics
from policy.bundle import shipped_bundle_path
from policy.cluster import COLUMNS, ClusterState
from tests.extender.history.samples import a_decision, explanation
from tests.extender.service import pod

Kept = tuple[Decision, ClusterState, list[str]]
"""A decision, the rows of its nodes when it was made, and their names."""


class Cluster:
    """A table that changes between decisions, and an engine that decides."""

    def __init__(self, loaded: LoadedScorer, nodes: int, seed: int, memory: int = 256 * MIB) -> None:
        self.generator = np.random.default_rng(seed)
        self.clock = 1e9
        self.table = ClusterTable(clock=lambda: self.clock)
        self.ledger = Ledger(10_000, self.table.row_of, memory=memory)
        settings = Settings(port=0, fallback="kube-default", random_seed=seed)
        self.engine = Engine(
            settings=settings.model_copy(update={"deadline_ms": 60_000.0}),
            table=self.table,
            loaded=loaded,
            ledger=self.ledger,
            clock=lambda: self.clock,
        )
        self.names: list[str] = []
        self.pods = deque[str]()
        self.placed = deque[str]()
        for _ in range(nodes):
            self.add()

    def add(self) -> None:
        """A node comes."""
        draw = self.generator
        name = f"node-{len(self.names)}"
        self.names.append(name)
        cpu, memory = float(draw.choice([4.0, 8.0, 16.0])), float(draw.choice([16.0, 64.0]))
        self.table.upsert_node(name, cpu, memory, speed=float(draw.uniform(0.6, 1.6)))

    def change(self) -> None:
        """Nodes are measured, come and go; pods are bound."""
        draw = self.generator
        self.clock += 1.0
        for name in draw.choice(self.names, 3).tolist():
            if self.table.row_of(name) < 0:
                continue
            room = self.table.room_of(name)
            assert room is not None
            used = float(draw.uniform(0.0, 1.0)) * room[0]
            self.table.set_usage(name, used, float(draw.uniform(0.0, 0.9)) * room[1], None, self.clock)
            self.pods.append(f"p{self.clock}{name}")
            self.table.pod_bound(self.pods[-1], name, float(draw.uniform(0.0, 0.8)), float(draw.uniform(0, 2)))
        while len(self.pods) > 2 * len(self.names):
            self.table.pod_removed(self.pods.popleft())
        while len(self.placed) > len(self.names):
            self.table.withdraw(self.placed.popleft())
        if draw.random() < 0.05:
            self.table.remove_node(str(draw.choice(self.names)))
            self.add()

    async def decide(self, number: int, share: float = 0.8) -> Kept:
        """One pod, for some of the nodes; what a copy of the table says of them."""
        draw = self.generator
        known = [name for name in self.names if self.table.row_of(name) >= 0]
        asked = draw.permutation(known)[: max(int(share * len(known)), 2)].tolist()
        cpu, memory = draw.choice(["100m", "500m", "2"]), draw.choice(["128Mi", "1Gi", "4Gi"])
        nodes = find(self.table, asked)
        state = self.table.state.take(nodes.rows)
        self.placed.append(f"uid-web-{number}")
        verdict = await self.engine.decide(_pod(f"web-{number}", str(cpu), str(memory)), nodes)
        return self.engine.finish(verdict), state, asked


def _pod(name: str, cpu: str, memory: str) -> Pod:
    body = msgspec.json.encode({"Pod": pod(name, cpu, memory), "Nodes": None, "NodeNames": ["a"]})
    return decode_scheduling(body).pod


def decided(cluster: Cluster, count: int) -> list[Kept]:
    """So many decisions, with changes between them."""

    async def run() -> list[Kept]:
        kept = []
        for number in range(count):
            cluster.change()
            kept.append(await cluster.decide(number))
        return kept

    return asyncio.run(run())


@pytest.fixture(scope="module")
def policy() -> LoadedScorer:
    """The policy that ships."""
    return load_policy(shipped_bundle_path())


@pytest.fixture(scope="module")
def thousand(policy: LoadedScorer) -> tuple[Cluster, list[Kept]]:
    """A thousand decisions about some 32 nodes."""
    cluster = Cluster(policy, 40, seed=7)
    return cluster, decided(cluster, 1000)


def test_every_node_is_remembered_as_it_was(thousand: tuple[Cluster, list[Kept]]) -> None:
    _, kept = thousand
    for decision, state, asked in kept:
        assert decision.contenders is not None
        field = decision.contenders.recall()
        assert sorted(field.names) == sorted(asked)
        order = np.array([asked.index(name) for name in field.names])
        for column in COLUMNS:
            if column != "version":
                np.testing.assert_array_equal(getattr(field.state, column), getattr(state, column)[order], column)
        assert (field.names[0], int(field.priorities[0])) == (decision.assumed, 10)
        assert (np.diff(field.preferences[1:]) <= 0).all()
        assert field.preferences[:5].tolist() == decision.preferences.tolist(), "of equals, any"


def test_the_choice_of_kube_default_is_that_of_the_rule_over_all_nodes(thousand: tuple[Cluster, list[Kept]]) -> None:
    cluster, kept = thousand
    among_few = 0
    for decision, state, asked in kept:
        told = explanation(decision, cluster.engine.judge_of(decision))
        usual = heuristics.kube_default(state, decision.demand)
        best = {name for name, value in zip(asked, usual, strict=True) if value == usual.max()}
        assert told["kube_default_alike"] == len(best)
        assert set(told["kube_default_choice"]) == best or (
            len(best) > CHOICES and best > set(told["kube_default_choice"])
        )
        for node in told["nodes"]:
            assert node["kube_default"]["rank"] == 1 + int((usual > usual[asked.index(node["node"])]).sum())
        among_few += not best & set(decision.names)
    assert among_few > 100, "among the best five alone, another node would have been told"


def test_every_change_that_is_told_makes_the_node_win_and_none_makes_it_worse(
    thousand: tuple[Cluster, list[Kept]], policy: LoadedScorer
) -> None:
    cluster, kept = thousand
    told_of = 0
    for decision, _, _ in kept:
        past = Hindsight(decision, cluster.engine.judge_of(decision))
        assert past.field is not None
        for position in (1 if decision.number % 2 else len(past.field.names) - 1,):
            told = past.changes(position)
            assert told is not None, past.unexplained
            assert sorted([*told["not_by"], *(each["feature"] for each in told["changes"])]) == sorted(CHANGEABLE)
            for change in told["changes"]:
                feature, before, after = change["feature"], change["before"], change["after"]
                assert after > before if feature == "node_speed" else after < before
                row = _with(past.field.state.take(np.array([position])), decision.demand, feature, np.array([after]))
                state = past.field.state.take(np.arange(len(past.field.names)))
                for column in COLUMNS:
                    getattr(state, column)[position] = getattr(row, column)[0]
                assert policy.scorer.preferences(state, decision.demand).argmax() == position
                told_of += 1
    assert told_of > 900


def test_a_node_is_told_why_not(thousand: tuple[Cluster, list[Kept]]) -> None:
    cluster, kept = thousand
    decision, _, asked = kept[-1]
    assert decision.contenders is not None
    names = decision.contenders.recall().names
    judge = cluster.engine.judge_of(decision)
    last = explanation(decision, judge, other=names[-1])
    told = last["why_not"]
    assert (told["node"], told["rank"]) == (names[-1], len(asked))
    lost = sum(told["lost_by"].values())
    assert lost == pytest.approx(last["nodes"][0]["preference"] - told["preference"], abs=1e-5)
    assert f"{names[-1]} was number {len(asked)} of {len(asked)} nodes" in sentences.of_node(told, last)[0]
    other = next(name for name in cluster.names if name not in asked and cluster.table.row_of(name) >= 0)
    absent = explanation(decision, judge, other=other)["why_not"]
    assert absent["rank"] is None
    assert "kube-scheduler did not ask about it" in sentences.of_node(absent, last)[0]
    assert all(sentences.of_decision(last))


@pytest.mark.parametrize("name", ["policy", "kube-default", "least-used"])
def test_an_exported_decision_is_decided_again_bit_for_bit(name: str, policy: LoadedScorer, tmp_path: Path) -> None:
    loaded = policy if name == "policy" else load_heuristic(name)
    cluster = Cluster(loaded, 60, seed=11)
    for decision, _, _ in decided(cluster, 60):
        file = tmp_path / "case.json"
        file.write_bytes(written(decision, cluster.engine.settings.range_tolerance, "1.37"))
        result = replayed(read(file))
        assert (result.differing, result.largest, result.same_priorities) == (0, 0.0, True), str(result)


def test_a_changed_case_is_told_apart(policy: LoadedScorer, tmp_path: Path) -> None:
    cluster = Cluster(policy, 20, seed=3)
    [(decision, _, _)] = decided(cluster, 1)
    case: dict[str, Any] = msgspec.json.decode(written(decision, cluster.engine.settings.range_tolerance, "1.37"))
    file = tmp_path / "case.json"

    def replay_of(**changes: Any) -> str:
        file.write_bytes(msgspec.json.encode({**case, **changes}))
        return str(replayed(read(file)))

    assert replay_of() == f"decided again, bit for bit the same: {len(case['names'])} nodes"
    assert "differ" in replay_of(demand={**case["demand"], "urgency": 0.123})
    for changes, message in (
        ({"model_sha256": "0" * 64}, "--bundle"),
        ({"preferences": []}, "preferences has 0 values"),
        ({"format": "other/1"}, "format"),
        ({"demand": {"cpu": -1}}, "demand"),
        ({"scorer": "only-feasible"}, "nobody chose"),
    ):
        with pytest.raises(CaseError, match=message):
            replay_of(**changes)
    file.write_bytes(b"\xff{")
    with pytest.raises(CaseError, match="no file of"):
        read(file)
    with pytest.raises(CaseError, match="cannot be read"):
        read(tmp_path / "none.json")


def test_an_epoch_counts_every_column_of_its_rows() -> None:
    table = ClusterTable()
    table.upsert_node("node-0", 8.0, 32.0)
    lines = table.lines()
    assert Epoch(table).nbytes == lines.nbytes + 8 * lines.shape[1]


@pytest.mark.parametrize(("nodes", "most"), [(1000, 9_000), (5000, 40_000)])
def test_memory_is_bounded_and_a_decision_takes_what_is_documented(policy: LoadedScorer, nodes: int, most: int) -> None:
    async def run(memory: int, count: int) -> Cluster:
        cluster = Cluster(policy, nodes, seed=1, memory=memory)
        for number in range(count):
            cluster.change()
            await cluster.decide(number, share=1.0)
        return cluster

    large = asyncio.run(run(1024 * MIB, 40)).ledger.recollection
    first = asyncio.run(run(1024 * MIB, 1)).ledger.recollection
    assert len(large) == 40
    assert (large.nbytes - first.nbytes) / 39 < most
    limit = large.nbytes * 3 // 4
    small = asyncio.run(run(limit, 40)).ledger
    assert small.recollection.nbytes <= limit
    assert 0 < len(small.recollection) < 40
    whole = [each.contenders is not None for each in small.latest()]
    assert whole == sorted(whole, reverse=True), "the oldest are forgotten first"


def test_what_is_forgotten_is_not_told_as_if_it_were_known() -> None:
    decision = a_decision(nodes=3, candidates=9)
    told = explanation(decision, None)
    assert (told["all_nodes"], told["kube_default_choice"], told["nodes"][0]["kube_default"]["rank"]) == (
        False,
        None,
        None,
    )
    assert "no longer remembered" in explanation(decision, None, other="node-7")["why_not"]["why"]
    assert any("choice is not known" in said for said in sentences.of_decision(told))


def test_a_pod_asked_about_again_leaves_no_memory_in_use() -> None:
    table = ClusterTable()
    for i in range(4):
        table.upsert_node(f"node-{i}", 4.0, 16.0)
    table.state  # noqa: B018 - brings the columns up to date
    timeline = Timeline(table)

    def decision(number: int, uid: str) -> Decision:
        moment = timeline.at(table.version)
        assert moment is not None
        rows = np.arange(4)
        contenders = Contenders(moment, rows, np.zeros(4, np.float32), np.array([10, 9, 9, 9]), (), 0.1)
        return a_decision(uid, number, contenders=contenders)

    ledger = Ledger(2, table.row_of)
    for number, uid in enumerate(("a", "a", "b", "c", "c")):
        ledger.record(decision(number, uid))
    assert len(ledger.recollection) == len(ledger) == 2
    ledger.pod_bound("c", "node-0", 2000.0)
    found = ledger.get("c")
    assert found is not None
    assert found.outcome is not None
    assert (found.outcome.priority, found.outcome.among_best) == (10, True)
    for each in list(ledger.latest()):
        ledger.recollection.forget(each)
    assert (ledger.recollection.nbytes, len(ledger.recollection)) == (0, 0)
    assert isinstance(ledger.recollection, Recollection)


def test_a_moment_that_was_not_marked_is_not_made_up() -> None:
    table = ClusterTable()
    table.upsert_node("node-0", 4.0, 16.0)
    timeline = Timeline(table)
    before = table.version
    table.upsert_node("node-0", 8.0, 16.0)
    assert timeline.at(before) is None
    moment = timeline.at(table.version)
    assert moment is not None
    table.remove_node("node-0")
    table.upsert_node("node-1", 2.0, 2.0)
    later = timeline.at(table.version)
    assert later is not None
    row = np.array([table.row_of("node-1")])
    assert [(each.recall(row)[0], each.recall(row)[1].cpu_allocatable.tolist()) for each in (moment, later)] == [
        (["node-0"], [8.0]),
        (["node-1"], [2.0]),
    ]


def test_a_table_that_grows_begins_a_new_epoch() -> None:
    table = ClusterTable(capacity=1)
    timeline = Timeline(table)
    moments = []
    for i in range(40):
        table.upsert_node(f"node-{i}", 1.0 + i, 1.0)
        moments.append((i, timeline.at(table.version)))
    for i, moment in moments:
        assert moment is not None
        names, state = moment.recall(np.arange(i + 1))
        assert sorted(names) == sorted(f"node-{j}" for j in range(i + 1))
        assert state.cpu_allocatable.sum() == sum(1.0 + j for j in range(i + 1))


def test_a_stored_decision_has_no_nodes_but_the_best_and_old_ones_still_load(policy: LoadedScorer) -> None:
    cluster = Cluster(policy, 20, seed=5)
    [(decision, _, _)] = decided(cluster, 1)
    record = encoded(decision)
    assert decoded(record).contenders is None
    old = msgspec.json.decode(record)
    del old["contenders"]
    assert decoded(msgspec.json.encode(old)).names == decision.names


def test_rows_that_change_while_the_scorer_works_are_remembered_as_it_saw_them(policy: LoadedScorer) -> None:
    async def run() -> tuple[Decision, ClusterState, list[str]]:
        cluster = Cluster(policy, 3000, seed=9)  # so many that a thread is asked
        asked = list(cluster.names)
        nodes = find(cluster.table, asked)
        state = cluster.table.state.take(nodes.rows)
        deciding = asyncio.ensure_future(cluster.engine.decide(_pod("web", "1", "1Gi"), nodes))
        await asyncio.sleep(0)
        cluster.table.pod_bound("other", "node-5", 3.0, 3.0)
        return cluster.engine.finish(await deciding), state, asked

    decision, state, asked = asyncio.run(run())
    assert decision.contenders is not None
    field = decision.contenders.recall()
    row = field.names.index("node-5")
    assert field.state.cpu_requested[row] == state.cpu_requested[asked.index("node-5")]
