"""Which runs are due for an owner, and in which order: the same on every store (SQL on Postgres, `claim_due.sql`).

Due is what is queued, what is parked and whose time has come, and what runs under an owner that is dead. The order is
fair between tenants: whoever has the fewest running is next; then priority (0 is first, 9 last) with age, so that
nobody waits for ever.

Bounds on how many are worked on at once are judged in the same transaction, over the runs of all owners that live. A
claim leaves out whose tenant or workflow is full, and takes of the rest in order what there is room for. So the first
is always taken, whoever has room is never behind one that has none, and the next claim finds what this one left.
A run below another one has its place: its parent may hold the last, and would wait for it for ever.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

AGE: Final = 60.0
"""Seconds of waiting that are worth one step of priority."""
OPEN: Final = ("queued", "parked", "running")
"""States of runs that may become due."""
_R = TypeVar("_R", bound=Mapping[str, Any])


@dataclass(frozen=True, slots=True)
class Bounds:
    """How many runs may be worked on at once by all owners together; None for no bound.

    Attributes:
        total: all. tenant: of each tenant. tenants: of single tenants in its place. workflows: of single workflows.
    """

    total: int | None = None
    tenant: int | None = None
    tenants: Mapping[str, int | None] = field(default_factory=dict[str, int | None])
    workflows: Mapping[str, int] = field(default_factory=dict[str, int])

    def __bool__(self) -> bool:
        """Whether anything is bounded."""
        return (
            self.total is not None
            or self.tenant is not None
            or bool(self.workflows)
            or any(bound is not None for bound in self.tenants.values())
        )

    def of_tenant(self, tenant: str) -> int | None:
        """A tenant's bound."""
        return self.tenants.get(tenant, self.tenant)


FREE: Final = Bounds()
"""Nothing is bounded."""


@dataclass(slots=True)
class Claiming:
    """A claim of due runs, made inside the transaction that appends it.

    Attributes:
        owner: whose they become. build: the code that they were started by; others are left alone.
        limit: how many at most. live: real runs, or rehearsals.
        nonces: one for each entry that may be appended (hex).
        bounds: how many may be worked on at once. idle: runs that the owner has and does not work on.
        begun: what begins with this batch: tenant, workflow, and how many.
        rows: the runs that were claimed, as they stand then.
    """

    owner: str
    build: str
    limit: int
    live: bool
    nonces: tuple[str, ...]
    bounds: Bounds = FREE
    idle: tuple[str, ...] = ()
    begun: tuple[tuple[str, str, int], ...] = ()
    rows: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])


class Room:
    """What there is room for, as runs begin.

    Args:
        bounds: how many there may be. at_work: tenant, workflow, and how many runs of both are worked on that are
            below no other.
    """

    def __init__(self, bounds: Bounds, at_work: Iterable[tuple[str, str, int]]) -> None:
        self._bounds = bounds
        self._total = 0
        self._tenants: Counter[str] = Counter()
        self._workflows: Counter[str] = Counter()
        for tenant, workflow, count in at_work:
            self._add(tenant, workflow, count)

    @property
    def none(self) -> bool:
        """Whether all places are taken."""
        return self._bounds.total is not None and self._total >= self._bounds.total

    @property
    def full_tenants(self) -> list[str]:
        """Tenants that have as many as they may."""
        bounds = self._bounds
        return sorted(name for name, count in self._tenants.items() if _is_full(count, bounds.of_tenant(name)))

    @property
    def full_workflows(self) -> list[str]:
        """Workflows of which there are as many as there may be."""
        bounds = self._bounds.workflows
        return sorted(name for name, count in self._workflows.items() if _is_full(count, bounds.get(name)))

    def has(self, row: Mapping[str, Any]) -> bool:
        """Whether this run may begin."""
        tenant, workflow = row["tenant"], row["workflow"]
        return bool(row["parent"]) or not (
            self.none
            or _is_full(self._tenants[tenant], self._bounds.of_tenant(tenant))
            or _is_full(self._workflows[workflow], self._bounds.workflows.get(workflow))
        )

    def fill(self, rows: Iterable[_R]) -> list[_R]:
        """Those that may begin, of some in order; each that does has its place from then on."""
        found: list[_R] = []
        for row in rows:
            if self.has(row):
                found.append(row)
                if not row["parent"]:
                    self._add(row["tenant"], row["workflow"], 1)
        return found

    def _add(self, tenant: str, workflow: str, count: int) -> None:
        self._total += count
        self._tenants[tenant] += count
        self._workflows[workflow] += count


def _is_full(count: int, bound: int | None) -> bool:
    return bound is not None and count >= bound


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
    rows = list(rows)
    driven = [row for row in rows if row["state"] == "running" and row["owner"] in alive]
    due = [row for row in rows if not (row["state"] == "running" and row["owner"] in alive)]
    room = Room(claiming.bounds, [*_at_work(driven, claiming), *claiming.begun])
    due = [row for row in due if _is_due(row, claiming, now) and room.has(row)]
    return room.fill(_in_order(due, Counter(row["tenant"] for row in driven))[: claiming.limit])


def _at_work(driven: Iterable[Mapping[str, Any]], claiming: Claiming) -> list[tuple[str, str, int]]:
    """As SQL counts it (`at_work.sql`)."""
    roots = (
        row
        for row in driven
        if not row["parent"]
        and bool(row["live"]) == claiming.live
        and not (row["owner"] == claiming.owner and row["id"] in claiming.idle)
    )
    found = Counter((row["tenant"], row["workflow"]) for row in roots)
    return [(tenant, workflow, count) for (tenant, workflow), count in found.items()]


def _in_order(due: Sequence[Mapping[str, Any]], busy: Counter[str]) -> list[dict[str, Any]]:
    ranked: list[tuple[int, int, Mapping[str, Any]]] = []
    for place, row in enumerate(sorted(due, key=lambda row: (rank(row["priority"], row["started_at"]), row["id"]))):
        busy[row["tenant"]] += 1  # with each that is taken its tenant has one more
        ranked.append((busy[row["tenant"]], place, row))
    ranked.sort(key=lambda one: one[:2])
    return [dict(row) for _, _, row in ranked]


def _is_due(row: Mapping[str, Any], claiming: Claiming, now: float) -> bool:
    if row["state"] not in OPEN or row["build"] != claiming.build or bool(row["live"]) != claiming.live:
        return False
    return row["state"] != "parked" or row["wake_at"] <= now
