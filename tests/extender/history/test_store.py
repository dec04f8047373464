"""Decisions outlive the process: on disk whole, bounded, and never in the way of a decision."""

from __future__ import annotations

import json
import re
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from typer.testing import CliRunner

from extender.cli import app
from extender.errors import LedgerError
from extender.history.ledger import Decision, Ledger
from extender.history.outcomes import Outcome
from extender.history.pages import Pages
from extender.history.store import DecisionStore, decoded, encoded
from extender.supervision import Failures
from tests.extender.history.samples import a_decision
from tests.extender.service import Service, by_names, pod

Run = Callable[..., Service]
DAY = 86400.0


def until(condition: Callable[[], bool], seconds: float = 30.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(0.02)


@contextmanager
def opened(path: Path, rows: int = 1000, age: float = DAY, now: float = 2000.0, **how: int) -> Iterator[DecisionStore]:
    """A store that writes, and has written everything at the end."""
    store = DecisionStore(path, rows, age, Failures(), clock=lambda: now, **how)
    store.start()
    try:
        yield store
    finally:
        assert store.stop(30.0)


def test_a_decision_comes_back_as_it_was(tmp_path: Path) -> None:
    outcome = Outcome(node="node-1", bound_at=5.0, restarts=2, late=True, message='"quoted" \u00e9')
    before = a_decision(outcome=outcome, fallback_reason="late", warning="odd", former_failure="expired", attempt=3)
    with opened(tmp_path / "ledger.db") as store:
        store.put(before)
        until(lambda: store.get("uid-web") is not None)
        after = store.get("uid-web")
    assert after is not None
    assert encoded(after) == encoded(before)
    assert (after.outcome, after.demand, after.top) == (outcome, before.demand, before.top)
    assert before.rows is not None
    assert after.rows is not None
    np.testing.assert_array_equal(after.rows.cpu_used, before.rows.cpu_used)


def test_a_decision_without_nodes_and_one_with_fields_of_the_future_come_back_too() -> None:
    nobody = a_decision(nodes=0, rows=None, assumed=None)
    assert encoded(decoded(encoded(nobody))) == encoded(nobody)
    future = {**json.loads(encoded(a_decision())), "mood": "sunny"}
    assert encoded(decoded(json.dumps(future).encode())) == encoded(a_decision())


def test_a_decision_from_before_requests_were_counted_comes_back() -> None:
    """0.1.0 knew the requests alone: what it decided by is what scores counted then."""
    record = json.loads(encoded(a_decision()))
    for part, names in (("demand", ("nonzero", "contained")), ("rows", ("nonzero",))):
        record[part] = {key: value for key, value in record[part].items() if not key.endswith(names)}
    old = {key: value for key, value in record.items() if key not in ("odd", "odd_nodes")}
    found = decoded(json.dumps(old).encode())
    assert found.rows is not None
    np.testing.assert_array_equal(found.rows.cpu_nonzero, found.rows.cpu_requested)
    assert (found.demand.cpu_nonzero, found.demand.memory_contained) == (found.demand.cpu, found.demand.memory)
    assert (found.odd, found.odd_nodes) == (0, ())


WRITTEN_BY_SQLALCHEMY = """
CREATE TABLE decisions (
\tuid VARCHAR NOT NULL,\x20
\tat FLOAT NOT NULL,\x20
\tnamespace VARCHAR NOT NULL,\x20
\tname VARCHAR NOT NULL,\x20
\trecord BLOB NOT NULL,\x20
\tPRIMARY KEY (uid)
)
 WITHOUT ROWID

;
CREATE INDEX decisions_at ON decisions (at);
CREATE INDEX decisions_name ON decisions (namespace, name);
PRAGMA application_id = 1835099236;
PRAGMA user_version = 1;
PRAGMA journal_mode = WAL;
"""
"""What 0.1.0 made of an empty file, word for word."""


def test_a_file_written_by_0_1_0_opens_and_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.executescript(WRITTEN_BY_SQLALCHEMY)
        row = ("uid-old", 1000.0, "default", "old", encoded(a_decision("uid-old", name="old", at=1000.0)))
        connection.execute("INSERT INTO decisions VALUES (?, ?, ?, ?, ?)", row)
    with opened(path) as store:
        store.put(a_decision("uid-new"))
        until(lambda: store.counts.written == 1)
        assert [decision.uid for decision in store.latest(10)] == ["uid-old", "uid-new"]
        found = store.find("default", "old")
    assert found is not None
    assert found.uid == "uid-old"
    with closing(sqlite3.connect(path)) as connection:
        kinds = connection.execute("SELECT type, name FROM sqlite_master ORDER BY name").fetchall()
    decisions = [("table", "decisions"), ("index", "decisions_at"), ("index", "decisions_name")]
    assert kinds == [*decisions, ("table", "records"), ("index", "sqlite_autoindex_records_1")]


def test_past_decisions_are_found_after_a_restart(run_service: Run, tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    first = run_service(ledger_path=path, scorer="kube-default")
    names = first.add_nodes(3)
    for name in ("one", "two", "three"):
        first.prioritize(names, pod(name))
    first.change(lambda table: table.pod_bound("uid-two", "node-1", 0.5, 1.0))
    told = first.decision("uid-two")
    first.background.stop()
    first.background._thread.join(20.0)

    second = run_service(ledger_path=path, scorer="kube-default", ledger_size=1)
    assert second.decision("uid-two") == told, "older than memory holds: read from the file"
    assert second.decision("uid-three")["candidates"] == 3
    listed = second.operations.get("/v1/decisions", params={"namespace": "default", "name": "one"}).json()
    assert [found["pod"]["uid"] for found in listed["decisions"]] == ["uid-one"]
    assert second.operations.get("/v1/decisions/uid-four").status_code == 404
    assert listed["counts"]["decisions"] == 0, "sums are of this process"
    second.change(lambda table: table.pod_bound("uid-three", "node-2", 0.5, 1.0))
    assert second.decision("uid-three")["outcome"]["node"] == "node-2", "outcomes of what was decided before count"
    until(lambda: second.metric("maddpg_ledger_writes_total", result="written") >= 1)


def test_rows_and_age_are_bounded(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    with opened(path, rows=50, age=500.0, now=1200.0) as store:
        for i in range(120):
            store.put(a_decision(f"uid-{i}", number=i))
        store.put(a_decision("uid-old", at=699.0))
        until(lambda: store.counts.written == 121)
        store.trim()
        assert len(store) == 50
        assert store.get("uid-old") is None
        assert (store.get("uid-69"), store.get("uid-119") is not None) == (None, True)
        assert [decision.uid for decision in store.latest(2)] == ["uid-118", "uid-119"]


@pytest.mark.parametrize("odd", [{"name": "\ud800"}, {"warning": object()}], ids=["surrogate", "foreign object"])
def test_a_decision_that_cannot_be_written_is_dropped_alone(tmp_path: Path, odd: dict[str, Any]) -> None:
    failures = Failures()
    store = DecisionStore(tmp_path / "ledger.db", 100, DAY, failures, clock=lambda: 2000.0)
    for decision in (a_decision("uid-0"), a_decision("uid-odd", **odd), a_decision("uid-1")):
        store.put(decision)
    store.start()
    assert store.stop(30.0)
    assert (store.counts.written, store.counts.dropped, failures.counts()) == (2, 1, {"ledger": 1})


def test_writing_goes_on_after_a_failure_that_nobody_expected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    failures = Failures()
    store = DecisionStore(tmp_path / "ledger.db", 100, DAY, failures, clock=lambda: 2000.0)
    with monkeypatch.context() as patched:
        patched.setattr(store, "trim", lambda: sys.exit("s3cret"))
        store.start()
        until(lambda: failures.counts().get("ledger", 0) > 0)
    store.put(a_decision("uid-0"))
    until(lambda: store.counts.written == 1)
    assert store.stop(30.0)


def test_what_finds_no_room_is_dropped_and_counted_and_the_newest_state_takes_the_place_of_one_that_waits(
    tmp_path: Path,
) -> None:
    store = DecisionStore(tmp_path / "ledger.db", 100, DAY, Failures(), clock=lambda: 2000.0, capacity=3)
    for i in range(5):
        store.put(a_decision(f"uid-{i}"))
    store.put(a_decision("uid-0", attempt=2))
    assert (store.waiting, store.counts.dropped) == (3, 2)
    store.start()
    assert store.stop(30.0)
    again = DecisionStore(tmp_path / "ledger.db", 100, DAY, Failures())
    found = [again.get(f"uid-{i}") for i in range(5)]
    assert [None if it is None else it.attempt for it in found] == [2, 1, 1, None, None]
    again.stop()


def test_putting_never_waits_for_the_disk(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    with opened(path) as store, closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")  # the file is locked for as long as we like
        store.put(a_decision("uid-first"))
        time.sleep(0.5)
        began = time.perf_counter()
        for i in range(1000):
            store.put(a_decision(f"uid-{i % 10}"))
        assert time.perf_counter() - began < 4.0, "a locked file is waited for 5 s"
        other.execute("ROLLBACK")


def test_who_reads_while_a_decision_is_added_sees_no_more_than_its_size(monkeypatch: pytest.MonkeyPatch) -> None:
    ledger = Ledger(500, row_of=lambda name: 0)
    seen = []
    add = Pages.add

    def add_and_look(pages: Pages[Decision], item: Decision) -> int:
        place = add(pages, item)
        seen.append(sum(1 for _ in ledger.latest()))
        return place

    monkeypatch.setattr(Pages, "add", add_and_look)
    ledger.restore(a_decision(f"uid-{i}") for i in range(600))
    for i in range(600, 700):
        ledger.record(a_decision(f"uid-{i}"))
        ledger.record(a_decision("uid-often"))
    assert (len(seen), max(seen), len(ledger)) == (800, 500, 500)


def test_many_threads_share_one_ledger(tmp_path: Path) -> None:
    with opened(tmp_path / "ledger.db", rows=10_000) as store:
        ledger = Ledger(500, row_of=lambda name: 0, keep=store.put)

        def work(part: int) -> None:
            for i in range(200):
                uid = f"uid-{part}-{i}"
                ledger.record(a_decision(uid))
                ledger.pod_bound(uid, "node-0", 2000.0)
                ledger.pod_removed(uid, "succeeded", 2001.0)
                assert sum(1 for _ in ledger.latest()) <= 500

        threads = [threading.Thread(target=work, args=(part,)) for part in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert (ledger.counts.decisions, len(ledger)) == (1200, 500)
        assert ledger.counts.bound == ledger.counts.ended["succeeded"] <= 1200
    again = DecisionStore(tmp_path / "ledger.db", 10_000, DAY, Failures())
    assert len(again) == 1200
    assert all(it.outcome is not None for it in again.latest(400))
    again.stop()


def write_text(path: Path) -> None:
    path.write_text("this is no database, and long enough to look like one " * 40)


def write_stranger(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE theirs (x)")


def write_newer(path: Path) -> None:
    DecisionStore(path, 1, DAY, Failures()).stop()
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA user_version = 7")


@pytest.mark.parametrize(
    ("write", "said"),
    [
        pytest.param(write_text, "cannot be used as a ledger: DatabaseError (SQLITE_NOTADB)", id="no-database"),
        pytest.param(write_stranger, "another program's database; give a file of its own", id="another-programs"),
        pytest.param(write_newer, "has schema version 7, and this program knows 1 alone", id="a-newer-version"),
        pytest.param(lambda path: path.mkdir(), "cannot be used as a ledger", id="a-folder"),
    ],
)
def test_a_file_that_is_no_ledger_of_ours_is_refused_and_left_as_it_is(
    tmp_path: Path, write: Callable[[Path], None], said: str
) -> None:
    path = tmp_path / "ledger.db"
    write(path)
    before = path.read_bytes() if path.is_file() else b""
    with pytest.raises(LedgerError, match=re.escape(said)):
        DecisionStore(path, 10, DAY, Failures())
    assert (path.read_bytes() if path.is_file() else b"") == before
    refused = CliRunner().invoke(app, ["serve", "--ledger-path", str(path)])
    assert (refused.exit_code, said in refused.output) == (2, True)


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(LedgerError, match=r"there is no folder .*nowhere; make it, or mount a volume there"):
        DecisionStore(tmp_path / "nowhere" / "ledger.db", 10, DAY, Failures())
    with pytest.raises(LedgerError, match=r"cannot be used as a ledger: File name too long"):
        DecisionStore(tmp_path / ("a" * 300) / "ledger.db", 10, DAY, Failures())


def test_a_stored_decision_that_does_not_decode_is_left_out_and_counted(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    with opened(path) as store:
        for uid in ("uid-good", "uid-bad"):
            store.put(a_decision(uid))
        until(lambda: store.counts.written == 2)
        with closing(sqlite3.connect(path)) as connection, connection:
            connection.execute("UPDATE decisions SET record = x'7b7d' WHERE uid = 'uid-bad'")
        assert [decision.uid for decision in store.latest(10)] == ["uid-good"]
        assert store.get("uid-bad") is None
        assert store.counts.unreadable == 2


def test_memory_alone_needs_no_database_library() -> None:
    code = """
import sys
from extender.app import create_app
from tests.extender.embedded import EmbeddedSource
from extender.settings import Settings
create_app(Settings(scorer="kube-default"), EmbeddedSource())
print([name for name in ("sqlite3",) if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout.strip() == "[]"


@contextmanager
def service_process(path: Path, file_limit: int = 0) -> Iterator[tuple[subprocess.Popen[str], httpx.Client]]:
    """A service with its ledger at `path`, in a process of its own, killed at the end."""
    command = [sys.executable, "-m", "tests.extender.history.ledger_process", str(path), str(file_limit)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stderr is not None
    try:
        port = process.stdout.readline().strip()
        assert port, process.stderr.read()
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=20.0) as client:
            yield process, client
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
        process.stderr.close()


def decide(client: httpx.Client, name: str) -> None:
    answer = client.post("/prioritize", json=by_names([f"node-{i}" for i in range(5)], pod(name)))
    assert answer.status_code == 200
    assert 1 <= len(answer.json()) <= 5


def sample(client: httpx.Client, line: str) -> float:
    """One sample of /metrics; 0 where it is not there yet."""
    found = re.search(rf"^{re.escape(line)} (\S+)$", client.get("/metrics").text, re.MULTILINE)
    return float(found[1]) if found else 0.0


def test_a_killed_process_tears_no_record(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    committed = 0.0
    for life in range(3):
        with service_process(path) as (process, client):
            for i in range(300):
                decide(client, f"pod-{life}-{i}")
            until(lambda: sample(client, 'maddpg_ledger_writes_total{result="written"}') >= 100)
            for i in range(100):
                decide(client, f"late-{life}-{i}")
            committed += sample(client, 'maddpg_ledger_writes_total{result="written"}')
            process.send_signal(signal.SIGKILL)
            process.wait()
        with closing(sqlite3.connect(path)) as connection:
            assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
            rows = connection.execute("SELECT uid, name, record FROM decisions").fetchall()
        assert len(rows) >= committed
        for uid, name, record in rows:
            whole = decoded(record)
            assert (whole.uid, whole.name, len(whole.names), whole.candidates) == (uid, name, 5, 5)
            assert encoded(whole) == record
    assert committed >= 300


def test_decisions_go_on_while_the_disk_is_full_and_are_written_once_there_is_room(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    failures, written = 'maddpg_ledger_writes_total{result="failures"}', 'maddpg_ledger_writes_total{result="written"}'
    with service_process(path, file_limit=96 * 1024) as (process, client):
        for i in range(400):
            decide(client, f"pod-{i}")
        until(lambda: sample(client, failures) >= 2)
        for i in range(400, 450):
            decide(client, f"pod-{i}")
        assert sample(client, 'maddpg_requests_total{code="200",verb="prioritize"}') == 450
        assert sample(client, "maddpg_ledger_waiting") > 0
        process.send_signal(signal.SIGUSR1)
        until(lambda: sample(client, written) >= 450, 60.0)
        assert sample(client, "maddpg_ledger_waiting") == 0
        assert client.get("/v1/decisions/uid-pod-449").status_code == 200
        process.kill()
        process.wait()
        assert process.stderr is not None
        lines = [json.loads(line) for line in process.stderr.read().splitlines()]
    assert [line["event"] for line in lines if "cannot be written" in line["event"]] == [
        "decisions cannot be written; they go on without"
    ], "said once"
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert connection.execute("SELECT count(*) FROM decisions").fetchone() == (450,)
