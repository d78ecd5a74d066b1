"""Runs that nobody would move by themselves: parked under a halt, or standing still for ever (F2).

What a parked run waits for can be gone: a child that has ended without telling, an item that is nowhere. A running one
can stand still: nothing recorded, nothing in flight. Both are found by whoever executes, within `LOOK` seconds for each
`MANY` parked runs, and escalated with what they wait for and since when.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from tightship.controls.halts import Halt
from tightship.core import kinds
from tightship.core.errors import Stalled
from tightship.core.ports import Json
from tightship.ledger import Entry, Ledger
from tightship.runtime.siblings import AFTER
from tightship.runtime.timetable import keep_looking
from tightship.workflow.units import show_duration

if TYPE_CHECKING:
    from tightship.runtime.engine import Engine
    from tightship.runtime.run import RunTask

LOOK: Final = 5.0
"""Seconds between two looks for runs that stand still."""
MANY: Final = 256
"""Parked runs that one look goes through; the next goes on from there."""
Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Stall:
    """A run that stands still: what it waits for, and since when (store time, s). `hopeless`: it can never come."""

    run: str
    workflow: str
    state: str
    waits_for: str
    since: float
    hopeless: bool = False

    def as_dict(self) -> dict[str, Json]:
        """All fields by name."""
        return {name: getattr(self, name) for name in self.__slots__}

    def cause(self) -> Stalled:
        """Why its run is escalated."""
        return Stalled(
            f"the run waits for {self.waits_for}, which can never come"
            if self.hopeless
            else f"the run does not move: {self.waits_for}",
            needed="look at what it was waiting for, and run it anew",
            evidence={"waits for": self.waits_for, "since": self.since},
        )


class HaltSweep:
    """Finds the parked runs that a halt covers: they are brought to their end, whatever they wait for.

    One look over all that is parked is enough for each change of what is halted, since nothing parks under a halt but
    what was about to; the engine names that.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._seen: list[Halt] = []
        self._found: set[str] = set()

    async def rows(self) -> list[dict[str, Any]]:
        """The rows of such runs that still wait."""
        engine = self._engine
        halted = engine.shared.halts.halted()
        where: list[tuple[str, str, Any]] = [("state", "=", "parked"), ("live", "=", int(engine.live))]
        self._found |= engine.missed
        engine.missed.clear()
        if halted == self._seen:
            if not self._found:
                return []
            where.append(("id", "in", sorted(self._found)[:MANY]))
        rows = await engine.ledger.select("runs", where, [("priority", "asc"), ("id", "asc")]) if halted else []
        covered = [row for row in rows if not engine.has(row["id"]) and await engine.halt_of(row) is not None]
        if halted == self._seen:
            self._found -= set(sorted(self._found)[:MANY]) - {row["id"] for row in covered}
        else:
            self._found = {row["id"] for row in covered}
        self._seen = halted
        return covered


def asleep(live: bool, after: str) -> list[tuple[str, str, Any]]:
    """The conditions for parked runs that wait for no time: those that can wait for ever. In the order of their keys,
    behind one of them, an index has them page by page."""
    return [("state", "=", "parked"), ("live", "=", int(live)), ("wake_at", "=", kinds.NEVER), ("id", ">", after)]


async def hopeless(ledger: Ledger, rows: Sequence[Row]) -> list[Stall]:
    """Of some parked runs those that wait for something that can never come."""
    entries = await ledger.runs_entries([row["id"] for row in rows]) if rows else {}
    parks = {run: park for run, told in entries.items() if (park := _last_park(told)) is not None}
    waiting = {one for park in parks.values() for one in park.body.get("waiting", ())}
    items = await _rows(ledger, "inbox", "item", (one for one in waiting if one.startswith("i-")))
    children = await _rows(ledger, "runs", "id", (one for one in waiting if one.startswith("r-")))
    found: list[Stall] = []
    for row in rows:
        park = parks.get(row["id"])
        if park is None or row["wake_at"] < kinds.NEVER or any(one.startswith("person:") for one in _waits(park)):
            continue
        gone = [_gone(one, items, children) for one in _waits(park)]
        if gone and all(gone):
            found.append(Stall(row["id"], row["workflow"], "parked", "; ".join(map(str, gone)), park.at, True))
    return found


def _waits(park: Entry) -> list[str]:
    """What can come from outside; branches that wait for each other wait for that as well."""
    return [one for one in park.body.get("waiting", ()) if not one.startswith(AFTER)]


