"""Decisions on disk: SQLite through SQLAlchemy, written by one thread in batches. Refuses to make a decision wait.

One row a pod: its latest decision and what became of it, as JSON, replaced as a whole in a transaction. In WAL mode
with synchronous=NORMAL a process that is killed loses what it had not yet written (`BATCH_INTERVAL`) and tears nothing;
a machine that loses power may lose the last transactions too (https://sqlite.org/wal.html).

What waits to be written is bounded, and what finds no room is dropped and counted. Where the disk is full or gone,
writing is tried again, ever more rarely, and what is new enough to have waited is written then.

Imported only where `ledger_path` is set: SQLAlchemy costs memory.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np
import structlog
from sqlalchemy import (
    Column,
    Connection,
    Engine,
    Float,
    Index,
    LargeBinary,
    MetaData,
    RowMapping,
    String,
    Table,
    create_engine,
    delete,
    event,
    func,
    select,
    text,
)
from sqlalchemy.dialects.sqlite import insert
from sqlalchemy.engine import URL
from sqlalchemy.exc import DatabaseError, SQLAlchemyError

from extender.errors import LedgerError
from extender.history.ledger import Decision

SCHEMA_VERSION: Final = 1
"""Grows whenever an older program could not read the file."""

APPLICATION_ID: Final = 0x6D616464
"""Marks the file as ours ("madd"); https://sqlite.org/pragma.html#pragma_application_id."""

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

LONGEST_JOURNAL: Final = 16 * 1024 * 1024
"""Bytes that the write-ahead log keeps after a checkpoint."""

_TABLES: Final = MetaData()
_DECISIONS: Final = Table(
    "decisions",
    _TABLES,
    Column("uid", String, primary_key=True),
    Column("at", Float, nullable=False),
    Column("namespace", String, nullable=False),
    Column("name", String, nullable=False),
    Column("record", LargeBinary, nullable=False),
    Index("decisions_at", "at"),
    Index("decisions_name", "namespace", "name"),
    sqlite_with_rowid=False,
)

log = structlog.stdlib.get_logger(__name__)


@dataclass(slots=True)
class StoreCounts:
    """What happened since the start.

    Attributes:
        written: decisions written, each time anew that its outcome changed.
        dropped: decisions that found no room, because writing fell behind or failed for long.
        failures: attempts to write that failed.
        unreadable: rows that do not decode.
    """

    written: int = 0
    dropped: int = 0
    failures: int = 0
    unreadable: int = 0


