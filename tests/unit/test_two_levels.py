"""Two levels (P4): supervisors with agents, budgets and escalations of their own under one orchestrator, at size."""

from __future__ import annotations

import asyncio
import sys
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from engine_desk import Desk, simulate, tool

sys.path.insert(0, str(Path(__file__).parents[1]))

import house as houses
from tightship.core.errors import Unavailable
from tightship.ledger import Ledger
from tightship.patterns import load_all
from tightship.runtime.simulation import Simulation

load_all()


class House:
    """The house in virtual time; every worker reads once.

    Args:
        agents: how many there are in all domains together.
        broken: domains in which a worker fails. calls: of some domains, how many calls their budget allows.
    """

    def __init__(
        self, sim: Simulation, agents: int, broken: tuple[int, ...] = (), calls: Mapping[int, int] | None = None
    ) -> None:
        self.turns = Counter[str]()
        self.given = houses.given(agents)
        self.desk = Desk(sim, [tool("archive.read", {"found": True})], config=houses.CONFIG.partition("\n")[2])

        async def work(domain: int, name: str, ctx: Any) -> Any:
            self.turns[name] += 1
            await ctx.tool("archive.read", {"name": name})
            await asyncio.sleep(0.01 * (1 + len(self.turns) % 7))
            if domain in broken and name.endswith("w3"):
                raise Unavailable("the archive is closed")
            return {"made": name}

        specs, functions = houses.furnish(agents, work, calls, ["archive.read"])
        self.desk._specs.extend(specs)
        self.desk._functions.update(functions)
        self.desk.ws.add(*specs, functions=functions)

    async def run(self) -> Any:
        return await self.desk.process.start(self.desk.ws.run("flow", self.given))


def test_two_hundred_agents_in_two_levels_complete_in_one_run() -> None:
    async def story(sim: Simulation) -> None:
        house = House(sim, 200)
        run = await house.run()
        assert run.outcome == "completed" and len(run.output["results"]) == len(house.given["domains"]) == 20
        made = {name for one in run.output["results"].values() for name in one["results"]}
        assert made == set(house.turns) and len(made) == 180
        assert set(house.turns.values()) == {1}

    simulate(story)


def test_entries_and_effects_are_linear_in_the_agents() -> None:
    def play(agents: int) -> tuple[float, float, float]:
        async def story(sim: Simulation) -> tuple[float, float, float]:
            house = House(sim, agents)
            await house.run()
            entries = await house.desk.entries()
            size = sum(len(str(entry.body)) for entry in entries)
            return len(entries) / agents, len(await house.desk.settles()) / agents, size / agents

        return simulate(story)

    small, *larger = [play(agents) for agents in (30, 50, 100, 200)]
    for each in larger:  # the orchestrator's own entries are shared by more; nothing may grow
        for figure, before in zip(each, small, strict=True):
            assert 0.85 * before <= figure <= 1.02 * before


def test_a_supervisor_that_fails_escalates_alone_and_the_run_goes_on_without_it() -> None:
    async def story(sim: Simulation) -> None:
        house = House(sim, 60, broken=(3,))
        run = await house.run()
        assert run.outcome == "completed" and len(run.output["results"]) == 5
        assert [one["id"] for one in run.output["failed"]] == ["domain3"]
        rows = {row["workflow"]: row["outcome"] for row in await house.desk.ledger.select("runs")}
        assert rows.pop("domain-3") == "escalated" and set(rows.values()) == {"completed"}
        items = await (await house.desk.operator()).items()
        assert [item.type for item in items] == ["escalation"], "the domain's own, and no other"

    simulate(story)


def test_a_supervisor_that_uses_up_its_budget_stops_alone() -> None:
    async def story(sim: Simulation) -> None:
        house = House(sim, 30, calls={1: 4})
        run = await house.run()
        assert run.outcome == "completed" and set(run.output["results"]) == {"domain0", "domain2"}
        rows = {row["workflow"]: row["reason"] for row in await house.desk.ledger.select("runs")}
        assert rows["domain-1"] == "over_budget"

    simulate(story)


def test_resuming_after_a_crash_reads_what_is_linear_in_the_agents_and_repeats_nothing_finished() -> None:
    def play(agents: int, monkey: pytest.MonkeyPatch) -> float:
        read = Counter[str]()

        def counted(name: str) -> None:
            inner = getattr(Ledger, name)

            async def method(self: Ledger, *given: Any, **named: Any) -> Any:
                found = await inner(self, *given, **named)
                read["entries"] += sum(map(len, found.values())) if isinstance(found, dict) else len(found)
                return found

            monkey.setattr(Ledger, name, method)

        async def story(sim: Simulation) -> float:
            house = House(sim, agents)
            begun = house.desk.process.start(house.desk.ws.run("flow", house.given))
            while await house.desk.ledger.head() < 2 * agents:
                await sim.clock.sleep(0.001)
            assert not begun.done()
            done = {entry.key for entry in await house.desk.entries("turn.done")}
            house.desk.kill()
            for name in ("select", "runs_entries", "run_entries"):
                counted(name)
            await house.desk.resume()
            assert (await house.desk.only()).outcome == "completed"
            turns = Counter((entry.run, entry.key) for entry in await house.desk.entries("turn.done"))
            assert done and set(turns.values()) == {1}
            return read["entries"] / agents

        return simulate(story)

    found = list[float]()
    for agents in (50, 100, 200):
        with pytest.MonkeyPatch.context() as monkey:
            found.append(play(agents, monkey))
    assert max(found) <= 1.1 * min(found), found
