"""A day's budget is that of the day on which something is spent, for runs that live on past midnight too."""

from __future__ import annotations

from typing import Any

from engine_desk import Desk, simulate, tool

from tightship.controls import Amount, Chain, Envelope, Limit
from tightship.core.money import to_nano
from tightship.core.ports import Reply, Usage
from tightship.runtime.simulation import Simulation

CENT = Usage(to_nano("0.01"))
DAY = 86_400.0
CONFIG = "budgets: {tenant: {day: {usd: 0.02}}}\n"


def shop() -> Any:
    """A look costs a cent."""
    return tool("shop.look", Reply("seen", CENT), price=CENT)


def desk_of(sim: Simulation, look: Any, then: str, pause: float = 0.0) -> Desk:
    """A tenant that may spend two cents a day; `late` pays two cents after a pause, `one` pays one."""

    async def late(ctx: Any, given: dict[str, Any]) -> Any:
        await sim.clock.sleep(pause)
        return [await ctx.tool("shop.look", {"n": number}) for number in range(2)]

    async def one(ctx: Any, given: dict[str, Any]) -> Any:
        return await ctx.tool("shop.look", {"n": 1})

    desk = Desk(sim, [look], CONFIG)
    desk.agent("late", late, within="1h")
    desk.agent("one", one)
    desk.workflow("late", name="late", budget={"then": then})
    desk.workflow("one", name="one", budget={"then": then})
    return desk


def test_a_run_that_lives_past_midnight_pays_from_the_new_day() -> None:
    async def story(sim: Simulation) -> Any:
        look = shop()
        desk = desk_of(sim, look, "escalate", pause=200)
        await sim.clock.sleep(DAY - 100)
        late = desk.begin("late")
        await sim.clock.sleep(1)
        early = await desk.run("one")  # still the first day's
        await sim.clock.sleep(300)
        after = await desk.run("one")
        return await late, early, after

    late, early, after = simulate(story)
    assert (late.outcome, early.outcome) == ("completed", "completed")
    assert after.reason == "over_budget", "the run that began yesterday has spent today's two cents"


def test_a_run_that_was_refused_yesterday_goes_on_today_without_anybody_s_help() -> None:
    async def story(sim: Simulation) -> Any:
        look = shop()
        desk = desk_of(sim, look, "ask")
        await sim.clock.sleep(DAY - 200)
        await desk.run("one")
        waiting = await desk.run("late")
        await sim.clock.sleep(100)
        await desk.resume()
        still = (await desk.ws.result(waiting.id)).state
        await sim.clock.sleep(101)
        await desk.resume()
        return waiting, still, await desk.ws.result(waiting.id), look

    waiting, still, run, look = simulate(story)
    assert (waiting.state, still) == ("parked", "parked")
    assert run.outcome == "completed"
    assert len(look.calls) == 3


def test_a_call_in_flight_at_midnight_is_paid_from_the_new_day() -> None:
    envelope = Envelope("tenant:a", Limit(usd=100), period="2026-01-01", spent=Amount(usd=60))
    flying = Chain([envelope]).reserve(Amount(usd=40))
    envelope.renew("2026-01-02", Limit(usd=100))
    assert envelope.reserved == Amount(usd=40)
    assert envelope.spent == Amount()
    flying.settle(Amount(usd=30))
    assert envelope.spent == Amount(usd=30)
    assert envelope.left("usd") == 70
