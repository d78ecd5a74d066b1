"""LangGraph with its SQLite checkpointers, durability "sync": one checkpoint is on disk before the next node starts.

Runs in the peers' environment: `python -m benchmarks.peers.langgraph_sqlite MEASUREMENT --store DIR --size SIZE`.
Both checkpointers are measured and the faster one stands for LangGraph; `detail` says which and gives the other.
"""

from __future__ import annotations

import asyncio
import json
import math
import os
import shutil
import time
from collections.abc import AsyncGenerator, Callable, Generator, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any, TypedDict

# Tracing to LangSmith is off unless asked for; said here so that no environment variable can turn it on.
os.environ["LANGSMITH_TRACING"] = "false"

import aiosqlite
from langchain_core.messages import AIMessage, AnyMessage, HumanMessage
from langchain_core.runnables import RunnableConfig
from langgraph.channels import DeltaChannel
from langgraph.checkpoint.sqlite import SqliteSaver
from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver
from langgraph.graph import END, START, StateGraph
from langgraph.graph.message import _messages_delta_reducer, add_messages

from benchmarks import harness, workload
from benchmarks.harness import Alone, Flight, Job, Load, Outcome
from benchmarks.peers.langgraph_coordination import PATTERNS

MODULE = "benchmarks.peers.langgraph_sqlite"
RECURSION_LIMIT = 100
"""LangGraph's default of 25 steps is below the length of the long chain."""

GROWTH_STOPS = (0.25, 0.5, 1.0)
"""Shares of the conversation after which the store is weighed."""

LARGEST_STORE = 4 * 1024**3
"""Bytes beyond which a conversation is not written to the end but extrapolated, and said so."""

LONGEST_CONVERSATION_S = 180.0


class ChainState(TypedDict):
    """The state of the long chain: one small dict, replaced by every node."""

    last: dict[str, object]


class TeamState(TypedDict):
    """The state of the five-agent graph: what came in, and what each agent returned under its name."""

    ticket: str
    triage: dict[str, object]
    knowledge: dict[str, object]
    account: dict[str, object]
    respond: dict[str, object]
    quality: dict[str, object]


def _linear(state: type, nodes: Sequence[tuple[str, Callable[..., Any]]]) -> StateGraph[Any]:
    """A graph of the nodes, one after another."""
    graph: StateGraph[Any] = StateGraph(state)
    before = START
    for name, action in nodes:
        graph.add_node(name, action)
        graph.add_edge(before, name)
        before = name
    graph.add_edge(before, END)
    return graph


def _chain(tick: Callable[[], None], *, asynchronous: bool) -> StateGraph[Any]:
    """EFFECTS_PER_RUN nodes; each ticks and returns one small dict."""

    def step(state: ChainState) -> ChainState:
        tick()
        return {"last": workload.answer()}

    async def step_async(state: ChainState) -> ChainState:
        return step(state)

    action = step_async if asynchronous else step
    return _linear(ChainState, [(f"step{number}", action) for number in range(workload.EFFECTS_PER_RUN)])


def _team(tick: Callable[[], None], *, asynchronous: bool) -> StateGraph[Any]:
    """The five agents; each returns one small dict under its own name."""

    def agent(name: str) -> tuple[str, Callable[..., Any]]:
        def act(state: TeamState) -> dict[str, object]:
            tick()
            return {name: workload.answer()}

        async def act_async(state: TeamState) -> dict[str, object]:
            return act(state)

        # A node may not bear the name of a state key.
        return f"{name}_agent", act_async if asynchronous else act

    return _linear(TeamState, [agent(name) for name in workload.TEAM])


def _config(thread: str) -> RunnableConfig:
    return {"configurable": {"thread_id": thread}, "recursion_limit": RECURSION_LIMIT}


@contextmanager
def _saver(path: Path) -> Generator[SqliteSaver]:
    with SqliteSaver.from_conn_string(str(path)) as saver:
        saver.setup()
        saver.conn.execute("PRAGMA synchronous=FULL")
        _require_durable(harness.durability(saver.conn))
        yield saver


@asynccontextmanager
async def _async_saver(path: Path) -> AsyncGenerator[AsyncSqliteSaver]:
    async with aiosqlite.connect(path) as connection:
        saver = AsyncSqliteSaver(connection)
        await saver.setup()
        await connection.execute("PRAGMA synchronous=FULL")
        # Same file, so the journal mode that counts; the level was set on this very connection.
        async with connection.execute("PRAGMA journal_mode") as cursor:
            journal = await cursor.fetchone()
        async with connection.execute("PRAGMA synchronous") as cursor:
            level = await cursor.fetchone()
        _require_durable({"journal_mode": str(journal and journal[0]), "synchronous": "FULL" if level == (2,) else "?"})
        yield saver


