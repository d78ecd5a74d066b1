"""The keys of objects come in the same order before and after a crash: an agent may go through them, and act on each."""

from __future__ import annotations

import asyncio
from typing import Any

from engine_desk import Desk, simulate, tool

from tightship.patterns import Concurrent
from tightship.runtime.simulation import Simulation

CONFIG = "context:\n  stock/*: {writers: [first], readers: [last], type: object}\n"


def test_an_agent_that_begins_anew_finds_every_object_as_it_was() -> None:
    """Input, results of steps and tools, and a snapshot: each is an object whose keys are not in their sorted order."""
    seen: list[list[list[str]]] = []

    async def story(sim: Simulation) -> None:
        desk = Desk(sim, [tool("shop.look", {"z": 1, "c": 2})], CONFIG)

        async def first(ctx: Any, given: dict[str, Any]) -> Any:
            await ctx.write("stock/z", {"y": 1, "b": 2})
            await ctx.write("stock/a", {})
            return {"x": {"w": 1, "d": 2}}

        async def other(ctx: Any, given: dict[str, Any]) -> Any:
            return {"v": 1, "e": 2}

        async def last(ctx: Any, given: dict[str, Any]) -> Any:
            found = [given["order"], given["sides"], await ctx.tool("shop.look", {})]
            for name in given["order"]:  # what an agent may do: its effects come in this order
                await ctx.tool("shop.look", {"name": name})
            snapshot = await ctx.snapshot(["stock/z", "stock/a"])
            seen.append([list(one) for one in (*found, *given["sides"].values(), snapshot)])
            await asyncio.sleep(5)
            return {}

        desk.agent("first", first, output={"x": "object"}, input={})
        desk.agent("other", other, output={"v": "int", "e": "int"}, input={})
        desk.agent("last", last, input={"order": "object", "sides": "object"})
        both = Concurrent(["other", "first"], name="sides")
        step = {"agent": "last", "with": {"order": "input.order"}}
        desk.workflow(both, step, input={"order": "object"})
        desk.process.start(desk.ws.run("flow", {"order": {"u": 1, "f": 2}}))
        await sim.world().clock.sleep(2)
        desk.kill()
        await desk.resume()
        found = await desk.only()
        assert found.outcome == "completed", (found.reason, found.package)

    simulate(story)
    assert len(seen) == 2, "it died while the agent was at it"
    assert seen[0] == seen[1]
