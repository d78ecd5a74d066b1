"""Going through many rows a page at a time, each from where the one before it ended."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from typing import Any, Final

from tightship.ledger.backend import Condition
from tightship.ledger.ledger import Ledger

PAGE: Final = 1000
"""Rows that are read at once."""
Place = tuple[Any, Any]
"""Where a page ends: the values of the two columns that the rows are in order of."""


async def pages(
    ledger: Ledger,
    table: str,
    where: Sequence[Condition],
    by: tuple[str, str],
    after: Place | None = None,
    size: int = PAGE,
) -> AsyncGenerator[list[dict[str, Any]]]:
    """The rows of a projection in order of two columns, which an index has after those of the conditions.

    What is written meanwhile is seen or not; no row that stays where it is comes twice or is left out.

    Args:
        table: the projection. where: what its rows have to be. by: the columns; together they tell rows apart.
        after: begin behind the row with these values. size: how many rows at once.
    """
    while True:
        rows = await _page(ledger, table, where, by, after, size)
        if rows:
            yield rows
        if len(rows) < size:
            return
        after = rows[-1][by[0]], rows[-1][by[1]]


async def _page(
    ledger: Ledger, table: str, where: Sequence[Condition], by: tuple[str, str], after: Place | None, size: int
) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for part in parts(where, by, after):
        if len(rows) < size:
            rows += await ledger.select(table, part, [(by[0], "asc"), (by[1], "asc")], size - len(rows))
    return rows


def parts(where: Sequence[Condition], by: tuple[str, str], after: Place | None) -> list[list[Condition]]:
    """The selections that a page is read by: the rest of those with the same first value, then all behind it."""
    if after is None:
        return [[*where]]
    # of two lower bounds a planner may search by the earlier one, and pass over all that were read before
    ahead = [one for one in where if one[0] != by[0] or one[1] not in (">", ">=")]
    return [[*ahead, (by[0], "=", after[0]), (by[1], ">", after[1])], [*ahead, (by[0], ">", after[0])]]
