"""A worker's memory over many runs: it must not grow with what it has done.

Run as a part of Tightship's own side: `python -m benchmarks.memory memory --store DIR --size SIZE`.
"""

from __future__ import annotations

import asyncio
import gc
import os
from importlib.metadata import version
from pathlib import Path
from typing import Any

from benchmarks import harness, ours, workload
from benchmarks.harness import Job, Outcome
from tightship import Agent, Workflow, Workspace

EVERY = {"full": 10_000, "quick": 200}
"""Runs between two samples, by size; ten samples are taken."""
SAMPLES = 10


def resident_mb() -> float:
    """What of this process lies in memory, in MB (Linux)."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def _workspace(path: Path) -> Workspace:
    """A paid effect, a free read and two turns in each run: what most of the process's memories are kept for."""
    paid, read = ours.Step("bench.paid", _nothing, usd=1000), ours.Step("bench.read", _nothing)
    ws = Workspace.open(ours.prepare(path), tools={"bench.paid": paid, "bench.read": read})

    async def stepper(ctx: Any, given: dict[str, Any]) -> dict[str, Any]:
        await ctx.tool("bench.paid", {"step": 1})
        return dict(await ctx.tool("bench.read", {"step": 2}))

    tools = ["bench.paid", "bench.read"]
    for name, function, offered in (("stepper", stepper, tools), ("closer", ours.answer, [])):
        ws.add(
            Agent(name, owner="bench", purpose="work", python=f"bench:{name}", output=ours.ANSWER, tools=offered),
            functions={name: function},
        )
    ws.add(Workflow("work", owner="bench", purpose="work", input={"run": "str"}, steps=["stepper", "closer"]))
    return ws


def _nothing() -> None:
    """No effect is counted."""


async def _sampled(path: Path, every: int) -> list[float]:
    samples: list[float] = []
    async with _workspace(path) as ws:
        for part in range(SAMPLES):
            numbers = iter(range(part * every, (part + 1) * every))

            async def lane(numbers: Any = numbers) -> None:
                for number in numbers:
                    await ours.completed(ws, "work", str(number))

            await asyncio.gather(*(lane() for _ in range(workload.LANES)))
            gc.collect()
            samples.append(resident_mb())
    return samples


def memory(job: Job) -> Outcome:
    """MB by which a worker grew from half of its runs, when its caches are full, until the last."""
    every = EVERY[job.size.name]
    samples = asyncio.run(_sampled(job.folder("memory"), every))
    told = ", ".join(f"{one:.0f}" for one in samples)
    return Outcome(
        {"memory_growth_mb_100k_runs": max(0.0, samples[-1] - samples[SAMPLES // 2 - 1])},
        notes={"memory_growth_mb_100k_runs": f"MB after each {every:,} runs: {told}; counted from the fifth sample"},
        detail={"mb": samples},
    )


if __name__ == "__main__":
    harness.main("ours", {"memory": memory}, versions={"tightship": version("tightship")})
