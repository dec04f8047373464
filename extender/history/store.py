"""Decisions on disk, in one SQLite file, written by one thread in batches. A decision never waits for the disk.

One row per pod holds its latest decision and its outcome as JSON, and is replaced as a whole in a transaction. In WAL
mode with synchronous=NORMAL a process that is killed loses what it had not yet written (`BATCH_INTERVAL`) and tears
nothing. A machine that loses power may lose the last transactions too (https://sqlite.org/wal.html).

The queue of decisions to be written is bounded. A decision that finds it full is dropped and counted. While the disk is
full or gone, the thread tries again at growing intervals, and then writes what is still in the queue.

Imported only where `ledger_path` is set: SQLite costs memory.
"""

from __future__ import annotations

import sqlite3
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np
import structlog

from extender.errors import LedgerError, kind_of
from extender.history.contenders import Contenders
from extender.history.database import connected, count, prepare
from extender.history.ledger import Decision
from extender.supervision import Failures

BATCH: Final = 500
"""Most decisions in one transaction."""

BATCH_INTERVAL: Final = 0.2
"""Seconds between two transactions: what a killed process loses at most."""

CAPACITY: Final = 20_000
"""Most decisions that wait to be written."""

TRIM_INTERVAL: Final = 60.0
"""Seconds between two looks at how much is stored."""

LONGEST_WAIT: Final = 30.0
"""Seconds between two attempts to write while the disk takes nothing."""

UPSERT: Final = """
INSERT INTO decisions (uid, at, namespace, name, record) VALUES (?, ?, ?, ?, ?)
ON CONFLICT (uid) DO UPDATE SET
  at = excluded.at, namespace = excluded.namespace, name = excluded.name, record = excluded.record
"""

TRIM: Final = "DELETE FROM decisions WHERE uid IN (SELECT uid FROM decisions ORDER BY at LIMIT ?)"

log = structlog.stdlib.get_logger(__name__)


@dataclass(slots=True)
class StoreCounts:
    """What happened since the start."""

    written: int = 0  # decisions written, each time anew that its outcome changed
    dropped: int = 0  # decisions that found no room, because writing fell behind or failed for long
    failures: int = 0  # attempts to write that failed
    unreadable: int = 0  # rows that do not decode


