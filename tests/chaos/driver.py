"""The process that is killed: a workspace on disk, a handful of tickets, and a switch that pulls the plug.

Every commit of the ledger and every call outside that writes or costs money is a point. The points are counted in the
order in which they come; at point `CHAOS_POINT`, on the side `CHAOS_SIDE` (`before` or `after`), the process sends
itself SIGKILL. The commits of the Merkle tree, which come when they come, are counted apart: `tree-1` is the first.
Without `CHAOS_POINT` it drives all tickets to their end, whatever an earlier process has left, and writes what it
found, and the points, to `report.json`.

`CHAOS_BREAK` breaks the connector on purpose, to show that the comparison notices: `key` gives every attempt an
idempotency key of its own, `blind` finds nothing when it looks a write up, `credulous` finds whatever it looks for.
`tamper` changes a letter of the ledger at the end.

`CHAOS_PLAY` says what is driven: `refunds` (without it), or `orders`, whose sagas hold sagas and child runs.

    CHAOS_POINT=12 CHAOS_SIDE=after COMPANY_TOKEN=… python tests/chaos/driver.py FOLDER again|resume
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sqlite3
import sys
import threading
import uuid
from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import orjson

from tightship import Run, Workspace
from tightship.connectors.openapi import OpenApiTool
from tightship.core import kinds
from tightship.core.ports import Reply, Request
from tightship.core.world import World
from tightship.ledger import Entry, Ledger
from tightship.ledger._pg import Address, connect
from tightship.ledger.audit import verify
from tightship.ledger.entries import Unit
from tightship.ledger.postgres import PostgresBackend
from tightship.ledger.sqlite import SqliteBackend
from tightship.review.inbox import Decision
from tightship.runtime.workspace import projections

_SHARED = {"ask": False, "fail": False, "amount": 12.5}
_REFUNDS: dict[str, dict[str, Any]] = {
    "plain": {**_SHARED, "ticket": "T-3003", "order": "O-2001", "customer": "C-1001"},
    "undone": {**_SHARED, "ticket": "T-3006", "order": "O-2003", "customer": "C-1003", "fail": True},
    "reviewed": {**_SHARED, "ticket": "T-3007", "order": "O-2004", "customer": "C-1004", "ask": True},
}
ERRAND = "errand"
ERRANDS: dict[str, dict[str, Any]] = {"managed": {"ticket": "T-3003", "order": "O-2007", "customer": "C-1007"}}
"""In place of all others with `CHAOS_SET=errands`: a workflow with a manager, and a run below it."""
_RACE: dict[str, dict[str, Any]] = {
    name: {**_SHARED, "ticket": "T-3008", "order": "O-2006", "customer": "C-1006"} for name in ("race-1", "race-2")
}
_ORDERS: dict[str, dict[str, Any]] = {
    "sold": {"order": "O-2010", "customer": "C-1010", "sku": "SKU-513", "hand_over": True, "fail": False},
    "undone": {"order": "O-2073", "customer": "C-1020", "sku": "SKU-504", "hand_over": False, "fail": True},
    "left": {"order": "O-2082", "customer": "C-1003", "sku": "SKU-518", "hand_over": True, "fail": True},
}
_PLAYS: dict[str, tuple[str, dict[str, dict[str, Any]], dict[str, dict[str, Any]]]] = {
    "refunds": ("refund", _REFUNDS, _RACE),
    "orders": ("cash", {name: {**one, "amount": 10.0} for name, one in _ORDERS.items()}, {}),
}
WORKFLOW, TICKETS, RACE = _PLAYS[os.environ.get("CHAOS_PLAY", "refunds")]
"""Tickets run one after the other, so that the points come in the same order every time. In the race two runs want one
claim; which of them gets it is nobody's promise, so they come last."""
ROUNDS = 20
"""How often the tickets are gone through before a run that has not ended counts as stuck."""


