"""The keystore in a Postgres schema of its own, or in another database: the same wrapped keys as in a file.

A destroyed key is overwritten. The server keeps old row versions until it has vacuumed, and its write-ahead log and
backups for as long as you keep them: what lies there is wrapped by the master key, which is never sent to the server.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

from tightship.core.errors import StoreError
from tightship.ledger._pg import Address, Link, run_together, script
from tightship.ledger._pg_schema import KEY_MIGRATIONS, prepare
from tightship.ledger.keyring import KeyStore, WrappedKey

if TYPE_CHECKING:
    import psycopg

SUFFIX: Final = "_keys"
"""What the keystore's schema has after the ledger's name."""


class PostgresKeyStore(KeyStore):
    """Wrapped keys in a table. One connection looks up, one writes.

    Raises:
        StoreError and its kinds: as the server answers.
    """

    def __init__(self, address: Address, create: bool = True) -> None:
        super().__init__()
        self.address = address.beside(SUFFIX)
        prepare(self.address, KEY_MIGRATIONS, create)
        self._reader, self._writer = Link(self.address), Link(self.address)

    def get(self, name: str) -> WrappedKey | None:
        """The row of a key."""
        sql = script("key")
        rows = self._reader.patiently(lambda db: db.execute(sql, (name,)).fetchall())
        return WrappedKey(*rows[0]) if rows else None

    def get_many(self, names: Sequence[str]) -> list[WrappedKey]:
        """The rows of several keys that there are, in one round trip."""
        sql = script("keys")
        rows = self._reader.patiently(lambda db: db.execute(sql, (list(names),)).fetchall())
        return [WrappedKey(*row) for row in rows]

    def put(self, rows: Sequence[WrappedKey]) -> list[str]:
        """One transaction. It may be done twice: what is there stands, and is compared."""
        if not rows:
            return []
        # in order of their names, so that two processes that make the same keys do not wait for each other in a circle
        columns = [list(column) for column in zip(*sorted(rows), strict=True)]
        names = columns[0]

        def store(db: psycopg.Connection[Any]) -> list[list[tuple[Any, ...]]]:
            return run_together(
                db, [("BEGIN", ()), (script("put_keys"), columns), (script("keys"), (names,)), ("COMMIT", ())]
            )

        stored = {row[0]: row[1] for row in self._writer.patiently(self._whole(store))[2]}
        return [row.name for row in rows if stored[row.name] != row.wrapped]

    @staticmethod
    def _whole(work: Any) -> Any:
        """A transaction whose connection is given up when it fails (see run_together)."""

        def run(db: psycopg.Connection[Any]) -> Any:
            try:
                return work(db)
            except BaseException:
                db.close()
                raise

        return run

    def destroy(self, name: str) -> None:
        """Overwrite the key, and have the server clear the page of its old versions soon."""
        sql = script("destroy_key")
        self._writer.patiently(lambda db: db.execute(sql, (name,)))
        with contextlib.suppress(StoreError), self._writer.held() as db, self._writer.patience.long():
            db.execute("VACUUM keys")

    def page(self, after: str, limit: int) -> list[WrappedKey]:
        """Rows in order of their names."""
        sql = script("keys_after")
        rows = self._reader.patiently(lambda db: db.execute(sql, (after, limit)).fetchall())
        return [WrappedKey(*row) for row in rows]

    def closing(self) -> None:
        """Whoever waits for the server gives up within some seconds."""
        self._reader.closing()
        self._writer.closing()

    def close(self) -> None:
        """Close both connections."""
        self._reader.close()
        self._writer.close()
