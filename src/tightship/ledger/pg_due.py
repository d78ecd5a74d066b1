"""Which runs are due on Postgres: `claiming` as one statement."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, LiteralString, cast

from tightship.ledger._pg import Address, script
from tightship.ledger._schema import projection_tables
from tightship.ledger.claiming import Claiming
from tightship.ledger.presence import LEASE

if TYPE_CHECKING:
    import psycopg


def rows_due(
    db: psycopg.Connection[Any], address: Address, claiming: Claiming, now: float, locked: bool
) -> list[tuple[Any, ...]]:
    """The rows of the runs to claim, in order.

    Args:
        db: within a transaction where they are to be locked. now: store time (s).
        locked: lock them, and pass over those that others have locked.
    """
    columns = ", ".join(f"runs.{column}" for column in projection_tables()["runs"].defaults)
    lock = "FOR UPDATE OF runs SKIP LOCKED" if locked else ""
    values = {
        "lock": address.workers,
        "now": now,
        "lease": LEASE,
        "build": claiming.build,
        "live": int(claiming.live),
        "limit": claiming.limit,
    }
    return db.execute(cast(LiteralString, script("claim_due").format(columns=columns, lock=lock)), values).fetchall()
