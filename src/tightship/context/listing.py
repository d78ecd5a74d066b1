"""The shared context gone through by its keys: those of a pattern, a page at a time."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, Final

from tightship.context.heads import Head
from tightship.context.values import Value
from tightship.ledger import Ledger
from tightship.ledger.paging import PAGE, pages
from tightship.workflow.context_keys import matches

LOOKED: Final = 10_000
"""Rows that are read for one page and are not given: of other keys, or without a value."""
ORDER: Final = ("key", "scope")
"""What values are listed by; an index of the table has it."""
_LAST: Final = chr(0x10FFFF)
"""No key has anything behind this character."""
Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Listing:
    """A page of values.

    Attributes:
        values: with their scopes. next: the key and scope behind which the next page begins; None after the last.
    """

    values: list[tuple[str, Value]]
    next: tuple[str, str] | None


async def listed(
    ledger: Ledger, pattern: str, limit: int | None, after: tuple[str, str] | None
) -> tuple[list[Head], tuple[str, str] | None]:
    """Heads whose keys match a pattern (all of them without one), and behind which key and scope there may be more."""
    rows, behind = await page(ledger, pattern, limit, after, lambda row: row["version"] > 0)
    return [Head.from_row(row) for row in rows], behind


async def page(
    ledger: Ledger, pattern: str, limit: int | None, after: tuple[str, str] | None, wanted: Callable[[Row], bool]
) -> tuple[list[Row], tuple[str, str] | None]:
    """Rows of `context` whose keys match a pattern, and behind which key and scope there may be more.

    Args:
        pattern: of keys; empty for all. limit: rows at most; None for all. after: a key and scope to begin behind.
        wanted: which of them are given.
    """
    found: list[Row] = []
    passed = 0
    place = after
    size = PAGE if limit is None else min(limit + 1, PAGE)
    async with aclosing(pages(ledger, "context", where(pattern), ORDER, after, size)) as read:
        async for rows in read:
            for row in rows:
                if not wanted(row) or (pattern and matches(pattern, row["key"]) is None):
                    passed += 1
                elif len(found) == limit:
                    return found, place
                else:
                    found.append(row)
                place = row["key"], row["scope"]
            if limit is not None and passed >= LOOKED:
                return found, place
    return found, None


def where(pattern: str) -> list[tuple[str, str, Any]]:
    """What to select of `context`: the keys that begin as a pattern does up to its first star."""
    before, star, _ = pattern.partition("*")
    if not star:
        return [("key", "=", pattern)] if pattern else []
    return [("key", ">=", before), ("key", "<", before + _LAST)] if before else []