@dataclass(slots=True)
class Switch:
    """Counts the points and kills this process at one of them.

    `point` is a number, or a label, whose first point is meant: on a store that workers share, how many entries lend
    money before it is a matter of time, and numbers shift by that.
    """

    point: str = ""
    side: str = ""
    count: int = 0
    trees: int = 0
    labels: list[str] = field(default_factory=list[str])
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def enter(self, label: str) -> str:
        """A point begins: its name."""
        with self._lock:  # commits come from the writer's thread, calls from the loop's
            self.count += 1
            first = label not in self.labels
            self.labels.append(label)
            name = label if first and label == self.point else str(self.count)
        self._kill(name, "before")
        return name

    def enter_tree(self) -> str:
        """A commit of the Merkle tree begins: its name."""
        with self._lock:
            self.trees += 1
            name = f"tree-{self.trees}"
        self._kill(name, "before")
        return name

    def leave(self, name: str) -> None:
        """A point is over."""
        self._kill(name, "after")

    def _kill(self, name: str, side: str) -> None:
        if (name, side) == (self.point, self.side):
            os.kill(os.getpid(), signal.SIGKILL)


def install(switch: Switch, broken: str) -> None:
    """Put the switch around the ledger's commit and the connector's calls, and break what is to be broken."""
    for backend in (SqliteBackend, PostgresBackend):
        install_commits(switch, backend)
    perform, lookup = OpenApiTool.perform, OpenApiTool.lookup
    commit_all = Ledger._commit

    def commit_each(self: Ledger, units: list[Unit]) -> list[Entry]:
        # What a run goes on from joins a later commit when time wants it so: one append, one commit, one point.
        return [entry for unit in units for entry in commit_all(self, [unit])]

    async def killing_perform(self: OpenApiTool, request: Request) -> Reply:
        if broken == "key":
            request = replace(request, key=f"{request.key}/{uuid.uuid4()}")
        if self.spec.effect == "read" and not self.spec.price.usd:
            return await perform(self, request)
        name = switch.enter(f"call {self.spec.name}")
        reply = await perform(self, request)
        switch.leave(name)
        return reply

    async def breakable_lookup(self: OpenApiTool, request: Request) -> Reply | None:
        if broken == "blind":
            return None
        found = await lookup(self, request)
        return Reply({"id": "none", "ticket_id": "none"}) if broken == "credulous" and found is None else found

    Ledger._commit = commit_each
    OpenApiTool.perform, OpenApiTool.lookup = killing_perform, breakable_lookup


def install_commits(switch: Switch, backend: Any) -> None:
    """Put the switch around a store's commits."""
    write, commit, put_tree = backend.write, backend.commit, backend.put_tree
    written: list[str] = []

    def noting_write(self: Any, batch: Any, tables: Any) -> None:
        written[:] = [orjson.loads(row[3]).get("kind", "?") for row in batch.rows]
        write(self, batch, tables)

    def killing_commit(self: Any) -> None:
        if not written:  # nothing is appended
            commit(self)
            return
        name = switch.enter(f"append {'+'.join(written)}")
        written.clear()
        commit(self)
        switch.leave(name)

    def killing_put_tree(self: Any, *args: Any, **named: Any) -> None:
        name = switch.enter_tree()
        put_tree(self, *args, **named)
        switch.leave(name)

    backend.write, backend.commit, backend.put_tree = noting_write, killing_commit, killing_put_tree


async def drive(folder: Path, restart: str, switch: Switch) -> tuple[dict[str, Run], int]:
    """All tickets to their end, as a caller does who runs his file again after a crash.

    Args:
        folder: the workspace.
        restart: `resume` first continues what an earlier process has left, as `tightship runs resume --all` does;
            `again` runs the same references anew.
        switch: which has counted the points so far.

    Returns: the runs by ticket, and the point at which the race began.
    """
    async with Workspace.open(folder) as ws:
        if restart == "resume":
            await ws.resume()
        if os.environ.get("CHAOS_SET") == "errands":
            runs = {name: await to_end(ws, name, given, ERRAND) for name, given in ERRANDS.items()}
            return runs, switch.count + 1
        runs = {name: await to_end(ws, name, given) for name, given in TICKETS.items()}
        race_from = switch.count + 1
        raced = await asyncio.gather(*(to_end(ws, name, given) for name, given in RACE.items()))
        runs |= dict(zip(RACE, raced, strict=True))
    return runs, race_from


