"""The SQLite store: one file, write-ahead log, synchronous FULL. One connection writes (the writer's), one reads."""

from __future__ import annotations

import contextlib
import json
import sqlite3
import threading
from collections.abc import Generator, Iterable, Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

from tightship.core.errors import StoreMissing, StoreVersionError
from tightship.core.ports import Delta
from tightship.ledger._sql import connect, script, translate, translate_errors
from tightship.ledger.bundles import as_bytes, compact, rows_between, rows_of_runs
from tightship.ledger.entries import POSITION_BITS, Entry, decode
from tightship.ledger.store import Batch, Condition, Deltas

MIGRATIONS = ("0001_ledger",)
_T = TypeVar("_T")
SCHEMA_VERSION = len(MIGRATIONS)
_ROWS_PER_STATEMENT = 64
_POSITION_MASK = (1 << POSITION_BITS) - 1


def open_database(path: Path, create: bool) -> sqlite3.Connection:
    """A connection to the ledger's file, its schema brought up to this version.

    Raises:
        StoreMissing: there is no file and none may be made.
        StoreReadOnly, StoreFull, StoreCorrupt: as the disk answers.
        StoreVersionError: a newer version has written it.
    """
    if not path.exists() and not create:
        raise StoreMissing(where=str(path), fix="run `tightship init`, or correct store.url in tightship.yaml")
    with translate_errors(path):
        db = connect(path)
        try:
            migrate(db, path)
        except BaseException:
            db.close()
            raise
    return db


def migrate(db: sqlite3.Connection, path: Path) -> None:
    """Apply the migrations that this file has not seen, each in a transaction of its own."""
    version = db.execute("PRAGMA user_version").fetchone()[0]
    if version > SCHEMA_VERSION:
        raise StoreVersionError(
            f"the store has schema {version}, this version knows {SCHEMA_VERSION}",
            where=str(path),
            fix="install the newer tightship that wrote it",
        )
    while version < SCHEMA_VERSION:
        db.execute("BEGIN IMMEDIATE")
        try:
            version = db.execute("PRAGMA user_version").fetchone()[0]
            if version < SCHEMA_VERSION:
                for statement in statements(script(MIGRATIONS[version])):
                    db.execute(statement)
                version += 1
                db.execute(f"PRAGMA user_version={version}")
            db.execute("COMMIT")
        except BaseException:
            with contextlib.suppress(sqlite3.Error):
                db.execute("ROLLBACK")
            raise


def statements(text: str) -> Iterator[str]:
    """The statements of a script, one at a time (executescript would commit between them)."""
    draft = ""
    for line in text.splitlines(keepends=True):
        draft += line
        if sqlite3.complete_statement(draft):
            yield draft
            draft = ""


