"""Projections folded beside the store, in a file that nobody else sees: to rebuild the store's, or to compare them."""

from __future__ import annotations

import contextlib
import heapq
import sqlite3
from collections.abc import Generator, Iterable, Iterator, Sequence
from itertools import chain, islice
from typing import Any

from tightship.core.errors import StoreFull
from tightship.ledger._schema import empty_database, schema, write_deltas
from tightship.ledger._sql import script
from tightship.ledger.entries import Entry
from tightship.ledger.projections import Deltas, Folder


class Scratch:
    """Tables of projections in a temporary SQLite file, so that memory stays flat however many rows there are.

    Every method that reads or writes raises StoreFull where temporary files have no room.

    Attributes:
        folded: entries taken so far. positions: the last position taken of each log.
    """

    def __init__(self, folder: Folder) -> None:
        self._folder = folder
        self._db = empty_database("")
        for pragma in ("journal_mode=MEMORY", "synchronous=OFF", "cache_size=-16000"):
            self._db.execute(f"PRAGMA {pragma}")
        self.folded = 0
        self.positions: dict[str, int] = {}

    def fold(self, entries: Sequence[Entry]) -> None:
        """Take entries, in the order in which they were committed.

        Raises:
            KeyError, TypeError, ValueError: an entry's body is not what its kind has.
        """
        deltas: Deltas = {}
        for entry in entries:
            self._folder.fold(entry, deltas)
        with _room(), self._page():
            write_deltas(self._db, deltas, self._folder.tables)
        self.folded += len(entries)
        for entry in entries:
            self.positions[entry.log] = entry.n

    @contextlib.contextmanager
    def _page(self) -> Generator[None]:
        self._db.execute("SAVEPOINT page")
        try:
            yield
        except BaseException:
            if self._db.in_transaction:  # a full disk has ended it
                self._db.execute("ROLLBACK TO page")
            raise
        finally:
            if self._db.in_transaction:
                self._db.execute("RELEASE page")

    def seed(self, table: str, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
        """Begin with these rows of a table; columns that it no longer has are left out."""
        there = [at for at, column in enumerate(columns) if column in schema()[table].defaults]
        names, marks = ", ".join(columns[at] for at in there), ",".join("?" * len(there))
        with _room(), self._page():
            self._db.executemany(
                f"INSERT INTO {table} ({names}) VALUES ({marks})", ([row[at] for at in there] for row in rows)
            )

    def put_bundle_runs(self, bundle: int, runs: Iterable[str]) -> None:
        """Take down which runs a bundle holds entries of."""
        with _room():
            self._db.executemany(script("put_bundle_run"), [(run, bundle) for run in runs])

    def rows(self, table: str) -> Iterator[tuple[Any, ...]]:
        """A table's rows in order of their key."""
        key = ", ".join(schema()[table].key)
        with _room():
            yield from self._db.execute(f"SELECT * FROM {table} ORDER BY {key}")

    def count(self, table: str) -> int:
        """How many rows a table has."""
        return self._db.execute(f"SELECT count(*) FROM {table}").fetchone()[0]

    def close(self) -> None:
        """Throw it away."""
        self._db.close()


@contextlib.contextmanager
def _room() -> Generator[None]:
    try:
        yield
    except sqlite3.OperationalError as error:
        raise StoreFull(
            f"the tables cannot be folded beside the store, in the folder for temporary files: {error}",
            fix="name a folder with as much room as the store's tables take: SQLITE_TMPDIR=DIR",
        ) from error


def in_order(logs: Sequence[Iterator[list[Entry]]]) -> Iterator[list[Entry]]:
    """The pages of several logs as pages of one: by store time, which goes forward with every unit of any log."""
    if len(logs) == 1:
        yield from logs[0]
        return
    entries = heapq.merge(
        *(chain.from_iterable(pages) for pages in logs), key=lambda entry: (entry.at, entry.log, entry.n)
    )
    while page := list(islice(entries, 1000)):
        yield page


def same_row(ours: Sequence[Any], theirs: Sequence[Any]) -> int | None:
    """The first column in which two rows differ, types included, or None."""
    for at, (a, b) in enumerate(zip(ours, theirs, strict=True)):
        if type(a) is not type(b) or a != b:
            return at
    return None