class DecisionStore:
    """The decisions of one service in one file. Thread safe; `put` never waits for the disk.

    Args:
        path: the file; made if it is missing. One service a file.
        rows: decisions kept; the oldest go first.
        age: seconds that a decision is kept.
        clock: seconds since the epoch.
        capacity: decisions that may wait to be written.

    Attributes:
        counts: see there.

    Raises:
        LedgerError: the file cannot be used: no folder, no right, no SQLite database, another program's, or a version
            that this one does not know.
    """

    def __init__(
        self,
        path: Path,
        rows: int,
        age: float,
        clock: Callable[[], float] = time.time,
        capacity: int = CAPACITY,
    ) -> None:
        self.path = path
        self.counts = StoreCounts()
        self._rows = rows
        self._age = age
        self._clock = clock
        self._capacity = capacity
        self._waiting: OrderedDict[str, Decision] = OrderedDict()
        self._room = threading.Lock()
        self._stopping = threading.Event()
        self._trouble = False
        self._trimmed_at = 0.0
        self._thread: threading.Thread | None = None
        self._engine = _opened(path)

    # ---- writing -------------------------------------------------------------------------------------------------

    def put(self, decision: Decision) -> None:
        """Have it written soon; a later state of the same decision takes the place of one that still waits."""
        with self._room:
            if decision.uid in self._waiting or len(self._waiting) < self._capacity:
                self._waiting[decision.uid] = decision
            else:
                self.counts.dropped += 1

    @property
    def waiting(self) -> int:
        """Decisions that wait to be written."""
        return len(self._waiting)

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
        self._engine.dispose()
        return not self._waiting

    def _run(self) -> None:
        pause = BATCH_INTERVAL
        while not self._stopping.wait(pause):
            pause = BATCH_INTERVAL if self._flush() else min(2.0 * pause, LONGEST_WAIT)
        self._flush()

    def _flush(self) -> bool:
        """Write what waits; returns whether the disk took it."""
        try:
            while batch := self._batch():
                self._write(batch)
            if self._clock() - self._trimmed_at >= TRIM_INTERVAL or self._clock() < self._trimmed_at:
                self.trim()
        except (SQLAlchemyError, OSError) as error:
            self.counts.failures += 1
            if not self._trouble:
                log.warning("decisions cannot be written; they go on without", path=str(self.path), error=_cause(error))
            self._trouble = True
            self._engine.dispose()  # a connection that met a full disk is not trusted again
            return False
        if self._trouble:
            log.info("decisions are written again", path=str(self.path), dropped=self.counts.dropped)
            self._trouble = False
        return True

    def _batch(self) -> list[Decision]:
        with self._room:
            return [self._waiting.popitem(last=False)[1] for _ in range(min(BATCH, len(self._waiting)))]

    def _write(self, batch: list[Decision]) -> None:
        """One transaction; on failure the batch waits again, unless newer states took its place."""
        try:
            rows = [
                {"uid": it.uid, "at": it.at, "namespace": it.namespace, "name": it.name, "record": encoded(it)}
                for it in batch
            ]
            statement = insert(_DECISIONS)
            changed = {name: statement.excluded[name] for name in ("at", "namespace", "name", "record")}
            with self._engine.begin() as connection:
                connection.execute(statement.on_conflict_do_update(index_elements=["uid"], set_=changed), rows)
        except (SQLAlchemyError, OSError):
            with self._room:
                for decision in reversed(batch):
                    if decision.uid in self._waiting:
                        continue
                    if len(self._waiting) < self._capacity:
                        self._waiting[decision.uid] = decision
                        self._waiting.move_to_end(decision.uid, last=False)
                    else:
                        self.counts.dropped += 1
            raise
        self.counts.written += len(batch)

    def trim(self) -> int:
        """Delete what is too old and what is too much; returns how many. Freed pages are used again."""
        deleted = 0
        with self._engine.begin() as connection:
            old = connection.execute(delete(_DECISIONS).where(_DECISIONS.c.at < self._clock() - self._age))
            deleted += old.rowcount
            excess = (connection.scalar(select(func.count()).select_from(_DECISIONS)) or 0) - self._rows
            if excess > 0:
                oldest = select(_DECISIONS.c.uid).order_by(_DECISIONS.c.at).limit(excess)
                deleted += connection.execute(delete(_DECISIONS).where(_DECISIONS.c.uid.in_(oldest))).rowcount
        self._trimmed_at = self._clock()
        return deleted

    # ---- reading -------------------------------------------------------------------------------------------------

    def get(self, uid: str) -> Decision | None:
        """The latest decision for this pod, or None.

        Raises:
            LedgerError: the file cannot be read.
        """
        found = self._read(select(_DECISIONS).where(_DECISIONS.c.uid == uid))
        return found[0] if found else None

    def find(self, namespace: str, name: str) -> Decision | None:
        """The latest decision for the pod of this name, or None; raises as `get`."""
        named = (_DECISIONS.c.namespace == namespace) & (_DECISIONS.c.name == name)
        found = self._read(select(_DECISIONS).where(named).order_by(_DECISIONS.c.at.desc()).limit(1))
        return found[0] if found else None

    def latest(self, count: int) -> list[Decision]:
        """The `count` latest decisions, oldest first; raises as `get`."""
        return self._read(select(_DECISIONS).order_by(_DECISIONS.c.at.desc()).limit(count))[::-1]

    def __len__(self) -> int:
        """Decisions stored."""
        try:
            with self._engine.connect() as connection:
                return connection.scalar(select(func.count()).select_from(_DECISIONS)) or 0
        except SQLAlchemyError as error:
            raise LedgerError(f"the ledger {self.path} cannot be read: {_cause(error)}") from error

    def _read(self, query: Any) -> list[Decision]:
        try:
            with self._engine.connect() as connection:
                rows = connection.execute(query).mappings().all()
        except SQLAlchemyError as error:
            raise LedgerError(f"the ledger {self.path} cannot be read: {_cause(error)}") from error
        return [decision for row in rows if (decision := self._decoded(row)) is not None]

    def _decoded(self, row: RowMapping) -> Decision | None:
        try:
            return decoded(row["record"])
        except (msgspec.ValidationError, msgspec.DecodeError, ValueError) as error:
            self.counts.unreadable += 1
            log.warning("a stored decision does not decode", uid=row["uid"], error=str(error))
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
    raise NotImplementedError(f"{type(value).__name__} in a decision")


def _array(_: object, value: Any) -> Any:
    return np.array(value)


def _opened(path: Path) -> Engine:
    """The database, with our tables, or a reason why not."""
    if not path.parent.is_dir():
        raise LedgerError(f"ledger_path: there is no folder {path.parent}; make it, or mount a volume there")
    engine = create_engine(URL.create("sqlite", database=str(path)))
    event.listen(engine, "connect", _configure)
    try:
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            _check(connection, path)
            connection.execute(text("PRAGMA journal_mode = WAL"))  # once: the file remembers it
        with engine.begin() as connection:
            _TABLES.create_all(connection)
            connection.execute(text(f"PRAGMA application_id = {APPLICATION_ID}"))
            connection.execute(text(f"PRAGMA user_version = {SCHEMA_VERSION}"))
    except (DatabaseError, OSError) as error:
        raise LedgerError(f"ledger_path: {path} cannot be used as a ledger: {_cause(error)}") from error
    finally:
        engine.dispose()  # connections are made where they are used, and a service that is not started needs none
    return engine


def _check(connection: Connection, path: Path) -> None:
    """Refuse a database that is not ours, or of a version that we do not know."""
    owner = connection.scalar(text("PRAGMA application_id"))
    version = connection.scalar(text("PRAGMA user_version"))
    if owner == 0 and version == 0 and not connection.scalar(text("SELECT count(*) FROM sqlite_master")):
        return
    if owner != APPLICATION_ID:
        raise LedgerError(f"ledger_path: {path} is another program's database; give a file of its own")
    if version != SCHEMA_VERSION:
        raise LedgerError(
            f"ledger_path: {path} has schema version {version}, and this program knows {SCHEMA_VERSION} alone; "
            "give another file, or run the version that wrote it"
        )


def _configure(connection: Any, _: object) -> None:
    """What every connection needs."""
    cursor = connection.cursor()
    for pragma in (
        "synchronous = NORMAL",
        f"journal_size_limit = {LONGEST_JOURNAL}",
        "busy_timeout = 5000",
    ):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _cause(error: BaseException) -> str:
    """What the database says, without the statement and its values."""
    return str(getattr(error, "orig", None) or error)[:300]
