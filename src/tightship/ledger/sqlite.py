"""The SQLite store: one file, write-ahead log, synchronous FULL. One connection writes (the writer's), one reads."""

from __future__ import annotations

import contextlib
import json
import sqlite3
import threading
from collections.abc import Collection, Generator, Iterable, Sequence
from pathlib import Path
from typing import Any

from tightship.core.errors import LedgerError, StoreError, StoreMissing, TamperError
from tightship.ledger._rows import Fetch, Seeds, entries_of_runs, rows_between
from tightship.ledger._schema import (
    chunks,
    insert_sql,
    load_rows,
    migrate,
    replace_rows,
    require_current,
    select_sql,
    write_deltas,
)
from tightship.ledger._sql import ERRORS, connect, connect_read_only, script, translate, translate_errors
from tightship.ledger._wal import check_before_writing
from tightship.ledger.backend import FILE_FROM, NOTHING, Asked, Batch, Condition, Opening, Row, Rows
from tightship.ledger.bundles import BUNDLES_AT_ONCE, WIDTH, bundle_crc, pack_rows, rows_that_stay
from tightship.ledger.claiming import OPEN, Claiming, due_rows
from tightship.ledger.entries import POSITION_BITS, POSITION_MASK, Entry, decode, entry_crc, payload_crc
from tightship.ledger.public_keys import PUBLIC_KEYS, read_keys, write_keys
from tightship.ledger.references import addresses_in
from tightship.ledger.snapshot import Snapshot


def open_database(path: Path, create: bool, read_only: bool = False) -> tuple[sqlite3.Connection, bool]:
    """A connection to the ledger's file, its schema brought up to this version; whether an earlier one has folded it.

    Raises:
        StoreMissing: there is no file and none may be made.
        StoreReadOnly, StoreFull, StoreCorrupt: as the disk answers.
        StoreVersionError: a newer version has written it.
    """
    if not path.exists() and not create:
        raise StoreMissing(
            where=str(path),
            fix="run `tightship init`, or correct store.url in tightship.yaml",
        )
    with translate_errors(path):
        db = connect_read_only(path) if read_only else connect(path)
        try:
            outdated = False
            if read_only:
                require_current(db, path)
            else:
                outdated = migrate(db, path)
        except BaseException:
            db.close()
            raise
    return db, outdated


