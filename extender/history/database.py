"""The ledger's SQLite file: its schema and version, and the connections to it. Refuses a file that is not ours."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Final

from extender.errors import LedgerError, kind_of

SCHEMA_VERSION: Final = 1
"""Grows whenever an older program could not read the file."""

APPLICATION_ID: Final = 0x6D616464
"""Marks the file as ours ("madd"); https://sqlite.org/pragma.html#pragma_application_id."""

LONGEST_JOURNAL: Final = 16 * 1024 * 1024
"""Bytes that the write-ahead log keeps after a checkpoint."""

BUSY_TIMEOUT: Final = 5.0
"""Seconds that a statement waits for a file that another connection has locked."""

SCHEMA: Final = f"""
CREATE TABLE IF NOT EXISTS decisions (
  uid VARCHAR NOT NULL,
  at FLOAT NOT NULL,
  namespace VARCHAR NOT NULL,
  name VARCHAR NOT NULL,
  record BLOB NOT NULL,
  PRIMARY KEY (uid)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS decisions_at ON decisions (at);
CREATE INDEX IF NOT EXISTS decisions_name ON decisions (namespace, name);
CREATE TABLE IF NOT EXISTS records (name VARCHAR NOT NULL, record BLOB NOT NULL, PRIMARY KEY (name));
PRAGMA application_id = {APPLICATION_ID};
PRAGMA user_version = {SCHEMA_VERSION};
"""


def prepare(path: Path) -> None:
    """Make the table in the file where it is missing.

    Raises:
        LedgerError: the file cannot be used; no folder, no right, no SQLite database, another
            program's, or a version that this one does not know.
    """
    try:
        if not path.parent.is_dir():
            raise LedgerError(f"ledger_path: there is no folder {path.parent}; make it, or mount a volume there")
        with closing(connected(path)) as connection:
            _check(connection, path)
            connection.execute("PRAGMA journal_mode = WAL")  # once: the file remembers it
            connection.executescript(f"BEGIN; {SCHEMA} COMMIT")
    except (sqlite3.Error, OSError) as error:
        raise LedgerError(f"ledger_path: {path} cannot be used as a ledger: {kind_of(error)}") from error


def connected(path: Path, check_same_thread: bool = True) -> sqlite3.Connection:
    """A connection to the file, to be closed by the caller."""
    connection = sqlite3.connect(path, timeout=BUSY_TIMEOUT, check_same_thread=check_same_thread)
    try:
        connection.execute("PRAGMA synchronous = NORMAL")
        connection.execute(f"PRAGMA journal_size_limit = {LONGEST_JOURNAL}")
    except sqlite3.Error:
        connection.close()
        raise
    return connection


def _check(connection: sqlite3.Connection, path: Path) -> None:
    """Refuse a database that is not ours, or of a version that we do not know."""
    owner = _scalar(connection, "PRAGMA application_id")
    version = _scalar(connection, "PRAGMA user_version")
    if owner == 0 and version == 0 and not _scalar(connection, "SELECT count(*) FROM sqlite_master"):
        return
    if owner != APPLICATION_ID:
        raise LedgerError(f"ledger_path: {path} is another program's database; give a file of its own")
    if version != SCHEMA_VERSION:
        raise LedgerError(
            f"ledger_path: {path} has schema version {version}, and this program knows {SCHEMA_VERSION} alone; "
            "give another file, or run the version that wrote it"
        )


def count(connection: sqlite3.Connection) -> int:
    """Decisions in the file."""
    return _scalar(connection, "SELECT count(*) FROM decisions")


def _scalar(connection: sqlite3.Connection, query: str) -> int:
    """The first column of a query's first row."""
    return int(connection.execute(query).fetchone()[0])
