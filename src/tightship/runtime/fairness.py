"""Who is next: tenants with the fewest at work first, then priority with age, so that nobody waits for ever (F13)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeVar

from tightship.ledger.claiming import rank

_T = TypeVar("_T", bound=Mapping[str, Any])


def fair_order(rows: Iterable[_T], working: Mapping[str, int]) -> list[_T]:
    """Runs in the order in which they are to be taken up.

    Each place goes to the tenant that has the fewest at work, those included that stand before it in this order; where
    tenants are even, to the one whose first run has the lowest rank. Among a tenant's runs the rank decides.

    Args:
        rows: rows of the `runs` table.
        working: how many runs of each tenant are at work.
    """
    queues: dict[str, list[_T]] = {}
    for row in sorted(rows, key=lambda row: (rank(row["priority"], row["started_at"]), row["id"]), reverse=True):
        queues.setdefault(row["tenant"], []).append(row)
    busy, order = Counter(working), list[_T]()
    while queues:
        tenant = min(queues, key=lambda name: (busy[name], _first(queues[name])))
        order.append(queues[tenant].pop())
        busy[tenant] += 1
        if not queues[tenant]:
            del queues[tenant]
    return order


def _first(queue: Sequence[Mapping[str, Any]]) -> tuple[float, str]:
    row = queue[-1]
    return rank(row["priority"], row["started_at"]), row["id"]