class SqliteBackend:
    """The store in a file; `read_only` where nothing may be written."""

    shared = False
    file_from = FILE_FROM

    def __init__(self, path: Path, create: bool = True, read_only: bool = False) -> None:
        self.path = path
        self.read_only = read_only
        self.suspicions = check_before_writing(path, keep=not read_only)
        """What the write-ahead log of an earlier process leaves open (see `_wal`)."""
        self._db, self.outdated = open_database(path, create, read_only)
        """Whether the tables were folded by an earlier version, which knew less of what is in them now."""
        try:
            self._reader, _ = open_database(path, create, read_only)
        except BaseException:
            self._db.close()
            raise
        self._reading = threading.Lock()
        self._version = 0
        self._seeds = Seeds()
        self.alive: set[str] = set()
        """The owners that live; only the process that executes knows."""
        # read once: they are of every commit
        self._heads_sql, self._set_head_sql = script("heads"), script("set_head")

    # --- the writer's side -----------------------------------------------------------------------

    def begin(self, asked: Asked = NOTHING) -> Opening:
        """Take the write lock and read the heads."""
        try:
            self._db.execute("BEGIN IMMEDIATE")
            return Opening({name: (log_id, head) for log_id, name, head in self._db.execute(self._heads_sql)})
        except ERRORS as error:
            raise translate(error, self.path) from error

    def write(self, batch: Batch, tables: dict[str, tuple[str, ...]]) -> None:
        """Entries, payloads, projections, heads."""
        try:
            self._write(batch, tables)
        except ERRORS as error:
            raise translate(error, self.path) from error

    def _write(self, batch: Batch, tables: dict[str, tuple[str, ...]]) -> None:
        execute = self._db.execute
        for rows in chunks(batch.rows):
            values: list[Any] = []
            for log_id, n, run, data, log, _ in rows:
                values += (
                    log_id << POSITION_BITS | n,
                    run,
                    data.decode(),
                    entry_crc(self._seeds[log], run.encode(), data),
                )
            execute(insert_sql("insert_entries", 4, len(rows)), values)
        for payloads in chunks(list(batch.payloads.values())):
            values = []
            for address, scope, data, crc in payloads:
                raw = bytes.fromhex(address)
                if data is None and not self._file(address).exists():
                    raise StoreError("a large value has just left for an archive", fix="try again: it is stored anew")
                values += (raw, scope, data, payload_crc(raw, scope, data or b"") if crc is None else crc)
            execute(insert_sql("insert_payloads", 4, len(payloads)), values)
        write_deltas(self._db, batch.deltas, tables)
        for log, (log_id, head) in batch.heads.items():
            execute(self._set_head_sql, (log_id, log, head))

    def commit(self) -> None:
        """Commit: fsync'd when it returns."""
        try:
            self._db.execute("COMMIT")
        except ERRORS as error:
            raise translate(error, self.path) from error

    def rollback(self) -> None:
        """Roll back, whatever state the connection is in."""
        with contextlib.suppress(sqlite3.Error):
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")

    def look(self, table: str, where: Sequence[Condition]) -> list[dict[str, Any]]:
        """Rows inside the transaction."""
        return self._query(self._db, table, where, (), None)

    def due(self, claiming: Claiming, now: float) -> list[dict[str, Any]]:
        """Runs to claim, in order."""
        return due_rows(self.look("runs", [("state", "in", OPEN)]), claiming, self.alive, now)

    def tail(self, log: str, log_id: int, after: int, upto: int) -> list[Entry]:
        """Entries inside the transaction."""
        with translate_errors(self.path):
            rows = self._rows(self._db, log, log_id, max(after, 0), upto, max(upto - after, 0))
        return [decode(log, n, data) for n, data in rows]

    def compact(self, log: str, covered: int) -> int:
        """Pack a few full bundles of entries that a checkpoint covers (`covered` entries at most).

        Returns: how many entries moved; 0 when there is no such bundle.

        Raises:
            TamperError: an entry is missing or damaged; nothing was moved.
        """
        moved = 0
        with translate_errors(self.path):
            self._db.execute("BEGIN IMMEDIATE")
            try:
                while moved < BUNDLES_AT_ONCE * WIDTH and (some := self._compact(log, covered)):
                    moved += some
                self._db.execute("COMMIT")
            except BaseException:
                self.rollback()
                raise
        return moved

    def _compact(self, log: str, covered: int) -> int:
        log_id = next(row[0] for row in self._db.execute(self._heads_sql) if row[1] == log)
        base = log_id << POSITION_BITS
        first = self._db.execute(script("first_entry"), (base, base | covered)).fetchone()[0]
        if first is None or (first & POSITION_MASK) + WIDTH - 1 > covered:
            return 0
        rows = self._db.execute(script("entries_range"), (first - 1, first + WIDTH - 1, WIDTH)).fetchall()
        seed = self._seeds[log]
        data = pack_rows(log, seed, first, rows)
        self._db.execute(script("put_bundle"), (first, data, bundle_crc(seed, first, data)))
        self._db.executemany(script("put_bundle_run"), [(run, first) for run in sorted({row[1] for row in rows})])
        self._db.execute(script("drop_entries"), (first, first + WIDTH))
        return WIDTH

    @contextlib.contextmanager
    def _transaction(self) -> Generator[sqlite3.Connection]:
        """A transaction of the writer beside the appends."""
        with translate_errors(self.path):
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield self._db
                self._db.execute("COMMIT")
            except BaseException:
                self.rollback()
                raise

    def drop_bundles(self, log: str, upto: int, stay: Collection[int]) -> int:
        """Drop the first few bundles up to a position; of their entries, those at the positions in `stay` are kept.

        Returns: of how many entries they were; 0 when there is no such bundle.

        Raises:
            TamperError: one is damaged; nothing was dropped.
        """
        with self._transaction() as db:
            base = next(row[0] for row in db.execute(self._heads_sql) if row[1] == log) << POSITION_BITS
            last = base | max(upto - WIDTH + 1, 0)
            rows = db.execute(script("bundles_range"), (base, last, BUNDLES_AT_ONCE)).fetchall()
            for row in rows:
                db.executemany(script("put_kept"), rows_that_stay(log, self._seeds[log], row, stay))
                db.execute(script("drop_bundle_runs"), row[:1])
                db.execute(script("drop_bundle"), row[:1])
        return len(rows) * WIDTH

    def drop_payloads(self, addresses: Collection[str], after: dict[str, int], named: set[str]) -> set[str]:
        """Drop payloads under the heads' lock, but none that an entry behind these positions names."""
        with self._transaction() as db:
            for log_id, log, head in db.execute(self._heads_sql).fetchall():
                known = after.get(log, 0)
                for _, data in self._rows(db, log, log_id, known, head, head - known):
                    named.update(addresses_in(data))
                after[log] = head
            gone = set(addresses) - named
            db.executemany(script("drop_payload"), [(bytes.fromhex(address),) for address in sorted(gone)])
        return gone

    def drop_files(self, addresses: Collection[str]) -> None:
        """Drop the files of values that are not stored any more; whoever stores one again waits for it."""
        with self._transaction() as db:
            for address in addresses:
                if db.execute(script("has_payload"), (bytes.fromhex(address),)).fetchone() is None:
                    self._file(address).unlink(missing_ok=True)

    def _file(self, address: str) -> Path:
        return self.path.parent / "payloads" / address[:2] / address[2:]

    def trim(self) -> None:
        """Give pages that packing or archiving has freed back to the disk."""
        with translate_errors(self.path):
            self._db.executescript("PRAGMA incremental_vacuum")  # `execute` would step it once: one page

    def put_tree(
        self,
        log_id: int,
        before: int,
        size: int,
        note: str,
        tiles: dict[tuple[int, int], bytes],
    ) -> None:
        """Store tiles and the checkpoint over them in one transaction.

        Raises:
            LedgerError: the latest checkpoint is not the one over `before` entries any more; nothing was written.
        """
        with translate_errors(self.path):
            self._db.execute("BEGIN IMMEDIATE")
            try:
                latest = self._db.execute(script("checkpoint"), (log_id,)).fetchone()
                if (latest[0] if latest else 0) != before:
                    raise LedgerError("another process has extended the tree; nothing was written")
                rows = [(log_id, level, position, data) for (level, position), data in tiles.items()]
                self._db.executemany(script("put_tile"), rows)
                self._db.execute(script("put_checkpoint"), (log_id, size, note))
                self._db.execute("COMMIT")
            except BaseException:
                self.rollback()
                raise

    def exchange_projections(self, tables: Sequence[str], rows: Rows) -> None:
        """Throw the projections away and write these rows, inside a transaction."""
        with translate_errors(self.path):
            replace_rows(self._db, tables, rows)

    # --- the reader's side -----------------------------------------------------------------------

    def _read(self, sql: str, values: Iterable[Any] = ()) -> list[tuple[Any, ...]]:
        with self._reading, translate_errors(self.path):
            return self._reader.execute(sql, tuple(values)).fetchall()

    def heads(self) -> dict[str, tuple[int, int]]:
        """Log name -> (log id, head)."""
        return {name: (log_id, head) for log_id, name, head in self._read(script("heads"))}

    def select(
        self,
        table: str,
        where: Sequence[Condition],
        order: Sequence[tuple[str, str]],
        limit: int | None,
    ) -> list[dict[str, Any]]:
        """Rows of a projection that fit, in order."""
        with self._reading:
            return self._query(self._reader, table, where, order, limit)

    def _query(
        self,
        db: sqlite3.Connection,
        table: str,
        where: Sequence[Condition],
        order: Sequence[tuple[str, str]],
        limit: int | None,
    ) -> list[dict[str, Any]]:
        sql, values = select_sql(table, where, order, limit)
        with translate_errors(self.path):
            cursor = db.execute(sql, values)
            columns = [column[0] for column in cursor.description]
            return [dict(zip(columns, row, strict=True)) for row in cursor]

    @contextlib.contextmanager
    def _moment(self) -> Generator[sqlite3.Connection]:
        """The reader at one moment: what is packed meanwhile is neither seen twice nor missed."""
        with self._reading, translate_errors(self.path):
            self._reader.execute("BEGIN")
            try:
                yield self._reader
            finally:
                self._reader.execute("COMMIT")

    def entries(self, log: str, after: int, limit: int) -> list[tuple[int, bytes]]:
        """Position and data of entries after a position.

        Raises:
            TamperError: an entry is not what was written.
        """
        with self._moment() as db:
            found = next((row[0] for row in db.execute(self._heads_sql) if row[1] == log), None)
            return [] if found is None else self._rows(db, log, found, after, POSITION_MASK, limit)

    def _rows(
        self, db: sqlite3.Connection, log: str, log_id: int, after: int, upto: int, limit: int
    ) -> list[tuple[int, bytes]]:
        """Entries after a position and up to another, from bundles and from the table."""
        return rows_between(_fetcher(db), self._seeds, log, log_id, after, upto, limit)

    def entries_of(self, runs: Sequence[str]) -> list[Entry]:
        """All entries of some runs, in order of the log.

        Raises:
            TamperError: an entry is not what was written.
        """
        with self._moment() as db:
            return entries_of_runs(_fetcher(db), self._seeds, json.dumps(list(runs)), runs)

    def payloads(self, addresses: Sequence[str]) -> dict[str, tuple[str, bytes | None]]:
        """Scope and sealed bytes by address."""
        found: dict[str, tuple[str, bytes | None]] = {}
        for part in chunks(addresses):
            sql = script("payload").format(marks=",".join("?" * len(part)))
            for address, scope, data in self._read(sql, [bytes.fromhex(address) for address in part]):
                if not isinstance(data, bytes | None):
                    raise TamperError(
                        f"payload {address.hex()} was changed: it is no bytes",
                        where=str(self.path),
                    )
                found[address.hex()] = (scope, data)
        return found

    def tile(self, log_id: int, level: int, position: int) -> bytes | None:
        """A Merkle tile."""
        rows = self._read(script("tile"), (log_id, level, position))
        if rows and not isinstance(rows[0][0], bytes):
            raise TamperError(
                f"hash tile {level}/{position} was changed: it is no bytes",
                where=str(self.path),
            )
        return rows[0][0] if rows else None

    def checkpoint(self, log_id: int) -> tuple[int, str] | None:
        """The latest checkpoint."""
        rows = self._read(script("checkpoint"), (log_id,))
        if not rows:
            return None
        size, note = rows[0]
        if not isinstance(size, int) or not isinstance(note, str):
            raise TamperError("the last checkpoint was changed: it is no text", where=str(self.path))
        return size, note

    def is_anything_due(self, claiming: Claiming) -> bool:
        """The claim itself finds out."""
        return True

    def living(self) -> set[str]:
        """None: one process executes, and what it does not drive nobody does."""
        return set()

    def moved(self) -> bool:
        """Whether any other connection has committed since the last call."""
        version = self._read("PRAGMA data_version")[0][0]
        moved, self._version = version != self._version, version
        return moved

    @property
    def where(self) -> str:
        """The file's path."""
        return str(self.path)

    def foreign(self, after: dict[str, int], only: frozenset[str] | None) -> list[Entry]:
        """None: they come with the next append."""
        return []

    def sequences(self) -> bool:
        """Whoever executes integrates, and only one process does (`locks.ExecutorLock`)."""
        return True

    def public_keys(self) -> dict[str, str]:
        """Public keys by origin, from the file beside the store."""
        return read_keys(self.path.with_name(PUBLIC_KEYS))

    def publish(self, origin: str, vkey: str) -> None:
        """Write a log's public key into the file beside the store."""
        if origin not in (known := self.public_keys()):
            write_keys(self.path.with_name(PUBLIC_KEYS), {**known, origin: vkey})

    def load(self, tables: Iterable[tuple[str, Iterable[Row]]], last: int) -> None:
        """Fill an empty store with another's rows in one transaction."""
        with translate_errors(self.path):
            self._db.execute("BEGIN IMMEDIATE")
            try:
                for table, rows in tables:
                    load_rows(self._db, table, rows)
                self._db.execute("COMMIT")
            except BaseException:
                self.rollback()
                raise

    def workers(self) -> list[dict[str, Any]]:
        """None: it is not shared."""
        return []

    def snapshot(self) -> Snapshot:
        """A read transaction over the file."""
        return Snapshot.of_file(self.path, self.read_only)

    def closing(self) -> None:
        """Nothing here waits for a server."""

    def close(self) -> None:
        """Close both connections; the write-ahead log is folded into the file."""
        self._reader.close()
        self._db.close()


def _fetcher(db: sqlite3.Connection) -> Fetch:
    return lambda name, values: db.execute(script(name), values)
