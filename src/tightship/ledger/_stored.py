"""The reads of a snapshot that both dialects put alike; what differs is how a statement is run."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any, Final

from tightship.ledger._sql import script
from tightship.ledger.backend import Row
from tightship.ledger.entries import POSITION_BITS, POSITION_MASK

PAGE: Final = 1000
"""Rows that are read at a time."""
_FIRST: Final = -(1 << 63)


class StoredRows(ABC):
    """A store's rows by number, a page at a time (`Moment` says what each method gives).

    `dialect` names the folder of the statements, `mark` is how they write a bound value.
    """

    dialect: str
    mark: str

    @abstractmethod
    def _read(self, sql: str, values: Sequence[Any] = ()) -> list[Row]:
        """All rows of a statement."""

    @abstractmethod
    def _stream(self, sql: str, values: Sequence[Any] = ()) -> Iterator[Row]:
        """The rows of a statement, without holding all of them."""

    def _script(self, name: str) -> str:
        return script(name, self.dialect)

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
        for table in ("kept", "entries", "bundles"):
            after = _FIRST
            while rows := self._read(f"SELECT id FROM {table} WHERE id > {self.mark} ORDER BY id LIMIT 1", (after,)):
                log_id = rows[0][0] >> POSITION_BITS
                found.add(log_id)
                after = log_id << POSITION_BITS | POSITION_MASK
        return sorted(found)

    def bundles(self, log_id: int) -> Iterator[Row]:
        """Row id, data and checksum of a log's bundles, in order."""
        after, last = (log_id << POSITION_BITS) - 1, log_id << POSITION_BITS | POSITION_MASK
        while rows := self._read(self._script("bundles_range"), (after, last, PAGE // 100)):
            yield from rows
            after = rows[-1][0]

    def entries(self, log_id: int) -> Iterator[list[Row]]:
        """Row id, run, data and checksum of a log's entries that are not in bundles, in order, a page at a time."""
        after, last = (log_id << POSITION_BITS) - 1, log_id << POSITION_BITS | POSITION_MASK
        while rows := self._read(self._script("entries_range"), (after, last, PAGE)):
            yield rows
            after = rows[-1][0]

    def kept(self, log_id: int) -> Iterator[list[Row]]:
        """The same of the entries that have stayed where their bundles have left for an archive."""
        after, last = (log_id << POSITION_BITS) - 1, log_id << POSITION_BITS | POSITION_MASK
        while rows := self._read(self._script("kept_range"), (after, last, PAGE)):
            yield rows
            after = rows[-1][0]

    def payloads(self) -> Iterator[list[Row]]:
        """Row id, address, scope, sealed bytes and checksum of each payload, a page at a time."""
        after = _FIRST
        while rows := self._read(self._script("payloads_after"), (after, PAGE // 10)):
            yield rows
            after = rows[-1][0]

    def latest_payloads(self) -> dict[str, int]:
        """The row ids of the payloads that were stored last, by address."""
        rows = self._read(self._script("payloads_latest"), (PAGE,))
        return {row[1].hex(): row[0] for row in rows if isinstance(row[1], bytes)}

    def tile(self, log_id: int, level: int, position: int) -> Any:
        """A tile's bytes, or None."""
        rows = self._read(self._script("tile"), (log_id, level, position))
        return rows[0][0] if rows else None

    def checkpoints(self, log_id: int, latest_first: bool = False) -> Iterator[Row]:
        """Size and note of a log's checkpoints, in order."""
        order = "DESC" if latest_first else "ASC"
        sql = f"SELECT size, note FROM checkpoints WHERE log = {self.mark} ORDER BY size {order}"
        return self._stream(sql, (log_id,))

    def logs_of(self, table: str) -> list[Any]:
        """The logs that the rows of a table say they are of."""
        return [row[0] for row in self._read(f"SELECT DISTINCT log FROM {table}")]
