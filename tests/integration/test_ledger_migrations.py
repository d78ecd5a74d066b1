"""Stores of every earlier schema are brought forward: nothing is lost, the log verifies, and work goes on.

A store of an earlier schema is one of today's with something of everything in it, less what the later migrations have
made: they only add (which a test holds), so that is what the version before them wrote.
"""

from __future__ import annotations

import re
import sqlite3
import sys
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parents[1]))

import postgres_desk
from ledger_desk import Store, fill, note
from tightship.core.errors import StoreVersionError
from tightship.ledger import Ledger, _pg_schema, _schema, folded
from tightship.ledger._pg import Address
from tightship.ledger._sql import script
from tightship.ledger.audit import rebuild, verify

EARLIER = [
    *(("sqlite", version) for version in range(1, len(_schema.MIGRATIONS))),
    *(("postgres", version) for version in range(1, len(_pg_schema.MIGRATIONS))),
]
MADE = re.compile(r"^CREATE (?:UNIQUE )?(TABLE|INDEX|FUNCTION) (?:IF NOT EXISTS )?(\w+)", re.MULTILINE)
ADDED = re.compile(r"^ALTER TABLE (\w+) ADD COLUMN (\w+)", re.MULTILINE)
DROPPED = re.compile(r"^DROP INDEX (\w+)", re.MULTILINE)


@pytest.fixture
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Store]:
    store = Store(request.param, tmp_path)
    yield store
    await store.close()


def migrations(kind: str) -> tuple[str, ...]:
    return _schema.MIGRATIONS if kind == "sqlite" else _pg_schema.MIGRATIONS


def text_of(kind: str, migration: str) -> str:
    return script(migration) if kind == "sqlite" else script(migration, "postgres")


def later_text(kind: str, version: int) -> str:
    return "\n".join(text_of(kind, name) for name in migrations(kind)[version:])


def taken_back(kind: str, version: int) -> list[str]:
    """Statements that take back what the migrations behind a version have made."""
    later, before = later_text(kind, version), "\n".join(text_of(kind, name) for name in migrations(kind)[:version])
    made = MADE.findall(later)
    drops = [f"DROP INDEX IF EXISTS {name}" for what, name in made if what == "INDEX"]
    drops += [f"DROP {what} IF EXISTS {name}" for what, name in made if what != "INDEX"]
    tables = {name for what, name in made if what == "TABLE"}
    drops += [f"ALTER TABLE {table} DROP COLUMN {name}" for table, name in ADDED.findall(later) if table not in tables]
    for name in set(DROPPED.findall(later)) - set(DROPPED.findall(before)):
        drops += re.findall(rf"^CREATE INDEX {name} [^;]+", before, re.MULTILINE)
    return drops


def age(store: Store, version: int) -> None:
    """Take back what the migrations behind a version have made."""
    drops = taken_back(store.kind, version)
    if store.kind == "sqlite":
        with closing(sqlite3.connect(Path(store.where) / "ledger.db", isolation_level=None)) as db:
            for drop in drops:
                db.execute(drop)
            db.execute(f"PRAGMA user_version={version}")
        return
    with postgres_desk.server().connect() as db:
        db.execute(f'SET search_path TO "{Address.of(str(store.where)).schema}"'.encode())
        for drop in drops:
            db.execute(drop.encode())
        db.execute("DELETE FROM migrations WHERE version > %s", (version,))


async def read(ledger: Ledger) -> dict[str, Any]:
    """Everything that can be read of it."""
    found: dict[str, Any] = {table: await ledger.select(table) for table in ledger.folder.tables}
    for log in ledger.backend.heads():
        entries = await ledger.entries(limit=10_000, log=log)
        found[f"log {log}"] = [entry.data for entry in entries]
        named = [
            entry.body[name] for entry in entries for name in ("input", "args", "out", "output") if name in entry.body
        ]
        found[f"values {log}"] = await ledger.values(named, erased=None)
    return found


@pytest.mark.parametrize(("store", "version"), EARLIER, indirect=["store"])
async def test_a_store_of_an_earlier_schema_is_brought_forward(store: Store, version: int) -> None:
    ledger = await store.open()
    await fill(ledger)
    before = await read(ledger)
    await ledger.close()
    age(store, version)
    later = await store.open()
    assert await read(later) == before
    report = await verify(later)
    assert report.ok, report.findings
    [waiting] = (await later.select("runs", [("id", "=", "r-004")])) or [None]
    assert waiting is not None
    assert waiting["state"] == "parked"
    [claimed] = await later.claim("w", waiting["build"], 1)
    assert claimed["state"] == "running"
    await later.append(note(claimed["id"], claimed["epoch"], n=1), log=claimed["log"])
    await rebuild(later)
    assert (await verify(later)).ok


@pytest.mark.parametrize("store", ["sqlite", "postgres"], indirect=True)
async def test_what_ended_before_the_tables_were_folded_anew_is_made_up_for_by_whoever_opens_the_store_next(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger = await store.open()
    await fill(ledger)
    before = await read(ledger)
    await ledger.close()
    age(store, 1)

    class Killed(Exception):
        """The process's end."""

    def die(*_: object) -> None:
        raise Killed

    for place, step in ((folded, "fold"), (Ledger, "_exchange")):
        with monkeypatch.context() as patch, pytest.raises(Killed):
            patch.setattr(place, step, die)
            await store.open()
    later = await store.open()
    assert await read(later) == before
    report = await verify(later)
    assert report.ok, report.findings
    await later.close()
    with monkeypatch.context() as patch:
        patch.setattr(Ledger, "rebuild", die)
        await store.open()  # and that is done once


@pytest.mark.parametrize("store", ["sqlite", "postgres"], indirect=True)
async def test_a_store_of_a_later_version_is_refused_and_stays_as_it_is(store: Store) -> None:
    await (await store.open()).close()
    count = len(migrations(store.kind))
    if store.kind == "sqlite":
        with closing(sqlite3.connect(Path(store.where) / "ledger.db")) as db:
            db.execute(f"PRAGMA user_version={count + 1}")
    else:
        with postgres_desk.server().connect() as db:
            schema = Address.of(str(store.where)).schema
            db.execute(f'INSERT INTO "{schema}".migrations (version, name) VALUES (%s, %s)', (count + 1, "later"))
    with pytest.raises(StoreVersionError, match=f"schema {count + 1}.* knows {count}") as raised:
        await store.open()
    assert "newer tightship" in (raised.value.fix or "")


@pytest.mark.parametrize("kind", ["sqlite", "postgres"])
def test_migrations_only_add_so_that_a_process_of_the_version_before_goes_on(kind: str) -> None:
    for name in migrations(kind)[1:]:
        text = re.sub(r"--.*", "", text_of(kind, name))
        text = re.sub(r"\$\$.*?\$\$", "", text, flags=re.DOTALL)  # a function's body
        for statement in filter(None, map(str.strip, text.split(";"))):
            adds = r"CREATE (TABLE|INDEX|FUNCTION)|DROP INDEX|ALTER TABLE \w+ ADD COLUMN \w+ .*DEFAULT"
            assert re.match(adds, statement), statement
