"""Workers that are killed, frozen, cut off; a server that is killed: no run is lost, nothing is done twice.

Each test disturbs workers that are in the middle of runs, and looks at the end: every run completed once, the company did
each write once, no effect was settled twice, and the ledger is what was written.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncGenerator
from pathlib import Path

import pytest
import pytest_asyncio
from fleet import DESK, PATIENCE, Fleet, fleet

from postgres_desk import Server, new_store, server
from proxy import Proxy

RUNS = 24
LEASE = 10.0


@pytest_asyncio.fixture
async def desk(tmp_path: Path) -> AsyncGenerator[Fleet]:
    async with fleet(tmp_path, new_store()) as made:
        yield made


@pytest.fixture
def postgres() -> Server:
    return server()


async def check(desk: Fleet, runs: list[str]) -> None:
    await desk.finish()
    assert await desk.problems(runs) == []


async def test_undisturbed_workers_share_the_runs_and_do_each_once(desk: Fleet):
    await desk.start(2)
    runs = await desk.submit(RUNS)
    for number in range(2):
        await desk.busy(number)
    await check(desk, runs)
    entries = [entry for run in runs for entry in await desk.ledger.run_entries(run)]
    owners = {entry.body["owner"] for entry in entries if entry.kind == "run.claimed"}
    assert owners == {worker.owner for worker in desk.workers}


async def test_what_a_killed_worker_had_is_taken_over_at_once(desk: Fleet):
    await desk.start(2)
    runs = await desk.submit(RUNS)
    killed = await desk.busy(0)
    killed.signal(signal.SIGKILL)
    await desk.until(lambda: _free(desk, killed.owner))
    await check(desk, runs)


async def test_workers_are_killed_again_and_again(desk: Fleet):
    await desk.start(2)
    runs = await desk.submit(RUNS)

    async def more() -> None:
        runs[:] = await desk.submit(len(runs) + RUNS // 2)

    for number in range(3):
        await desk.busy(number, more)
        desk.workers[number].signal(signal.SIGKILL)
        await desk.start()
    await check(desk, runs)


RETRIED = (DESK / "workflows" / "settle.yaml").read_text() + "on: {unavailable: {retry: 3, after: 5s}}\n"
"""What a worker had asked when it was frozen counts as unanswered when it wakes, and its breaker opens for a while."""


async def test_a_frozen_worker_loses_its_runs_and_writes_nothing_when_it_wakes(tmp_path: Path):
    async with fleet(tmp_path, new_store(), {"workflows/settle.yaml": RETRIED}) as desk:
        await desk.start(2)
        runs = await desk.submit(RUNS)
        frozen = await desk.busy(0)
        frozen.signal(signal.SIGSTOP)
        await desk.finish()  # the other one goes on with its runs once its lease has run out
        frozen.signal(signal.SIGCONT)
        more = await desk.submit(RUNS + 2)
        await check(desk, more)
        assert more[:RUNS] == runs
        assert frozen.process.poll() is None  # it joined anew


async def test_a_worker_that_is_cut_off_from_the_store_is_replaced_and_comes_back(desk: Fleet, postgres: Server):
    proxy = Proxy(postgres.folder / ".s.PGSQL.5432")
    port = await proxy.start()
    try:
        url = desk.workspace.place.url or ""
        schema = url.rpartition("schema=")[2]
        through = f"postgresql://postgres@127.0.0.1:{port}/postgres?schema={schema}"
        config = desk.folder / "tightship.yaml"
        config.write_text(config.read_text().replace(url, "${STORE}"))
        await desk.start(1, store=through)
        await desk.start(1, store=url)
        runs = await desk.submit(RUNS)
        await desk.busy(0)
        proxy.cut()
        await desk.finish()
        proxy.mend()
        more = await desk.submit(RUNS + 2)
        await check(desk, more)
        assert more[:RUNS] == runs
        assert desk.workers[0].process.poll() is None
    finally:
        await proxy.close()


async def test_a_server_that_is_killed_and_started_again_costs_time_and_nothing_else(desk: Fleet, postgres: Server):
    await desk.start(2)
    runs = await desk.submit(RUNS)
    await desk.busy(0)
    await asyncio.to_thread(postgres.kill)
    await asyncio.sleep(1)
    await asyncio.to_thread(postgres.start)
    await check(desk, runs)
    assert all(worker.process.poll() is None for worker in desk.workers)


async def test_a_primary_that_is_lost_is_replaced_by_its_standby(tmp_path: Path):
    primary = Server()
    standby = primary.mirror()
    hosts = f"host={primary.folder},{standby.folder}&target_session_attrs=read-write"
    try:
        async with fleet(tmp_path, f"postgresql://postgres@/postgres?{hosts}&schema=mirrored") as desk:
            await desk.start(2)
            runs = await desk.submit(RUNS)
            await desk.busy(0)
            await asyncio.to_thread(primary.kill)
            await asyncio.to_thread(standby.promote)
            await check(desk, runs)
            assert all(worker.process.poll() is None for worker in desk.workers)
    finally:
        standby.stop()
        primary.stop()


async def test_a_worker_that_is_asked_to_leave_hands_over_at_once(desk: Fleet):
    await desk.start(2)
    runs = await desk.submit(RUNS)
    leaving = await desk.busy(0)
    leaving.signal(signal.SIGTERM)
    assert await asyncio.to_thread(leaving.process.wait, PATIENCE) == 0
    await desk.until(lambda: _free(desk, leaving.owner))
    await check(desk, runs)


async def _free(desk: Fleet, owner: str) -> bool:
    return not any(row["state"] == "running" and row["owner"] == owner for row in await desk.rows())
