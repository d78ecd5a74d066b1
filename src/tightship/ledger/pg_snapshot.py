"""A Postgres store's rows as they lie there at one moment: nothing is decoded, nothing is trusted."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, LiteralString, cast

from tightship.ledger._pg import Address, connect, translate_errors
from tightship.ledger._pg_patience import LONG_SECONDS, Patience
from tightship.ledger._pg_values import TYPES
from tightship.ledger._schema import schema
from tightship.ledger._stored import PAGE, StoredRows
from tightship.ledger.backend import Row

if TYPE_CHECKING:
    import psycopg


class PostgresSnapshot(StoredRows):
    """One REPEATABLE READ transaction over a store, on a connection of its own. Every method raises StoreError where
    the database cannot be read."""

    dialect = "postgres"
    mark = "%s"

    def __init__(self, address: Address) -> None:
        self.name = address.shown
        self._address = address
        self._db: psycopg.Connection[Any] = connect(address, Patience(LONG_SECONDS))
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

    def stored(self, addresses: Sequence[str]) -> set[str]:
        """Which of these addresses have a row."""
        rows = self._read(
            "SELECT address FROM payloads WHERE address = ANY(%b::bytea[])",
            ([bytes.fromhex(address) for address in addresses],),
        )
        return {row[0].hex() for row in rows}

    def tile_sizes(self, log_id: int) -> Iterator[Row]:
        """Level, position and length in bytes of a log's tiles, in order."""
        return self._stream(
            "SELECT level, position, length(data) FROM tiles WHERE log = %s ORDER BY level, position", (log_id,)
        )

    def projection(self, table: str) -> Iterator[Row]:
        """A projection's rows in order of their key."""
        made = schema()[table]
        return self._stream(f"SELECT {', '.join(made.defaults)} FROM {table} ORDER BY {', '.join(made.key)}")
