"""A worker of a newer version brings the store's schema forward while workers of this one are in the middle of runs.

The newer version is this one with one migration more: a copy of the package, in processes of its own.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import sys
from pathlib import Path

import pytest
from fleet import PATIENCE, TOKEN, Fleet, Worker, fleet, program

import postgres_desk
import tightship
from tightship.ledger import _pg_schema, _schema

LATER = """ALTER TABLE runs ADD COLUMN later {integer} NOT NULL DEFAULT 0;
CREATE TABLE later (id {text} NOT NULL PRIMARY KEY, much {integer} NOT NULL DEFAULT 0);
CREATE INDEX runs_later ON runs (later) WHERE state = 'queued';
"""


def newer(folder: Path) -> tuple[str, ...]:
    """The command line of a version that needs a newer schema."""
    package = folder / "newer" / "tightship"
    shutil.copytree(Path(tightship.__file__).parent, package, ignore=shutil.ignore_patterns("__pycache__"))
    stores = (("postgres", _pg_schema, "bigint", 'text COLLATE "C"'), ("sqlite", _schema, "INTEGER", "TEXT"))
    for store, schema, integer, text in stores:
        last, name = schema.MIGRATIONS[-1], f"{len(schema.MIGRATIONS) + 1:04}_later"
        (package / "ledger" / "sql" / store / f"{name}.sql").write_text(LATER.format(integer=integer, text=text))
        file = package / "ledger" / Path(str(schema.__file__)).name
        listed = file.read_text()
        assert listed.count(f'    "{last}",\n') == 1
        file.write_text(listed.replace(f'    "{last}",\n', f'    "{last}",\n    "{name}",\n'))
    return program(f"import sys; sys.path.insert(0, {str(package.parent)!r})")


async def said_by(command: tuple[str, ...], *args: str) -> tuple[int | None, str]:
    """How a command ends, and what it says."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, *command, *args),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env={**os.environ, "COMPANY_TOKEN": TOKEN},
    )
    said = (await asyncio.wait_for(process.communicate(), PATIENCE))[0].decode()
    return process.returncode, said


async def begun(desk: Fleet, worker: Worker) -> None:
    """Until a worker has some runs."""

    async def has() -> bool:
        return await desk.under_way(worker) > 1

    await desk.until(has, lambda: worker.log.read_text()[-1500:])


@pytest.mark.slow
async def test_old_workers_go_on_under_a_newer_schema_and_nothing_is_lost_or_done_twice(tmp_path: Path) -> None:
    command = newer(tmp_path)
    async with fleet(tmp_path, postgres_desk.new_store()) as desk:
        await desk.fault(kind="latency", operation="*", seconds=0.2)
        first, second = await desk.start(2)
        runs = await desk.submit(16)
        await begun(desk, first)
        await begun(desk, second)

        [third] = await desk.start(program=command)  # it migrates while both are at work
        assert await desk.ledger.off_loop(applied, desk) == len(_pg_schema.MIGRATIONS) + 1
        assert [one.process.poll() for one in (first, second)] == [None, None], "the old ones go on"
        first.signal(signal.SIGKILL)
        await desk.ledger.off_loop(cut_off)  # all sessions: the old one has to find its way back as well
        await desk.finish()
        assert second.process.poll() is None, second.log.read_text()[-2000:]
        second.signal(signal.SIGTERM)
        assert await asyncio.to_thread(second.process.wait, PATIENCE) == 0
        runs = await desk.submit(18)  # two more, for the new one alone
        await desk.finish()
        assert await desk.problems(runs) == []

        code, told = await said_by(("-m", "tightship"), "worker", "-w", str(desk.folder), "--json")
        error = json.loads(told.splitlines()[-1])
        assert (code, error["error"]) == (1, "StoreVersionError"), told
        assert "newer tightship" in error["fix"]
        third.signal(signal.SIGTERM)
        assert await asyncio.to_thread(third.process.wait, PATIENCE) == 0
        code, told = await said_by(command, "audit", "verify", "-w", str(desk.folder))
        assert code == 0, told


def applied(desk: Fleet) -> int:
    """How many migrations the store has seen."""
    with postgres_desk.server().connect() as db:
        return db.execute(f'SELECT count(*) FROM "{schema_of(desk)}".migrations').fetchone()[0]


def cut_off() -> None:
    """End every session of the store."""
    with postgres_desk.server().connect() as db:
        db.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'tightship'")


def schema_of(desk: Fleet) -> str:
    """The store's schema."""
    return str(desk.ledger.backend.address.schema)  # type: ignore[attr-defined]
