"""The physical limits: what SQLite, the disk and asyncio allow when nothing at all is built on them.

Run as a side: `python -m benchmarks.physical MEASUREMENT --store DIR --size SIZE`. Durability equals the other sides':
write-ahead log, synchronous FULL, so every commit is fsync'd.
"""

from __future__ import annotations

import asyncio
import os
import queue
import sqlite3
import statistics
import threading
import time
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path

from benchmarks import harness, workload
from benchmarks.harness import Alone, Job, Load, Outcome

ROW = b"r" * 256
"""One row of the group commit: about the bytes of one ledger entry."""

CALLERS = (1, 32, 256)


@contextmanager
def _database(path: Path) -> Generator[sqlite3.Connection]:
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    try:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")
        connection.execute("CREATE TABLE log (n INTEGER PRIMARY KEY, row BLOB NOT NULL)")
        yield connection
    finally:
        connection.close()


class GroupCommit:
    """Callers await; a writer thread, fed once per tick of the event loop, commits all that wait in one transaction."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._loop = asyncio.get_running_loop()
        self._waiting: list[tuple[bytes, asyncio.Future[None]]] = []
        self._batches: queue.SimpleQueue[list[tuple[bytes, asyncio.Future[None]]]] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._write)
        self._thread.start()

    async def append(self, row: bytes) -> None:
        """Return once the row is on disk."""
        stored: asyncio.Future[None] = self._loop.create_future()
        if not self._waiting:
            self._loop.call_soon(self._feed)
        self._waiting.append((row, stored))
        await stored

    async def close(self) -> None:
        """Stop the writer thread."""
        self._batches.put([])
        await asyncio.to_thread(self._thread.join)

    def _feed(self) -> None:
        self._batches.put(self._waiting)
        self._waiting = []

    def _write(self) -> None:
        while batch := self._batches.get():
            rows = [(row,) for row, _ in batch]
            stored = [future for _, future in batch]
            try:
                self._connection.execute("BEGIN IMMEDIATE")
                self._connection.executemany("INSERT INTO log (row) VALUES (?)", rows)
                self._connection.execute("COMMIT")
            except sqlite3.Error as error:
                self._loop.call_soon_threadsafe(_resolve, stored, error)
                return
            self._loop.call_soon_threadsafe(_resolve, stored, None)


def _resolve(stored: Sequence[asyncio.Future[None]], error: sqlite3.Error | None) -> None:
    for future in stored:
        if error is None:
            future.set_result(None)
        else:
            future.set_exception(error)


async def _committed(path: Path, load: Load, rows_per_run: int) -> None:
    """Runs of so many rows, one awaited after another, in every lane."""
    with _database(path) as connection:
        writer = GroupCommit(connection)

        async def run(_: str) -> None:
            for _row in range(rows_per_run):
                await writer.append(ROW)
                load.tick()

        await load.drive(run)
        await writer.close()


def concurrent(job: Job) -> Outcome:
    """Rows/s of bare group commit with 1, 32 and 256 callers; 32 is the limit of both throughput figures."""
    rates: dict[int, float] = {}
    for callers in CALLERS:
        load = Load(job.size, lanes=callers)
        path = job.folder(f"callers{callers}") / "log.sqlite"
        asyncio.run(_committed(path, load, workload.EFFECTS_PER_RUN))
        rates[callers] = load.effects_per_s
    return Outcome(
        figures={
            "effects_per_s_32_runs_sqlite": rates[32],
            "reads_per_s_32_runs_sqlite": rates[32],
            "group_commit_rows_per_s_1_caller": rates[1],
            "group_commit_rows_per_s_32_callers": rates[32],
            "group_commit_rows_per_s_256_callers": rates[256],
        }
    )


def alone(job: Job) -> Outcome:
    """One row and one commit after another in one thread, and one fdatasync after another."""
    timer = Alone()
    with _database(job.folder("alone") / "log.sqlite") as connection:
        durability = harness.durability(connection)
        for _ in range(job.size.alone_effects + 1):
            timer.tick()
            connection.execute("BEGIN IMMEDIATE")
            connection.execute("INSERT INTO log (row) VALUES (?)", (ROW,))
            connection.execute("COMMIT")
    return Outcome(
        figures={
            "effect_alone_p50_ms": timer.p50_ms,
            "read_alone_p50_ms": timer.p50_ms,
            "effect_alone_cpu_ms": timer.cpu_ms,
            "read_alone_cpu_ms": timer.cpu_ms,
            "commit_alone_p50_ms": timer.p50_ms,
            "fsync_alone_p50_ms": _fsync_p50_ms(job.store / "block", job.size.alone_effects),
        },
        detail={"measured_with": durability},
    )


def _fsync_p50_ms(path: Path, times: int) -> float:
    spent: list[float] = []
    file = os.open(path, os.O_CREAT | os.O_WRONLY, 0o600)
    try:
        for _ in range(times):
            started = time.perf_counter()
            os.write(file, b"b" * 4096)
            os.fdatasync(file)
            spent.append(time.perf_counter() - started)
    finally:
        os.close(file)
    return statistics.median(spent) * 1e3


def team(job: Job) -> Outcome:
    """Runs of five rows through the bare group commit, and runs of five awaits that store nothing, 32 at once."""
    stored, bare = Load(job.size), Load(job.size)

    async def awaits() -> None:
        for _agent in workload.TEAM:
            await asyncio.sleep(0)

    async def run(_: str) -> None:
        await asyncio.create_task(awaits())

    asyncio.run(_committed(job.folder("team") / "log.sqlite", stored, len(workload.TEAM)))
    asyncio.run(bare.drive(run))
    return Outcome(
        figures={
            "runs_per_s_5_agents_sqlite": stored.runs_per_s,
            "asyncio_runs_per_s_5_awaits": bare.runs_per_s,
        }
    )


def conversation(job: Job) -> Outcome:
    """The conversation as rows of a plain table, uncompressed; beside it, how far zlib shrinks the text."""
    folder = job.folder("talk")
    unique = 0
    with _database(folder / "log.sqlite") as connection:
        for turn in workload.turns(job.size.turns):
            unique += turn.size
            for text in (turn.user, turn.reply):
                connection.execute("INSERT INTO log (row) VALUES (?)", (text.encode(),))
    return Outcome(
        figures={"ledger_bytes_per_unique_byte_1000_turns": harness.folder_bytes(folder) / unique},
        detail={"unique_bytes": unique, "zlib_level_6": workload.compressibility(job.size.turns)},
    )


if __name__ == "__main__":
    harness.main(
        "physical",
        {"concurrent": concurrent, "alone": alone, "team": team, "conversation": conversation},
        versions={},
    )
