"""Tightship's own side of the benchmark on Postgres: the same work as `ours.py`, by one worker or by several.

Run as a side: `python -m benchmarks.ours_postgres MEASUREMENT --store DIR --size SIZE`, with the server's URL in
BENCH_POSTGRES.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

from benchmarks import harness, ours, workload
from benchmarks.harness import Job, Load, Outcome
from benchmarks.postgres import VARIABLE

MODULE = "benchmarks.ours_postgres"
WORKERS = (1, 2, 4)


def store_url(schema: str) -> str:
    """The URL of a store of its own on the measured server."""
    url = os.environ[VARIABLE]
    return f"{url}{'&' if '?' in url else '?'}schema={schema}"


def on_postgres(folder: Path, schema: str) -> Path:
    """The folder of a workspace whose store is there."""
    ours.prepare(folder)
    config = folder / "tightship.yaml"
    config.write_text(f"{config.read_text('utf-8')}store: '{store_url(schema)}'\n", "utf-8")
    return folder


# --- effects/s, by so many workers ------------------------------------------------------------------------


def _lane(job: Job, arguments: list[str]) -> None:
    """Child process: one worker under full load, once its parent says so."""
    schema = arguments[0]
    load = Load(job.size)

    async def drive() -> None:
        async with ours.effects_workspace(
            on_postgres(job.store, schema), ours.Step("bench.paid", load.tick, usd=1000)
        ) as ws:
            await ours.completed(ws, "steps", f"warm {os.getpid()}")
            print("READY", flush=True)
            await asyncio.to_thread(sys.stdin.readline)
            await load.drive(lambda run: ours.completed(ws, "steps", f"{os.getpid()} {run}"))

    asyncio.run(drive())
    print(json.dumps({"effects_per_s": load.effects_per_s}), flush=True)


def _side_by_side(job: Job, workers: int) -> float:
    """Effects/s of so many workers together, in the same window."""
    schema = f"w{workers}"
    children = [
        subprocess.Popen(
            [
                *(sys.executable, "-m", MODULE, "lane", schema),
                *("--store", str(job.folder(f"{schema}_{n}")), "--size", job.size.name),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=harness.ROOT,
            env=os.environ | {"TIGHTSHIP_MASTER_KEY": "dGlnaHRzaGlwIGJlbmNobWFyayBtYXN0ZXIga2V5ISE="},
        )
        for n in range(workers)
    ]
    try:
        for child in children:
            assert child.stdout is not None
            if child.stdout.readline().strip() != "READY":
                raise RuntimeError("a worker did not start")
        for child in children:
            assert child.stdin is not None
            child.stdin.write("go\n")
            child.stdin.flush()
        told = [child.communicate(timeout=harness.PATIENCE_S)[0] for child in children]
    finally:
        for child in children:
            child.kill()
    return sum(json.loads(harness.last_line(text))["effects_per_s"] for text in told)


def concurrent_postgres(job: Job) -> Outcome:
    """Paid effects/s of 1, 2 and 4 workers on one store, 32 runs at once in each."""
    return Outcome({f"effects_per_s_postgres_{count}_workers": _side_by_side(job, count) for count in WORKERS})


# --- runs/s --------------------------------------------------------------------------------------------------


def team_postgres(job: Job) -> Outcome:
    """Runs/s of five agents by one worker, 32 at once."""
    load = Load(job.size)

    async def drive() -> None:
        folder = on_postgres(job.folder("team"), "team")
        async with ours.team_workspace(folder, dict.fromkeys(workload.TEAM, ours.answer)) as ws:
            await load.drive(lambda run: ours.completed(ws, "team", run))

    asyncio.run(drive())
    return Outcome({"runs_per_s_5_agents_postgres": load.runs_per_s})


if __name__ == "__main__":
    harness.main(
        "ours",
        {"concurrent_postgres": concurrent_postgres, "team_postgres": team_postgres},
        versions={"tightship": version("tightship"), "psycopg": version("psycopg")},
        phases={"lane": _lane},
    )
