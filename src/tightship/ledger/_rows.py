"""Reading entries from bundles and from the table, the same way whatever database holds them."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from tightship.ledger.bundles import WIDTH, entries_of_row, entry_of_row
from tightship.ledger.entries import POSITION_BITS, POSITION_MASK, Entry, decode, log_crc

Fetch = Callable[[str, Sequence[Any]], Iterable[tuple[Any, ...]]]
"""Runs a script by name with these values, and gives its rows."""


class Seeds(dict[str, int]):
    """What the checksums of each log's rows start from."""

    def __missing__(self, log: str) -> int:
        seed = self[log] = log_crc(log)
        return seed


def rows_between(
    fetch: Fetch, seeds: Seeds, log: str, log_id: int, after: int, upto: int, limit: int
) -> list[tuple[int, bytes]]:
    """Position and data of the entries after a position and up to another; of those in an archive, what has stayed.

    Raises:
        TamperError: an entry is not what was written.
    """
    rows = _present(fetch, seeds, log, log_id, after, upto, limit)
    if limit <= 0 or upto <= after or (rows and rows[0][0] == after + 1):
        return rows
    base = log_id << POSITION_BITS
    # all of them lie before the first bundle
    return [*_kept(fetch, seeds[log], log, base, after, upto, limit), *rows][:limit]


def _present(
    fetch: Fetch, seeds: Seeds, log: str, log_id: int, after: int, upto: int, limit: int
) -> list[tuple[int, bytes]]:
    base, seed = log_id << POSITION_BITS, seeds[log]
    rows: list[tuple[int, bytes]] = []
    # the bundle that holds the next entry begins up to WIDTH - 1 before it
    for bundle in fetch("bundles_range", (base | max(after - WIDTH + 1, 0), base | upto, limit // WIDTH + 2)):
        first = bundle[0] & POSITION_MASK
        for n, data in enumerate(entries_of_row(log, seed, bundle), start=first):
            if after < n <= upto:
                rows.append((n, data))
        if len(rows) >= limit:
            return rows[:limit]
    at = rows[-1][0] if rows else after
    for row in fetch("entries_range", (base | at, base | upto, limit - len(rows))):
        rows.append((row[0] & POSITION_MASK, entry_of_row(log, seed, row)))
    return rows


def _kept(fetch: Fetch, seed: int, log: str, base: int, after: int, upto: int, limit: int) -> list[tuple[int, bytes]]:
    rows = fetch("kept_range", (base | after, base | upto, limit))
    return [(row[0] & POSITION_MASK, entry_of_row(log, seed, row)) for row in rows]


def entries_of_runs(fetch: Fetch, seeds: Seeds, names: Any, runs: Sequence[str]) -> list[Entry]:
    """All entries of some runs, in order of the log.

    Args:
        names: the runs as the database takes a list.

    Raises:
        TamperError: an entry is not what was written.
    """
    wanted = set(runs)
    found: list[tuple[int, Entry]] = []
    logs = {row[0]: row[1] for row in fetch("heads", ())}
    for row in fetch("bundles_of_runs", (names,)):
        log = logs.get(row[0] >> POSITION_BITS, "")
        for row_id, data in enumerate(entries_of_row(log, seeds[log], row), start=row[0]):
            entry = decode(log, row_id & POSITION_MASK, data)
            if entry.run in wanted:
                found.append((row_id, entry))
    for row in fetch("entries_of_runs", (names,)):
        log = logs.get(row[0] >> POSITION_BITS, "")
        found.append((row[0], decode(log, row[0] & POSITION_MASK, entry_of_row(log, seeds[log], row))))
    found.sort(key=operator.itemgetter(0))
    return [entry for _, entry in found]
