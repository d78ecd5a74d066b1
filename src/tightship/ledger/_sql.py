"""SQLite plumbing: connections, statements from .sql files, errors in the tree's terms."""

from __future__ import annotations

import contextlib
import sqlite3
import time
from collections.abc import Generator
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Final

from tightship.core.errors import (
    LedgerError,
    StoreCorrupt,
    StoreError,
    StoreFull,
    StoreReadOnly,
    TightshipError,
)

BUSY_SECONDS: Final = 30.0
CHECKPOINT_PAGES: Final = 4000
"""Pages of the write-ahead log (16 MB) after which it is folded into the file: a page that every commit changes is then
written back once for many commits."""
"""How long a statement waits for another process before it gives up."""

_FULL: Final = frozenset({sqlite3.SQLITE_FULL})
_READ_ONLY: Final = frozenset(
    {
        sqlite3.SQLITE_READONLY,
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_PERM,
        sqlite3.SQLITE_AUTH,
    }
)
_BUSY: Final = frozenset({sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED})
_CORRUPT: Final = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_ERROR})
"""SQLITE_ERROR is what a statement of ours gets only when the schema in the file is not the one we made."""
_UNREADABLE: Final = frozenset(
    {
        sqlite3.SQLITE_IOERR_READ,
        sqlite3.SQLITE_IOERR_SHORT_READ,
        sqlite3.SQLITE_IOERR_CORRUPTFS,
    }
)
_MISFIT: Final = frozenset({sqlite3.SQLITE_CONSTRAINT, sqlite3.SQLITE_MISMATCH, sqlite3.SQLITE_TOOBIG})
ERRORS: Final = (sqlite3.Error, OverflowError, UnicodeError)
"""What the module raises; UnicodeError where even SQLite's own message holds bytes of a damaged file."""


@cache
def script(name: str, dialect: str = "sqlite") -> str:
    """The text of `sql/DIALECT/NAME.sql`."""
    return resources.files("tightship.ledger").joinpath("sql", dialect, f"{name}.sql").read_text("utf-8").strip()


def connect(path: Path, journal: str = "WAL") -> sqlite3.Connection:
    """A connection whose commits are on the disk when they return."""
    db = sqlite3.connect(
        path,
        isolation_level=None,
        check_same_thread=False,
        cached_statements=512,
        timeout=BUSY_SECONDS,
    )
    try:
        if journal == "WAL":
            db.execute("PRAGMA auto_vacuum=INCREMENTAL")  # counts for a new file only: freed pages are given back
        mode = _use_journal(db, journal)
        if mode != journal.lower():
            raise StoreError(
                f"the database cannot use the journal mode {journal}, only {mode}",
                where=str(path),
                fix="put the store on a local disk",
            )
        for pragma in (
            "synchronous=FULL",
            "fullfsync=ON",
            "temp_store=MEMORY",
            f"wal_autocheckpoint={CHECKPOINT_PAGES}",
            "cache_size=-32000",
        ):
            db.execute(f"PRAGMA {pragma}")
    except BaseException:
        db.close()
        raise
    return db


def connect_read_only(path: Path, journal: str = "WAL") -> sqlite3.Connection:
    """A connection that writes nothing, and makes no file beside the database's either.

    A write-ahead log that somebody has left is read with it, by the index beside it (`-shm`); without a log the file
    holds everything and is read as it stands (sqlite.org/wal.html, "Read-Only Databases").

    Raises:
        StoreReadOnly: the log cannot be read here: its index is not there, and may not be made.
    """
    wal, index = Path(f"{path}-wal"), Path(f"{path}-shm")
    logged = journal == "WAL" and wal.exists() and wal.stat().st_size > 0
    if logged and not index.exists():
        raise StoreReadOnly(
            "the store was not closed: its write-ahead log has to be taken over, and nothing may be written here",
            where=str(wal),
            fix="run any command where the store can be written, or copy its folder to such a place",
        )
    how = "mode=ro&readonly_shm=1" if index.exists() or journal != "WAL" else "mode=ro&immutable=1"
    return sqlite3.connect(
        f"{path.absolute().as_uri()}?{how}",
        uri=True,
        isolation_level=None,
        check_same_thread=False,
        cached_statements=512,
        timeout=BUSY_SECONDS,
    )


def read_version(db: sqlite3.Connection) -> tuple[int, int]:
    """The schema's version in the file's header, and how many tables and indexes there are: both of one moment, since
    another process may be making them."""
    row: tuple[int, int] = db.execute(
        "SELECT (SELECT user_version FROM pragma_user_version), (SELECT count(*) FROM sqlite_master)"
    ).fetchone()
    return row


def _use_journal(db: sqlite3.Connection, journal: str) -> str:
    """Set the journal mode; SQLite does not wait by itself while another process makes the same file anew."""
    end = time.monotonic() + BUSY_SECONDS
    while True:
        try:
            return db.execute(f"PRAGMA journal_mode={journal}").fetchone()[0]
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF not in _BUSY or time.monotonic() > end:
                raise
        time.sleep(0.01)


@contextlib.contextmanager
def translate_errors(path: Path | str) -> Generator[None]:
    """Turn SQLite's errors into the tree's, naming the file and the way out."""
    try:
        yield
    except ERRORS as error:
        raise translate(error, path) from error


def translate(error: Exception, path: Path | str) -> TightshipError:
    """The error of the tree for an error of SQLite: a StoreError, or a LedgerError when a value does not fit."""
    where = str(path)
    code = getattr(error, "sqlite_errorcode", None)
    if code is None:
        # the module's own errors: a value that cannot be bound, or text in the file that is no UTF-8
        if isinstance(error, UnicodeDecodeError) or "UTF-8" in str(error):
            return corrupt(f"a text in the database is damaged ({error})", where)
        if isinstance(error, sqlite3.ProgrammingError) and "closed" in str(error):
            return StoreError("the store is closed", where=where)
        return LedgerError(f"a value cannot be stored: {error}")
    primary = code & 0xFF
    if primary in _FULL:
        return StoreFull(
            where=where,
            fix="free space on that disk, then run the command again; nothing was lost",
        )
    if primary in _READ_ONLY:
        return StoreReadOnly(
            where=where,
            fix="make the store's folder writable, or choose another in tightship.yaml",
        )
    if primary in _BUSY:
        return StoreError(
            f"another process kept the database locked for {BUSY_SECONDS:g} seconds",
            where=where,
            fix="wait for the other command to end, then try again",
        )
    if code in _UNREADABLE or primary in _CORRUPT:
        return corrupt(f"the database is damaged: {error}", where)
    if primary == sqlite3.SQLITE_IOERR:
        return StoreFull(
            "the disk refused a write",
            where=where,
            fix="check the disk's space, quota and health",
        )
    if primary in _MISFIT:
        return LedgerError(f"a value does not fit its column: {error}")
    return StoreError(
        f"the database refused: {error}",
        where=where,
        fix="run `tightship audit verify`",
    )


def corrupt(message: str, where: Path | str) -> StoreCorrupt:
    """The error for a damaged file."""
    return StoreCorrupt(
        message,
        where=str(where),
        fix="`tightship audit verify` says where; restore the store from your backup",
    )