def _gone(what: str, items: Mapping[str, Row], children: Mapping[str, Row]) -> str:
    """What is wrong with something that is waited for; empty when it can still come."""
    if what.startswith("i-"):
        item = items.get(what)
        return f"the inbox item {what}, which does not exist" if item is None else ""
    if what.startswith("r-"):
        child = children.get(what)
        if child is None or not child["state"]:
            return f"the child run {what}, which does not exist"
        return f"the child run {what}, which has ended without telling it" if child["state"] == "ended" else ""
    return ""


async def _rows(ledger: Ledger, table: str, key: str, wanted: Iterable[str]) -> dict[str, Row]:
    names = sorted(wanted)
    found: dict[str, Row] = {}
    for start in range(0, len(names), 500):
        rows = await ledger.select(table, [(key, "in", names[start : start + 500])])
        found |= {row[key]: row for row in rows}
    return found


def _last_park(entries: Sequence[Entry]) -> Entry | None:
    return next((entry for entry in reversed(entries) if entry.kind == kinds.PARKED), None)


async def stalled(ledger: Ledger, now: float, bound: float, executing: bool) -> list[Stall]:
    """Every run that stands still, as the ledger alone tells.

    Args:
        ledger: where to look. now: store time (s). bound: seconds without an entry after which a running or due run
            counts. executing: whether a process executes here, for the words.
    """
    parked = await ledger.select("runs", [("state", "=", "parked")], [("id", "asc")])
    found: list[Stall] = []
    for start in range(0, len(parked), MANY):
        found += await hopeless(ledger, parked[start : start + MANY])
    why = "it cannot be moved by the code here, or its process is busy" if executing else "no process executes here"
    for row in parked:
        if row["wake_at"] < kinds.NEVER and now - row["wake_at"] > bound:
            since = row["wake_at"] or (await ledger.run_entries(row["id"]))[-1].at
            if now - since > bound:
                found.append(Stall(row["id"], row["workflow"], "parked", f"its time has come, and {why}", since))
    going = await ledger.select("runs", [("state", "in", ["queued", "running"])], [("id", "asc")])
    for start in range(0, len(going), MANY):
        part = going[start : start + MANY]
        entries = await ledger.runs_entries([row["id"] for row in part])
        for row in part:
            last = entries[row["id"]][-1]
            if now - last.at > bound:
                what = f"nothing was recorded after {last.key or last.kind}"
                found.append(Stall(row["id"], row["workflow"], row["state"], what, last.at))
    return found


class StallWatch:
    """Looks, in the process that executes, for runs that stand still, and has them escalated."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._after = ""
        self.wanted: dict[str, Stall] = {}
        """Parked runs that are to be taken over and escalated."""

    async def watch(self) -> None:
        """Look again and again."""
        await keep_looking(self.look, self._engine.shared.world.clock, LOOK)

    async def look(self) -> None:
        """Look once."""
        clock = self._engine.shared.world.clock
        for run in self._engine.running():
            task = self._engine.task(run)
            stall = None if task is None else still(task, clock.now())
            if task is not None and stall is not None:
                task.interrupt(stall.cause())
        rows = await self._page(self._after)
        self._after = rows[-1]["id"] if len(rows) == MANY else ""
        for stall in await hopeless(self._engine.ledger, rows):
            self.wanted[stall.run] = stall

    async def look_all(self) -> None:
        """Look through everything that could wait for ever, a part at a time."""
        after = ""
        while True:
            rows = await self._page(after)
            for stall in await hopeless(self._engine.ledger, rows):
                self.wanted[stall.run] = stall
            if len(rows) < MANY:
                return
            after = rows[-1]["id"]

    async def _page(self, after: str) -> list[dict[str, Any]]:
        return await self._engine.ledger.select("runs", asleep(self._engine.live, after), [("id", "asc")], MANY)

    async def rows(self) -> list[dict[str, Any]]:
        """The rows of what is to be escalated and still stands as it was found."""
        if not self.wanted:
            return []
        rows = await self._engine.ledger.select("runs", [("id", "in", sorted(self.wanted)), ("state", "=", "parked")])
        stand = {stall.run: stall for stall in await hopeless(self._engine.ledger, rows)}
        for run in set(self.wanted) - set(stand):
            del self.wanted[run]
        return [row for row in rows if row["id"] in stand]


def still(task: RunTask, now: float) -> Stall | None:
    """Whether a run that is here stands still: nothing recorded, nothing in flight, nothing waited for."""
    bound = task.program.longest_silence
    last = task.journal.entries[-1]
    comes = any(not one.here or task.engine.has(one.what) for one in task.waiting.values())
    moves = comes or task.session.flights.any or task.journal.ahead
    if moves or now - max(last.at, task.began) <= bound:
        return None
    what = f"nothing was recorded for {show_duration(bound)} after {last.key or last.kind}"
    return Stall(task.session.facts.id, task.session.facts.workflow, "running", what, last.at)
