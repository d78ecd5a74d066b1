"""Jobs on a real PostgreSQL: wake-ups come with the append, and nothing depends on them."""

from __future__ import annotations

import asyncio
import logging
import signal
import sys
import threading
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parents[1]))

import postgres_desk
from ledger_desk import Store, note, script, started, until
from store_desk import ledger_of_store, store_of
from tightship import Agent, Workflow, Workspace
from tightship.controls.periods import period_key
from tightship.core import kinds
from tightship.core.errors import GuardRefused, StoreReadOnly
from tightship.core.world import World
from tightship.ledger import Draft, Guards, Ledger
from tightship.ledger._pg import Address, connect
from tightship.ledger.pg_jobs import GENERAL, forget_jobs, prepare_jobs, queues
from tightship.ledger.presence import LEASE, Presence
from tightship.runtime import _jobs_engine
from tightship.runtime.jobs import PostgresJobs
from tightship.runtime.reconcile import Lost, Reconciler
from tightship.runtime.timetable import Periodic
from tightship.runtime.workspace import projections

BUILD = "b1"


store = store_of("postgres")
ledger = ledger_of_store()


@pytest.fixture
def address(store: Store, ledger: Ledger) -> Address:
    address = Address.of(str(store.where))
    prepare_jobs(address)
    return address


def ask(address: Address, sql: str, *values: Any) -> list[tuple[Any, ...]]:
    with closing(connect(address)) as db:
        cursor = db.execute(sql.encode(), values)
        return cursor.fetchall() if cursor.description else []


def waiting(address: Address) -> list[tuple[str, str]]:
    return [(row[0], row[1]) for row in ask(address, "SELECT queue_name, task_name FROM procrastinate_jobs ORDER BY 1")]


def queue(ledger: Ledger, run: str, build: str = BUILD) -> Any:
    return ledger.append(started(run, owner="", build=build), guards=Guards(fresh=True))


class Bell:
    """Rings when a worker is woken."""

    def __init__(self) -> None:
        self.rung = 0

    def __call__(self) -> None:
        self.rung += 1


@asynccontextmanager
async def listening(
    url: str, build: str = BUILD, periodic: tuple[Periodic, ...] = ()
) -> AsyncIterator[tuple[PostgresJobs, Bell]]:
    bell = Bell()
    jobs = PostgresJobs(url, build, bell, periodic)
    await jobs.start()
    try:
        await until(lambda: jobs.alive)
        yield jobs, bell
    finally:
        await jobs.close()


# --- deferring ---------------------------------------------------------------------------------------


async def test_what_makes_a_run_due_elsewhere_defers_one_job_for_each_build(ledger: Ledger, address: Address) -> None:
    await asyncio.gather(*(queue(ledger, f"r-{n}") for n in range(20)))
    await queue(ledger, "r-other", "b2")
    assert waiting(address) == sorted((queues(address, build)[0], "wake") for build in (BUILD, "b2"))


async def test_effects_and_runs_that_somebody_drives_defer_nothing(ledger: Ledger, address: Address) -> None:
    await ledger.append(started("r-1", owner="w", build=BUILD), guards=Guards(fresh=True))
    await ledger.append(note("r-1", 1))
    await ledger.append(Draft("r-1", kinds.SIGNAL, "", {"type": "cancel", "by": "ann"}))
    with pytest.raises(GuardRefused):
        await ledger.append(started("r-1", owner="", build=BUILD), guards=Guards(fresh=True))
    assert waiting(address) == []


async def test_a_signal_to_a_parked_run_defers_one(ledger: Ledger, address: Address) -> None:
    await ledger.append(started("r-1", owner="w", build=BUILD), guards=Guards(fresh=True))
    park = {"wake_at": kinds.NEVER, "waiting": [], "seen": 0, "seconds": 0.0}
    await ledger.append(Draft("r-1", kinds.PARKED, "", park, 1))
    assert waiting(address) == []
    await ledger.append(Draft("r-1", kinds.SIGNAL, "", {"type": "answer", "by": "ann", "item": "i-1"}))
    assert waiting(address) == [(queues(address, BUILD)[0], "wake")]


