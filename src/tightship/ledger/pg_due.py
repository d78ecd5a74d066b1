"""Which runs are due on Postgres: `claiming` as one statement."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, LiteralString, cast

from tightship.ledger._pg import Address, script
from tightship.ledger._schema import projection_tables
from tightship.ledger.claiming import Claiming, Room
from tightship.ledger.presence import LEASE

if TYPE_CHECKING:
    import psycopg


def rows_due(
    db: psycopg.Connection[Any], address: Address, claiming: Claiming, now: float, locked: bool
) -> list[dict[str, Any]]:
    """The rows of the runs to claim, in order.

    Args:
        db: within a transaction where they are to be locked. now: store time (s).
        locked: lock them, and pass over those that others have locked.
    """
    values = {
        "lock": address.workers,
        "now": now,
        "lease": LEASE,
        "build": claiming.build,
        "live": int(claiming.live),
        "limit": claiming.limit,
        "owner": claiming.owner,
        "idle": list(claiming.idle),
    }
    at_work = db.execute(script("at_work"), values).fetchall() if claiming.bounds else []
    room = Room(claiming.bounds, [*at_work, *claiming.begun])
    values |= {"none": room.none, "tenants": room.full_tenants, "workflows": room.full_workflows}
    names = list(projection_tables()["runs"].defaults)
    columns = ", ".join(f"runs.{name}" for name in names)
    lock = "FOR UPDATE OF runs SKIP LOCKED" if locked else ""
    found = db.execute(cast(LiteralString, script("claim_due").format(columns=columns, lock=lock)), values).fetchall()
    return room.fill(dict(zip(names, row, strict=True)) for row in found)
