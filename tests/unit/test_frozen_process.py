"""A process that was frozen for a while blames nobody outside for what it has not heard."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from engine_desk import Desk, Served, simulate

from tightship.controls.pulse import LATE, TICK, Pulse
from tightship.core import kinds
from tightship.core.ports import Reply, Request, ToolSpec
from tightship.runtime.result import Run
from tightship.runtime.simulation import Simulation

BREAKER = "breakers: {systems: {minimum: 4, slow_after: 5s, slow_rate: 0.5, cooldown: 300s}}\n"
MANY = 12


def test_a_pulse_knows_what_spanned_the_time_in_which_the_process_stood_still() -> None:
    async def story(sim: Simulation) -> None:
        pulse = Pulse()
        before = pulse.begin(60.0)
        await asyncio.sleep(20.0)
        assert not pulse.stood_still(before)
        sim.loop.advance(TICK + LATE / 2)  # a busy machine
        assert not pulse.stood_still(before)
        await asyncio.sleep(1.0)
        sim.loop.advance(30.0)
        assert pulse.stood_still(before), "known before the late tick is run"
        after = pulse.begin(5.0)
        await asyncio.sleep(5.0)
        assert pulse.stood_still(before) and not pulse.stood_still(after)
        await asyncio.sleep(1000.0)  # nothing is waited for, and nothing ticks
        assert not pulse.stood_still(after) and not pulse.stood_still(pulse.begin(5.0))

    simulate(story)


class Shop(Served):
    """A tool that many runs ask once; `busy` is set while all of them wait for it."""

    def __init__(self, function: Callable[[Any], Awaitable[Any]]) -> None:
        super().__init__(ToolSpec("shop.look", timeout=8.0), function)
        self.busy = asyncio.Event()

    async def perform(self, request: Request) -> Reply:
        if len(self.calls) + 1 == MANY:
            self.busy.set()
        return await super().perform(request)


async def in_flight(sim: Simulation, shop: Shop) -> tuple[Desk, list[asyncio.Task[Run]]]:
    """A desk with runs that wait for the shop."""

    async def agent(ctx: Any, given: dict[str, Any]) -> Any:
        return await ctx.tool("shop.look", {"case": given.get("case")})

    desk = Desk(sim, [shop], BREAKER)
    desk.agent("a", agent, on={"unavailable": "escalate"})
    desk.workflow("a")
    runs = [desk.begin(case=str(number)) for number in range(MANY)]
    await shop.busy.wait()
    return desk, runs


async def opened(desk: Desk) -> list[str]:
    """The breakers that have opened."""
    notes = await desk.entries(kinds.NOTE)
    return [note.body["name"] for note in notes if note.body["type"] == "breaker" and note.body["state"] == "open"]


@pytest.mark.parametrize("frozen", [0.0, 600.0])
def test_calls_that_were_in_flight_while_it_was_frozen_open_no_breaker(frozen: float) -> None:
    async def story(sim: Simulation) -> Any:
        down = True

        async def shop(request: Any) -> Any:
            await asyncio.sleep(100.0 if down else 0.1)
            return "seen"

        desk, runs = await in_flight(sim, Shop(shop))
        sim.loop.advance(frozen)
        await asyncio.sleep(0.1 if frozen else 8.1)
        down = False
        found = await desk.run(case="new")
        await asyncio.gather(*runs)
        return found, await opened(desk)

    found, breakers = simulate(story)
    if frozen:
        assert (found.outcome, breakers) == ("completed", [])
    else:
        assert (found.outcome, found.reason, breakers) == ("escalated", "unavailable", ["shop.look"])


@pytest.mark.parametrize("frozen", [0.0, 6.0])
def test_answers_that_were_heard_late_since_it_was_frozen_are_not_slow(frozen: float) -> None:
    async def story(sim: Simulation) -> Any:
        async def shop(request: Any) -> Any:
            await asyncio.sleep(6.1)
            return "seen"

        desk, runs = await in_flight(sim, Shop(shop))
        sim.loop.advance(frozen)
        await asyncio.gather(*runs)
        return await opened(desk)

    assert simulate(story) == ([] if frozen else ["shop.look"])
