"""What the ledger counts of the keys of the shared context, a page at a time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from tightship.context.listing import page
from tightship.ledger import Ledger

_KEYS: Final = 500
"""Keys whose ages are read at once."""
_Place = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Stats:
    """What the ledger counts of one key.

    `reads` and `stale` are readings, and those that found the value too old; `ages` holds the distribution of ages at
    reading (bucket b counts ages below 2^b ms). `write_conflicts`: two writes from one version. `read_conflicts`:
    what a decision had read was changed before its action settled. `refusals`: who was not allowed to.
    """

    scope: str
    key: str
    version: int
    writes: int
    reads: int
    stale: int
    refreshes: int
    refusals: int
    write_conflicts: int
    read_conflicts: int
    ages: Mapping[int, int]


@dataclass(frozen=True, slots=True)
class Counted:
    """A page of what is counted.

    Attributes:
        stats: of each key, in the order of keys and scopes.
        next: the key and scope behind which the next page begins; None after the last.
    """

    stats: list[Stats]
    next: tuple[str, str] | None


async def counted(ledger: Ledger, pattern: str, limit: int | None, after: tuple[str, str] | None) -> Counted:
    """What is counted of the keys that match a pattern (all of them without one); written or only asked for."""
    rows, behind = await page(ledger, pattern, limit, after, lambda row: True)
    ages = await _ages(ledger, [(row["scope"], row["key"]) for row in rows])
    names = [name for name in Stats.__slots__ if name != "ages"]
    found = [
        Stats(**{name: row[name] for name in names}, ages=ages.get((row["scope"], row["key"]), {})) for row in rows
    ]
    return Counted(found, behind)


async def _ages(ledger: Ledger, places: list[_Place]) -> dict[_Place, dict[int, int]]:
    """Readings by bucket of these scopes and keys, and of no others."""
    keys: dict[str, list[str]] = {}
    for scope, key in places:
        keys.setdefault(scope, []).append(key)
    found: dict[_Place, dict[int, int]] = {}
    for scope, of_scope in keys.items():
        for start in range(0, len(of_scope), _KEYS):
            where = [("scope", "=", scope), ("key", "in", of_scope[start : start + _KEYS])]
            for row in await ledger.select("context_ages", where):
                found.setdefault((scope, row["key"]), {})[row["bucket"]] = row["reads"]
    return found
