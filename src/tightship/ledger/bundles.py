"""Entries that are no longer hot, 256 to a compressed row: a log takes about a third of the space, and reads the same.

A bundle is a tlog-tiles entry bundle (C2SP), deflated; it holds the very bytes that the Merkle tree covers.
"""

from __future__ import annotations

import zlib
from collections.abc import Collection, Sequence
from typing import Any, Final

import orjson

from tightship.core.errors import TamperError
from tightship.ledger.entries import POSITION_MASK, entry_crc
from tightship.ledger.merkle.tiles import MAX_ENTRY_BYTES, decode_bundle, encode_bundle

WIDTH: Final = 256
"""Entries in a bundle, aligned as the tiles are."""
_MAX_BYTES: Final = WIDTH * (MAX_ENTRY_BYTES + 2)
_VERIFY: Final = "`tightship audit verify` says what else is damaged; restore the store from your backup"
BUNDLES_AT_ONCE: Final = 4
"""Bundles packed or dropped in one transaction, so that no commit waits long."""
StoredRow = tuple[Any, ...]
"""A row as it lies in the store: id, run, data, crc of `entries`; id, data, crc of `bundles`."""


def pack(entries: Sequence[bytes]) -> bytes:
    """A bundle's stored form."""
    return zlib.compress(encode_bundle(entries), 6, wbits=-15)


def pack_rows(log: str, seed: int, first: int, rows: Sequence[StoredRow]) -> bytes:
    """The stored form of the bundle that these rows of `entries` make, from the row `first` on.

    Raises:
        TamperError: one is missing, or is not what was written.
    """
    if len(rows) != WIDTH or (first & POSITION_MASK) % WIDTH != 1:
        raise TamperError(f"entries of log {log!r} are missing around entry {first & POSITION_MASK}")
    return pack([entry_of_row(log, seed, row) for row in rows])


def unpack(first: int, data: bytes) -> list[bytes]:
    """The entries of a bundle.

    Raises:
        TamperError: it was changed.
    """
    try:
        expand = zlib.decompressobj(wbits=-15)
        entries = decode_bundle(expand.decompress(data, _MAX_BYTES))
    except (zlib.error, TamperError) as error:
        raise TamperError(f"{named(first)} was changed: {error}", fix=_VERIFY) from None
    if len(entries) != WIDTH or not expand.eof:
        raise TamperError(f"{named(first)} was changed: it does not hold {WIDTH} entries", fix=_VERIFY)
    return entries


def bundle_crc(log: int, first: int, data: bytes) -> int:
    """The checksum of a bundle's row; `log` is its log's `log_crc`."""
    return zlib.crc32(data, zlib.crc32(b"%d" % first, log))


def named(first: int) -> str:
    """A bundle, as people read it."""
    n = first & POSITION_MASK
    return f"the bundle of entries {n} to {n + WIDTH - 1}"


def entry_of_row(log: str, seed: int, row: StoredRow) -> bytes:
    """The data of an entry's row whose checksum holds.

    Raises:
        TamperError: it does not.
    """
    row_id, run, text, crc = row
    if isinstance(text, str) and isinstance(run, str):
        data = text.encode()
        if entry_crc(seed, run.encode(), data) == crc:
            return data
    raise TamperError(
        f"entry {row_id & POSITION_MASK} of log {log!r} is not what was written: its checksum does not hold",
        fix=_VERIFY,
    )


def rows_that_stay(log: str, seed: int, row: StoredRow, stay: Collection[int]) -> list[StoredRow]:
    """The rows of `kept` (id, run, data, crc) for those entries of a bundle's row that stay, by their positions.

    Raises:
        TamperError: the bundle's checksum does not hold.
    """
    rows: list[StoredRow] = []
    for row_id, data in enumerate(entries_of_row(log, seed, row), start=row[0]):
        if row_id & POSITION_MASK in stay:
            run = str(orjson.loads(data)["run"])
            rows.append((row_id, run, data.decode(), entry_crc(seed, run.encode(), data)))
    return rows


def entries_of_row(log: str, seed: int, row: StoredRow) -> list[bytes]:
    """The entries of a bundle's row whose checksum holds.

    Raises:
        TamperError: it does not.
    """
    first, data, crc = row
    if not isinstance(data, bytes) or bundle_crc(seed, first, data) != crc:
        raise TamperError(
            f"{named(first)} of log {log!r} is not what was written: its checksum does not hold", fix=_VERIFY
        )
    return unpack(first, data)