async def test_a_worker_that_leaves_wakes_another_for_what_it_lets_go_of(
    store: Store, ledger: Ledger, address: Address
) -> None:
    presence = await Presence.start(str(store.where), BUILD)
    await ledger.append(started("r-1", owner=presence.id, build=BUILD), guards=Guards(fresh=True))
    assert waiting(address) == []
    await presence.close()
    assert waiting(address) == [(queues(address, BUILD)[0], "wake")]


@pytest.mark.parametrize(
    "gone", ["DROP TABLE procrastinate_jobs CASCADE", "DROP TYPE procrastinate_job_status CASCADE"]
)
async def test_an_append_stands_whatever_became_of_the_jobs_tables(ledger: Ledger, address: Address, gone: str) -> None:
    ask(address, gone)
    await queue(ledger, "r-1")
    assert [row["state"] for row in await ledger.select("runs")] == ["queued"]


async def test_an_append_does_not_wait_for_whoever_holds_the_jobs_tables(ledger: Ledger, address: Address) -> None:
    with closing(connect(address)) as db:
        db.execute("BEGIN")
        db.execute("LOCK TABLE procrastinate_jobs IN ACCESS EXCLUSIVE MODE")
        await queue(ledger, "r-1")
        assert [row["state"] for row in await ledger.select("runs")] == ["queued"]
        db.execute("ROLLBACK")
    assert waiting(address) == []


async def test_without_jobs_tables_an_append_is_what_it_was(ledger: Ledger) -> None:
    await queue(ledger, "r-1")
    assert [row["state"] for row in await ledger.select("runs")] == ["queued"]


async def test_two_stores_of_one_database_have_queues_apart(store: Store, address: Address) -> None:
    other = Address.of(postgres_desk.new_store())
    here = set(queues(address, BUILD))
    with closing(connect(address)) as db:
        db.execute(f"CREATE SCHEMA {other.schema}".encode())
        db.execute(f"SET search_path TO {other.schema}, {address.schema}".encode())
        row = db.execute("SELECT job_queue(%s), job_queue(%s)", (BUILD, GENERAL)).fetchone()
    assert row is not None and here.isdisjoint(row)
    assert all(len(f"procrastinate_queue_v1#{name}") < 64 for name in here), "a channel's name is no longer than that"


# --- waking ------------------------------------------------------------------------------------------


async def test_a_job_wakes_a_worker_of_its_build_and_no_other(store: Store, ledger: Ledger, address: Address) -> None:
    async with listening(str(store.where)) as (_, bell), listening(str(store.where), "b2") as (_, other):
        await queue(ledger, "r-1")
        await until(lambda: bell.rung == 1)
        await queue(ledger, "r-2", "b2")
        await until(lambda: other.rung == 1)
        assert bell.rung == 1
    assert waiting(address) == []


async def test_a_pruned_worker_comes_back(store: Store, ledger: Ledger, address: Address) -> None:
    async with listening(str(store.where)) as (_, bell):
        ask(address, "DELETE FROM procrastinate_workers")  # as others do to one that was frozen for too long
        await queue(ledger, "r-1")
        await until(lambda: bell.rung >= 1)


async def test_wake_ups_come_back_after_the_server_was_killed(tmp_path: Path) -> None:
    server = postgres_desk.Server()
    try:
        url = server.url("restarted")
        ledger = await Ledger.open(url, World(), projections(), folder=tmp_path / "store")
        async with listening(url) as (_, bell):
            await queue(ledger, "r-1")
            await until(lambda: bell.rung == 1)
            await asyncio.to_thread(server.kill)
            await asyncio.to_thread(server.start)
            for n in range(2, 200):  # a job that was lost with the server costs a look, and no more
                await queue(ledger, f"r-{n}")
                if bell.rung > 1:
                    break
                await asyncio.sleep(0.1)
            assert bell.rung > 1
        await ledger.close()
    finally:
        server.stop()


