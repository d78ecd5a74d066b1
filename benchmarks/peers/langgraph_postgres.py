"""LangGraph with its Postgres checkpointer, durability "sync", a pool of connections.

Runs in the peers' environment: `python -m benchmarks.peers.langgraph_postgres MEASUREMENT --store DIR`, with
the server's URL in BENCH_POSTGRES. Threads and tasks are measured and the faster stands for LangGraph.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from importlib.metadata import version

os.environ["LANGSMITH_TRACING"] = "false"

from langgraph.checkpoint.postgres import PostgresSaver
from langgraph.checkpoint.postgres.aio import AsyncPostgresSaver
from psycopg.rows import dict_row
from psycopg_pool import AsyncConnectionPool, ConnectionPool

from benchmarks import harness, workload
from benchmarks.harness import Job, Load, Outcome
from benchmarks.peers.langgraph_sqlite import _chain, _config, _team
from benchmarks.postgres import VARIABLE

_ARGUMENTS = {"autocommit": True, "prepare_threshold": 0, "row_factory": dict_row}
"""How the checkpointer's documentation says that its connections have to be made."""


def _measure(job: Job, graph: object, first: dict[str, object]) -> dict[str, Load]:
    url = os.environ[VARIABLE]
    loads = {"AsyncPostgresSaver, 32 tasks": Load(job.size), "PostgresSaver, 32 threads": Load(job.size)}

    async def tasks(load: Load) -> None:
        async with AsyncConnectionPool(url, max_size=workload.LANES, kwargs=_ARGUMENTS, open=False) as pool:
            saver = AsyncPostgresSaver(pool)  # type: ignore[arg-type]
            await saver.setup()
            app = graph(load.tick, asynchronous=True).compile(checkpointer=saver)  # type: ignore[operator]
            await load.drive(lambda run: app.ainvoke(first, _config(f"a{run}"), durability="sync"))

    asyncio.run(tasks(loads["AsyncPostgresSaver, 32 tasks"]))
    load = loads["PostgresSaver, 32 threads"]
    with ConnectionPool(url, max_size=workload.LANES, kwargs=_ARGUMENTS, open=True) as pool:
        saver = PostgresSaver(pool)  # type: ignore[arg-type]
        saver.setup()
        app = graph(load.tick, asynchronous=False).compile(checkpointer=saver)  # type: ignore[operator]
        load.drive_threads(lambda run: app.invoke(first, _config(f"t{run}"), durability="sync"))
    return loads


def _outcome(rates: dict[str, float], figures: Sequence[str]) -> Outcome:
    fastest = max(rates, key=lambda name: rates[name])
    return Outcome(
        figures=dict.fromkeys(figures, rates[fastest]),
        notes=dict.fromkeys(figures, fastest),
        detail={"fastest": fastest, "variants": rates},
    )


def team_postgres(job: Job) -> Outcome:
    """Runs/s of the five-agent graph, 32 at once."""
    loads = _measure(job, _team, {"ticket": "Where is my order?"})
    return _outcome({name: load.runs_per_s for name, load in loads.items()}, ("runs_per_s_5_agents_postgres",))


def concurrent_postgres(job: Job) -> Outcome:
    """Checkpointed nodes/s with 32 runs at once, one process."""
    loads = _measure(job, _chain, {"last": {}})
    return _outcome({name: load.effects_per_s for name, load in loads.items()}, ("effects_per_s_postgres_1_workers",))


if __name__ == "__main__":
    harness.main(
        "langgraph",
        {"team_postgres": team_postgres, "concurrent_postgres": concurrent_postgres},
        versions={name: version(name) for name in ("langgraph", "langgraph-checkpoint-postgres", "psycopg")},
    )
