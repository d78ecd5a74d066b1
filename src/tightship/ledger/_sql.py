"""SQLite plumbing: connections, statements from .sql files, errors in the tree's terms."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Generator
from functools import cache
from importlib import resources
from pathlib import Path

from tightship.core.errors import StoreCorrupt, StoreError, StoreFull, StoreReadOnly


@cache
def script(name: str, dialect: str = "sqlite") -> str:
    """The text of `sql/DIALECT/NAME.sql`."""
    return resources.files("tightship.ledger").joinpath("sql", dialect, f"{name}.sql").read_text("utf-8").strip()


def connect(path: Path, journal: str = "WAL") -> sqlite3.Connection:
    """A connection whose commits are on the disk when they return."""
    db = sqlite3.connect(path, isolation_level=None, check_same_thread=False, cached_statements=512, timeout=10)
    try:
        db.execute("PRAGMA auto_vacuum=INCREMENTAL")  # counts for a new file only: freed pages are given back
        db.execute(f"PRAGMA journal_mode={journal}")
        db.execute("PRAGMA synchronous=FULL")
        db.execute("PRAGMA wal_autocheckpoint=8000")  # 32 MB: fewer pages are written twice
        db.execute("PRAGMA temp_store=MEMORY")
        db.execute("PRAGMA cache_size=-32000")
    except sqlite3.Error:
        db.close()
        raise
    return db


@contextlib.contextmanager
def translate_errors(path: Path | str) -> Generator[None]:
    """Turn SQLite's errors into the tree's, naming the file and the way out."""
    try:
        yield
    except sqlite3.Error as error:
        raise translate(error, path) from error


def translate(error: sqlite3.Error, path: Path | str) -> StoreError:
    """The error of the tree for an error of SQLite."""
    text = str(error)
    where = str(path)
    if "full" in text:
        return StoreFull(where=where, fix="free space on that disk, then run the command again; nothing was lost")
    if "readonly" in text or "unable to open" in text or "attempt to write" in text:
        return StoreReadOnly(where=where, fix="make the store's folder writable, or choose another in tightship.yaml")
    if "disk I/O error" in text:
        return StoreFull("the disk refused a write", where=where, fix="check the disk's space, quota and health")
    if "malformed" in text or "not a database" in text or "corrupt" in text:
        return StoreCorrupt(where=where, fix="restore the store from your backup; `tightship audit verify` locates it")
    return StoreError(f"the database refused: {text}", where=where, fix="see `tightship audit verify`")
