"""A run's budget bounds what it and the runs below it spend together: side by side, after a crash, and parked."""

from __future__ import annotations

from typing import Any

from engine_desk import Desk, Hanging, simulate, tool

from tightship.core import kinds
from tightship.core.money import to_nano
from tightship.core.ports import Reply, Usage
from tightship.review.inbox import Decision
from tightship.runtime.simulation import Simulation

CENT = Usage(to_nano("0.01"))
TWO = {"concurrent": {"branches": [{"workflow": "left"}, {"workflow": "right"}], "on_failure": "keep"}}


def buyer(times: int) -> Any:
    """An agent that pays a cent so many times."""

    async def agent(ctx: Any, given: dict[str, Any]) -> Any:
        return {"paid": [await ctx.tool("shop.look", {"n": number, "by": ctx.agent}) for number in range(times)]}

    return agent


def family(sim: Simulation, look: Any, budget: dict[str, Any], child: dict[str, Any], times: int = 2) -> Desk:
    """A workflow with two children side by side, each of which pays so many cents."""
    desk = Desk(sim, [look])
    desk.agent("a", buyer(times))
    desk.agent("b", buyer(times))
    desk.workflow("a", name="left", budget=child)
    desk.workflow("b", name="right", budget=child)
    desk.workflow(TWO, name="flow", budget=budget)
    return desk


def shop(*script: Any) -> Any:
    """A look costs a cent."""
    return tool("shop.look", *(script or (Reply("seen", CENT),)), price=CENT)


def test_children_side_by_side_spend_no_more_than_their_parent_has() -> None:
    async def story(sim: Simulation) -> Any:
        look = shop()
        own = {"usd": 0.02, "then": "escalate"}
        desk = family(sim, look, {"usd": 0.03, "then": "escalate"}, own)
        return await desk.run(), look, await desk.ledger.select("runs")

    run, look, rows = simulate(story)
    assert len(look.calls) == 3
    assert sum(row["usd"] for row in rows) == 3 * CENT.usd
    assert {row["reason"] for row in rows if row["outcome"] == "escalated"} >= {"over_budget"}
    assert run.state == "ended"


def test_a_grandchild_pays_from_every_run_above_it() -> None:
    async def story(sim: Simulation) -> Any:
        look = shop()
        desk = Desk(sim, [look])
        desk.agent("a", buyer(3))
        desk.workflow("a", name="low", budget={"then": "escalate"})
        desk.workflow({"workflow": "low"}, name="middle", budget={"then": "escalate"})
        desk.workflow({"workflow": "middle"}, budget={"calls": 2, "then": "escalate"})
        await desk.run()
        return look

    assert len(simulate(story).calls) == 2


class HangingThird(Hanging):
    """The answer to the third look never comes."""

    async def perform(self, request: Any) -> Any:
        """Do it, and answer unless it is the third."""
        self.times = int(len(self.inner.calls) == 2)
        return await super().perform(request)


def test_after_a_crash_the_parent_s_envelope_knows_what_its_children_have_spent() -> None:
    async def story(sim: Simulation) -> Any:
        hanging = HangingThird(shop())
        own = {"then": "escalate"}
        desk = family(sim, hanging, {"usd": 0.05, "then": "escalate"}, own, times=3)
        desk.begin()
        await hanging.began.wait()  # a third look is paid, and its answer lost with the process
        desk.kill()
        await desk.resume()
        return hanging.inner

    assert len(simulate(story).calls) == 5


def asking(sim: Simulation, look: Any, budget: dict[str, Any], child: dict[str, Any]) -> Desk:
    """A child that pays a cent, asks a person, and pays two more."""
    desk = Desk(sim, [look])
    desk.agent("first", buyer(1))
    desk.agent("second", buyer(2))
    desk.workflow("first", {"review": {"when": "true", "by": "operator"}}, "second", name="left", budget=child)
    desk.workflow({"workflow": "left"}, budget=budget)
    return desk


def test_a_child_that_goes_on_while_its_parent_is_parked_still_pays_from_its_parent() -> None:
    async def story(sim: Simulation) -> Any:
        look = shop()
        desk = asking(sim, look, {"usd": 0.02, "then": "escalate"}, {"then": "escalate"})
        await desk.run()
        desk.kill()
        await desk.answer("approve")
        await desk.resume()
        return look

    assert len(simulate(story).calls) == 2


def test_what_is_granted_to_a_parent_through_its_child_lasts_and_is_granted_once() -> None:
    async def story(sim: Simulation) -> Any:
        look = shop()
        desk = asking(sim, look, {"usd": 0.01}, {"usd": 1.0})
        await desk.run()
        await desk.answer("approve")
        await desk.resume()
        operator = await desk.operator()
        for item in await operator.items():
            assert item.type == "budget", item
            await operator.decide(item.item, Decision("edit", "ann", {"usd": 0.01}))  # enough for one look more
        desk.kill()
        await desk.resume()
        asked = [item.type for item in await operator.items()]
        return look, asked, await desk.entries(kinds.EXTENDED), await desk.only()

    look, asked, extended, parent = simulate(story)
    assert len(look.calls) == 2
    assert asked == ["budget"], "the third look needs another grant"
    assert sorted(entry.body["scope"] for entry in extended) == ["run", f"run:{parent.id}"]
    assert [entry.run for entry in extended if entry.body["scope"] == "run"] == [parent.id]
