"""Envelopes hold: retries are charged, a shortage asks a person once, a crash loses no spending, undo is always paid."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from engine_desk import Desk, Hanging, simulate, tool, write

from tightship.core import kinds
from tightship.core.errors import Unavailable, WriteFailed
from tightship.core.money import to_nano
from tightship.core.ports import Reply, UndoSpec, Usage
from tightship.runtime.simulation import Simulation

CENT = Usage(to_nano("0.01"))


def buyer(times: int) -> Any:
    """An agent that pays a cent so many times."""

    async def agent(ctx: Any, given: dict[str, Any]) -> Any:
        return {"paid": [await ctx.tool("shop.look", {"n": number}) for number in range(times)]}

    return agent


def shop(*script: Any) -> Any:
    """A look costs a cent."""
    return tool("shop.look", *(script or (Reply("seen", CENT),)), price=CENT)


def test_attempts_that_failed_are_charged_and_bounded() -> None:
    async def story(sim: Simulation) -> Any:
        look = shop(Unavailable("down"))
        desk = Desk(sim, [look])
        desk.agent("a", buyer(1))
        desk.workflow("a", budget={"usd": 0.10, "then": "escalate"})
        return await desk.run(), look

    run, look = simulate(story)
    assert run.reason == "unavailable"
    assert (len(look.calls), run.usd) == (3, 3 * CENT.usd)


def test_a_call_that_the_envelope_cannot_cover_is_not_made() -> None:
    async def story(sim: Simulation) -> Any:
        look = shop()
        desk = Desk(sim, [look])
        desk.agent("a", buyer(3))
        desk.workflow("a", budget={"usd": 0.025, "then": "escalate"})
        return await desk.run(), look

    run, look = simulate(story)
    assert (run.outcome, run.reason) == ("escalated", "over_budget")
    assert (len(look.calls), run.usd) == (2, 2 * CENT.usd)


@pytest.mark.parametrize(
    ("decision", "outcome", "reason"), [("edit", "completed", ""), ("reject", "escalated", "over_budget")]
)
def test_a_short_envelope_asks_a_person_and_goes_on_as_they_say(decision: str, outcome: str, reason: str) -> None:
    async def story(sim: Simulation) -> Any:
        look = shop()
        desk = Desk(sim, [look])
        desk.agent("a", buyer(3))
        desk.workflow("a", budget={"usd": 0.02})
        parked = await desk.run()
        await desk.answer(decision, {"usd": 0.05} if decision == "edit" else None, type="budget")
        await desk.resume()
        return parked, await desk.only(), look, await desk.entries(kinds.EXTENDED)

    parked, run, look, extended = simulate(story)
    assert parked.state == "parked"
    assert (run.outcome, run.reason) == (outcome, reason)
    assert len(look.calls) == (3 if decision == "edit" else 2), "what was paid before is not paid again"
    assert len(extended) == (1 if decision == "edit" else 0)


def test_one_approval_extends_once_whatever_crashes() -> None:
    async def story(sim: Simulation) -> Any:
        hanging = Hanging(shop(), times=0)
        desk = Desk(sim, [hanging])
        desk.agent("a", buyer(4))
        desk.workflow("a", budget={"usd": 0.01})
        await desk.run()
        await desk.answer("edit", {"usd": 0.02}, type="budget")
        hanging.times = 1
        desk.process.start(desk.ws.resume())
        await hanging.began.wait()  # the second look is paid, and its answer lost with the process
        desk.kill()
        await desk.resume()
        return await desk.only(), await desk.entries(kinds.EXTENDED)

    run, extended = simulate(story)
    assert run.state == "parked", "the lost look was charged, so the fourth needs another approval"
    assert len(extended) == 1


def test_what_a_crash_has_left_open_counts_as_spent_for_all_runs_of_the_tenant() -> None:
    async def story(sim: Simulation) -> Any:
        hanging = Hanging(shop())
        desk = Desk(sim, [hanging], "budgets: {tenant: {day: {usd: 0.02}}}\n")
        desk.agent("a", buyer(1))
        desk.agent("b", buyer(2))
        desk.workflow("a", name="first", budget={"then": "escalate"})
        desk.workflow("b", name="second", budget={"then": "escalate"})
        desk.begin("first")
        await hanging.began.wait()
        desk.kill()
        return await desk.run("second"), hanging.inner

    run, look = simulate(story)
    assert run.reason == "over_budget"
    assert len(look.calls) == 2


def test_an_extension_of_the_tenant_s_day_outlives_the_process_and_is_taken_once() -> None:
    async def story(sim: Simulation) -> Any:
        look = shop()
        desk = Desk(sim, [look], "budgets: {tenant: {day: {usd: 0.01}}}\n")
        desk.agent("a", buyer(3))
        desk.workflow("a")
        await desk.run()
        await desk.answer("edit", {"usd": 0.01}, type="budget")
        await desk.resume()  # buys one more, and asks again
        desk.kill()
        await desk.resume()
        before = len(look.calls)
        await desk.answer("edit", {"usd": 0.01}, type="budget")
        await desk.resume()
        return before, len(look.calls), await desk.only()

    before, after, run = simulate(story)
    assert (before, after, run.outcome) == (2, 3, "completed")


def test_undo_is_paid_although_the_envelope_is_empty_and_the_time_is_up() -> None:
    async def story(sim: Simulation) -> Any:
        send = write("post.send", {"id": "w-1"}, undo=UndoSpec("post.recall", {"id": "result.id"}))
        recall = write("post.recall", {})
        desk = Desk(sim, [send, recall])

        async def agent(ctx: Any, given: dict[str, Any]) -> Any:
            await ctx.tool("post.send", {})
            await asyncio.sleep(100)

        desk.agent("a", agent)
        desk.workflow("a", budget={"calls": 1, "seconds": 5, "then": "escalate"}, limits={"calls": 1})
        return await desk.run(), recall

    run, recall = simulate(story)
    assert run.reason == "over_budget"
    assert len(recall.calls) == 1


def test_time_that_a_run_is_parked_does_not_count() -> None:
    async def story(sim: Simulation) -> Any:
        desk = Desk(sim)

        async def agent(ctx: Any, given: dict[str, Any]) -> Any:
            await asyncio.sleep(2)
            return {"x": 1}

        desk.agent("a", agent)
        desk.agent("b", agent)
        desk.workflow("a", {"review": {"by": "operator"}}, "b", budget={"seconds": 5, "then": "escalate"})
        await desk.run()
        await sim.clock.sleep(100)
        await desk.answer()
        await desk.resume()
        return await desk.only()

    run = simulate(story)
    assert run.outcome == "completed"
    assert 3.9 < run.seconds < 5


def test_an_agent_s_own_envelope_ends_before_the_run_s() -> None:
    async def story(sim: Simulation) -> Any:
        look = shop()
        desk = Desk(sim, [look])
        desk.agent("a", buyer(3), budget={"calls": 2})
        desk.workflow("a", budget={"usd": 1, "then": "escalate"})
        return await desk.run(), look

    run, look = simulate(story)
    assert run.reason == "over_budget"
    assert "agent:a" in str(run.package)
    assert len(look.calls) == 2


def test_a_write_that_was_refused_is_charged_as_any_call() -> None:
    async def story(sim: Simulation) -> Any:
        desk = Desk(sim, [write("post.send", WriteFailed("no"), price=CENT)])

        async def agent(ctx: Any, given: dict[str, Any]) -> Any:
            await ctx.tool("post.send", {})

        desk.agent("a", agent)
        desk.workflow("a")
        return await desk.run()

    assert simulate(story).usd == CENT.usd
