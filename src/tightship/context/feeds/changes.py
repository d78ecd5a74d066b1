"""The changes of a Postgres table: a trigger notes them in the transaction that makes them, and here they are taken.

The notes are a queue and no log with a cursor: numbers are given before they commit, so a reader that went on from the
last number it saw would lose what commits late. What is there was not taken; what was taken is deleted, once it is
durable in the ledger. A NOTIFY is a wake-up and nothing more.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, LiteralString, cast

from tightship.context.feeds.port import Delivery
from tightship.core.errors import Unavailable
from tightship.workflow.context_feeds import PostgresFeed

if TYPE_CHECKING:
    import psycopg

CHANNEL: Final = "tightship_changes"
_TAKE: Final = (
    "SELECT id, delivery::text, extract(epoch FROM at)::double precision, change::text"
    " FROM {schema}.tightship_changes WHERE feed = %s ORDER BY id LIMIT %s"
)
_DELETE: Final = "DELETE FROM {schema}.tightship_changes WHERE id = ANY(%s)"
_LOCK: Final = "SELECT pg_try_advisory_lock(hashtext(%s), hashtext(%s))"


def setup_sql(feed: str, spec: PostgresFeed) -> str:
    """The statements that make a table's changes noted; a person runs them."""
    text = (Path(__file__).parent / "changes.sql").read_text("utf-8")
    return text.replace("{schema}", spec.schema_name).replace("{table}", spec.table).replace("{feed}", feed)


class ChangeFeed:
    """A feed's notes (port `Broker`). One process takes them at a time; another goes on when its session ends."""

    def __init__(self, db: psycopg.AsyncConnection[Any], feed: str, schema: str) -> None:
        self._db, self._feed, self._schema = db, feed, schema
        self._mine = False

    @classmethod
    async def open(cls, url: str, feed: str, spec: PostgresFeed) -> ChangeFeed:
        """Connect, and listen.

        Raises:
            ImportError: psycopg is not installed. Unavailable: the server does not answer, or refuses.
        """
        import psycopg

        async with _translated():
            db = await psycopg.AsyncConnection.connect(
                url, autocommit=True, connect_timeout=10, keepalives_idle=5, tcp_user_timeout=10_000
            )
            try:
                await db.execute(f"LISTEN {CHANNEL}".encode())
            except BaseException:
                await db.close()
                raise
        return cls(db, feed, spec.schema_name)

    async def take(self, limit: int, seconds: float) -> Sequence[Delivery]:
        """As the port says."""
        async with _translated():
            found = await self._look(limit)
            if not found:
                async for _ in self._db.notifies(timeout=seconds, stop_after=1):
                    pass
                found = await self._look(limit)
        return found

    async def _look(self, limit: int) -> list[Delivery]:
        if not self._mine:
            names = (f"{CHANNEL} {self._schema}", self._feed)
            row = await (await self._db.execute(_LOCK, names)).fetchone()
            self._mine = bool(row and row[0])
            if not self._mine:
                return []
        cursor = await self._db.execute(self._sql(_TAKE), (self._feed, limit))
        return [Delivery(name, at, change.encode(), id) async for id, name, at, change in cursor]

    async def acknowledge(self, deliveries: Sequence[Delivery]) -> None:
        """As the port says."""
        async with _translated():
            await self._db.execute(self._sql(_DELETE), ([one.token for one in deliveries],))

    async def close(self) -> None:
        """As the port says."""
        await self._db.close()

    def _sql(self, text: str) -> LiteralString:
        """The schema's name is a plain one (`PostgresFeed.table`)."""
        return cast(LiteralString, text.replace("{schema}", self._schema))


@asynccontextmanager
async def _translated() -> AsyncGenerator[None]:
    """The library's errors in the tree's terms, without the URL: a password may be in it."""
    import psycopg

    try:
        yield
    except (psycopg.Error, OSError) as error:
        said = getattr(getattr(error, "diag", None), "message_primary", None) or "it does not answer"
        raise Unavailable(f"the database of the feed: {said}") from None
