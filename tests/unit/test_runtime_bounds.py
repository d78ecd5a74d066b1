"""Bounds on how many runs are worked on at once, over several workers of one store, whichever of them die."""

from __future__ import annotations

import asyncio
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from tightship.core import kinds
from tightship.ledger import Ledger, MemoryState
from tightship.patterns import load_all
from tightship.runtime.simulation import Process, Simulation, simulate
from tightship.runtime.workspace import Workspace, projections
from tightship.workflow.build import Agent, Workflow

load_all()

CONFIG = "admission: {running: 4, tenant: {running: 2}, workflows: {slow: {running: 1}}}\n"
SECONDS = 1.0
"""How long a run works."""
SWEEP = 0.25


class Worker:
    """A process as a worker (port `Membership`)."""

    def __init__(self, state: MemoryState, process: Process) -> None:
        self.id, self._alive = process.name, state.backend.alive
        self._alive.add(self.id)
        process.on_death(lambda: self._alive.discard(self.id))

    def lease_left(self) -> float:
        """It is always heard."""
        return 10.0

    async def close(self) -> None:
        """What it owns is free at once."""
        self._alive.discard(self.id)


class Fleet:
    """Workers on one store, and the runs that were submitted to them."""

    def __init__(self, sim: Simulation) -> None:
        self.sim, self.state = sim, MemoryState()
        self.folder = Path(tempfile.mkdtemp(prefix="tightship-bounds-"))
        (self.folder / "tightship.yaml").write_text(f"name: desk\nroles: {{operator: [ann]}}\n{CONFIG}")
        self.front = self.open(None)
        self.processes: list[Process] = []
        self.stop = asyncio.Event()

    def open(self, process: Process | None) -> Workspace:
        """The workspace, of a worker or of somebody who only submits."""
        world = self.sim.world()
        ledger = Ledger.in_memory(world, projections(), self.state)
        member = None if process is None else Worker(self.state, process)
        ws = Workspace.open(self.folder, world=world, ledger=ledger, tools={}, member=member)

        async def work(ctx: Any, given: dict[str, Any]) -> Any:
            await self.sim.clock.sleep(SECONDS)
            return {}

        about = {"owner": "test", "purpose": "is tested"}
        ws.add(Agent("work", python="test:work", input={}, output={}, tools=[], **about), functions={"work": work})
        ws.add(
            *(Workflow(name, steps=["work"], input={}, escalate_to="operator", **about) for name in ("quick", "slow"))
        )
        return ws

    def start(self) -> None:
        """One more worker."""
        process = self.sim.loop.process(f"w{len(self.processes)}")
        self.processes.append(process)
        process.start(self.open(process).serve(self.stop, 8))

    async def finish(self, seconds: float) -> float:
        """Until all have ended; how long it took (s). Not so soon is a place that nobody took."""
        began = self.sim.clock.monotonic()
        ledger = await self.front.ledger()
        while any(row["state"] != "ended" for row in await ledger.select("runs")):
            assert self.sim.clock.monotonic() - began < seconds, "a place stayed free while somebody waited for it"
            await self.sim.clock.sleep(0.05)
        return self.sim.clock.monotonic() - began

    async def most(self) -> Counter[str]:
        """The most runs of each tenant and workflow, and of all, that living workers had at once."""
        ledger = await self.front.ledger()
        rows = {row["id"]: row for row in await ledger.select("runs")}
        entries = [
            entry for log in {row["log"] for row in rows.values()} for entry in await ledger.entries(0, 9999, log)
        ]
        dead = {process.name for process in self.processes if not process.alive}
        owned, most = dict[str, str](), Counter[str]()
        for entry in sorted(entries, key=lambda one: one.at):
            if entry.kind == kinds.CLAIMED:
                owned[entry.run] = entry.body["owner"]
            elif entry.kind in (kinds.PARKED, kinds.ENDED):
                owned.pop(entry.run, None)
            at = Counter[str]()
            for run, owner in owned.items():
                if owner not in dead:
                    at.update({rows[run]["tenant"]: 1, rows[run]["workflow"]: 1, "all": 1})
            most |= at
        return most


WORK = st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from(["quick", "quick", "slow"])), min_size=1, max_size=12)


@settings(max_examples=25, deadline=None)
@given(WORK, st.integers(1, 3), st.lists(st.floats(0.1, 4.0), max_size=2))
def test_together_workers_keep_to_the_bounds_and_no_place_stays_free(
    work: list[tuple[str, str]], count: int, deaths: list[float]
) -> None:
    async def story(sim: Simulation) -> None:
        fleet = Fleet(sim)
        for _ in range(count):
            fleet.start()
        for number, (tenant, workflow) in enumerate(work):
            await fleet.front.submit(workflow, {}, tenant=tenant, reference=str(number))
        for number, after in enumerate(deaths):
            await sim.clock.sleep(after)
            fleet.processes[number % count].kill()
            fleet.start()
        # one after the other is the longest that it can take; what had begun when its worker died begins again
        await fleet.finish((len(work) + 8 * len(deaths) + 1) * (SECONDS + 2 * SWEEP))
        fleet.stop.set()
        most = await fleet.most()
        assert most["all"] <= 4
        assert most["slow"] <= 1
        assert all(most[tenant] <= 2 for tenant in "abc")

    simulate(story)


def test_places_are_shared_out_among_tenants_and_used_one_after_the_other() -> None:
    async def story(sim: Simulation) -> None:
        fleet = Fleet(sim)
        for _ in range(3):
            fleet.start()
        for number in range(8):
            await fleet.front.submit("quick", {}, tenant="a", reference=f"a{number}")
        for tenant in "bc":
            await fleet.front.submit("quick", {}, tenant=tenant, reference=tenant)
        took = await fleet.finish(60)
        fleet.stop.set()
        assert took < 4 * (SECONDS + 2 * SWEEP) + 1, "two of `a` at a time, four times, the others beside them"
        assert (await fleet.most()) == {"all": 4, "quick": 4, "a": 2, "b": 1, "c": 1}

    simulate(story)
