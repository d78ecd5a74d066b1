"""Which runs are driven alone: those over which a process ended, and not those that were let go of in good order."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from engine_desk import Desk, Hanging, simulate, write

from tightship.core import kinds
from tightship.runtime.simulation import Simulation
from tightship.runtime.takeover import idle_claims, set_apart


async def left(sim: Simulation, times: int, config: str = "") -> tuple[Desk, Hanging]:
    """A run that was begun and taken up so many times by processes that died over the same call."""
    hanging = Hanging(write("shop.put", {"id": 1}, idempotency="key"), times=100)

    async def agent(ctx: Any, given: dict[str, Any]) -> Any:
        await ctx.tool("shop.put", {"n": 1})
        return {}

    desk = Desk(sim, [hanging], config)
    desk.agent("a", agent)
    desk.workflow("a")
    desk.begin()
    for _ in range(times):
        await hanging.began.wait()
        hanging.began.clear()
        desk.kill()
        desk.process.start(desk.ws.resume())
    await hanging.began.wait()
    desk.kill()
    return desk, hanging


@pytest.mark.parametrize(("times", "apart"), [(0, False), (1, False), (2, True), (4, True)])
def test_a_run_is_set_apart_after_two_claims_that_came_to_nothing(times: int, apart: bool) -> None:
    async def story(sim: Simulation) -> Any:
        desk, _ = await left(sim, times)
        rows = await desk.ledger.select("runs")
        sound, suspects = await set_apart(desk.ledger, rows)
        return idle_claims(await desk.ledger.run_entries(rows[0]["id"])), len(sound), len(suspects)

    assert simulate(story) == (times, int(not apart), int(apart))


def test_at_the_limit_it_is_escalated_without_asking_anything_again() -> None:
    async def story(sim: Simulation) -> Any:
        desk, hanging = await left(sim, 3, "limits: {restarts: 3}\n")
        asked = len(hanging.inner.calls)
        await desk.resume()
        return await desk.only(), asked, len(hanging.inner.calls)

    run, asked, after = simulate(story)
    assert (run.outcome, run.reason) == ("escalated", "restarts")
    assert asked == after
    assert "3 times" in run.package["what_happened"] and "shop.put" in run.package["what_happened"]
    [remains] = run.package["evidence"]["effects that remain"]
    assert remains["why"] == "whether it was done is unknown"


def test_a_run_that_is_put_down_in_good_order_never_comes_under_suspicion() -> None:
    began, lives = asyncio.Event(), list[int]()

    async def agent(ctx: Any, given: dict[str, Any]) -> Any:
        lives.append(1)
        began.set()
        if len(lives) < 8:
            await asyncio.get_running_loop().create_future()
        return {}

    async def story(sim: Simulation) -> Any:
        desk = Desk(sim)
        desk.agent("a", agent)
        desk.workflow("a")
        desk.begin()
        for _ in range(7):
            await began.wait()
            began.clear()
            await desk.process.start(desk.ws.put_down())
            desk.kill()
            desk.process.start(desk.ws.resume())
        await began.wait()
        await sim.world().clock.sleep(1)
        return await desk.only(), await desk.entries(kinds.CLAIMED)

    run, claims = simulate(story)
    assert len(claims) == 7
    assert run.outcome == "completed"


def test_what_was_kept_back_is_not_once_nobody_waits_for_it() -> None:
    """Else whoever waits for an action that others have begun would wait without end."""

    async def story(sim: Simulation) -> tuple[set[str], set[str]]:
        desk, hanging = await left(sim, 2)
        [suspect] = await desk.ledger.select("runs")
        hanging.began.clear()
        desk.begin(case="two")  # it moves, so that the other one's turn does not come
        await hanging.began.wait()
        waiting = desk.process.start(desk.ws.resume([suspect["id"]]))
        await sim.clock.sleep(1)
        standing = (await desk.ws.engine()).shared.standing
        before = set(standing.kept_back)
        waiting.cancel()
        await sim.clock.sleep(1)
        return before, set(standing.kept_back)

    before, after = simulate(story)
    assert len(before) == 1
    assert after == set()
