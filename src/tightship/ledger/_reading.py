"""The entries of a log as they lie in a snapshot: in bundles and in the table, compared with their checksums."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import orjson

from tightship.core.errors import TamperError
from tightship.ledger.backend import Moment, Row
from tightship.ledger.bundles import WIDTH, bundle_crc, named, unpack
from tightship.ledger.entries import POSITION_MASK, Entry, decode, entry_crc, log_crc

Add = Callable[[str, str], None]
"""Takes a place and what is wrong there."""


@dataclass(frozen=True, slots=True)
class Read:
    """An entry as it was read.

    Attributes:
        n: its position. place: where it lies. bundle: the row of its bundle, or None.
        data: its bytes; None where there are none. run: its row's run column; None in a bundle.
        damaged: its checksum does not hold.
    """

    n: int
    place: str
    data: bytes | None
    run: str | None = None
    damaged: bool = False
    bundle: int | None = None


class LogReader:
    """Reads one log of a snapshot from its first entry to its last; what is wrong with a row is told to `add`."""

    def __init__(self, snapshot: Moment, log_id: int, name: str, add: Add) -> None:
        self._snapshot = snapshot
        self._log_id, self._name = log_id, name
        self._seed = log_crc(name)
        self._add = add

    def pages(self) -> Iterator[list[Read]]:
        """All entries in order, a bundle or a page of the table at a time; no page is empty.

        Raises:
            StoreError: the file cannot be read on from here.
        """
        for rows in self._snapshot.kept(self._log_id):
            yield [self._from_table(row, "kept") for row in rows]
        for bundle in self._snapshot.bundles(self._log_id):
            yield self._from_bundle(bundle)
        for rows in self._snapshot.entries(self._log_id):
            yield [self._from_table(row) for row in rows]

    def entries(self) -> Iterator[list[Entry]]:
        """The entries that are whole, a page at a time.

        Raises:
            StoreError: the file cannot be read on from here.
        """
        for page in self.pages():
            entries: list[Entry] = []
            for read in page:
                if read.data is not None and not read.damaged:
                    try:
                        entries.append(decode(self._name, read.n, read.data))
                    except TamperError as error:
                        self._add(read.place, error.message)
            yield entries

    def _from_bundle(self, row: Row) -> list[Read]:
        """The entries of a bundle; what cannot be unpacked stands as 256 entries without bytes."""
        first, data, crc = row
        n, place = first & POSITION_MASK, f"bundles, row {first}"
        try:
            if not isinstance(data, bytes) or bundle_crc(self._seed, first, data) != crc:
                self._add(place, f"{named(first)} is not what was written: its checksum does not hold")
            entries: list[bytes] | None = unpack(first, data) if isinstance(data, bytes) else None
        except TamperError as error:
            self._add(place, error.message)
            entries = None
        if entries is None:
            return [Read(at, place, None, bundle=first) for at in range(n, n + WIDTH)]
        return [Read(at, f"{place}, entry {at}", entry, bundle=first) for at, entry in enumerate(entries, start=n)]

    def _from_table(self, row: Row, table: str = "entries") -> Read:
        """An entry's row, compared with its checksum."""
        row_id, run, text, crc = row
        n, place = row_id & POSITION_MASK, f"{table}, row {row_id}"
        data = text.encode("utf-8", "surrogateescape") if isinstance(text, str) else None
        if data is None or not isinstance(run, str):
            self._add(place, f"entry {n} of log {self._name!r} is not what was written: it is no text")
            return Read(n, place, data, damaged=True)
        if entry_crc(self._seed, run.encode("utf-8", "surrogateescape"), data) != crc:
            self._add(place, f"entry {n} of log {self._name!r} is not what was written: its checksum does not hold")
            return Read(n, place, data, damaged=True)
        return Read(n, place, data, run)


def run_of(read: Read) -> str | None:
    """The run that an entry says it is of; None where it cannot be read."""
    try:
        run = orjson.loads(read.data or b"")["run"]
    except (orjson.JSONDecodeError, KeyError, TypeError):
        return None
    return run if isinstance(run, str) else None
