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
from tightship.ledger._sql import connect_read_only, script, translate_errors
from tightship.ledger.backend import Row
from tightship.ledger.entries import POSITION_BITS, POSITION_MASK

PAGE = 1000
"""Rows that are read at a time."""


class Snapshot:
    """One read transaction over a store. Every method raises the tree's StoreError where the file cannot be read."""

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

    def structure(self) -> list[str]:
        """What SQLite finds wrong with the file, and how its schema differs from the one that we make."""
        with contextlib.closing(empty_database()) as fresh:
            return check_structure(self._db, fresh, SCHEMA_VERSION)

    def counts(self) -> dict[str, int]:
        """About how many rows the large tables have (the highest row id, entries by their heads)."""
        return {
            "entries": sum(row[2] for row in self.logs() if isinstance(row[2], int)),
            "payloads": self._read("SELECT coalesce(max(id), 0) FROM payloads")[0][0],
        }

    def logs(self) -> list[Row]:
        """Id, name and head of each log."""
        return self._read("SELECT id, name, head FROM logs ORDER BY id")

    def log_ids(self) -> list[int]:
        """The logs that entries and bundles say they are of."""
        found: set[int] = set()
        for table in ("entries", "bundles"):
            after = -(1 << 63)
            while rows := self._read(f"SELECT id FROM {table} WHERE id > ? ORDER BY id LIMIT 1", (after,)):
                log_id = rows[0][0] >> POSITION_BITS
                found.add(log_id)
                after = log_id << POSITION_BITS | POSITION_MASK
        return sorted(found)

    def bundles(self, log_id: int) -> Iterator[Row]:
        """Row id, data and checksum of a log's bundles, in order."""
        after, last = (log_id << POSITION_BITS) - 1, log_id << POSITION_BITS | POSITION_MASK
        while rows := self._read(script("bundles_range"), (after, last, PAGE // 100)):
            yield from rows
            after = rows[-1][0]

    def entries(self, log_id: int) -> Iterator[list[Row]]:
        """Row id, run, data and checksum of a log's entries that are not in bundles, in order, a page at a time."""
        after, last = (log_id << POSITION_BITS) - 1, log_id << POSITION_BITS | POSITION_MASK
        while rows := self._read(script("entries_range"), (after, last, PAGE)):
            yield rows
            after = rows[-1][0]

    def payloads(self) -> Iterator[list[Row]]:
        """Row id, address, scope, sealed bytes and checksum of each payload, a page at a time."""
        after = -(1 << 63)
        while rows := self._read(script("payloads_after"), (after, PAGE // 10)):
            yield rows
            after = rows[-1][0]

    def latest_payloads(self) -> dict[str, int]:
        """The row ids of the payloads that were stored last, by address."""
        rows = self._read(script("payloads_latest"), (PAGE,))
        return {row[1].hex(): row[0] for row in rows if isinstance(row[1], bytes)}

    def stored(self, addresses: Sequence[str]) -> set[str]:
        """Which of these addresses have a row."""
        found: set[str] = set()
        for part in chunks(addresses):
            sql = f"SELECT address FROM payloads WHERE address IN ({','.join('?' * len(part))})"
            rows = self._read(sql, [bytes.fromhex(address) for address in part])
            found.update(row[0].hex() for row in rows if isinstance(row[0], bytes))
        return found

    def tile(self, log_id: int, level: int, position: int) -> Any:
        """A tile's bytes, or None."""
        rows = self._read(script("tile"), (log_id, level, position))
        return rows[0][0] if rows else None

    def tile_sizes(self, log_id: int) -> Iterator[Row]:
        """Level, position and length in bytes of a log's tiles, in order; the length is None where it is no blob."""
        return self._stream(
            "SELECT level, position, CASE typeof(data) WHEN 'blob' THEN length(data) END FROM tiles"
            " WHERE log = ? ORDER BY level, position",
            (log_id,),
        )

    def checkpoints(self, log_id: int, latest_first: bool = False) -> Iterator[Row]:
        """Size and note of a log's checkpoints, in order."""
        order = "DESC" if latest_first else "ASC"
        return self._stream(f"SELECT size, note FROM checkpoints WHERE log = ? ORDER BY size {order}", (log_id,))

    def logs_of(self, table: str) -> list[Any]:
        """The logs that the rows of a table say they are of."""
        return [row[0] for row in self._read(f"SELECT DISTINCT log FROM {table}")]

    def projection(self, table: str) -> Iterator[Row]:
        """A projection's rows in order of their key."""
        return self._stream(f"SELECT * FROM {table} ORDER BY {', '.join(schema()[table].key)}")

    def _stream(self, sql: str, values: Sequence[Any] = ()) -> Iterator[Row]:
        with translate_errors(self.name):
            yield from self._db.execute(sql, values)


def _lenient(raw: bytes) -> str:
    return raw.decode("utf-8", "surrogateescape")
