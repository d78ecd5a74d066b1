"""A store's rows as they lie there at one moment: nothing is decoded, nothing is trusted.

Text that is no UTF-8 comes with surrogates in place of the bytes, so that a damaged row can be looked at.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from tightship.ledger._schema import SCHEMA_VERSION, check_structure, chunks, empty_database, schema
from tightship.ledger._sql import connect_read_only, translate_errors
from tightship.ledger._stored import StoredRows
from tightship.ledger.backend import Row


class Snapshot(StoredRows):
    """One read transaction over a store. Every method raises the tree's StoreError where the file cannot be read."""

    dialect = "sqlite"
    mark = "?"

    def __init__(self, db: sqlite3.Connection, name: str) -> None:
        self._db = db
        self.name = name
        """The file's name, for findings."""
        db.text_factory = _lenient
        db.execute("PRAGMA cell_size_check=ON")
        db.execute("BEGIN")

    @classmethod
    def of_rows(cls, tables: Iterable[tuple[str, list[Row]]]) -> Snapshot:
        """The snapshot of what lies in memory: tables with their rows."""
        db = empty_database()
        for table, rows in tables:
            marks = ",".join("?" * len(schema()[table].defaults))
            db.executemany(f"INSERT INTO {table} VALUES ({marks})", rows)
        db.execute(f"PRAGMA user_version={SCHEMA_VERSION}")
        return cls(db, "memory")

    @classmethod
    def of_file(cls, path: Path, read_only: bool = False) -> Snapshot:
        """The snapshot of a database file, which is not written to; `read_only` where nothing beside it may be made."""
        with translate_errors(path):
            if read_only:
                db = connect_read_only(path)
            else:
                db = sqlite3.connect(f"file:{quote(str(path))}?mode=ro", uri=True, isolation_level=None)
            try:
                return cls(db, path.name)
            except BaseException:
                db.close()
                raise

    def close(self) -> None:
        """End it."""
        self._db.close()

    def _read(self, sql: str, values: Sequence[Any] = ()) -> list[Row]:
        with translate_errors(self.name):
            return self._db.execute(sql, values).fetchall()

    def _stream(self, sql: str, values: Sequence[Any] = ()) -> Iterator[Row]:
        with translate_errors(self.name):
            yield from self._db.execute(sql, values)

    def structure(self) -> list[str]:
        """What SQLite finds wrong with the file, and how its schema differs from the one that we make."""
        with contextlib.closing(empty_database()) as fresh:
            return check_structure(self._db, fresh, SCHEMA_VERSION)

    def stored(self, addresses: Sequence[str]) -> set[str]:
        """Which of these addresses have a row."""
        found: set[str] = set()
        for part in chunks(addresses):
            sql = f"SELECT address FROM payloads WHERE address IN ({','.join('?' * len(part))})"
            rows = self._read(sql, [bytes.fromhex(address) for address in part])
            found.update(row[0].hex() for row in rows if isinstance(row[0], bytes))
        return found

    def tile_sizes(self, log_id: int) -> Iterator[Row]:
        """Level, position and length in bytes of a log's tiles, in order; the length is None where it is no blob."""
        return self._stream(
            "SELECT level, position, CASE typeof(data) WHEN 'blob' THEN length(data) END FROM tiles"
            " WHERE log = ? ORDER BY level, position",
            (log_id,),
        )

    def projection(self, table: str) -> Iterator[Row]:
        """A projection's rows in order of their key, with the columns that it has."""
        return self._stream(f"SELECT * FROM {table} ORDER BY {', '.join(schema()[table].key)}")


def _lenient(raw: bytes) -> str:
    return raw.decode("utf-8", "surrogateescape")
