"""Packing entries into bundles on Postgres, and dropping bundles that are in an archive."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING, Any

from tightship.ledger._pg import script
from tightship.ledger.bundles import BUNDLES_AT_ONCE, WIDTH, bundle_crc, pack_rows, rows_that_stay
from tightship.ledger.entries import POSITION_BITS, POSITION_MASK

if TYPE_CHECKING:
    import psycopg


def pack_some(db: psycopg.Connection[Any], log: str, seed: int, log_id: int, covered: int) -> int:
    """Pack the next few full bundles of the first `covered` entries; returns how many entries moved."""
    moved = 0
    while moved < BUNDLES_AT_ONCE * WIDTH and (some := _pack(db, log, seed, log_id, covered)):
        moved += some
    return moved


def _pack(db: psycopg.Connection[Any], log: str, seed: int, log_id: int, covered: int) -> int:
    base = log_id << POSITION_BITS
    row = db.execute(script("first_entry"), (base, base | covered)).fetchone()
    first = row[0] if row else None
    if first is None or (first & POSITION_MASK) + WIDTH - 1 > covered:
        return 0
    rows = db.execute(script("entries_range"), (first - 1, first + WIDTH - 1, WIDTH)).fetchall()
    data = pack_rows(log, seed, first, rows)
    db.execute(script("put_bundle"), (first, data, bundle_crc(seed, first, data)))
    db.execute(script("put_bundle_runs"), (first, sorted({row[1] for row in rows})))
    db.execute(script("drop_entries"), (first, first + WIDTH))
    return WIDTH


def drop_some(db: psycopg.Connection[Any], log: str, seed: int, log_id: int, upto: int, stay: Collection[int]) -> int:
    """Drop the first few bundles up to a position, as `Store.drop_bundles` has it."""
    base = log_id << POSITION_BITS
    last = base | max(upto - WIDTH + 1, 0)
    rows = db.execute(script("bundles_range"), (base, last, BUNDLES_AT_ONCE)).fetchall()
    for row in rows:
        kept = rows_that_stay(log, seed, row, stay)
        db.execute(script("put_kept"), [[one[at] for one in kept] for at in range(4)])
        db.execute(script("drop_bundle_runs"), row[:1])
        db.execute(script("drop_bundle"), row[:1])
    return len(rows) * WIDTH
