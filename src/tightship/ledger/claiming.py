"""Which runs are due for an owner, and in which order: the same on every store (SQL on Postgres, `claim_due.sql`).

Due is what is queued, what is parked and whose time has come, and what runs under an owner that is dead. The order is
fair between tenants: whoever has the fewest running is next; then priority (0 is first, 9 last) with age, so that
nobody waits for ever.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

AGE: Final = 60.0
"""Seconds of waiting that are worth one step of priority."""
OPEN: Final = ("queued", "parked", "running")
"""States of runs that may become due."""


@dataclass(slots=True)
class Claiming:
    """A claim of due runs, made inside the transaction that appends it.

    Attributes:
        owner: whose they become. build: the code that they were started by; others are left alone.
        limit: how many at most. live: real runs, or rehearsals.
        nonces: one for each entry that may be appended (hex).
        rows: the runs that were claimed, as they stand then.
    """

    owner: str
    build: str
    limit: int
    live: bool
    nonces: tuple[str, ...]
    rows: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])


def rank(priority: int, since: float) -> float:
    """Where a run stands among those of its tenant; the lowest goes first.

    A run of priority 9 goes before every run of priority 0 that came more than `9 * AGE` seconds (nine minutes) after
    it: that bounds how long it is passed over.

    Args:
        priority: 0 goes first, 9 last. since: when it came (s).
    """
    return since + priority * AGE


def due_rows(
    rows: Iterable[Mapping[str, Any]], claiming: Claiming, alive: Collection[str], now: float
) -> list[dict[str, Any]]:
    """The runs to claim, of all that are open.

    Args:
        rows: of the projection `runs`. alive: the owners that live. now: store time (s).
    """
    busy: Counter[str] = Counter()
    due: list[Mapping[str, Any]] = []
    for row in rows:
        if row["state"] == "running" and row["owner"] in alive:
            busy[row["tenant"]] += 1
        elif _is_due(row, claiming, now):
            due.append(row)
    due.sort(key=lambda row: (rank(row["priority"], row["started_at"]), row["id"]))
    ranked: list[tuple[int, int, Mapping[str, Any]]] = []
    for place, row in enumerate(due):
        busy[row["tenant"]] += 1  # with each that is taken its tenant has one more
        ranked.append((busy[row["tenant"]], place, row))
    ranked.sort(key=lambda one: one[:2])
    return [dict(row) for _, _, row in ranked[: claiming.limit]]


def _is_due(row: Mapping[str, Any], claiming: Claiming, now: float) -> bool:
    if row["state"] not in OPEN or row["build"] != claiming.build or bool(row["live"]) != claiming.live:
        return False
    return row["state"] != "parked" or row["wake_at"] <= now
