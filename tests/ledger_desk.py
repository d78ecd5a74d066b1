"""Stores for the ledger's tests: both kinds of one suite, a store with something of everything in it, damage to it."""

from __future__ import annotations

import asyncio
import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import postgres_desk
from tightship.controls import ClaimsProjection, EnvelopesProjection, HaltsProjection
from tightship.controls.counters import CountersProjection
from tightship.controls.spend import SpendProjection
from tightship.core import kinds
from tightship.core.ports import Projection
from tightship.core.world import SystemClock, World
from tightship.ledger import Draft, Entry, Guards, Ledger, MemoryState
from tightship.review.inbox import InboxProjection

KINDS = ["sqlite", "memory", "postgres"]
"""Every kind of store: what an append promises, each of them keeps."""
NOON = 1_767_268_800.0
"""2026-01-01 12:00:00 UTC."""


def projections() -> list[Projection]:
    """The projections of every workspace, beside those that each ledger has."""
    return [
        InboxProjection(),
        SpendProjection(),
        HaltsProjection(),
        ClaimsProjection(),
        EnvelopesProjection(),
        CountersProjection(),
    ]


class SteppedClock(SystemClock):
    """Time that goes by a millisecond with each look, and can be set back as a machine's clock can."""

    def __init__(self, now: float = NOON) -> None:
        self.time = now

    def now(self) -> float:
        self.time += 0.001
        return self.time


class Store:
    """A store of one kind that can be opened again and again, as one process after another would."""

    def __init__(self, kind: str, folder: Path) -> None:
        self.kind, self.folder = kind, folder
        self.clock = SteppedClock()
        self.state = MemoryState()
        self.where: Path | str = folder / "store"
        if kind == "postgres":
            self.where = postgres_desk.new_store()
        self._open: list[Ledger] = []

    async def open(self) -> Ledger:
        """The store's ledger; several may be open at once."""
        world = World(clock=self.clock)
        if self.kind == "memory":
            ledger = Ledger.in_memory(world, projections(), self.state)
        else:
            ledger = await Ledger.open(self.where, world, projections(), folder=self.folder / "store")
        self._open.append(ledger)
        return ledger

    async def close(self) -> None:
        """Close all that was opened."""
        for ledger in self._open:
            await ledger.close()


def started(run: str, **body: Any) -> Draft:
    """A run's first entry."""
    return Draft(run, kinds.STARTED, "", {"workflow": "w", "owner": "here", **body}, 1)


def note(run: str = "", epoch: int = 0, **body: Any) -> Draft:
    """An entry that means nothing to anybody."""
    return Draft(run, kinds.NOTE, "", {"type": "test", **body}, epoch)


async def begin(ledger: Ledger, run: str, **body: Any) -> list[Entry]:
    """Start a run."""
    return await ledger.append(started(run, **body), guards=Guards(fresh=True))


async def fill(ledger: Ledger, runs: int = 24, effects: int = 3) -> None:
    """A few hundred entries with something of everything: scopes, files, definitions, claims, people, halts, logs."""

    async def one(number: int) -> None:
        run, log = f"r-{number:03d}", "default" if number % 8 else "acme & sons"
        if number % 3:
            scope = ledger.vault.new_scope(run)
        else:
            scope = ledger.vault.scope(["tenant:default", ledger.vault.keyring.subject("default", f"c-{number}")])
        given = ledger.seal(scope, {"ticket": f"where is order {number}?", "lines": ["a line"] * number})
        address, stored = ledger.define({"workflow": "w", "steps": [f"step {n}" for n in range(60)]})
        first = started(run, input=given.address, definition=address, tenant="default")
        first.payloads = (given, *stored)
        await ledger.append(first, guards=Guards(fresh=True), log=log)
        ledger.defined(address)
        for at in range(effects):
            key, claim = f"a/tool/{at}", ledger.mac("default", "claim", f"{number}/{at}".encode())
            args = ledger.seal(scope, {"n": at, "of": number})
            body = {"name": "shop.pay", "cls": "write", "agent": "payer", "workflow": "w", "args": args.address}
            admitted = Draft(run, kinds.ADMITTED, key, {**body, "claim": claim}, 1, (args,))
            await ledger.append(admitted, guards=Guards(claim=claim, scopes=("all",)), log=log)
            noise = ledger.world.chance.token(150_000).hex() if number == 5 and at == 0 else ""
            out = ledger.seal(
                scope,
                {"paid": at * number, "receipt": [noise + ledger.world.chance.token(150_000).hex()] if noise else []},
            )
            settled = {**body, "out": out.address, "usd": 1000 + at, "ms": 1.5, "claim": claim}
            await ledger.append(Draft(run, kinds.SETTLED, key, settled, 1, (out,)), log=log)
        await _end(ledger, run, number, scope, log)

    await asyncio.gather(*(one(number) for number in range(runs)))
    await ledger.append(Draft("", kinds.HALT, "", {"scope": "workflow:other", "by": "ann", "reason": "a test"}))
    await ledger.append(Draft("", kinds.ENVELOPE, "", {"scope": "tenant:default", "period": "2026-01", "usd": 5}))
    await ledger.erase("default", "c-3", "ann")


