"""Ten and fifty times the users: what a provider of a fixed capacity is asked, and who gets what of it.

    python -m benchmarks.overload             a table
    python -m benchmarks.overload --json      the same as JSON

Everything happens in virtual time from a seed, so that a figure is exact and comes again. Users of four tenants, one of
which sends seven tenths of all, start runs of two calls each. The workers share the provider's rate, each with a ledger
of its own (what they share here is the rate, not the claiming of runs). `misdeclared` says that the rate is three
times what the provider takes, so that it has to turn requests away: what is left is the throttle and the retry budgets.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tightship.controls import MemoryShares
from tightship.core.errors import Overloaded, RateLimited
from tightship.core.ports import Reply, Request, ToolSpec
from tightship.ledger import Ledger, MemoryState
from tightship.patterns import load_all
from tightship.runtime.simulation import Simulation, simulate
from tightship.runtime.workspace import Workspace, projections
from tightship.workflow.build import Agent, Workflow

CAPACITY = 20.0
"""Requests a second that the provider takes."""
CALLS = 2
"""Calls of one run."""
TENANTS: Mapping[str, float] = {"greedy": 0.7, "north": 0.1, "south": 0.1, "west": 0.1}
"""Their parts of what comes."""
WORKERS = 4
RUNNING, QUEUED = 12, 24
"""Bounds of one worker."""
SECONDS = 30.0
"""Virtual seconds in which users come."""


@dataclass(frozen=True, slots=True)
class Figures:
    """What came of one load.

    Attributes:
        load: arrivals as a multiple of what the provider can serve. declared: the declared rate, likewise.
        arrived, refused, completed: starts. failed: runs that ended without their result.
        goodput: completed runs a second, as a part of what the provider can serve, while users came.
        per_run: requests at the provider per completed run; CALLS is the least.
        retries: requests that repeated one before, as a part of all.
        turned_away: requests that the provider did not take.
        peak: requests within the worst second, as a part of the capacity (the declared burst is one second's worth).
        queue: the most that waited at one worker.
        fairness: the least part of its max-min fair share that a tenant got while users came.
        retry_after: seconds, the least that a refused start was told.
    """

    load: float
    declared: float
    arrived: int
    refused: int
    completed: int
    failed: int
    goodput: float
    per_run: float
    retries: float
    turned_away: int
    peak: float
    queue: int
    fairness: float
    retry_after: float


class Provider:
    """Takes so many requests a second, in a third of a second each, and turns away the rest with a Retry-After."""

    def __init__(self, sim: Simulation, declared: float) -> None:
        self.spec = ToolSpec("llm.ask", timeout=10.0, requests_per_second=CAPACITY * declared)
        self._clock = sim.clock
        self._level, self._at = CAPACITY, 0.0
        self.asked: list[float] = []
        self.turned_away = 0
        self.calls: Counter[str] = Counter()

    async def perform(self, request: Request) -> Reply:
        """Answer, or turn it away."""
        now = self._clock.monotonic()
        self._level = min(CAPACITY, self._level + (now - self._at) * CAPACITY)
        self._at = now
        self.asked.append(now)
        self.calls[request.key] += 1
        if self._level < 1.0:
            self.turned_away += 1
            wait = (1.0 - self._level) / CAPACITY
            raise RateLimited("too many requests", retry_after=wait, evidence={"sent": False})
        self._level -= 1.0
        await self._clock.sleep(1 / 3)
        return Reply("done")

    async def lookup(self, request: Request) -> Reply | None:
        """Nothing is kept."""
        return None


def fair_shares(demand: Mapping[str, float], capacity: float) -> dict[str, float]:
    """Max-min fair shares: nobody gets more than it asks, and what it leaves is divided among the others."""
    shares: dict[str, float] = {}
    left = dict(demand)
    while left:
        part = capacity / len(left)
        modest = {name: asked for name, asked in left.items() if asked <= part}
        if not modest:
            return shares | dict.fromkeys(left, part)
        for name, asked in modest.items():
            shares[name] = asked
            capacity -= asked
            del left[name]
    return shares


async def worker(ctx: Any, given: dict[str, Any]) -> Any:
    """Asks as often as a run does."""
    for number in range(CALLS):
        await ctx.tool("llm.ask", {"n": number})
    return {}


class Trial:
    """One load, from the first user to the last run."""

    def __init__(self, sim: Simulation, load: float, declared: float, workers: int) -> None:
        load_all()
        self.sim, self.load, self.declared = sim, load, declared
        self.provider = Provider(sim, declared)
        self.arrived: Counter[str] = Counter()
        self.in_time: Counter[str] = Counter()
        self.refused: list[float] = []
        self.outcomes: Counter[str] = Counter()
        self.queue = 0
        self._shares = MemoryShares(sim.clock)
        self._workspaces = [self._open(workers) for _ in range(workers)]

    def _open(self, workers: int) -> Workspace:
        with tempfile.TemporaryDirectory(prefix="tightship-overload-") as folder:
            bounds = f"admission: {{running: {RUNNING}, queued: {QUEUED}}}"
            (Path(folder) / "tightship.yaml").write_text(f"name: load\nroles: {{lead: [ann]}}\n{bounds}\n")
            world = self.sim.world()
            ledger = Ledger.in_memory(world, projections(), MemoryState())
            workspace = Workspace.open(folder, world=world, ledger=ledger, tools={"llm.ask": self.provider})
        workspace.shares = self._shares
        agent = Agent("a", owner="b", purpose="asks", python="load:a", input={}, output={}, tools=["llm.ask"])
        steps: dict[str, Any] = {"input": {}, "escalate_to": "lead", "priority": 0, "steps": ["a"]}
        workspace.add(agent, Workflow("flow", owner="b", purpose="asks", **steps), functions={"a": worker})
        return workspace

    async def run(self) -> Figures:
        """Have users come, and wait for what was taken in."""
        chance, clock = self.sim.random("arrivals"), self.sim.clock
        pace = self.load * CAPACITY / CALLS
        names, parts = list(TENANTS), list(TENANTS.values())
        starts: list[asyncio.Task[None]] = []
        while (pause := chance.expovariate(pace)) + clock.monotonic() < SECONDS:
            await clock.sleep(pause)
            workspace = self._workspaces[len(starts) % len(self._workspaces)]
            starts.append(asyncio.ensure_future(self._start(workspace, chance.choices(names, parts)[0])))
            self.queue = max(self.queue, workspace.gate.waiting())
        await asyncio.gather(*starts)
        for workspace in self._workspaces:
            await workspace.close()
        return self._figures()

    async def _start(self, workspace: Workspace, tenant: str) -> None:
        self.arrived[tenant] += 1
        try:
            run = await workspace.run("flow", {}, tenant=tenant)
        except Overloaded as error:
            self.refused.append(error.retry_after)
            return
        self.outcomes[run.outcome] += 1
        if run.outcome == "completed" and self.sim.clock.monotonic() <= SECONDS:
            self.in_time[tenant] += 1

    def _figures(self) -> Figures:
        asked, completed = self.provider.asked, self.outcomes["completed"]
        fair = fair_shares(self.arrived, self.in_time.total())
        peak = max((sum(at <= one < at + 1 for one in asked[n : n + 2000]) for n, at in enumerate(asked)), default=0)
        return Figures(
            self.load,
            self.declared,
            self.arrived.total(),
            len(self.refused),
            completed,
            self.outcomes.total() - completed,
            round(self.in_time.total() / (SECONDS * CAPACITY / CALLS), 3),
            round(len(asked) / max(1, completed), 3),
            round((len(asked) - len(self.provider.calls)) / max(1, len(asked)), 3),
            self.provider.turned_away,
            round(peak / CAPACITY, 3),
            self.queue,
            round(min(self.in_time[name] / share for name, share in fair.items() if share), 3),
            round(min(self.refused, default=0.0), 3),
        )


def measure(load: float, declared: float = 1.0, seed: int = 1, workers: int = WORKERS) -> Figures:
    """One load, in virtual time.

    Args:
        load: arrivals as a multiple of what the provider can serve.
        declared: the declared rate as a multiple of what the provider takes.
        seed: what chance follows from.
        workers: how many share the rate.
    """

    async def story(sim: Simulation) -> Figures:
        return await Trial(sim, load, declared, workers).run()

    return simulate(story, seed)


TRIALS = ((1.0, 1.0), (10.0, 1.0), (50.0, 1.0), (10.0, 3.0))


def main(arguments: list[str]) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.overload", description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", action="store_true", help="JSON in place of a table")
    options = parser.parse_args(arguments)
    found = [asdict(measure(load, declared, options.seed)) for load, declared in TRIALS]
    if options.json:
        print(json.dumps(found, indent=2))
        return 0
    width = max(len(name) for name in found[0])
    for name in found[0]:
        print(name.ljust(width), *(f"{row[name]:>10,}" for row in found))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
