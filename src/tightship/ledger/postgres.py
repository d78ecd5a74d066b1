"""The Postgres store: many processes append to it. One connection writes (the writer's), one reads.

A batch is two round trips: one locks the store's row and reads what the guards look at, one writes everything and
commits. When the connection is lost in between, nothing was written; when it is lost in the second, the server is asked
on a new connection, for as long as it takes, whether the batch is there: nobody is told that something failed which
was committed.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Collection, Generator, Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar

from tightship.core.errors import CommitUnknown, LedgerError, StoreError, StoreLost
from tightship.core.world import SystemClock
from tightship.ledger import pg_bundles, pg_lock
from tightship.ledger._pg import Address, Link, Statement, run_together, script
from tightship.ledger._pg_opening import Opener
from tightship.ledger._pg_patience import CLOSING_SECONDS
from tightship.ledger._pg_schema import MIGRATIONS, Opened, identify, prepare
from tightship.ledger._pg_values import append_statements, delta_statements, kind_of, select_statement
from tightship.ledger._rows import Fetch, Seeds, entries_of_runs, rows_between
from tightship.ledger._schema import projection_tables, schema
from tightship.ledger.backend import NOTHING, Asked, Batch, Condition, Look, Opening, Row, Rows
from tightship.ledger.bundles import entry_of_row
from tightship.ledger.claiming import Claiming
from tightship.ledger.entries import POSITION_BITS, POSITION_MASK, Entry, decode
from tightship.ledger.notices import due_elsewhere, notice_of
from tightship.ledger.own import Own
from tightship.ledger.pg_due import rows_due
from tightship.ledger.pg_snapshot import PostgresSnapshot
from tightship.ledger.presence import LEASE
from tightship.ledger.references import addresses_in
from tightship.ledger.server_clock import ServerClock

if TYPE_CHECKING:
    import psycopg

_T = TypeVar("_T")


class PostgresBackend:
    """The store in a schema of a database; `read_only` where the server takes no writes.

    Args:
        address: where it is.
        master: the workspace's master key.
        name: the workspace's name; None where it is not known.
        create: make the schema where it is not there.
        clock: hears the server's time whenever it is told.
    """

    shared = True
    file_from = None

    def __init__(
        self,
        address: Address,
        master: bytes,
        name: str | None = None,
        create: bool = True,
        clock: ServerClock | None = None,
    ) -> None:
        self.address = address
        self.clock = clock or ServerClock(SystemClock())
        self.opened: Opened = prepare(address, MIGRATIONS, create)
        self.outdated = self.opened.outdated
        self.read_only = self.opened.read_only
        self.id = identify(address, master, name, self.read_only)
        self.own = Own()
        self.clock.hear(*self.opened.heard)
        self.clock.warn(self.where)
        self._link = Link(address)
        self._reader = Link(address)
        self._seeds = Seeds()
        self._opener = Opener(self.clock.hear)
        self._looked: dict[Look, list[dict[str, Any]]] = {}
        self._statements: list[Statement] = []
        self._batch: Batch | None = None
        self._session: object = None
        self._end: float | None = None
        self._sequencing: object = None

    @property
    def where(self) -> str:
        """The server and database, without user and password."""
        return self.address.shown

    @property
    def writing_as(self) -> int:
        """The server's process that this one writes through, as notices name it; 0 when there is none."""
        return self._link.backend_pid

    # --- the writer's side -----------------------------------------------------------------------

    def begin(self, asked: Asked = NOTHING) -> Opening:
        """Lock the store's row and read heads, time and what was asked, in one round trip.

        A connection that was lost is made anew: nothing has been written yet.
        """
        self._statements, self._batch = list[Statement](), None
        (store, heads), self._looked = self._link.patiently(lambda db: self._opener.ask(db, asked))
        self._session = self._link.session
        if not store:
            raise StoreError("the store's row is gone", where=self.where, fix="restore the store from your backup")
        _, _, last, now = store[0]
        return Opening({name: (log_id, head) for log_id, name, head in heads}, now, last)

    def look(self, table: str, where: Sequence[Condition]) -> list[dict[str, Any]]:
        """Rows inside the transaction: those that `begin` has brought, or asked for now."""
        known = self._looked.get((table, tuple(where)))
        if known is not None:
            return known
        sql, values = select_statement(table, where, (), None)
        with self._link.still(self._session) as db:
            return _named(table, db.execute(sql, values).fetchall())

    def due(self, claiming: Claiming, now: float) -> list[dict[str, Any]]:
        """Runs to claim, in order, locked."""
        with self._link.still(self._session) as db:
            return rows_due(db, self.address, claiming, now, locked=True)

    def is_anything_due(self, claiming: Claiming) -> bool:
        """Whether a claim would give something, by a look that locks nothing."""
        one = replace(claiming, limit=1)

        def look(db: psycopg.Connection[Any]) -> bool:
            return bool(rows_due(db, self.address, one, self._ask_time(db), locked=False))

        return self._reader.patiently(look)

    def _ask_time(self, db: psycopg.Connection[Any]) -> float:
        """The server's time, which the clock hears: an idle worker asks some times a second."""
        sent = time.monotonic()
        row = db.execute("SELECT extract(epoch FROM clock_timestamp())::double precision").fetchone()
        assert row is not None
        self.clock.hear(row[0], sent, time.monotonic())
        return row[0]

    def workers(self) -> list[dict[str, Any]]:
        """Everybody who is registered to execute, and whether each is alive."""
        names = ("id", "host", "pid", "build", "started_at", "beat_at", "alive")
        rows = self._fetch("workers", (LEASE, self.address.workers))
        return [dict(zip(names, row, strict=True)) for row in rows]

    def lost_workers(self) -> list[tuple[str, float]]:
        """Those whose lease is over by their beats, whatever became of their sessions; and when each was registered."""
        return [(row[0], row[1]) for row in self._fetch("lost_workers", (LEASE,))]

    def tail(self, log: str, log_id: int, after: int, upto: int) -> list[Entry]:
        """Entries up to a head that is locked; nobody appends meanwhile, so another connection reads them."""
        rows = self._between(log, log_id, max(after, 0), upto, max(upto - after, 0))
        return [decode(log, n, data) for n, data in rows]

    def write(self, batch: Batch, tables: dict[str, tuple[str, ...]]) -> None:
        """Make the batch ready; it goes to the server with the commit."""
        statements = append_statements(batch, self._seeds, self.address.schema, notice_of(batch))
        if due := due_elsewhere(batch):
            statements.append((script("wake_workers"), (due,)))
        self._statements = [*delta_statements(batch.deltas, tables), *statements]
        self._batch = batch

    def commit(self) -> None:
        """Write and commit in one round trip; on the server's disk when it returns."""
        statements, self._statements = self._statements, list[Statement]()
        batch, self._batch = self._batch, None
        with self.own.settling():
            try:
                with self._link.still(self._session) as db:
                    run_together(db, [*statements, ("COMMIT", ())])
            except BaseException as error:
                if batch is None or not self._is_open_question():
                    self._link.drop()  # see run_together
                    raise
                self._ask(batch, error)
            if batch is not None:
                for log_id, head in batch.heads.values():
                    count = sum(row[0] == log_id for row in batch.rows)
                    self.own.add(log_id, head - count + 1, head)

    def _is_open_question(self) -> bool:
        """Whether the commit may have been done: unless the server itself has said that the transaction failed."""
        if self._link.lost:
            return True
        from psycopg.pq import TransactionStatus

        if self._link.live().info.transaction_status is TransactionStatus.INERROR:
            return False
        self._link.drop()  # whatever it was: the answer that came next would be another question's
        return True

    def _ask(self, batch: Batch, error: BaseException) -> None:
        """Learn whether a commit was done whose answer was lost.

        Raises:
            StoreLost: it was not. CommitUnknown: the store was closed before the server could be asked.
        """
        logging.getLogger(__name__).warning("%s: connection lost in a commit, asking again: %s", self.where, error)
        log_id, n, _, data, log, _ = batch.rows[-1]
        pause = 0.05
        while True:  # the process can do nothing sensible before it knows
            try:
                # behind the lock: the old session may be about to commit, or has not been noticed as dead
                self._link.patiently(lambda db: self._opener.ask(db, NOTHING))
                there = self._between(log, log_id, n - 1, n, 1) == [(n, data)]
                self.rollback()
                break
            except StoreError as trouble:
                self.rollback()
                if self._link.closed or (self._end is not None and time.monotonic() > self._end):
                    raise CommitUnknown(where=self.where) from trouble
                self._link.wait(pause)
                pause = min(pause * 2, 1.0)
        if not there:
            raise StoreLost(where=self.where, fix="try again") from error

    def rollback(self) -> None:
        """Roll back, whatever state the connection is in."""
        self._statements, self._batch = list[Statement](), None
        if self._link.lost:
            return
        try:
            with self._link.held() as db:
                db.execute("ROLLBACK")
        except (StoreError, LedgerError):
            self._link.drop()

    # --- tree, archive, projections ------------------------------------------------------------------

    @contextlib.contextmanager
    def _transaction(self, lock: str) -> Generator[psycopg.Connection[Any]]:
        """A transaction of the writer beside the appends, one process at a time for each purpose."""
        with self._link.held() as db, db.transaction():
            db.execute(script("lock_tree"), self.address.lock(lock))
            yield db

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
        with self._transaction("tree") as db:
            latest = db.execute(script("checkpoint"), (log_id,)).fetchone()
            if (latest[0] if latest else 0) != before:
                raise LedgerError("another process has extended the tree; nothing was written")
            if tiles:
                places = sorted(tiles)
                columns = [level for level, _ in places], [at for _, at in places], [tiles[place] for place in places]
                db.execute(script("put_tiles"), (log_id, *columns))
            db.execute(script("put_checkpoint"), (log_id, size, note))

    def compact(self, log: str, covered: int) -> int:
        """Pack a few full bundles of entries that a checkpoint covers (`covered` entries at most).

        Returns: how many entries moved; 0 when there is no such bundle.

        Raises:
            TamperError: an entry is missing or damaged; nothing was moved.
        """
        log_id = self.heads()[log][0]
        with self._transaction("tree") as db:
            return pg_bundles.pack_some(db, log, self._seeds[log], log_id, covered)

    def drop_bundles(self, log: str, upto: int, stay: Collection[int]) -> int:
        """Drop the first few bundles up to a position; of their entries, those at the positions in `stay` are kept.

        Returns: of how many entries they were; 0 when there is no such bundle.

        Raises:
            TamperError: one is damaged; nothing was dropped.
        """
        log_id = self.heads()[log][0]
        with self._transaction("tree") as db:
            return pg_bundles.drop_some(db, log, self._seeds[log], log_id, upto, stay)

    def drop_payloads(self, addresses: Collection[str], after: dict[str, int], named: set[str]) -> set[str]:
        """Drop payloads under the store's lock, but none that an entry behind these positions names."""
        with self._link.held() as db, db.transaction():
            db.execute(script("lock_store"))
            for log_id, log, head in db.execute(script("heads")).fetchall():
                known = after.get(log, 0)
                for _, data in rows_between(_fetcher(db), self._seeds, log, log_id, known, head, head - known):
                    named.update(addresses_in(data))
                after[log] = head
            gone = set(addresses) - named
            db.execute(script("drop_payloads"), ([bytes.fromhex(address) for address in sorted(gone)],))
        return gone

    def drop_files(self, addresses: Collection[str]) -> None:
        """The server has every value itself."""

    def trim(self) -> None:
        """The server's own vacuum does it."""

    def exchange_projections(self, tables: Sequence[str], rows: Rows) -> None:
        """Throw the projections away and write these rows, inside the transaction that `begin` has opened."""
        with self._link.still(self._session) as db, self._link.patience.long():
            db.execute("UPDATE migrations SET applied_at = now() WHERE applied_at = 'infinity'")
            for table in tables:
                columns = ", ".join(schema()[table].defaults)
                db.execute(f"DELETE FROM {table}".encode())
                with db.cursor().copy(f"COPY {table} ({columns}) FROM STDIN".encode()) as copy:
                    for row in rows(table):
                        copy.write_row(row)

    def load(self, tables: Iterable[tuple[str, Iterable[Row]]], last: int) -> None:
        """Fill an empty store with another's rows in one transaction."""
        with self._link.held() as db, self._link.patience.long(), db.transaction():
            db.execute("SET LOCAL idle_in_transaction_session_timeout TO 0")
            db.execute(script("lock_store"))
            if db.execute(script("heads")).fetchone() is not None:
                raise LedgerError("somebody has written to the store meanwhile; nothing was copied")
            for table, rows in tables:
                columns = [*schema()[table].defaults, *(["kind"] if table == "entries" else [])]
                with db.cursor().copy(f"COPY {table} ({', '.join(columns)}) FROM STDIN".encode()) as copy:
                    for row in rows:
                        copy.write_row((*row, kind_of(row[2])) if table == "entries" else row)
            db.execute("SELECT setval(pg_get_serial_sequence('payloads', 'id'), coalesce(max(id), 1)) FROM payloads")
            db.execute(script("set_store"), (last,))

    def sequences(self) -> bool:
        """Whether this process integrates entries: it holds the sequencer's lock, or takes it where it is free."""

        def take(db: psycopg.Connection[Any]) -> bool:
            if self._sequencing is not None and self._sequencing is self._reader.session:
                db.execute("SELECT")  # a holder that asks nothing is taken for frozen
                return True
            self._sequencing = self._reader.session if pg_lock.take(db, self.address.lock("sequencer")) else None
            return self._sequencing is not None

        return not self.read_only and self._reader.patiently(take)

    def public_keys(self) -> dict[str, str]:
        """Published public keys by origin."""
        return dict(self._fetch("public_keys"))

    def publish(self, origin: str, vkey: str) -> None:
        """Publish a log's public key, unless one of that origin is published already."""
        with self._link.held() as db:
            db.execute(script("publish"), (origin, vkey))

    # --- the reader's side -----------------------------------------------------------------------

    def _fetch(self, name: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """Rows that one statement reads; on another connection when this one was lost."""
        sql = script(name)
        return self._reader.patiently(lambda db: db.execute(sql, values).fetchall())

    def _at_one_moment(self, work: Callable[[Fetch], _T]) -> _T:
        """Read at one moment: what is packed meanwhile is neither seen twice nor missed."""

        def read(db: psycopg.Connection[Any]) -> _T:
            with db.transaction():
                db.execute(script("at_one_moment"))
                return work(_fetcher(db))

        return self._reader.patiently(read)

    def heads(self) -> dict[str, tuple[int, int]]:
        """Log name -> (log id, head)."""
        return {name: (log_id, head) for log_id, name, head in self._fetch("heads")}

    def select(
        self,
        table: str,
        where: Sequence[Condition],
        order: Sequence[tuple[str, str]],
        limit: int | None,
    ) -> list[dict[str, Any]]:
        """Rows of a projection that fit, in order."""
        sql, values = select_statement(table, where, order, limit)
        return _named(table, self._reader.patiently(lambda db: db.execute(sql, values).fetchall()))

    def entries(self, log: str, after: int, limit: int) -> list[tuple[int, bytes]]:
        """Position and data of entries after a position.

        Raises:
            TamperError: an entry is not what was written.
        """
        found = self.heads().get(log)
        return [] if found is None else self._between(log, found[0], after, POSITION_MASK, limit)

    def _between(self, log: str, log_id: int, after: int, upto: int, limit: int) -> list[tuple[int, bytes]]:
        return self._at_one_moment(lambda fetch: rows_between(fetch, self._seeds, log, log_id, after, upto, limit))

    def entries_of(self, runs: Sequence[str]) -> list[Entry]:
        """All entries of some runs, in order of the log.

        Raises:
            TamperError: an entry is not what was written.
        """
        return self._at_one_moment(lambda fetch: entries_of_runs(fetch, self._seeds, list(runs), runs))

    def payloads(self, addresses: Sequence[str]) -> dict[str, tuple[str, bytes | None]]:
        """Scope and sealed bytes by address."""
        rows = self._fetch("payload", ([bytes.fromhex(address) for address in addresses],))
        return {address.hex(): (scope, data) for address, scope, data in rows}

    def tile(self, log_id: int, level: int, position: int) -> bytes | None:
        """A Merkle tile."""
        rows = self._fetch("tile", (log_id, level, position))
        return rows[0][0] if rows else None

    def checkpoint(self, log_id: int) -> tuple[int, str] | None:
        """The latest checkpoint."""
        rows = self._fetch("checkpoint", (log_id,))
        return (rows[0][0], rows[0][1]) if rows else None

    def living(self) -> set[str]:
        """The ids of the workers that live."""
        return {row["id"] for row in self.workers() if row["alive"]}

    def moved(self) -> bool:
        """Others may always have appended; `foreign` says what."""
        return True

    def foreign(self, after: dict[str, int], only: frozenset[str] | None) -> list[Entry]:
        """Others' entries behind these positions, which go forward to what was read."""
        return self.foreign_by(self._reader, after, only)

    def foreign_by(self, link: Link, after: dict[str, int], only: frozenset[str] | None) -> list[Entry]:
        """The same over another connection (a follower's own)."""
        wanted = None if only is None else sorted(only)
        found: list[Entry] = []

        def read(db: psycopg.Connection[Any]) -> dict[str, tuple[int, int]]:
            found.clear()
            with db.transaction():
                db.execute(script("at_one_moment"))
                heads = {name: (log_id, head) for log_id, name, head in db.execute(script("heads"))}
                for log, (log_id, head) in heads.items():
                    known = after.get(log, 0)
                    if head > known:
                        found.extend(self._read_foreign(db, log, log_id, known, head, wanted))
            return heads

        heads = link.patiently(read)
        with self.own.settled():
            others = [entry for entry in found if not self.own.has(heads[entry.log][0], entry.n)]
            for log, (log_id, head) in heads.items():
                after[log] = head
                self.own.passed(log_id, head)
        others.sort(key=lambda entry: (entry.at, entry.log, entry.n))  # the order in which they were committed
        return others

    def _read_foreign(
        self, db: psycopg.Connection[Any], log: str, log_id: int, after: int, upto: int, only: list[str] | None
    ) -> list[Entry]:
        fetch = _fetcher(db)
        if only is not None:
            base, seed = log_id << POSITION_BITS, self._seeds[log]
            first = db.execute(script("first_entry"), (base, base | POSITION_MASK)).fetchone()
            if first and first[0] is not None and first[0] <= base | (after + 1):  # none of them is packed yet
                rows = fetch("entries_of_kinds", (base | after, base | upto, only))
                return [decode(log, row[0] & POSITION_MASK, entry_of_row(log, seed, row)) for row in rows]
        read = rows_between(fetch, self._seeds, log, log_id, after, upto, upto - after)
        entries = [decode(log, n, data) for n, data in read]
        return [entry for entry in entries if only is None or entry.kind in only]

    def snapshot(self) -> PostgresSnapshot:
        """Everything as it lies there at this moment, over a connection of its own."""
        return PostgresSnapshot(self.address)

    def closing(self) -> None:
        """What waits for the server to come back gives up soon."""
        self._end = time.monotonic() + CLOSING_SECONDS
        self._reader.closing()
        self._link.closing()

    def close(self) -> None:
        """Close both connections."""
        self._reader.close()
        self._link.close()


def _named(table: str, rows: Sequence[tuple[Any, ...]]) -> list[dict[str, Any]]:
    columns = tuple(projection_tables()[table].defaults)
    return [dict(zip(columns, row, strict=True)) for row in rows]


def _fetcher(db: psycopg.Connection[Any]) -> Fetch:
    return lambda name, values: db.execute(script(name), values).fetchall()