async def _end(ledger: Ledger, run: str, number: int, scope: str, log: str) -> None:
    package = ledger.seal(scope, {"title": "look at this", "run": run})
    opened = {"item": f"i-{number}", "type": "review", "role": "lead", "title": "t", "package": package.address}
    if number % 4 == 0:
        await ledger.append(Draft(run, kinds.OPENED, "review", opened, 1, (package,)), log=log)
        parked = {"wake_at": NOON, "waiting": [f"i-{number}"], "seen": 0}
        await ledger.append(Draft(run, kinds.PARKED, "", parked, 1), guards=Guards(seen=0), log=log)
        await ledger.append(Draft(run, kinds.SIGNAL, "", {"type": "wake", "by": "ann"}), log=log)
    else:
        output = ledger.seal(scope, {"done": True})
        await ledger.append(
            Draft(run, kinds.ENDED, "", {"outcome": "completed", "output": output.address}, 1, (output,)), log=log
        )


# --- looking at a store without the ledger -------------------------------------------------------------


def dump(database: Path) -> dict[str, list[Any]] | None:
    """Every table's rows byte for byte, and the schema; None when SQLite cannot read them.

    The file is copied first, with its write-ahead log, so that looking changes nothing.
    """
    looked = database.with_name("looked-at")
    looked.mkdir()
    try:
        for name in (database.name, f"{database.name}-wal", f"{database.name}-journal"):
            if database.with_name(name).exists():
                shutil.copy(database.with_name(name), looked / name)
        with closing(sqlite3.connect(looked / database.name)) as db:
            db.text_factory = bytes
            objects = list(db.execute("SELECT type, name, tbl_name, sql FROM sqlite_master ORDER BY name"))
            tables = [name.decode() for kind, name, _, _ in objects if kind == b"table"]
            rows = {table: _rows(db, table) for table in tables}
            version = db.execute("PRAGMA user_version").fetchone()
            return {"schema": objects, "version": [version], **rows}
    except (sqlite3.Error, UnicodeDecodeError):
        return None
    finally:
        shutil.rmtree(looked)


def _rows(db: sqlite3.Connection, table: str) -> list[Any]:
    """All rows with their types and, where there is one, their row id, read from the table itself, not an index."""
    columns = [row[1].decode() for row in db.execute(f"PRAGMA table_info({table})")]
    typed = ", ".join(f"{column}, typeof({column})" for column in columns)
    return sorted(map(repr, db.execute(f"SELECT {typed} FROM {table} NOT INDEXED")))


def flip(path: Path, at: int, mask: int) -> None:
    """Change one byte of a file."""
    with path.open("r+b") as file:
        file.seek(at)
        byte = file.read(1)[0]
        file.seek(at)
        file.write(bytes([byte ^ mask]))


# --- other processes -----------------------------------------------------------------------------------

_PRELUDE = """\
import asyncio, os, signal, sys
from pathlib import Path
sys.path.insert(0, {tests!r})
from ledger_desk import *
from tightship.core import kinds
from tightship.ledger import *
STORE = Path({store!r})
"""


def script(store: Path, text: str) -> list[str]:
    """A command that runs Python over a store in a process of its own."""
    return [sys.executable, "-c", _PRELUDE.format(tests=str(Path(__file__).parent), store=str(store)) + text]


def run_script(store: Path, text: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run it to its end."""
    return subprocess.run(
        script(store, text), capture_output=True, text=True, timeout=300, check=False, env={**os.environ, **environment}
    )


async def until(look: Callable[[], bool], ledger: Ledger | None = None) -> None:
    """Wait for something that will come, polling the ledger meanwhile."""
    async with asyncio.timeout(300):
        while not look():
            if ledger is not None:
                await ledger.poll()
            await asyncio.sleep(0.01)