async def test_what_is_done_again_and_again_is_done_once_for_all_workers(store: Store, address: Address) -> None:
    done: list[int] = []

    def every_second(number: int) -> Periodic:
        async def do() -> None:
            done.append(number)

        return Periodic("tick", "* * * * * *", do)

    began = int(time.time())
    async with (
        listening(str(store.where), "b1", (every_second(1),)),
        listening(str(store.where), "b1", (every_second(2),)),
        listening(str(store.where), "b2", (every_second(3),)),
    ):
        await until(lambda: len(done) >= 4)
    assert len(done) <= int(time.time()) - began + 2  # the slot before is made up for


async def test_old_jobs_are_forgotten_and_those_that_somebody_will_do_are_not(
    store: Store, ledger: Ledger, address: Address
) -> None:
    presence = await Presence.start(str(store.where), BUILD)
    await queue(ledger, "r-1")
    await queue(ledger, "r-2", "gone")
    mine, general = queues(address, BUILD)
    for place, task, *states in (
        (mine, "lost", "doing"),
        (general, "kept"),
        (general, "fresh", "doing", "failed"),
        (general, "old", "doing", "failed"),
    ):
        ask(address, "INSERT INTO procrastinate_jobs (queue_name, task_name) VALUES (%s, %s)", place, task)
        for state in states:
            change = "UPDATE procrastinate_jobs SET status = %s::procrastinate_job_status WHERE task_name = %s"
            ask(address, change, state, task)
    ask(
        address,
        "UPDATE procrastinate_events SET at = now() - interval '2 days' WHERE job_id IN"
        " (SELECT id FROM procrastinate_jobs WHERE task_name = 'old')",
    )
    forget_jobs(address)
    assert sorted(task for _, task in waiting(address)) == ["fresh", "kept", "wake"]
    await presence.close()


# --- opening -----------------------------------------------------------------------------------------