@cache
def projection_columns() -> dict[str, dict[str, Any]]:
    """Table -> column -> default, read from the schema itself."""
    db = sqlite3.connect(":memory:")
    try:
        db.executescript("".join(script(name) for name in MIGRATIONS))
        tables = [row[0] for row in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        return {
            table: {
                row[1]: {"TEXT": "", "REAL": 0.0, "INTEGER": int((row[4] or "0").strip("'") or 0)}.get(row[2])
                for row in db.execute(f"PRAGMA table_info({table})")
            }
            for table in tables
        }
    finally:
        db.close()


@cache
def insert_sql(name: str, width: int, rows: int) -> str:
    """A multi-row insert: one statement takes many rows, so the writer gives up the interpreter lock once."""
    row = "(" + ",".join("?" * width) + ")"
    return script(name).format(rows=",".join([row] * rows))


@cache
def upsert_sql(table: str, key: tuple[str, ...], sets: tuple[str, ...], adds: tuple[str, ...], rows: int) -> str:
    """Insert rows of a projection, or change those that are there."""
    columns = key + sets + adds
    row = "(" + ",".join("?" * len(columns)) + ")"
    changes = [f"{column} = excluded.{column}" for column in sets]
    changes += [f"{column} = {table}.{column} + excluded.{column}" for column in adds]
    return script("upsert").format(
        table=table,
        columns=", ".join(columns),
        rows=",".join([row] * rows),
        key=", ".join(key),
        changes=", ".join(changes),
    )


def chunks(items: Sequence[_T]) -> Iterator[Sequence[_T]]:
    """At most as many as one statement takes."""
    if len(items) <= _ROWS_PER_STATEMENT:
        if items:
            yield items
        return
    for start in range(0, len(items), _ROWS_PER_STATEMENT):
        yield items[start : start + _ROWS_PER_STATEMENT]


class SqliteBackend:
    """The store in a file."""

    def __init__(self, path: Path, create: bool = True) -> None:
        self.path = path
        self._db = open_database(path, create)
        self._reader = open_database(path, create)
        self._reading = threading.Lock()
        self._version = 0
        self._ids: dict[str, tuple[int, int]] = {}
        # read once: a look-up in the package's resources costs more than the statement
        self._heads_sql, self._set_head_sql = script("heads"), script("set_head")

    # --- the writer's side -----------------------------------------------------------------------

    def begin(self) -> dict[str, tuple[int, int]]:
        """Take the write lock and read the heads."""
        try:
            self._db.execute("BEGIN IMMEDIATE")
            self._ids = {name: (log_id, head) for log_id, name, head in self._db.execute(self._heads_sql)}
        except sqlite3.Error as error:
            raise translate(error, self.path) from error
        return dict(self._ids)

    def write(self, batch: Batch, tables: dict[str, tuple[str, ...]]) -> None:
        """Entries, payloads, projections, heads."""
        try:
            self._write(batch, tables)
        except sqlite3.Error as error:
            raise translate(error, self.path) from error

    def _write(self, batch: Batch, tables: dict[str, tuple[str, ...]]) -> None:
        execute = self._db.execute
        for rows in chunks(batch.rows):
            values: list[Any] = []
            for log_id, n, run, data in rows:
                values += (log_id << POSITION_BITS | n, run, data.decode())
            execute(insert_sql("insert_entries", 3, len(rows)), values)
        for payloads in chunks(list(batch.payloads.values())):
            values = []
            for payload in payloads:
                values += (bytes.fromhex(payload.address), payload.scope, payload.data or None)
            execute(insert_sql("insert_payloads", 3, len(payloads)), values)
        write_deltas(self._db, batch.deltas, tables)
        for log, head in batch.heads.items():
            known = self._ids.get(log)
            log_id = known[0] if known is not None else len(self._ids) + 1
            self._ids[log] = (log_id, head)
            execute(self._set_head_sql, (log_id, log, head))

    def commit(self) -> None:
        """Commit: fsync'd when it returns."""
        try:
            self._db.execute("COMMIT")
        except sqlite3.Error as error:
            raise translate(error, self.path) from error

    def rollback(self) -> None:
        """Roll back, whatever state the connection is in."""
        with contextlib.suppress(sqlite3.Error):
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")

    def look(self, table: str, where: Sequence[Condition]) -> list[dict[str, Any]]:
        """Rows inside the transaction."""
        return query(self._db, self.path, table, where, (), None)

    def tail(self, log: str, log_id: int, after: int, upto: int) -> list[Entry]:
        """Entries inside the transaction."""
        base = log_id << POSITION_BITS
        with translate_errors(self.path):
            rows = rows_between(self._db, base | after, base | upto, upto - after)
        return [decode(log, row_id & _POSITION_MASK, data) for row_id, _, data in rows]

    def compact(self, log_id: int, covered: int) -> int:
        """Pack a bundle of entries that a checkpoint covers; returns how many moved."""
        with translate_errors(self.path):
            self._db.execute("BEGIN IMMEDIATE")
            try:
                moved = compact(self._db, log_id, covered)
                self._db.execute("COMMIT")
            except BaseException:
                self.rollback()
                raise
        return moved

    def trim(self) -> None:
        """Give pages that packing has freed back to the disk."""
        with translate_errors(self.path):
            self._db.executescript("PRAGMA incremental_vacuum")  # `execute` would step it once: one page

    def put_tree(self, log_id: int, tiles: dict[tuple[int, int], bytes], size: int, note: str) -> None:
        """Store tiles and the checkpoint over them in one transaction."""
        with translate_errors(self.path):
            self._db.execute("BEGIN IMMEDIATE")
            try:
                rows = [(log_id, level, position, data) for (level, position), data in tiles.items()]
                self._db.executemany(script("put_tile"), rows)
                self._db.execute(script("put_checkpoint"), (log_id, size, note))
                self._db.execute("COMMIT")
            except BaseException:
                self.rollback()
                raise

    def replace_projections(self, deltas: Deltas, tables: dict[str, tuple[str, ...]]) -> None:
        """Throw the projections away and write these, in one transaction."""
        with translate_errors(self.path):
            self._db.execute("BEGIN IMMEDIATE")
            try:
                for table in tables:
                    self._db.execute(f"DELETE FROM {table}")
                write_deltas(self._db, deltas, tables)
                self._db.execute("COMMIT")
            except BaseException:
                self.rollback()
                raise

    # --- the reader's side -----------------------------------------------------------------------

    def _read(self, sql: str, values: Iterable[Any] = ()) -> list[tuple[Any, ...]]:
        with self._reading, translate_errors(self.path):
            return self._reader.execute(sql, tuple(values)).fetchall()

    @contextlib.contextmanager
    def _snapshot(self) -> Generator[sqlite3.Connection]:
        """The reader at one moment: what is packed meanwhile is neither seen twice nor missed."""
        with self._reading, translate_errors(self.path):
            self._reader.execute("BEGIN")
            try:
                yield self._reader
            finally:
                self._reader.execute("COMMIT")

    def heads(self) -> dict[str, tuple[int, int]]:
        """Log name -> (log id, head)."""
        return {name: (log_id, head) for log_id, name, head in self._read(script("heads"))}

    def select(
        self, table: str, where: Sequence[Condition], order: Sequence[tuple[str, str]], limit: int | None
    ) -> list[dict[str, Any]]:
        """Rows of a projection that fit, in order."""
        with self._reading:
            return query(self._reader, self.path, table, where, order, limit)

    def entries(self, log: str, after: int, limit: int) -> list[tuple[int, str, bytes]]:
        """Position, run column and data of entries after a position."""
        found = self.heads().get(log)
        if found is None:
            return []
        base = found[0] << POSITION_BITS
        with self._snapshot() as db:
            rows = rows_between(db, base | after, base | _POSITION_MASK, limit)
        return [(row_id & _POSITION_MASK, run, data) for row_id, run, data in rows]

    def entries_of(self, runs: Sequence[str]) -> list[Entry]:
        """All entries of some runs, in order of the log."""
        names = {log_id: name for name, (log_id, _) in self.heads().items()}
        with self._snapshot() as db:
            rows = rows_of_runs(db, runs)
        return [decode(names[row_id >> POSITION_BITS], row_id & _POSITION_MASK, data) for row_id, _, data in rows]

    def payloads(self, addresses: Sequence[str]) -> dict[str, tuple[str, bytes | None]]:
        """Scope and sealed bytes by address."""
        found: dict[str, tuple[str, bytes | None]] = {}
        for part in chunks(addresses):
            sql = script("payload").format(marks=",".join("?" * len(part)))
            for address, scope, data in self._read(sql, [bytes.fromhex(address) for address in part]):
                found[address.hex()] = (scope, data)
        return found

    def all_payloads(self, after: int, limit: int) -> list[tuple[int, str, str, bytes | None]]:
        """Row number, address, scope and sealed bytes, a page at a time."""
        rows = self._read(script("payloads_after"), (after, limit))
        return [(row, as_bytes(address).hex(), scope, data) for row, address, scope, data in rows]

    def tile(self, log_id: int, level: int, position: int) -> bytes | None:
        """A Merkle tile."""
        rows = self._read(script("tile"), (log_id, level, position))
        return rows[0][0] if rows else None

    def checkpoint(self, log_id: int) -> tuple[int, str] | None:
        """The latest checkpoint."""
        rows = self._read(script("checkpoint"), (log_id,))
        return (rows[0][0], rows[0][1]) if rows else None

    def checkpoints(self, log_id: int) -> list[tuple[int, str]]:
        """All checkpoints, by size."""
        return [(size, note) for size, note in self._read(script("checkpoints"), (log_id,))]

    def moved(self) -> bool:
        """Whether any other connection has committed since the last call."""
        version = self._read("PRAGMA data_version")[0][0]
        moved, self._version = version != self._version, version
        return moved

    def check(self) -> list[str]:
        """What SQLite itself finds wrong with the file's structure."""
        try:
            with self._reading:
                rows = self._reader.execute("PRAGMA integrity_check(20)").fetchall()
        except sqlite3.Error as error:
            return [str(translate(error, self.path))]
        return [row[0] for row in rows if row[0] != "ok"]

    def close(self) -> None:
        """Close both connections; the write-ahead log is folded into the file."""
        self._reader.close()
        self._db.close()


def write_deltas(db: sqlite3.Connection, deltas: Deltas, tables: dict[str, tuple[str, ...]]) -> None:
    """Upsert changed rows, grouped by the columns they change, sorted by key so that writers never cross."""
    for table, rows in deltas.items():
        groups: dict[tuple[tuple[str, ...], tuple[str, ...]], list[Delta]] = {}
        for key in sorted(rows):  # type: ignore[type-var]
            delta = rows[key]
            groups.setdefault((tuple(delta.set), tuple(delta.add)), []).append(delta)
        for (sets, adds), group in groups.items():
            for part in chunks(group):
                values: list[Any] = []
                for delta in part:
                    values += delta.key
                    values += delta.set.values()
                    values += delta.add.values()
                db.execute(upsert_sql(table, tables[table], sets, adds, len(part)), values)


_OPERATORS = frozenset({"=", "!=", "<", "<=", ">", ">="})


def query(
    db: sqlite3.Connection,
    path: Path,
    table: str,
    where: Sequence[Condition],
    order: Sequence[tuple[str, str]],
    limit: int | None,
) -> list[dict[str, Any]]:
    """Select from a projection; names are checked against the schema, values are bound."""
    columns = projection_columns()[table]
    parts: list[str] = []
    values: list[Any] = []
    for column, op, value in where:
        if column not in columns:
            raise KeyError(column)
        if op == "in":
            parts.append(f"{column} IN (SELECT value FROM json_each(?))")
            values.append(json.dumps(list(value)))
        elif op in _OPERATORS:
            parts.append(f"{column} {op} ?")
            values.append(value)
        else:
            raise ValueError(op)
    terms = [f"{column} {'DESC' if way == 'desc' else 'ASC'}" for column, way in order if column in columns]
    sql = script("select").format(
        columns=", ".join(columns), table=table, where=" AND ".join(parts) or "1", order=", ".join(terms) or "1"
    )
    values.append(-1 if limit is None else limit)
    with translate_errors(path):
        return [dict(zip(columns, row, strict=True)) for row in db.execute(sql, values)]