def _require_durable(found: dict[str, str]) -> None:
    if found != _DURABILITY:
        raise RuntimeError(f"the checkpointer runs with {found}, not with {_DURABILITY}")


_DURABILITY = {"journal_mode": "wal", "synchronous": "FULL"}


def _shipped_durability(path: Path) -> dict[str, str]:
    """What the checkpointer runs with when nobody asks for anything."""
    with SqliteSaver.from_conn_string(str(path)) as saver:
        saver.setup()
        return harness.durability(saver.conn)


def _measure_load(job: Job, graph: Callable[..., StateGraph[Any]], first: dict[str, Any]) -> dict[str, Load]:
    """The same graph under both checkpointers with 32 runs at once, and with one run at a time."""

    async def tasks(load: Load) -> None:
        async with _async_saver(job.folder("async") / "checkpoints.sqlite") as saver:
            app = graph(load.tick, asynchronous=True).compile(checkpointer=saver)
            await load.drive(lambda run: app.ainvoke(first, _config(run), durability="sync"))

    def threads(load: Load, name: str) -> None:
        with _saver(job.folder(name) / "checkpoints.sqlite") as saver:
            app = graph(load.tick, asynchronous=False).compile(checkpointer=saver)
            load.drive_threads(lambda run: app.invoke(first, _config(run), durability="sync"))

    loads = {
        "AsyncSqliteSaver, 32 tasks": Load(job.size),
        "SqliteSaver, 32 threads": Load(job.size),
        _IN_LINE: Load(job.size, lanes=1),
    }
    asyncio.run(tasks(loads["AsyncSqliteSaver, 32 tasks"]))
    threads(loads["SqliteSaver, 32 threads"], "threads")
    threads(loads[_IN_LINE], "in_line")
    return loads


_IN_LINE = "SqliteSaver, one run at a time"


def _rates_outcome(rates: dict[str, float], figures: Sequence[str], job: Job) -> Outcome:
    at_once = {name: rate for name, rate in rates.items() if name != _IN_LINE}
    fastest = max(at_once, key=lambda name: at_once[name])
    return Outcome(
        figures=dict.fromkeys(figures, at_once[fastest]),
        others={figure: {"langgraph, one run at a time": rates[_IN_LINE]} for figure in figures},
        notes=dict.fromkeys(figures, fastest),
        detail={
            "fastest": fastest,
            "variants": rates,
            "as_shipped": _shipped_durability(job.folder("shipped") / "checkpoints.sqlite"),
            "measured_with": _DURABILITY | {"durability": "sync"},
        },
    )


def concurrent(job: Job) -> Outcome:
    """Checkpointed nodes/s with 32 runs at once. LangGraph has no cheaper kind of node: reads are the same figure."""
    loads = _measure_load(job, _chain, {"last": {}})
    rates = {name: load.effects_per_s for name, load in loads.items()}
    return _rates_outcome(rates, ("effects_per_s_32_runs_sqlite", "reads_per_s_32_runs_sqlite"), job)


def team(job: Job) -> Outcome:
    """Runs/s of the five-agent graph, 32 at once."""
    loads = _measure_load(job, _team, {"ticket": "Where is my order?"})
    rates = {name: load.runs_per_s for name, load in loads.items()}
    return _rates_outcome(rates, ("runs_per_s_5_agents_sqlite",), job)


def coordination(job: Job) -> Outcome:
    """Runs/s of each pattern, 32 at once, under both checkpointers; the faster one counts."""
    found = Outcome({})
    for name, graph in PATTERNS.items():

        def with_tick(tick: Callable[[], None], *, asynchronous: bool, graph: Any = graph) -> StateGraph[Any]:
            return graph(asynchronous=asynchronous)

        inner = Job(job.folder(name), job.size)
        loads = _measure_load(inner, with_tick, {"ticket": "Where is my order?"})
        rates = {variant: load.runs_per_s for variant, load in loads.items()}
        one = _rates_outcome(rates, (f"runs_per_s_{name}",), inner)
        found.figures |= one.figures
        found.others |= one.others
        found.notes |= one.notes
        found.detail[name] = one.detail
    return found