@dataclass(eq=False)
class DecisionStore:
    """The decisions of one service in one file. Thread safe; `put` never waits for the disk.

    Raises:
        LedgerError: the file cannot be used: no folder, no right, no SQLite database, another program's, or a version
            that this one does not know.
    """

    path: Path  # the file; made if it is missing. One service a file
    rows: int  # decisions kept; the oldest go first
    age: float  # seconds that a decision is kept
    failures: Failures
    clock: Callable[[], float] = time.time
    capacity: int = CAPACITY

    def __post_init__(self) -> None:
        self.counts = StoreCounts()
        self._waiting: OrderedDict[str, Decision] = OrderedDict()
        self._under_way = 0
        self._room = threading.Lock()
        self._stopping = threading.Event()
        self._trouble = False
        self._trimmed_at = 0.0
        self._thread: threading.Thread | None = None
        self._writing = threading.Lock()
        self._connection: sqlite3.Connection | None = None
        """The writing connection: made when it is needed, and again after a failure. Readers make their own."""
        prepare(self.path)

    # ---- writing -------------------------------------------------------------------------------------------------

    def put(self, decision: Decision) -> None:
        """Have it written soon; a later state of the same decision takes the place of one that still waits."""
        with self._room:
            if decision.uid in self._waiting or len(self._waiting) < self.capacity:
                self._waiting[decision.uid] = decision
            else:
                self.counts.dropped += 1

    @property
    def waiting(self) -> int:
        """Decisions that wait to be written, those under way among them: a full disk may refuse them."""
        return len(self._waiting) + self._under_way

    def start(self) -> None:
        """Begin to write, in a thread of its own."""
        self._thread = threading.Thread(target=self._run, name="ledger", daemon=True)
        self._thread.start()

    def stop(self, timeout: float = 5.0) -> bool:
        """Write what waits and end; returns whether that was done within `timeout` seconds."""
        self._stopping.set()
        if self._thread is not None:
            self._thread.join(timeout)
            if self._thread.is_alive():
                return False
        self._close()
        return not self._waiting

    def _run(self) -> None:
        pause = BATCH_INTERVAL
        while not self._stopping.wait(pause):
            pause = BATCH_INTERVAL if self._attempt() else min(2.0 * pause, LONGEST_WAIT)
        self._attempt()

    def _attempt(self) -> bool:
        """Write what waits; a failure that nobody expected is counted and must not end the thread."""
        try:
            return self._flush()
        except BaseException as error:
            self.failures.record("ledger", error)
            self.counts.failures += 1
            return False

    def _flush(self) -> bool:
        """Write what waits; returns whether the disk took it."""
        try:
            while batch := self._batch():
                try:
                    self._write(batch)
                finally:
                    self._under_way = 0
            if self.clock() - self._trimmed_at >= TRIM_INTERVAL or self.clock() < self._trimmed_at:
                self.trim()
        except (sqlite3.Error, OSError) as error:
            self.counts.failures += 1
            if not self._trouble:
                log.warning(
                    "decisions cannot be written; they go on without", path=str(self.path), error=kind_of(error)
                )
            self._trouble = True
            self._close()  # a connection that met a full disk is not trusted again
            return False
        if self._trouble:
            log.info("decisions are written again", path=str(self.path), dropped=self.counts.dropped)
            self._trouble = False
        return True

    def _batch(self) -> list[Decision]:
        with self._room:
            batch = [self._waiting.popitem(last=False)[1] for _ in range(min(BATCH, len(self._waiting)))]
            self._under_way = len(batch)
            return batch

    def _write(self, batch: list[Decision]) -> None:
        """One transaction; on failure the batch waits again, unless newer states took its place."""
        try:
            rows = [row for it in batch if (row := self._row(it)) is not None]
            with self._writing, self._writer() as connection:
                connection.executemany(UPSERT, rows)
        except (sqlite3.Error, OSError):
            with self._room:
                for decision in reversed(batch):
                    if decision.uid in self._waiting:
                        continue
                    if len(self._waiting) < self.capacity:
                        self._waiting[decision.uid] = decision
                        self._waiting.move_to_end(decision.uid, last=False)
                    else:
                        self.counts.dropped += 1
            raise
        self.counts.written += len(rows)

    def _row(self, it: Decision) -> tuple[str, float, str, str, bytes] | None:
        """The decision as a row; None, counted as dropped, for one that cannot be encoded: the others are written."""
        try:
            f"{it.uid}{it.namespace}{it.name}".encode()  # a lone surrogate would fail the whole batch in SQLite
            return it.uid, it.at, it.namespace, it.name, encoded(it)
        except Exception as error:
            self.failures.record("ledger", error)
            self.counts.dropped += 1
            return None

    def keep(self, name: str, record: bytes) -> None:
        """Keep a record of another part in place of its former one; waits for the disk. A failure is counted."""
        try:
            with self._writing, self._writer() as connection:
                connection.execute("INSERT OR REPLACE INTO records (name, record) VALUES (?, ?)", (name, record))
        except (sqlite3.Error, OSError) as error:
            self.counts.failures += 1
            log.warning("a record cannot be kept", path=str(self.path), record=name, error=kind_of(error))

    def kept(self, name: str) -> bytes | None:
        """Return that record; None where there is none, or where it cannot be read; waits for the disk."""
        try:
            with closing(connected(self.path)) as connection:
                row = connection.execute("SELECT record FROM records WHERE name = ?", (name,)).fetchone()
        except (sqlite3.Error, OSError) as error:
            log.warning("a record cannot be read", path=str(self.path), record=name, error=kind_of(error))
            return None
        return row[0] if row is not None and isinstance(row[0], bytes) else None

    def trim(self) -> int:
        """Delete what is too old and what is too much; returns how many. Freed pages are used again."""
        with self._writing, self._writer() as connection:
            oldest_allowed = self.clock() - self.age
            deleted = connection.execute("DELETE FROM decisions WHERE at < ?", (oldest_allowed,)).rowcount
            excess = count(connection) - self.rows
            if excess > 0:
                deleted += connection.execute(TRIM, (excess,)).rowcount
        self._trimmed_at = self.clock()
        return deleted

    def _writer(self) -> sqlite3.Connection:
        """The writing connection; as a context manager it is one transaction. Hold `_writing` meanwhile."""
        if self._connection is None:
            # `trim` may be called from other threads than the one that writes; `_writing` keeps them apart
            self._connection = connected(self.path, check_same_thread=False)
        return self._connection

    def _close(self) -> None:
        with self._writing:
            if self._connection is not None:
                self._connection.close()
                self._connection = None

    # ---- reading -------------------------------------------------------------------------------------------------

    def get(self, uid: str) -> Decision | None:
        """The latest decision for this pod, or None. Raises `LedgerError` if the file cannot be read."""
        found = self._read("WHERE uid = ?", (uid,))
        return found[0] if found else None

    def find(self, namespace: str, name: str) -> Decision | None:
        """The latest decision for the pod of this name, or None; raises as `get`."""
        found = self._read("WHERE namespace = ? AND name = ? ORDER BY at DESC LIMIT 1", (namespace, name))
        return found[0] if found else None

    def latest(self, count: int) -> list[Decision]:
        """The `count` latest decisions, oldest first; raises as `get`."""
        return self._read("ORDER BY at DESC LIMIT ?", (count,))[::-1]

    def __len__(self) -> int:
        """Decisions stored."""
        try:
            with closing(connected(self.path)) as connection:
                return count(connection)
        except sqlite3.Error as error:
            raise LedgerError(f"the ledger {self.path} cannot be read: {kind_of(error)}") from error

    def _read(self, clause: str, values: tuple[object, ...]) -> list[Decision]:
        """The decisions that a clause of ours selects; `values` take the places of its question marks."""
        try:
            with closing(connected(self.path)) as connection:
                rows = connection.execute(f"SELECT uid, record FROM decisions {clause}", values).fetchall()  # noqa: S608 # nosec B608 # clauses of ours
        except sqlite3.Error as error:
            raise LedgerError(f"the ledger {self.path} cannot be read: {kind_of(error)}") from error
        return [decision for uid, record in rows if (decision := self._decoded(uid, record)) is not None]

    def _decoded(self, uid: str, record: bytes) -> Decision | None:
        try:
            return decoded(record)
        except (msgspec.ValidationError, msgspec.DecodeError, ValueError) as error:
            self.counts.unreadable += 1
            log.warning("a stored decision does not decode", uid=uid, error=kind_of(error))
            return None


def encoded(decision: Decision) -> bytes:
    """The decision as JSON; fields by name, arrays as lists."""
    return msgspec.json.encode(decision, enc_hook=_plain)


def decoded(record: bytes) -> Decision:
    """A decision from its JSON; fields that this version does not know are left out.

    Raises:
        msgspec.ValidationError: it is none.
    """
    return msgspec.json.decode(record, type=Decision, dec_hook=_array)


def _plain(value: object) -> Any:
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, Contenders):
        return None
    raise NotImplementedError(f"{type(value).__name__} in a decision")


def _array(_: object, value: Any) -> Any:
    return np.array(value)
