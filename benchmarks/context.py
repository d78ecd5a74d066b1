"""How soon a change of the shared context is noticed by another process: 1,000 writes a second, over loopback.

Run as a part of Tightship's own side: `python -m benchmarks.context MEASUREMENT --store DIR --size SIZE`, with the
server's URL in BENCH_POSTGRES. This process writes as a source; a second one follows, on a connection of its own.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path

from benchmarks import harness
from benchmarks.fleet import MASTER
from benchmarks.harness import ROOT, Job, Outcome
from benchmarks.ours_postgres import on_postgres
from tightship import Workspace

FIGURE = "context_notice_p99_ms"
RATE = 1000
"""Writes per second."""
KEYS = 1000
"""As many, so that no write is overtaken by the next one of its key before it can be noticed."""
WARM_UP_S = 3
GRACE_S = 2.0
SECONDS = {"full": 25, "quick": 5}
CONFIG = "context: {tick/*: {feeds: [bench], type: 'list[float]', max_age: 1h}}\n"


def notice(job: Job) -> Outcome:
    """Milliseconds from the call that writes until the follower of another process is given the value."""
    os.environ["TIGHTSHIP_MASTER_KEY"] = MASTER
    seconds = SECONDS[job.size.name]
    folder = on_postgres(job.folder("context"), "context")
    config = folder / "tightship.yaml"
    config.write_text(f"{config.read_text()}{CONFIG}")
    rate, found = asyncio.run(_measure(folder, seconds))
    latencies = sorted(found)
    wanted = seconds * RATE
    if rate < 0.99 * RATE:
        raise RuntimeError(f"{rate:.0f} writes/s were done in place of {RATE}")
    if len(latencies) < wanted:
        lag = latencies[len(latencies) // 2] if latencies else float("nan")
        raise RuntimeError(f"{len(latencies)} of {wanted} writes were noticed, half of them after {lag:.0f} ms")
    p50, p99, worst = (latencies[min(len(latencies) - 1, int(share * len(latencies)))] for share in (0.5, 0.99, 1.0))
    return Outcome(
        {FIGURE: p99},
        others={FIGURE: {"p50": p50, "max": worst}},
        notes={FIGURE: f"{len(latencies):,} writes at {rate:.0f}/s, every one noticed; LISTEN over TCP"},
        detail={"p50_ms": p50, "p99_ms": p99, "max_ms": worst, "writes_per_s": rate},
    )


async def _measure(folder: Path, seconds: int) -> tuple[float, list[float]]:
    async with Workspace.open(folder) as ws:
        await ws.context.push("tick/0", [-1.0, 0.0], source="bench", as_of=time.time())
        command = [sys.executable, "-m", "benchmarks.context", "follow", "--store", str(folder)]
        child = await asyncio.create_subprocess_exec(
            *command, str(seconds), cwd=ROOT, stdout=subprocess.PIPE, limit=64 * 1024 * 1024
        )
        assert child.stdout is not None
        try:
            await child.stdout.readline()  # it follows
            rate = await _write(ws, WARM_UP_S + seconds)
            told = await asyncio.wait_for(child.stdout.readline(), GRACE_S + 60)
            await child.wait()
        finally:
            if child.returncode is None:
                child.kill()
                await child.wait()
        return rate, json.loads(told)


async def _write(ws: Workspace, seconds: int) -> float:
    """Write at the rate, however long each takes; returns how many per second were begun."""
    writing: set[asyncio.Task[int]] = set()
    began, count = time.monotonic(), 0
    while count < seconds * RATE:
        due = min(seconds * RATE, int((time.monotonic() - began) * RATE) + 1)
        for number in range(count, due):
            value = [float(number), time.monotonic()]
            push = ws.context.push(f"tick/{number % KEYS}", value, source="bench", as_of=time.time())
            task = asyncio.ensure_future(push)
            writing.add(task)
            task.add_done_callback(writing.discard)
        count = due
        await asyncio.sleep(max(0.0, began + count / RATE - time.monotonic()))
    rate = count / (time.monotonic() - began)
    await asyncio.gather(*writing)
    return rate


def follow(job: Job, rest: list[str]) -> None:
    """The process that follows: prints a line when it does, and milliseconds of every write after the warm-up."""
    asyncio.run(_follow(job.store, int(rest[0])))


async def _follow(folder: Path, seconds: int) -> None:
    last = (WARM_UP_S + seconds) * RATE - 1
    found: list[float] = []
    async with Workspace.open(folder) as ws:
        follower = await ws.context.follow("tick/*")
        async with follower.following():
            print("follows", flush=True)
            changes, seen = follower.changes(), 0
            while seen <= last:
                try:
                    change = await asyncio.wait_for(anext(changes), GRACE_S + WARM_UP_S)
                except TimeoutError:
                    break
                seen += 1
                if change.value[0] >= WARM_UP_S * RATE:
                    found.append((time.monotonic() - change.value[1]) * 1e3)
    print(json.dumps(found), flush=True)


if __name__ == "__main__":
    harness.main(
        "ours", {"context_notice": notice}, versions={"tightship": version("tightship")}, phases={"follow": follow}
    )
