"""The first round trip of a batch: lock the store's row, read heads, time, and what the guards look at.

It is one simple query, not a pipeline: behind a pipeline's flush the server (PostgreSQL 15 to 18) no longer counts how
long the open transaction waits for its client, and one that is frozen would hold the lock for ever. Its statements are
prepared once a session, so that the server does not plan them again for every batch.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final

from tightship.core.errors import LedgerError
from tightship.ledger._pg import script
from tightship.ledger._schema import projection_tables
from tightship.ledger.backend import FACTS, HALTED, NOTHING, Asked, Look

if TYPE_CHECKING:
    import psycopg

_FIRST: Final = "BEGIN; EXECUTE tightship_lock; EXECUTE tightship_heads"
Found = list[list[tuple[Any, ...]]]


class Opener:
    """Opens batches on whatever connection there is."""

    def __init__(self, hear: Callable[[float, float, float], None]) -> None:
        """`hear` is told the server's time (s), and the monotonic times at which it was asked and answered."""
        self._prepared: object = None
        self._hear = hear

    def ask(self, db: psycopg.Connection[Any], asked: Asked) -> tuple[Found, dict[Look, list[dict[str, Any]]]]:
        """Begin, and lock. Gives the rows of the store and of the logs, and those of each look.

        Raises:
            LedgerError: a name holds what no text of the server can.
        """
        looks = [] if asked is NOTHING else asked.looks()
        text = "; ".join([_FIRST, *(_execute(db, look) for look in looks)])
        if self._prepared is not db:
            db.execute(_preparations().encode(), prepare=False)
            self._prepared = db
        sent = time.monotonic()
        _, store, heads, *found = _results(db.execute(text.encode(), prepare=False))
        if store:
            self._hear(store[0][3], sent, time.monotonic())
        facts = {
            look: [dict(zip(FACTS[look[0]], row, strict=True)) for row in rows]
            for look, rows in zip(looks, found, strict=True)
        }
        return [store, heads], facts


def _results(cursor: psycopg.Cursor[Any]) -> Found:
    found: Found = []
    while True:
        found.append(cursor.fetchall() if cursor.description else [])
        if not cursor.nextset():
            return found


def _preparations() -> str:
    """The statements that a batch opens with, prepared; the names are the schema's own."""
    parts = [f"PREPARE tightship_lock AS {script('lock_store')}", f"PREPARE tightship_heads AS {script('heads')}"]
    for table, columns in FACTS.items():
        if table == HALTED[0]:
            take, where = "", "state = 'on'"
        else:
            keys = projection_tables()[table].key
            take = f" ({', '.join('text[]' for _ in keys)})"
            where = " AND ".join(f"{key} = ANY(${number})" for number, key in enumerate(keys, 1))
        parts.append(f"PREPARE tightship_{table}{take} AS SELECT {', '.join(columns)} FROM {table} WHERE {where}")
    return "; ".join(parts)


def _execute(db: psycopg.Connection[Any], look: Look) -> str:
    table, conditions = look
    if look == HALTED:
        return f"EXECUTE tightship_{table}"
    return f"EXECUTE tightship_{table} ({', '.join(_literal(db, names) for _, _, names in conditions)})"


def _literal(db: psycopg.Connection[Any], names: Sequence[str]) -> str:
    """An array of texts as a literal, quoted by the client library."""
    from psycopg.pq import Escaping

    text = ",".join(['"' + name.replace("\\", "\\\\").replace('"', '\\"') + '"' for name in names])
    if "\0" in text:
        raise LedgerError("a value cannot be stored: a name holds the character 0")
    return bytes(Escaping(db.pgconn).escape_literal(f"{{{text}}}".encode())).decode()