def test_the_tables_are_made_once_by_however_many_begin_at_once(store: Store, address: Address) -> None:
    threads = [threading.Thread(target=prepare_jobs, args=(address,)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert ask(address, "SELECT count(*) > 10 FROM job_migrations") == [(True,)]


async def test_a_user_who_may_not_make_the_tables_is_told_what_to_grant(store: Store, ledger: Ledger) -> None:
    address = Address.of(str(store.where))
    user = f"{address.schema}_app"
    with postgres_desk.server().connect() as db:
        db.execute(f"CREATE ROLE {user} LOGIN")
        db.execute(f"GRANT USAGE ON SCHEMA {address.schema} TO {user}")
        db.execute(f"GRANT ALL ON ALL TABLES IN SCHEMA {address.schema} TO {user}")
    limited = Address({**address.parameters, "user": user}, address.schema, address.shown)
    with pytest.raises(StoreReadOnly, match="tables of the jobs") as refused:
        prepare_jobs(limited)
    assert refused.value.fix is not None and f"GRANT CREATE ON SCHEMA {address.schema}" in refused.value.fix


async def test_nothing_of_the_engines_own_log_is_in_the_programs(
    store: Store, ledger: Ledger, address: Address, caplog: pytest.LogCaptureFixture
) -> None:
    async def fail() -> None:
        raise ValueError("with customer C-1001 in it")

    with caplog.at_level(logging.DEBUG):
        async with listening(str(store.where), periodic=(Periodic("fails", "* * * * * *", fail),)) as (_, bell):
            await queue(ledger, "r-1")
            await until(lambda: bell.rung == 1 and any("fails failed" in line for line in caplog.messages))
            ask(address, "DELETE FROM procrastinate_workers")
            await queue(ledger, "r-2")
            await until(lambda: bell.rung >= 2)
    assert {one.name.partition(".")[0] for one in caplog.records} <= {"tightship", "asyncio"}


# --- whole workers -----------------------------------------------------------------------------------


def desk(folder: Path, url: str, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    monkeypatch.setenv("JOBS_STORE", url)
    folder.mkdir(exist_ok=True)
    (folder / "tightship.yaml").write_text("name: desk\nroles: {lead: [nora]}\nstore: ${JOBS_STORE}\n", "utf-8")

    async def double(ctx: Any, given: dict[str, Any]) -> dict[str, Any]:
        return {"n": 2 * given["n"]}

    ws = Workspace.open(folder)
    ws.add(
        Agent("doubler", owner="o", purpose="double it", python="x:doubler", output={"n": "int"}),
        functions={"doubler": double},
    )
    ws.add(Workflow("twice", owner="o", purpose="double it", input={"n": "int"}, steps=["doubler"]))
    return ws


@asynccontextmanager
async def serving(ws: Workspace) -> AsyncIterator[Workspace]:
    stop = asyncio.Event()
    await ws.engine()
    task = asyncio.ensure_future(ws.serve(stop))
    try:
        yield ws
    finally:
        stop.set()
        await task
        await ws.close()


async def completed(ws: Workspace, runs: list[str]) -> None:
    async with asyncio.timeout(300):
        for run in runs:
            while (await ws.row(run))["outcome"] != "completed":  # noqa: ASYNC110 - it happens elsewhere
                await asyncio.sleep(0.02)


async def test_runs_are_done_with_jobs_and_when_their_table_was_dropped_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = postgres_desk.new_store()
    async with serving(desk(tmp_path / "desk", url, monkeypatch)) as ws:
        upkeep = ws._dispatcher.upkeep  # type: ignore[union-attr]
        await until(lambda: upkeep.jobs is not None and upkeep.jobs.alive)  # type: ignore[union-attr]
        jobs = upkeep.jobs  # type: ignore[union-attr]
        await completed(ws, [await ws.submit("twice", {"n": 1})])
        await until(lambda: jobs.woken > 0)  # type: ignore[union-attr]
        ask(Address.of(url), "DROP TABLE procrastinate_jobs CASCADE")
        await completed(ws, [await ws.submit("twice", {"n": n}) for n in range(5)])


async def test_runs_are_done_when_the_engine_of_jobs_cannot_begin(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any) -> Any:
        raise RuntimeError("it does not begin")

    monkeypatch.setattr(_jobs_engine, "make_worker", broken)
    async with serving(desk(tmp_path / "desk", postgres_desk.new_store(), monkeypatch)) as ws:
        await completed(ws, [await ws.submit("twice", {"n": n}) for n in range(3)])


async def test_a_slot_is_started_once_by_several_workers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    url = postgres_desk.new_store()

    def scheduled() -> Workspace:
        ws = desk(tmp_path / "desk", url, monkeypatch)
        schedule = {"cron": "0 0 * * *", "input": {"n": 21}}
        fields = {"owner": "o", "purpose": "double it", "input": {"n": "int"}, "steps": ["doubler"]}
        ws.add(Workflow("daily", **fields, schedule=schedule))  # type: ignore[arg-type]
        return ws

    async with serving(scheduled()) as ws, serving(scheduled()) as other:
        ledger = await ws.ledger()
        async with asyncio.timeout(300):
            while not await ledger.select("schedules"):  # noqa: ASYNC110 - workers' doing
                await asyncio.sleep(0.02)
        # the schedule was last kept fifteen days ago, as after an outage
        body = {"workflow": "daily", "cron": "0 0 * * *", "timezone": "UTC", "upto": time.time() - 15 * 86_400}
        await ledger.append(Draft("", kinds.SCHEDULE, "daily", body))
        looks = [one._dispatcher.upkeep._schedules for one in (ws, other)]  # type: ignore[union-attr]
        await asyncio.gather(*(look.look() for look in [*looks, *looks]))
        runs = await ledger.select("runs", [("workflow", "=", "daily")])
        assert len(runs) == len({row["reference"] for row in runs}) in (1, 2)  # a day may have begun meanwhile
        [row] = await ledger.select("schedules")
        assert (row["started"], row["missed"]) in [(1, 14), (1, 15), (2, 14), (2, 15)]
        await completed(ws, [row["id"] for row in runs])


async def test_what_a_killed_worker_had_borrowed_and_not_spent_is_lent_again(store: Store, tmp_path: Path) -> None:
    ledger = await Ledger.open(str(store.where), World(), projections(), folder=store.folder / "store")
    text = (
        "from tightship.controls.budgets import Amount, Limit\n"
        "from tightship.controls.periods import period_key\n"
        "from tightship.ledger import Draft, Ledger\n"
        "from tightship.core.world import World\n"
        "from tightship.ledger.presence import Presence\n"
        "from tightship.runtime.lending import Lender\n"
        "from tightship.runtime.workspace import projections\n"
        "from pathlib import Path\n"
        "import time\n"
        "async def main():\n"
        f"    ledger = await Ledger.open({store.where!r}, World(), projections(), folder=Path({str(store.folder / 'store')!r}))\n"
        f"    presence = await Presence.start({store.where!r}, 'b1')\n"
        "    lease = Lender(ledger, lambda: presence.id).lease('tenant:default', Limit(usd=1000), period_key('day', time.time()))\n"
        "    start = {'workflow': 'w', 'owner': presence.id, 'tenant': 'default', 'build': 'b1'}\n"
        "    await ledger.append(Draft('r-1', 'run.started', '', start, 1))\n"
        "    assert await lease.supply(Amount(usd=50))\n"
        "    call = {'name': 't', 'cls': 'read', 'agent': 'a', 'workflow': 'w'}\n"
        "    await ledger.append(Draft('r-1', 'effect.admitted', 'a', {**call, 'reserve': {'usd': 30}}, 1))\n"
        "    await ledger.append(Draft('r-1', 'effect.settled', 'a', {**call, 'usd': 12, 'ms': 1}, 1))\n"
        "    await ledger.append(Draft('r-1', 'effect.admitted', 'b', {**call, 'reserve': {'usd': 20}}, 1))\n"
        "    print(presence.id, flush=True)\n"
        "    await asyncio.sleep(60)\n"
        "asyncio.run(main())\n"
    )
    process = await asyncio.create_subprocess_exec(
        *script(store.folder / "store", text), stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    worker = (await process.stdout.readline()).decode().strip()
    process.send_signal(signal.SIGKILL)
    await process.wait()

    async def gone() -> list[Lost]:
        return [Lost(*row) for row in ledger.backend.lost_workers()]  # type: ignore[attr-defined]

    async def lent() -> int:
        rows = await ledger.select("envelopes", [("scope", "=", "tenant:default")])
        return sum(row["usd"] for row in rows)

    reconciler = Reconciler(ledger, gone)
    before = await lent()
    assert before >= 50
    await until(lambda: not ledger.backend.workers()[0]["alive"])  # type: ignore[attr-defined]
    assert [run["id"] for run in await ledger.claim("other", BUILD, 9)] == ["r-1"]
    await reconciler.look()
    assert await lent() == before, "by its own clock its lease may run on"
    ask(Address.of(str(store.where)), "UPDATE workers SET beat_at = beat_at - %s WHERE id = %s", LEASE + 1, worker)
    await asyncio.gather(reconciler.look(), reconciler.look())
    assert await lent() == 12 + 20
    await ledger.close()


async def test_after_days_without_any_worker_what_the_lost_ones_had_borrowed_is_still_given_back(store: Store) -> None:
    ledger = await Ledger.open(str(store.where), World(), projections(), folder=store.folder / "store")
    address, now = Address.of(str(store.where)), ledger.world.clock.now()
    lost = "INSERT INTO workers (id, host, pid, build, started_at, beat_at) VALUES (%s, 'h', 1, 'b1', %s, %s)"
    for worker, days in (("w-lent", 3), ("w-paid", 3), ("w-ancient", 40)):
        ask(address, lost, worker, now - (days + 1) * 86_400, now - days * 86_400)
    for worker in ("w-lent", "w-ancient"):
        body = {"scope": "tenant:default", "period": period_key("month", now), "owner": worker, "usd": 50}
        await ledger.append(Draft("", kinds.ENVELOPE, "tenant:default", body))

    def known() -> list[str]:
        return sorted(row["id"] for row in ledger.backend.workers() if not row["alive"])

    async def gone() -> list[Lost]:
        return [Lost(*row) for row in ledger.backend.lost_workers()]  # type: ignore[attr-defined]

    await (await Presence.start(str(store.where), BUILD)).close()
    assert known() == ["w-lent"]
    await Reconciler(ledger, gone).look()
    [row] = await ledger.select("envelopes", [("scope", "=", "tenant:default")])
    assert row["usd"] == 50, "what w-lent had is lent again; who was lost before this month began is forgotten"
    await (await Presence.start(str(store.where), BUILD)).close()
    assert known() == []
    await ledger.close()