async def to_end(ws: Workspace, name: str, given: dict[str, Any], workflow: str = WORKFLOW) -> Run:
    """One ticket, with the person who approves what waits.

    Raises:
        RuntimeError: it is stuck.
    """
    run = await ws.run(workflow, given, reference=name)
    for _ in range(ROUNDS):
        if run.state == "ended":
            return run
        operator = await ws.operator()
        for item in await operator.items():
            if item.run == run.id:
                await operator.decide(item.item, Decision("approve", "lead@example.com"))
        await asyncio.sleep(0.02)
        run = await ws.run(workflow, given, reference=name)
    raise RuntimeError(f"{name} is stuck: {run.state}, waiting for {run.waiting}")


async def inspect(folder: Path, runs: dict[str, Run]) -> dict[str, Any]:
    """What is on disk once everything has ended, read by a ledger that is opened anew."""
    place = Workspace.open(folder).place
    ledger = await Ledger.open(place.where, World(), projections(), folder=place.folder)
    try:
        audit = await verify(ledger)
        if audit.findings:  # damaged entries cannot be read: there is nothing more to say
            return {"audit": [str(finding) for finding in audit.findings]}
        entries = await ledger.entries(limit=100_000)
        rows = await ledger.select("runs")
    finally:
        await ledger.close()
    ends = Counter(entry.run for entry in entries if entry.kind == kinds.ENDED)
    final = [entry for entry in entries if entry.kind == kinds.SETTLED and not entry.body.get("again")]
    settled = Counter((entry.run, entry.key) for entry in final)
    return {
        "outcomes": {name: [run.outcome, run.reason] for name, run in runs.items()},
        "effects": {name: effects(run, final) for name, run in runs.items()},
        "audit": [],
        "entries": audit.entries,
        "not_ended_once": sorted(row["id"] for row in rows if ends[row["id"]] != 1 or row["state"] != "ended"),
        "runs": len(rows),
        "settled_twice": sorted(f"{run} {key}" for (run, key), count in settled.items() if count > 1),
        "usd": sum(row["usd"] for row in rows),
    }


def tamper(folder: Path) -> None:
    """Change one letter of the last entry."""
    place = Workspace.open(folder).place
    db: Any = connect(Address.of(place.url)) if place.url else sqlite3.connect(place.folder / "ledger.db")
    with contextlib.closing(db):
        last = "SELECT max(id) FROM entries"
        db.execute(f"UPDATE entries SET data = replace(data, '\"run\"', '\"ran\"') WHERE id = ({last})")
        db.commit()


def effects(run: Run, final: list[Any]) -> list[list[str]]:
    """A run's effects outside, in order: class, tool, and how each came out."""
    told: list[list[str]] = []
    for entry in final:
        body = entry.body
        if entry.run == run.id and body["cls"] not in ("read", "context"):
            how = "done" if "out" in body else body["error"]["error"] if "error" in body else "refused"
            told.append([body["cls"], body["name"], how])
    return told


def main(folder: Path, restart: str) -> None:
    """Drive, and write the report beside the workspace's files."""
    switch = Switch(os.environ.get("CHAOS_POINT", ""), os.environ.get("CHAOS_SIDE", ""))
    broken = os.environ.get("CHAOS_BREAK", "")
    install(switch, broken)
    runs, race_from = asyncio.run(drive(folder, restart, switch))
    if broken == "tamper":
        tamper(folder)
    report = asyncio.run(inspect(folder, runs))
    report |= {"points": switch.labels, "race_from": race_from}
    (folder / "report.json").write_bytes(orjson.dumps(report, option=orjson.OPT_INDENT_2))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