def alone(job: Job) -> Outcome:
    """One node after another with nothing else in flight, under both checkpointers."""
    runs = job.size.alone_effects // (workload.EFFECTS_PER_RUN - 1) + 2
    sync_timer, async_timer = Alone(), Alone()
    with _saver(job.folder("sync") / "checkpoints.sqlite") as saver:
        app = _chain(sync_timer.tick, asynchronous=False).compile(checkpointer=saver)
        for number in range(runs):
            sync_timer.cut()
            app.invoke({"last": {}}, _config(str(number)), durability="sync")

    async def tasks() -> None:
        async with _async_saver(job.folder("async") / "checkpoints.sqlite") as saver:
            app = _chain(async_timer.tick, asynchronous=True).compile(checkpointer=saver)
            for number in range(runs):
                async_timer.cut()
                await app.ainvoke({"last": {}}, _config(str(number)), durability="sync")

    asyncio.run(tasks())
    timers = {"SqliteSaver": sync_timer, "AsyncSqliteSaver": async_timer}
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


@dataclass(frozen=True, slots=True)
class Growth:
    """How the store grew with the conversation: bytes and seconds at each stop that was reached."""

    turns: int
    stops: dict[int, tuple[int, float]]

    @property
    def reached(self) -> int:
        """Turns that were really written."""
        return max(self.stops)

    @property
    def power(self) -> float:
        """The exponent of growth between the last two stops: 1 is linear, 2 quadratic."""
        if len(self.stops) < 2:
            return 1.0
        (first, (small, _)), (last, (large, _)) = sorted(self.stops.items())[-2:]
        return math.log(large / small) / math.log(last / first)

    @property
    def size(self) -> float:
        """Bytes after all turns: measured, or foretold from the exponent of growth where writing on was refused."""
        return self.stops[self.reached][0] * (self.turns / self.reached) ** self.power

    @property
    def said(self) -> str:
        """Whether the size is measured, in words."""
        how = "measured" if self.reached == self.turns else f"EXTRAPOLATED from {self.reached} turns"
        return f"{how}, growth ~ turns^{self.power:.2f}"

    def too_much(self, free: int) -> bool:
        """Whether writing on to the end would pass the limits of disk or time if growth is quadratic.

        free: bytes left on the disk, of which a log of the same size as the data needs its part.
        """
        size, seconds = self.stops[self.reached]
        rest = (self.turns / self.reached) ** 2
        too_large = size * rest > min(LARGEST_STORE, free / 3)
        return self.reached < self.turns and (too_large or seconds * rest > LONGEST_CONVERSATION_S)

    @property
    def detail(self) -> dict[str, object]:
        """All of it, for the record."""
        return {
            "bytes": round(self.size),
            "said": self.said,
            "bytes_at_turns": {str(stop): size for stop, (size, _) in self.stops.items()},
            "seconds_at_turns": {str(stop): round(seconds, 1) for stop, (_, seconds) in self.stops.items()},
        }


def _talk(path: Path, messages: object, job: Job) -> Growth:
    """The conversation, one invocation a turn; the store is weighed at each stop."""
    state = TypedDict("state", {"messages": Annotated[list[AnyMessage], messages]})  # noqa: UP013
    replies = iter([turn.reply for turn in workload.turns(job.size.turns)])

    def reply(_: dict[str, Any]) -> dict[str, Any]:
        return {"messages": [AIMessage(next(replies))]}

    stops = {max(1, int(job.size.turns * share)) for share in GROWTH_STOPS}
    growth = Growth(job.size.turns, {})
    started = time.perf_counter()
    with _saver(path / "checkpoints.sqlite") as saver:
        app = _linear(state, [("reply_agent", reply)]).compile(checkpointer=saver)
        for number, turn in enumerate(workload.turns(job.size.turns), start=1):
            app.invoke({"messages": [HumanMessage(turn.user)]}, _config("talk"), durability="sync")
            if number in stops:
                saver.conn.execute("PRAGMA wal_checkpoint(TRUNCATE)")
                growth.stops[number] = (harness.folder_bytes(path), time.perf_counter() - started)
                if len(growth.stops) > 1 and growth.too_much(shutil.disk_usage(path).free):
                    break
    return growth


def _fold(messages: list[AnyMessage], writes: Sequence[list[AnyMessage]]) -> list[AnyMessage]:
    """LangGraph's own reducer for a DeltaChannel of messages."""
    return _messages_delta_reducer(messages, list(writes))


def conversation(job: Job) -> Outcome:
    """Bytes of the store per byte of unique text, with `add_messages` (the usual way) and the beta DeltaChannel."""
    unique = sum(turn.size for turn in workload.turns(job.size.turns))
    default = _talk(job.folder("add_messages"), add_messages, job)
    delta = _talk(job.folder("delta"), DeltaChannel(_fold), job)
    figure = "ledger_bytes_per_unique_byte_1000_turns"
    return Outcome(
        figures={figure: default.size / unique},
        others={figure: {"langgraph, DeltaChannel (beta)": delta.size / unique}},
        notes={figure: f"add_messages; {default.said}"},
        detail={"unique_bytes": unique, "add_messages": default.detail, "delta_channel": delta.detail},
    )


