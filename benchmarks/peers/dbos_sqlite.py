"""DBOS Transact with its system database on SQLite, wholly offline: no conductor, no exporter, no server of its own.

Runs in the peers' environment: `python -m benchmarks.peers.dbos_sqlite MEASUREMENT --store DIR --size SIZE`.
Several ways to run it are measured and the fastest stands for DBOS; `detail` says which and gives the others.
"""

from __future__ import annotations

import asyncio
import json
import sqlite3
import threading
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from dbos import DBOS, DBOSConfig
from dbos._dbos import _get_dbos_instance

from benchmarks import harness, workload
from benchmarks.harness import Alone, Flight, Job, Load, Outcome

MODULE = "benchmarks.peers.dbos_sqlite"

DONE_PATIENCE_S = 300.0
"""How long recovered workflows may take to finish before the measurement fails."""


@dataclass(frozen=True, slots=True)
class Way:
    """One way to run DBOS on SQLite.

    wal: write-ahead log instead of the rollback journal that DBOS leaves in place (both with synchronous FULL).
    pool: database connections; None is DBOS's own default of 20. tasks: asyncio instead of threads.
    """

    name: str
    wal: bool
    pool: int | None
    tasks: bool


WAYS = (
    Way("threads, as shipped (rollback journal)", wal=False, pool=None, tasks=False),
    Way("threads, WAL", wal=True, pool=None, tasks=False),
    Way("threads, WAL, one connection", wal=True, pool=1, tasks=False),
    Way("asyncio, WAL", wal=True, pool=None, tasks=True),
)


class _Hooks:
    """What the registered steps call. DBOS registers steps once per process; measurements come and go."""

    def __init__(self) -> None:
        self.tick: Callable[[], None] = lambda: None
        self.flight: Flight | None = None
        self.holding = False
        self.talk: list[workload.Turn] = []


_hooks = _Hooks()


@DBOS.step()
def step() -> dict[str, object]:
    """One effect: tick and return one small dict."""
    _hooks.tick()
    return workload.answer()


@DBOS.step()
async def step_async() -> dict[str, object]:
    """The same as a coroutine."""
    _hooks.tick()
    return workload.answer()


@DBOS.workflow()
def chain(steps: int) -> dict[str, object]:
    """A run of `steps` effects, one after another."""
    last: dict[str, object] = {}
    for _ in range(steps):
        last = step()
    return last


@DBOS.workflow()
async def chain_async(steps: int) -> dict[str, object]:
    """The same as a coroutine."""
    last: dict[str, object] = {}
    for _ in range(steps):
        last = await step_async()
    return last


@DBOS.step()
def converse(number: int) -> dict[str, str]:
    """One turn of the conversation: both texts are its stored outcome."""
    turn = _hooks.talk[number]
    return {"user": turn.user, "reply": turn.reply}


@DBOS.workflow()
def conversation_workflow(turns: int) -> int:
    """The conversation: one workflow, one step a turn."""
    return sum(len(converse(number)["reply"]) for number in range(turns))


@DBOS.step()
async def held_agent(place: int) -> dict[str, object]:
    """One agent of the resume measurement: stops inside the held one before the kill, reports the next one after it."""
    flight = _hooks.flight
    assert flight is not None
    if _hooks.holding and place == workload.HELD_AGENT:
        flight.hold()
        await asyncio.Event().wait()
    if place == workload.HELD_AGENT + 1:
        flight.passed()
    return workload.answer()


@DBOS.workflow()
async def held_team() -> None:
    """The five agents of the resume measurement."""
    for place in range(len(workload.TEAM)):
        await held_agent(place)


@contextmanager
def _running(path: Path, way: Way) -> Generator[dict[str, str]]:
    """DBOS launched on a database file; yields what SQLite really runs with."""
    if way.wal:
        connection = sqlite3.connect(path)
        connection.execute("PRAGMA journal_mode=WAL")
        connection.close()
    config: DBOSConfig = {
        "name": "benchmark-peer",
        "application_version": "benchmark",
        "system_database_url": f"sqlite:///{path}",
        "log_level": "ERROR",
        "enable_otlp": False,
    }
    if way.pool is not None:
        config["sys_db_pool_size"] = way.pool
    DBOS(config=config)
    DBOS.launch()
    try:
        with _get_dbos_instance()._sys_db.engine.connect() as borrowed:
            raw = borrowed.connection.driver_connection
            assert isinstance(raw, sqlite3.Connection)
            found = harness.durability(raw)
        if found["synchronous"] != "FULL":
            raise RuntimeError(f"DBOS runs with {found}, which does not fsync every commit")
        yield found
    finally:
        DBOS.destroy()


def _measure_load(job: Job, steps: int) -> tuple[dict[str, Load], dict[str, object]]:
    """Workflows of `steps` steps, 32 at once, in every way."""
    loads: dict[str, Load] = {}
    found: dict[str, object] = {}
    for number, way in enumerate(WAYS):
        load = loads[way.name] = Load(job.size)
        _hooks.tick = load.tick
        with _running(job.folder(f"way{number}") / "dbos.sqlite", way) as durability:
            found[way.name] = durability
            if way.tasks:
                asyncio.run(load.drive(lambda _: chain_async(steps)))
            else:
                load.drive_threads(lambda _: chain(steps))
    return loads, found


def _rates_outcome(rates: dict[str, float], figures: tuple[str, ...], durability: dict[str, object]) -> Outcome:
    fastest = max(rates, key=lambda name: rates[name])
    return Outcome(
        figures=dict.fromkeys(figures, rates[fastest]),
        notes=dict.fromkeys(figures, fastest),
        detail={"fastest": fastest, "variants": rates, "measured_with": durability},
    )


