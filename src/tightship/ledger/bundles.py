"""Entries that are no longer hot, 256 to a compressed row: a log takes about a third of the space, and reads the same.

A bundle is a tlog-tiles entry bundle (C2SP), deflated; it holds the very bytes that the Merkle tree covers.
"""

from __future__ import annotations

import json
import sqlite3
import zlib
from collections.abc import Sequence

import orjson

from tightship.core.errors import LedgerError, TamperError
from tightship.ledger._sql import script
from tightship.ledger.entries import POSITION_BITS
from tightship.ledger.merkle.tiles import decode_bundle, encode_bundle

WIDTH = 256
"""Entries in a bundle, aligned as the tiles are."""
_MAX_BYTES = WIDTH * 65_538
_POSITION_MASK = (1 << POSITION_BITS) - 1
Row = tuple[int, str, bytes]


def pack(entries: Sequence[bytes]) -> bytes:
    """A bundle's stored form."""
    return zlib.compress(encode_bundle(entries), 6, wbits=-15)


def unpack(first: int, data: bytes) -> list[Row]:
    """The rows (id, run, data) of a bundle.

    Raises:
        TamperError: it was changed.
    """
    n = first & _POSITION_MASK
    where = f"the bundle of entries {n} to {n + WIDTH - 1}"
    try:
        expand = zlib.decompressobj(wbits=-15)
        plain = expand.decompress(data, _MAX_BYTES)
        entries = decode_bundle(plain)
        if len(entries) != WIDTH or not expand.eof:
            raise TamperError(f"{where} was changed: it does not hold {WIDTH} entries")
        return [(first + index, _run_of(entry), entry) for index, entry in enumerate(entries)]
    except (zlib.error, TypeError, orjson.JSONDecodeError) as error:
        raise TamperError(f"{where} was changed: {error}") from None


def _run_of(entry: bytes) -> str:
    return str(orjson.loads(entry).get("run", ""))


def rows_between(db: sqlite3.Connection, after: int, upto: int, limit: int) -> list[Row]:
    """Rows of ids after one and up to another, from bundles and from the table, at one moment.

    The caller holds a transaction, or does not mind what another connection does in between.
    """
    rows: list[Row] = []
    # the bundle that holds `after` begins up to WIDTH - 1 before it
    for first, data in db.execute(script("bundles_range"), (after - WIDTH, upto, limit // WIDTH + 2)):
        rows.extend(row for row in unpack(first, data) if after < row[0] <= upto)
        if len(rows) >= limit:
            return rows[:limit]
    at = rows[-1][0] if rows else after
    hot = db.execute(script("entries_range"), (at, upto, limit - len(rows))).fetchall()
    rows.extend((row_id, run, as_bytes(data)) for row_id, run, data in hot)
    return rows


def rows_of_runs(db: sqlite3.Connection, runs: Sequence[str]) -> list[Row]:
    """All rows of some runs, in order."""
    names = json.dumps(list(runs))
    wanted = set(runs)
    rows: list[Row] = []
    for first, data in db.execute(script("bundles_of_runs"), (names,)):
        rows.extend(row for row in unpack(first, data) if row[1] in wanted)
    hot = db.execute(script("entries_of_runs"), (names,)).fetchall()
    rows.extend((row_id, run, as_bytes(data)) for row_id, run, data in hot)
    rows.sort(key=lambda row: row[0])
    return rows


def compact(db: sqlite3.Connection, log_id: int, covered: int) -> int:
    """Put one full bundle of entries, all covered by a checkpoint, into a row of its own, in the caller's transaction.

    Returns: the entries that moved; 0 when there is no such bundle.

    Raises:
        LedgerError: an entry of it is missing.
    """
    base = log_id << POSITION_BITS
    first = db.execute(script("first_entry"), (base, base | covered)).fetchone()[0]
    if first is None or (first & _POSITION_MASK) + WIDTH - 1 > covered:
        return 0
    rows = db.execute(script("entries_range"), (first - 1, first + WIDTH - 1, WIDTH)).fetchall()
    if len(rows) != WIDTH or (first & _POSITION_MASK) % WIDTH != 1:
        raise LedgerError(
            f"entries are missing after {(first & _POSITION_MASK) - 1}", fix="run `tightship audit verify`"
        )
    db.execute(script("put_bundle"), (first, pack([as_bytes(data) for _, _, data in rows])))
    runs = sorted({run for _, run, _ in rows})
    db.executemany(script("put_bundle_run"), [(run, first) for run in runs])
    db.execute(script("drop_entries"), (first, first + WIDTH))
    return WIDTH


def as_bytes(value: str | bytes) -> bytes:
    """TEXT comes as str; a damaged column may come as anything."""
    return value.encode() if isinstance(value, str) else bytes(value)
