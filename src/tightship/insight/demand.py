"""What there is to do, and what today has cost, by tenant and workflow (S3, C9): readings of the projections."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from tightship.controls.periods import period_bounds, period_key
from tightship.controls.spend import SUMS
from tightship.core.errors import LoopFound, NearRepeat
from tightship.core.money import to_usd
from tightship.core.ports import Json
from tightship.insight.behaviour import Behaviour, behaviour
from tightship.insight.coordination import Coordination, Lately
from tightship.insight.costs import Cost
from tightship.insight.freshness import Freshness, freshness
from tightship.ledger import Ledger
from tightship.ledger.claiming import FREE, Bounds, Room, rank
from tightship.runtime.scaling import Load

ENOUGH: Final = 10_000
"""Runs of a state that a reading of the load counts at most: more than any crew of one machine is asked for."""
_IDS: Final = 500
_Row = Mapping[str, Any]


@dataclass(slots=True)
class WorkflowDemand:
    """What one tenant has to do in one workflow.

    Attributes:
        tenant, workflow: whose.
        due: runs that are due and that nobody drives. running: runs that somebody drives. parked: runs that wait.
        code_gone: of all these, runs of a code that no living worker has (on a store that many share).
        oldest: seconds for which the oldest due run has waited; 0 where none is due.
        waiting: inbox items that wait for a person.
        today: what was spent since midnight UTC.
        looping: of the waiting items those whose runs ended because agents went round in circles. near: of these, those
            in which an agent said nearly the same in other words.
        lately: how the latest requests of today have been coordinated that have ended.
        claimable: of the due runs those that a worker may take up now; the others wait for a place of `admission`.
        oldest_claimable: seconds for which the oldest of these has waited.
    """

    tenant: str
    workflow: str
    due: int = 0
    running: int = 0
    parked: int = 0
    code_gone: int = 0
    oldest: float = 0.0
    waiting: int = 0
    today: Cost = field(default_factory=Cost)
    looping: int = 0
    near: int = 0
    lately: Coordination = field(default_factory=Coordination)
    claimable: int = 0
    oldest_claimable: float = 0.0

    def as_dict(self) -> dict[str, Json]:
        """All figures; money in dollars."""
        return {
            "tenant": self.tenant,
            "workflow": self.workflow,
            "due": self.due,
            "running": self.running,
            "parked": self.parked,
            "code_gone": self.code_gone,
            "oldest_due_seconds": self.oldest,
            "claimable": self.claimable,
            "oldest_claimable_seconds": self.oldest_claimable,
            "waiting_for_people": self.waiting,
            "looping": self.looping,
            "near_repeats": self.near,
            "today": self.today.as_dict(),
            "lately": self.lately.as_dict(),
        }


@dataclass(frozen=True, slots=True)
class Incident:
    """What happened so often since midnight (UTC): a breaker `name` came to `state`, or an agent (`state`) invented an
    argument of the tool `name`."""

    tenant: str
    kind: str
    name: str
    state: str
    count: int

    def as_dict(self) -> dict[str, Json]:
        """All fields."""
        return {name: getattr(self, name) for name in self.__slots__}


@dataclass(frozen=True, slots=True)
class Demand:
    """What there is to do in a store.

    Attributes:
        at: store time of the reading (s since the epoch).
        workflows: by tenant and workflow, sorted.
        halted: the scopes that are halted, sorted.
        context: how fresh the shared context is read. behaviour: drift, models and audits.
        incidents: breakers that opened and closed, and arguments that were invented.
        untold: notices that outside systems have not received, by target and state (sending, failed, given up).
    """

    at: float
    workflows: tuple[WorkflowDemand, ...] = ()
    halted: tuple[str, ...] = ()
    context: tuple[Freshness, ...] = ()
    incidents: tuple[Incident, ...] = ()
    behaviour: Behaviour = field(default_factory=Behaviour)
    untold: Mapping[tuple[str, str], int] = field(default_factory=dict[tuple[str, str], int])

    @property
    def load(self) -> Load:
        """What the number of workers follows."""
        return Load(
            sum(one.claimable for one in self.workflows),
            sum(one.running for one in self.workflows),
            max((one.oldest_claimable for one in self.workflows), default=0.0),
        )

    @property
    def usd_today(self) -> int:
        """Nano-dollars spent since midnight UTC."""
        return sum(one.today.usd for one in self.workflows)

    def as_dict(self) -> dict[str, Json]:
        """The reading as JSON."""
        load = self.load
        return {
            "at": self.at,
            "due": sum(one.due for one in self.workflows),
            "running": load.running,
            "parked": sum(one.parked for one in self.workflows),
            "oldest_due_seconds": max((one.oldest for one in self.workflows), default=0.0),
            "claimable": load.due,
            "oldest_claimable_seconds": load.oldest,
            "waiting_for_people": sum(one.waiting for one in self.workflows),
            "usd_today": to_usd(self.usd_today),
            "halted": list(self.halted),
            "workflows": [one.as_dict() for one in self.workflows],
            "context": [one.as_dict() for one in self.context],
            "incidents": [one.as_dict() for one in self.incidents],
            "behaviour": self.behaviour.as_dict(),
            "untold": [{"target": name, "state": state, "count": n} for (name, state), n in self.untold.items()],
        }


async def demand(
    ledger: Ledger, living: Collection[str] | None = None, lately: Lately | None = None, bounds: Bounds = FREE
) -> Demand:
    """What there is to do, with what today has cost. It reads every open run's row.

    Args:
        ledger: with the projections of a workspace. Rehearsals are left out.
        living: ids of the workers that live, where that is known: a run of another one counts as due.
        lately: what has read the latest requests so far, for whoever reads again and again.
        bounds: how many runs may be worked on at once.
    """
    now = ledger.world.clock.now()
    found: dict[tuple[str, str], WorkflowDemand] = {}

    def of(tenant: str, workflow: str) -> WorkflowDemand:
        return found.setdefault((tenant, workflow), WorkflowDemand(tenant, workflow))

    builds: set[str] | None = None
    if ledger.backend.shared:
        workers = await ledger.off_loop(ledger.backend.workers)
        builds = {"", *(worker["build"] for worker in workers if worker["alive"])}
    due: list[_Row] = []
    driven: list[_Row] = []
    for state in ("queued", "running", "parked"):
        for row in await _runs(ledger, state):
            one = of(row["log"], row["workflow"])
            one.code_gone += builds is not None and row["build"] not in builds
            if _is_due(row, now, living):
                one.due += 1
                due.append(row)
            elif state == "running":
                one.running += 1
                driven.append(row)
            else:
                one.parked += 1
    for row, since in await _since(ledger, due, now):
        one = of(row["log"], row["workflow"])
        one.oldest = max(one.oldest, now - since)
    claimable = _claimable(due, driven, bounds)
    for row in claimable:
        of(row["log"], row["workflow"]).claimable += 1
    for row, since in await _since(ledger, claimable, now):
        one = of(row["log"], row["workflow"])
        one.oldest_claimable = max(one.oldest_claimable, now - since)
    await _count_items(ledger, of)
    for row in await ledger.select("spend", [("day", "=", period_key("day", now))]):
        one = of(row["log"], row["workflow"])
        one.today += Cost(*(int(row[name]) for name in SUMS))
    latest = await (lately or Lately()).read(ledger, period_bounds("day", now)[0])
    for (tenant, workflow), found_lately in latest.items():
        of(tenant, workflow).lately = found_lately
    halted = await ledger.select("halts", [("state", "=", "on")])
    scopes = tuple(sorted(row["scope"] for row in halted))
    workflows = tuple(found[key] for key in sorted(found))
    read = await freshness(ledger), await _incidents(ledger, now), await behaviour(ledger), await _untold(ledger)
    return Demand(now, workflows, scopes, *read)


async def _incidents(ledger: Ledger, now: float) -> tuple[Incident, ...]:
    rows = await ledger.select("incidents", [("day", "=", period_key("day", now))])
    found = (Incident(row["log"], row["kind"], row["name"], row["state"], row["count"]) for row in rows)
    return tuple(sorted(found, key=lambda one: (one.tenant, one.kind, one.name, one.state)))


async def _untold(ledger: Ledger) -> dict[tuple[str, str], int]:
    states = ("sending", "failed", "given up")
    rows = await ledger.select("deliveries", [("state", "in", states), ("state", "!=", "delivered")])
    found = Counter((row["target"], row["state"]) for row in rows)
    return {key: found[key] for key in sorted(found)}


async def load(
    ledger: Ledger,
    living: Collection[str] | None = None,
    build: str = "",
    limit: int = ENOUGH,
    bounds: Bounds = FREE,
) -> Load:
    """What the number of workers follows: a part of `demand` that is read every few seconds.

    A run that waits for a place is no load: no worker more would take it up any sooner.

    Args:
        ledger: with the projections of a workspace.
        living: as for `demand`.
        build: only runs that this code may go on with, and new ones; empty for all.
        limit: runs of one state that are counted at most.
        bounds: how many runs may be worked on at once, whatever their build.
    """
    now = ledger.world.clock.now()
    due: list[_Row] = []
    driven: list[_Row] = []
    running = 0
    for state, more in (("queued", ()), ("running", ()), ("parked", (("wake_at", "<=", now),))):
        for row in await _runs(ledger, state, more, limit):
            is_due = _is_due(row, now, living)
            if not is_due:
                driven.append(row)
            if build and row["build"] not in ("", build):
                continue
            if is_due:
                due.append(row)
            else:
                running += 1
    due = _claimable(due, driven, bounds)
    oldest = max((now - since for _, since in await _since(ledger, due, now)), default=0.0)
    return Load(len(due), running, max(0.0, oldest))


def _claimable(due: Sequence[_Row], driven: Iterable[_Row], bounds: Bounds) -> list[_Row]:
    """Of the runs that are due those that there is room for beside what is driven: as a claim decides."""
    if not bounds:
        return list(due)
    at_work = Counter((row["tenant"], row["workflow"]) for row in driven if not row["parent"])
    room = Room(bounds, [(tenant, workflow, count) for (tenant, workflow), count in at_work.items()])
    return room.fill(sorted(due, key=lambda row: (rank(row["priority"], row["started_at"]), row["id"])))


def open_runs(state: str, more: Sequence[tuple[str, str, Any]] = ()) -> list[tuple[str, str, Any]]:
    """The conditions for live runs of a state. SQLite takes the index of open runs only where its own condition is
    among them; without it, every run that has ever ended would be looked at."""
    return [("state", "=", state), ("state", "!=", "ended"), *more, ("live", "=", 1)]


async def _runs(
    ledger: Ledger, state: str, more: Sequence[tuple[str, str, Any]] = (), limit: int | None = None
) -> list[dict[str, Any]]:
    return await ledger.select("runs", open_runs(state, more), limit=limit)


def _is_due(row: _Row, now: float, living: Collection[str] | None) -> bool:
    if row["state"] == "parked":
        return bool(row["wake_at"] <= now)
    return row["state"] == "queued" or (living is not None and row["owner"] not in living)


async def _since(ledger: Ledger, due: Iterable[_Row], now: float) -> list[tuple[_Row, float]]:
    """Since when each is due (s). A run that a signal has woken is due since that entry, which is read for the oldest
    of each tenant and workflow alone: positions go with time."""
    found: list[tuple[_Row, float]] = []
    woken: dict[tuple[str, str], _Row] = {}
    for row in due:
        if row["state"] == "queued":
            found.append((row, row["started_at"]))
        elif row["state"] == "parked" and row["wake_at"] > 0:
            found.append((row, row["wake_at"]))
        elif row["state"] == "parked" and row["last_signal"]:
            key = (row["log"], row["workflow"])
            if key not in woken or row["last_signal"] < woken[key]["last_signal"]:
                woken[key] = row
    for row in woken.values():
        for entry in await ledger.entries(row["last_signal"] - 1, 1, row["log"]):
            found.append((row, entry.at))
    return [(row, min(since, now)) for row, since in found]


async def _count_items(ledger: Ledger, of: Callable[[str, str], WorkflowDemand]) -> None:
    """What waits for people, by the workflow of its run."""
    items = await ledger.select("inbox", [("state", "=", "open")])
    runs = sorted({row["run"] for row in items})
    found: dict[str, _Row] = {}
    for start in range(0, len(runs), _IDS):
        for row in await ledger.select("runs", [("id", "in", runs[start : start + _IDS])]):
            found[row["id"]] = row
    for item in items:
        run = found.get(item["run"], {})
        one = of(item["log"], run.get("workflow", ""))
        one.waiting += 1
        near = run.get("reason") == NearRepeat.__name__
        one.looping += near or run.get("reason") == LoopFound.__name__
        one.near += near