def _held_team(flight: Flight, *, hold: bool, asynchronous: bool) -> StateGraph[Any]:
    """The five-agent graph whose held agent stops (before the kill) and whose next agent reports that it started."""

    def agent(place: int, name: str) -> tuple[str, Callable[..., Any]]:
        def act(state: TeamState) -> dict[str, object]:
            if place == workload.HELD_AGENT + 1:
                flight.passed()
            return {name: workload.answer()}

        async def act_async(state: TeamState) -> dict[str, object]:
            if hold and place == workload.HELD_AGENT:
                flight.hold()
                await asyncio.Event().wait()
            return act(state)

        return f"{name}_agent", act_async if asynchronous else act

    return _linear(TeamState, [agent(place, name) for place, name in enumerate(workload.TEAM)])


def _crash(job: Job, _: list[str]) -> None:
    """Child process: start all runs; each stops inside the held agent until the process is killed."""
    flight = Flight(job.size.resume_runs)

    async def tasks() -> None:
        async with _async_saver(job.store / "checkpoints.sqlite") as saver:
            app = _held_team(flight, hold=True, asynchronous=True).compile(checkpointer=saver)
            first = {"ticket": "Where is my order?"}
            await asyncio.gather(
                *(app.ainvoke(first, _config(str(run)), durability="sync") for run in range(job.size.resume_runs))
            )

    asyncio.run(tasks())


def _resumed(job: Job, arguments: list[str]) -> None:
    """Child process: resume every thread of the store. LangGraph recovers nothing by itself: the threads are listed."""
    flight = Flight(job.size.resume_runs)
    path = job.store / "checkpoints.sqlite"

    async def tasks() -> None:
        async with _async_saver(path) as saver:
            app = _held_team(flight, hold=False, asynchronous=True).compile(checkpointer=saver)
            async with saver.conn.execute(_THREADS) as cursor:
                runs = [row[0] async for row in cursor]
            await asyncio.gather(*(app.ainvoke(None, _config(run), durability="sync") for run in runs))

    def threads(count: int) -> None:
        with _saver(path) as saver, ThreadPoolExecutor(count) as pool:
            app = _held_team(flight, hold=False, asynchronous=False).compile(checkpointer=saver)
            runs = [row[0] for row in saver.conn.execute(_THREADS)]
            list(pool.map(lambda run: app.invoke(None, _config(run), durability="sync"), runs))

    flight.executor_starts()
    if arguments == ["tasks"]:
        asyncio.run(tasks())
    else:
        threads(int(arguments[0]))
    print(json.dumps(flight.report()), flush=True)


_THREADS = "SELECT DISTINCT thread_id FROM checkpoints"


def resume(job: Job) -> Outcome:
    """SIGKILL with all runs inside their third agent; seconds until all are past it. The fastest of three ways."""
    harness.crash(MODULE, job)
    ways = {"AsyncSqliteSaver, all at once": "tasks", "SqliteSaver, 32 threads": "32", "SqliteSaver, in line": "1"}
    found: dict[str, dict[str, float]] = {}
    for name, way in ways.items():
        copy = Job(job.folder(f"resume_{way}"), job.size)
        _copy_store(job.store.glob("checkpoints.sqlite*"), copy.store)
        found[name] = harness.resume(MODULE, copy, way)
        if found[name]["resumed"] != job.size.resume_runs:
            raise RuntimeError(f"{name}: only {found[name]['resumed']} runs were resumed")
    fastest = min(found, key=lambda name: found[name]["resumed_s"])
    return Outcome(
        figures={"resume_1000_runs_s": found[fastest]["resumed_s"]},
        notes={"resume_1000_runs_s": f"{fastest}; all ended after {found[fastest]['done_s']:.1f} s"},
        detail={"fastest": fastest, "variants": found},
    )


def _copy_store(files: Iterable[Path], to: Path) -> None:
    for file in files:
        (to / file.name).write_bytes(file.read_bytes())


if __name__ == "__main__":
    harness.main(
        "langgraph",
        {
            "concurrent": concurrent,
            "team": team,
            "coordination": coordination,
            "alone": alone,
            "conversation": conversation,
            "resume": resume,
        },
        versions={name: version(name) for name in ("langgraph", "langgraph-checkpoint-sqlite", "aiosqlite")},
        phases={"crash": _crash, "resumed": _resumed},
    )
