"""DBOS Transact with its system database on Postgres, wholly offline, as shipped.

Runs in the peers' environment: `python -m benchmarks.peers.dbos_postgres MEASUREMENT --store DIR --size SIZE`, with the
server's URL in BENCH_POSTGRES. Threads and asyncio are measured and the faster stands for DBOS.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from importlib.metadata import version

from dbos import DBOS, DBOSConfig

from benchmarks import harness, workload
from benchmarks.harness import Job, Load, Outcome
from benchmarks.peers.dbos_sqlite import _hooks, chain, chain_async
from benchmarks.postgres import VARIABLE


@contextmanager
def _running() -> Generator[None]:
    config: DBOSConfig = {
        "name": "benchmark-peer",
        "application_version": "benchmark",
        "system_database_url": os.environ[VARIABLE],
        "log_level": "ERROR",
        "enable_otlp": False,
    }
    DBOS(config=config)
    DBOS.launch()
    try:
        yield
    finally:
        DBOS.destroy()


def _measure(job: Job, steps: int) -> dict[str, Load]:
    loads = {"threads": Load(job.size), "asyncio": Load(job.size)}
    for name, load in loads.items():
        _hooks.tick = load.tick
        with _running():
            if name == "asyncio":
                asyncio.run(load.drive(lambda _: chain_async(steps)))
            else:
                load.drive_threads(lambda _: chain(steps))
    return loads


def _outcome(rates: dict[str, float], figures: Sequence[str]) -> Outcome:
    fastest = max(rates, key=lambda name: rates[name])
    return Outcome(
        figures=dict.fromkeys(figures, rates[fastest]),
        notes=dict.fromkeys(figures, fastest),
        detail={"fastest": fastest, "variants": rates},
    )


def team_postgres(job: Job) -> Outcome:
    """Runs/s of workflows of five steps, 32 at once."""
    loads = _measure(job, len(workload.TEAM))
    return _outcome({name: load.runs_per_s for name, load in loads.items()}, ("runs_per_s_5_agents_postgres",))


def concurrent_postgres(job: Job) -> Outcome:
    """Steps/s with 32 workflows at once, one process."""
    loads = _measure(job, workload.EFFECTS_PER_RUN)
    return _outcome({name: load.effects_per_s for name, load in loads.items()}, ("effects_per_s_postgres_1_workers",))


if __name__ == "__main__":
    harness.main(
        "dbos",
        {"team_postgres": team_postgres, "concurrent_postgres": concurrent_postgres},
        versions={name: version(name) for name in ("dbos", "psycopg")},
    )
