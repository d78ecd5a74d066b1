"""The levels of the rates that all workers share, in Postgres: one row a name, moved by one statement.

What is in the parameters, and what the answer means, stands in `controls/shares.py` (Ask, Booking).
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final, cast

from tightship.core.errors import StoreError
from tightship.ledger._sql import script

if TYPE_CHECKING:
    from typing import LiteralString

    import psycopg

PATIENCE: Final = 1.0
"""Seconds after which the store counts as not answering."""
PAUSE: Final = 0.5
"""Seconds after a failure in which it is not asked again."""


class PgRates:
    """The shared rate levels of one store, over a connection of its own (LISTEN and transactions do not mix with it).

    Args:
        conninfo: what libpq connects with. It holds the password, so it is in no message.
        schema: the schema of the store's tables.
    """

    def __init__(self, conninfo: str, schema: str = "tightship") -> None:
        self._conninfo = conninfo
        self._schema = schema
        self._db: psycopg.AsyncConnection[Any] | None = None
        self._turn = asyncio.Lock()
        self._not_before = 0.0

    async def move(self, parameters: Mapping[str, Any]) -> tuple[bool, float]:
        """Run the statement.

        Returns: whether it was booked, and the seconds until what was booked may go.

        Raises:
            StoreError: the store does not answer; whether the statement was carried out is not known then.
        """
        import psycopg

        loop = asyncio.get_running_loop()
        if loop.time() < self._not_before:
            raise StoreError("the store of the shared rates does not answer")
        try:
            async with asyncio.timeout(PATIENCE), self._turn:
                return await self._move(parameters)
        except (psycopg.Error, OSError, TimeoutError) as error:
            self._not_before = loop.time() + PAUSE
            await self.close()
            raise StoreError(f"the store of the shared rates does not answer ({type(error).__name__})") from None

    async def close(self) -> None:
        """Let go of the connection; the next `move` makes another."""
        db, self._db = self._db, None
        if db is not None:
            await db.close()

    async def _move(self, parameters: Mapping[str, Any]) -> tuple[bool, float]:
        db = await self._connected()
        while True:
            row = await (await db.execute(_text("book_rate"), parameters)).fetchone()
            if row is not None:
                return row
            await db.execute(_text("open_rate"), parameters)

    async def _connected(self) -> psycopg.AsyncConnection[Any]:
        if self._db is None or self._db.closed:
            import psycopg
            from psycopg import sql

            self._db = await psycopg.AsyncConnection.connect(self._conninfo, autocommit=True)
            await self._db.execute(sql.SQL("SET search_path TO {}").format(sql.Identifier(self._schema)))
        return self._db


def _text(name: str) -> LiteralString:
    return cast("LiteralString", script(name, "postgres"))
