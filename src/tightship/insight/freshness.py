"""How old shared values were when they were read, and their conflicts, by the first part of their keys (X3).

By the first part, since keys are as many as the things that they are about, and a metric's labels must not be.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any, Final

from tightship.context import quantile
from tightship.core.ports import Json
from tightship.ledger import Ledger

ENOUGH: Final = 100_000
"""Rows that a reading looks at."""
_COUNTED: Final = ("writes", "reads", "stale", "write_conflicts", "read_conflicts", "refusals")


@dataclass(slots=True)
class Freshness:
    """What is counted of the keys with one first part.

    Attributes:
        family: that part. counts: writes, reads, stale, write_conflicts, read_conflicts, refusals.
        ages: readings by bucket: bucket b holds ages below 2^b ms.
    """

    family: str
    counts: Counter[str] = field(default_factory=Counter[str])
    ages: Counter[int] = field(default_factory=Counter[int])

    def age(self, share: float) -> float | None:
        """Seconds that this share of the readings did not exceed, or None without any."""
        return quantile(self.ages, share)

    def as_dict(self) -> dict[str, Json]:
        """All figures."""
        counts: dict[str, Any] = {name: self.counts[name] for name in _COUNTED}
        return {"keys": self.family, **counts, "p50_age_seconds": self.age(0.5), "p99_age_seconds": self.age(0.99)}


async def freshness(ledger: Ledger) -> tuple[Freshness, ...]:
    """The figures, sorted by the first part."""
    found: dict[str, Freshness] = {}

    def of(key: str) -> Freshness:
        family = key.partition("/")[0]
        return found.setdefault(family, Freshness(family))

    for row in await ledger.select("context", limit=ENOUGH):
        of(row["key"]).counts.update({name: row[name] for name in _COUNTED})
    for row in await ledger.select("context_ages", limit=ENOUGH):
        of(row["key"]).ages[row["bucket"]] += row["reads"]
    return tuple(found[family] for family in sorted(found))
