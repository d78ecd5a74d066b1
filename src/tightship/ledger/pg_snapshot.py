"""A Postgres store's rows as they lie there at one moment: nothing is decoded, nothing is trusted."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Final, LiteralString, cast

from tightship.ledger._pg import Address, connect, script, translate_errors
from tightship.ledger._pg_values import TYPES
from tightship.ledger._schema import schema
from tightship.ledger.backend import Row
from tightship.ledger.entries import POSITION_BITS, POSITION_MASK

if TYPE_CHECKING:
    import psycopg

PAGE: Final = 1000
"""Rows that are read at a time."""


class PostgresSnapshot:
    """One REPEATABLE READ transaction over a store, on a connection of its own. Every method raises StoreError where
    the database cannot be read."""

    def __init__(self, address: Address) -> None:
        self.name = address.shown
        self._address = address
        self._db: psycopg.Connection[Any] = connect(address)
        self._streams = 0
        try:
            with translate_errors(address):
                # an audit reads for as long as it takes, and may think between two rows
                self._db.execute("SET idle_in_transaction_session_timeout TO 0")
                self._db.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
                self._db.execute("SELECT FROM logs LIMIT 1")
        except BaseException:
            self._db.close()
            raise

    def close(self) -> None:
        """End it."""
        self._db.close()

    def _read(self, sql: str, values: Sequence[Any] = ()) -> list[Row]:
        with translate_errors(self._address):
            return self._db.execute(cast(LiteralString, sql), values).fetchall()

    def _stream(self, sql: str, values: Sequence[Any] = ()) -> Iterator[Row]:
        self._streams += 1
        with translate_errors(self._address), self._db.cursor(f"stream_{self._streams}") as cursor:
            cursor.itersize = PAGE
            cursor.execute(cast(LiteralString, sql), values)
            yield from cursor

    def structure(self) -> list[str]:
        """Where the schema differs from the one that the migrations make."""
        rows = self._read(
            "SELECT table_name::text, column_name::text, data_type::text FROM information_schema.columns"
            " WHERE table_schema = %s",
            (self._address.schema,),
        )
        there = {(table, column): kind for table, column, kind in rows}
        found: list[str] = []
        for table, made in schema().items():
            for column, kind in made.types.items():
                stated = there.get((table, column))
                if stated is None:
                    found.append(f"the column {table}.{column} is missing")
                elif stated != TYPES[kind]:
                    found.append(f"the column {table}.{column} is {stated}, not {TYPES[kind]}")
        return found

    def counts(self) -> dict[str, int]:
        """About how many rows the large tables have (the highest row id, entries by their heads)."""
        return {
            "entries": sum(row[2] for row in self.logs()),
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
            while rows := self._read(f"SELECT id FROM {table} WHERE id > %s ORDER BY id LIMIT 1", (after,)):
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
        return {row[1].hex(): row[0] for row in self._read(script("payloads_latest"), (PAGE,))}

    def stored(self, addresses: Sequence[str]) -> set[str]:
        """Which of these addresses have a row."""
        rows = self._read(
            "SELECT address FROM payloads WHERE address = ANY(%b::bytea[])",
            ([bytes.fromhex(address) for address in addresses],),
        )
        return {row[0].hex() for row in rows}

    def tile(self, log_id: int, level: int, position: int) -> Any:
        """A tile's bytes, or None."""
        rows = self._read(script("tile"), (log_id, level, position))
        return rows[0][0] if rows else None

    def tile_sizes(self, log_id: int) -> Iterator[Row]:
        """Level, position and length in bytes of a log's tiles, in order."""
        return self._stream(
            "SELECT level, position, length(data) FROM tiles WHERE log = %s ORDER BY level, position", (log_id,)
        )

    def checkpoints(self, log_id: int, latest_first: bool = False) -> Iterator[Row]:
        """Size and note of a log's checkpoints, in order."""
        order = "DESC" if latest_first else "ASC"
        return self._stream(f"SELECT size, note FROM checkpoints WHERE log = %s ORDER BY size {order}", (log_id,))

    def logs_of(self, table: str) -> list[Any]:
        """The logs that the rows of a table say they are of."""
        return [row[0] for row in self._read(f"SELECT DISTINCT log FROM {table}")]

    def projection(self, table: str) -> Iterator[Row]:
        """A projection's rows in order of their key."""
        made = schema()[table]
        return self._stream(f"SELECT {', '.join(made.defaults)} FROM {table} ORDER BY {', '.join(made.key)}")