def concurrent(job: Job) -> Outcome:
    """Steps/s with 32 workflows at once. DBOS has no cheaper kind of step, so reads are the same figure."""
    loads, durability = _measure_load(job, workload.EFFECTS_PER_RUN)
    rates = {name: load.effects_per_s for name, load in loads.items()}
    return _rates_outcome(rates, ("effects_per_s_32_runs_sqlite", "reads_per_s_32_runs_sqlite"), durability)


def team(job: Job) -> Outcome:
    """Runs/s of workflows of five steps, 32 at once."""
    loads, durability = _measure_load(job, len(workload.TEAM))
    rates = {name: load.runs_per_s for name, load in loads.items()}
    return _rates_outcome(rates, ("runs_per_s_5_agents_sqlite",), durability)


def alone(job: Job) -> Outcome:
    """One step after another with nothing else in flight, in every way."""
    runs = job.size.alone_effects // (workload.EFFECTS_PER_RUN - 1) + 2
    timers: dict[str, Alone] = {}

    async def tasks(timer: Alone) -> None:
        for _ in range(runs):
            timer.cut()
            await chain_async(workload.EFFECTS_PER_RUN)

    for number, way in enumerate(WAYS):
        timer = timers[way.name] = Alone()
        _hooks.tick = timer.tick
        with _running(job.folder(f"way{number}") / "dbos.sqlite", way):
            if way.tasks:
                asyncio.run(tasks(timer))
            else:
                for _ in range(runs):
                    timer.cut()
                    chain(workload.EFFECTS_PER_RUN)
    fastest = min(timers, key=lambda name: timers[name].p50_ms)
    best = timers[fastest]
    return Outcome(
        figures={
            "effect_alone_p50_ms": best.p50_ms,
            "read_alone_p50_ms": best.p50_ms,
            "effect_alone_cpu_ms": best.cpu_ms,
            "read_alone_cpu_ms": best.cpu_ms,
        },
        notes={"effect_alone_p50_ms": fastest},
        detail={
            "fastest": fastest,
            "variants": {name: {"p50_ms": timer.p50_ms, "cpu_ms": timer.cpu_ms} for name, timer in timers.items()},
        },
    )


def conversation(job: Job) -> Outcome:
    """Bytes of the store per byte of unique text: one workflow, one step a turn."""
    _hooks.talk = list(workload.turns(job.size.turns))
    unique = sum(turn.size for turn in _hooks.talk)
    folder = job.folder("talk")
    with _running(folder / "dbos.sqlite", WAYS[1]):
        conversation_workflow(job.size.turns)
    size = harness.folder_bytes(folder)
    return Outcome(
        figures={"ledger_bytes_per_unique_byte_1000_turns": size / unique},
        detail={"unique_bytes": unique, "bytes": size},
    )


def _way_of(arguments: list[str]) -> Way:
    return WAYS[int(arguments[0])]


def _crash(job: Job, arguments: list[str]) -> None:
    """Child process: start all workflows; each stops inside the held agent until the process is killed."""
    _hooks.flight, _hooks.holding = Flight(job.size.resume_runs), True

    async def tasks() -> None:
        started = [await DBOS.start_workflow_async(held_team) for _ in range(job.size.resume_runs)]
        await asyncio.gather(*(handle.get_result() for handle in started))

    with _running(job.store / "dbos.sqlite", _way_of(arguments)):
        asyncio.run(tasks())


def _resumed(job: Job, arguments: list[str]) -> None:
    """Child process: launch on the store; DBOS recovers its pending workflows by itself."""
    flight = _hooks.flight = Flight(job.size.resume_runs)
    path = job.store / "dbos.sqlite"
    flight.executor_starts()
    with _running(path, _way_of(arguments)):
        reader = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
        deadline = time.perf_counter() + DONE_PATIENCE_S
        while _open_workflows(reader):
            if time.perf_counter() > deadline:
                raise RuntimeError(f"{_open_workflows(reader)} workflows are still open")
            threading.Event().wait(0.05)
        report = flight.report()
        reader.close()
    print(json.dumps(report), flush=True)


def _open_workflows(reader: sqlite3.Connection) -> int:
    return reader.execute("SELECT count(*) FROM workflow_status WHERE status != 'SUCCESS'").fetchone()[0]


def resume(job: Job) -> Outcome:
    """SIGKILL with all workflows inside their third step; seconds until all are past it. The faster of two journals."""
    found: dict[str, dict[str, float]] = {}
    for place, way in list(enumerate(WAYS))[:2]:
        mine = Job(job.folder(f"way{place}"), job.size)
        name = way.name.replace("threads", "asyncio")
        harness.crash(MODULE, mine, str(place))
        found[name] = harness.resume(MODULE, mine, str(place))
        if found[name]["resumed"] != job.size.resume_runs:
            raise RuntimeError(f"{name}: only {found[name]['resumed']} workflows were resumed")
    fastest = min(found, key=lambda name: found[name]["resumed_s"])
    return Outcome(
        figures={"resume_1000_runs_s": found[fastest]["resumed_s"]},
        notes={"resume_1000_runs_s": f"{fastest}; all ended after {found[fastest]['done_s']:.1f} s"},
        detail={"fastest": fastest, "variants": found},
    )


if __name__ == "__main__":
    harness.main(
        "dbos",
        {"concurrent": concurrent, "team": team, "alone": alone, "conversation": conversation, "resume": resume},
        versions={name: version(name) for name in ("dbos", "sqlalchemy")},
        phases={"crash": _crash, "resumed": _resumed},
    )
