"""The database server's disk is full while runs are driven: a clear error, and with room again all goes on.

Once it is where the tables lie, which fails single transactions; once it is where the write-ahead log lies, which ends
the whole server.
"""

from __future__ import annotations

import asyncio
import contextlib
import getpass
import os
import shutil
import tempfile
from collections.abc import Generator
from pathlib import Path

import pytest
from fleet import QUICK, Fleet, fleet
from small_disk import SmallDisk, small_disk

from postgres_desk import Server
from tightship.core.errors import StoreError, StoreFull, StoreLost

RUNS = 24


@pytest.fixture
def place() -> Generator[Path]:
    """A folder that the server's user reaches."""
    folder = Path(tempfile.mkdtemp(prefix="disk-"))
    folder.chmod(0o755)
    yield folder / "small"
    shutil.rmtree(folder, ignore_errors=True)


def user() -> str:
    return "pgserver" if os.geteuid() == 0 else getpass.getuser()


async def disturbed(desk: Fleet, disk: SmallDisk, server: Server) -> StoreError:
    """Fill the disk in the middle of runs, give room again, and wait for the end; what was said meanwhile."""
    await desk.start(2)
    runs = await desk.submit(RUNS)
    await desk.busy(0)
    disk.fill()
    with contextlib.suppress(Exception), server.connect() as db:
        db.execute("SELECT pg_switch_wal()")
    said: list[StoreError] = []

    async def is_refused() -> bool:
        try:
            await desk.workspace.submit("settle", {"ticket": "T", "order": "O", "customer": os.urandom(4500).hex()})
        except StoreError as error:
            said.append(error)
        return bool(said)

    def workers_said() -> str:
        return "\n".join(worker.log.read_text() for worker in desk.workers)

    await desk.until(is_refused)
    if isinstance(said[0], StoreFull):
        await desk.until(lambda: "nothing is taken up" in workers_said(), workers_said)
    else:  # a server that is gone is waited for
        await asyncio.sleep(2)
    disk.free()
    await asyncio.to_thread(server.start)
    await desk.slow(QUICK)
    await desk.until(lambda: _ended(desk, runs), workers_said)
    assert await desk.problems(runs) == []
    assert all(worker.process.poll() is None for worker in desk.workers)
    return said[0]


async def _ended(desk: Fleet, runs: list[str]) -> bool:
    return all(row["state"] == "ended" for row in await desk.rows() if row["id"] in runs)


async def test_the_disk_of_the_tables_is_full(tmp_path: Path, place: Path):
    server = Server()
    try:
        with small_disk(place, 64, user()) as disk:
            with server.connect() as db:
                db.execute(f"CREATE TABLESPACE small LOCATION '{place}'")
            url = server.url("full") + "&options=-c%20default_tablespace%3Dsmall"
            async with fleet(tmp_path, url) as desk:
                said = await disturbed(desk, disk, server)
            server.stop()
        assert isinstance(said, StoreFull)
    finally:
        server.stop()


async def test_the_disk_of_the_write_ahead_log_is_full(tmp_path: Path, place: Path):
    server = Server()
    try:
        server.halt()
        with small_disk(place, 48, user()) as disk:
            moved = server.folder / "pg_wal"
            shutil.copytree(moved, place / "pg_wal")
            shutil.chown(place / "pg_wal", user())
            for one in (place / "pg_wal").rglob("*"):
                shutil.chown(one, user())
            shutil.rmtree(moved)
            moved.symlink_to(place / "pg_wal")
            server.start()
            async with fleet(tmp_path, server.url("full")) as desk:
                said = await disturbed(desk, disk, server)
            server.stop()
        assert isinstance(said, StoreFull | StoreLost)
    finally:
        server.stop()
