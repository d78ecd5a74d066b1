"""Several workers as real processes on one Postgres store: how soon one is replaced, and how soon a halt holds.

Run as a part of Tightship's own side: `python -m benchmarks.fleet MEASUREMENT --store DIR --size SIZE`, with the
server's URL in BENCH_POSTGRES.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import AsyncGenerator
from importlib.metadata import version
from pathlib import Path

from benchmarks import harness
from benchmarks.harness import Job, Outcome
from benchmarks.ours_postgres import on_postgres
from tightship import Workspace

MODULE = "benchmarks.fleet"
Started = subprocess.Popen[bytes]
MASTER = "dGlnaHRzaGlwIGJlbmNobWFyayBtYXN0ZXIga2V5ISE="
AGENT = """
import asyncio


async def stepper(ctx, given):
    for number in range(100_000):
        await ctx.tool("bench.tick", {"step": number, "run": given["run"]})
        await asyncio.sleep(0.05)
"""
TOOL = """
import os
import time

from tightship import tool

LOG = os.open(os.environ["BENCH_TICKS"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)


@tool(effect="read", price=0.000001)
async def tick(step: int, run: str) -> int:
    os.write(LOG, f"{time.monotonic()} {run}\\n".encode())
    return step
"""
FILES = {
    "agents/stepper.yaml": "agent: stepper\nowner: bench\npurpose: take steps\npython: stepper:stepper\n"
    "input: {run: str}\ntools: [bench.tick]\nwithin: 1h\n",
    "agents/stepper.py": AGENT,
    "tools/bench.py": TOOL,
    "workflows/steps.yaml": "workflow: steps\nowner: bench\npurpose: take steps\nescalate_to: operator\n"
    "input: {run: str}\nbudget: {usd: 10.0, then: escalate}\nsteps: [stepper]\n",
}


@contextlib.asynccontextmanager
async def fleet(
    job: Job, name: str, workers: int, runs: int, each: int
) -> AsyncGenerator[tuple[Workspace, list[Started]]]:
    """So many workers with so many runs, all of them under way, at most so many with each worker."""
    os.environ["TIGHTSHIP_MASTER_KEY"] = MASTER
    folder = on_postgres(job.folder(name), name)
    config = folder / "tightship.yaml"
    config.write_text(f"{config.read_text()}limits: {{calls: 100000, requests: 100000}}\n")
    for path, text in FILES.items():
        (folder / path).parent.mkdir(exist_ok=True)
        (folder / path).write_text(text)
    ticks = folder / "ticks.log"
    command = [sys.executable, "-m", "tightship", "worker", "-w", str(folder), "-c", str(each), "--json"]
    env = {**os.environ, "BENCH_TICKS": str(ticks)}
    started: list[Started] = []
    os.environ["BENCH_TICKS"] = str(ticks)
    async with Workspace.open(folder) as ws:
        try:
            for number in range(runs):
                await ws.submit("steps", {"run": str(number)})
            for number in range(workers):
                started.append(_start(command, folder / f"worker-{number}.log", env))
            await _until(lambda: _running(ws, runs))
            await asyncio.sleep(2)
            yield ws, started
        finally:
            for process in started:
                process.kill()
            for process in started:
                process.wait()


def _start(command: list[str], log: Path, env: dict[str, str]) -> Started:
    with log.open("wb") as file:
        return subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT, env=env)


async def _running(ws: Workspace, runs: int) -> bool:
    ledger = await ws.ledger()
    return len(await ledger.select("runs", [("state", "=", "running")])) == runs


async def _until(holds: object, patience: float = 120.0) -> None:
    end = time.monotonic() + patience
    while not await holds():  # type: ignore[operator]
        if time.monotonic() > end:
            raise RuntimeError("it does not come to that")
        await asyncio.sleep(0.01)


def failover(job: Job) -> Outcome:
    """Seconds from the kill of one of two workers until the other has all of its runs."""

    async def measure() -> float:
        async with fleet(job, "failover", 2, 64, 64) as (ws, workers):
            ledger = await ws.ledger()
            rows = await ledger.select("runs", [("state", "=", "running")])
            pids = {row["id"]: row["pid"] for row in ledger.backend.workers()}  # type: ignore[attr-defined]
            victim, _ = Counter(row["owner"] for row in rows).most_common(1)[0]
            had = [row["id"] for row in rows if row["owner"] == victim]

            async def taken() -> bool:
                found = await ledger.select("runs", [("id", "in", had)])
                return all(row["owner"] != victim for row in found)

            began = time.monotonic()
            next(one for one in workers if one.pid == pids[victim]).send_signal(signal.SIGKILL)
            await _until(taken)
            return time.monotonic() - began

    return Outcome({"failover_s": asyncio.run(measure())})


def halt(job: Job) -> Outcome:
    """Milliseconds from the call of a halt of everything until the last new effect of any of 500 runs begins."""
    runs = 500 if job.size.name == "full" else 100

    async def measure() -> tuple[float, float]:
        async with fleet(job, "halt", 4, runs, -(-runs // 4)) as (ws, _):
            operator = await ws.operator()
            began = time.monotonic()
            await operator.halt("all", by="bench", reason="measured")
            told = time.monotonic() - began
            await asyncio.sleep(3)
        last: dict[str, float] = {}
        for line in (job.store / "halt" / "ticks.log").read_text().splitlines():
            at, run = line.split()
            last[run] = max(last.get(run, 0.0), float(at))
        return max(0.0, *(at - began for at in last.values())) * 1e3, told * 1e3

    latest, told = asyncio.run(measure())
    return Outcome(
        {"halt_p99_ms_4_workers_500_runs": latest},
        notes={"halt_p99_ms_4_workers_500_runs": f"of all runs; the halt was recorded after {told:.0f} ms"},
    )


if __name__ == "__main__":
    harness.main("ours", {"failover": failover, "halt": halt}, versions={"tightship": version("tightship")})
