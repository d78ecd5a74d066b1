"""No retry storm, and no fan-out without end: what a run, and a process, add to the load of what they ask."""

from __future__ import annotations

from typing import Any

import pytest
from engine_desk import Desk, Hanging, simulate, tool
from entry_samples import VirtualClock

from tightship.controls import RetryBudgets, Throttle
from tightship.core import kinds
from tightship.core.errors import RateLimited, Unavailable, WrongShape
from tightship.core.ports import Usage
from tightship.insight import costs_of_run, show
from tightship.models.testing import ScriptedModel
from tightship.runtime.simulation import Simulation
from tightship.runtime.workspace import Workspace

TWO = {"concurrent": {"branches": [{"workflow": "left"}, {"workflow": "right"}], "on_failure": "keep"}}


def asker(times: int) -> Any:
    """An agent that asks so many times."""

    async def agent(ctx: Any, given: dict[str, Any]) -> Any:
        return [await ctx.tool("shop.look", {"n": number, "by": ctx.agent}) for number in range(times)]

    return agent


def test_the_requests_of_a_run_and_of_all_below_it_are_counted_together_retries_too() -> None:
    async def story(sim: Simulation) -> Any:
        look = tool("shop.look", Unavailable("down"), "seen")
        desk = Desk(sim, [look])
        for name in ("a", "b"):
            desk.agent(name, asker(5))
        desk.workflow("a", name="left")
        desk.workflow("b", name="right")
        desk.workflow(TWO, limits={"requests": 7})
        await desk.run()
        return look, await desk.ledger.select("runs", [("parent", "!=", "")])

    look, rows = simulate(story)
    assert len(look.calls) == 7
    assert "LimitReached" in {row["reason"] for row in rows}


class HangingFourth(Hanging):
    """The answer to the fourth look never comes."""

    async def perform(self, request: Any) -> Any:
        """Do it, and answer unless it is the fourth."""
        self.times = int(len(self.inner.calls) == 3)
        return await super().perform(request)


def test_a_crash_does_not_give_a_run_new_requests() -> None:
    async def story(sim: Simulation) -> Any:
        hanging = HangingFourth(tool("shop.look", "seen"))
        desk = Desk(sim, [hanging])
        desk.agent("a", asker(3))
        desk.agent("b", asker(3))
        desk.workflow("a", name="left")
        desk.workflow({"workflow": "left"}, "b", limits={"requests": 4})
        desk.begin()
        await hanging.began.wait()
        desk.kill()
        await desk.resume()
        return hanging.inner, await desk.only()

    inner, run = simulate(story)
    assert len(inner.calls) == 4, "the one whose answer was lost was made, and counts"
    assert run.reason == "LimitReached"


def test_redoing_repairing_and_trying_again_share_one_budget() -> None:
    async def story(sim: Simulation) -> Any:
        desk = Desk(sim, [])
        turns: list[str] = []

        async def maker(ctx: Any, given: dict[str, Any]) -> Any:
            turns.append("maker")
            return {"good": False}

        async def checker(ctx: Any, given: dict[str, Any]) -> Any:
            return {"ok": False, "objections": ["no"]}

        desk.agent("maker", maker, output={"good": "bool"})
        desk.agent("checker", checker, output={"ok": "bool", "objections": "list[str]"})
        desk.workflow(
            {"maker_checker": {"maker": "maker", "checker": "checker", "rounds": 8, "then": "escalate"}},
            limits={"retries": 3, "repeats": 100},
        )
        return await desk.run(), turns, await desk.entries(kinds.NOTE)

    run, turns, notes = simulate(story)
    assert (run.reason, len(turns)) == ("LimitReached", 4)
    assert sum(bool(note.body.get("again")) for note in notes) == 3


def test_a_step_is_tried_again_only_as_often_as_the_run_has_retries_and_a_resume_gives_no_new_ones() -> None:
    async def story(sim: Simulation) -> Any:
        desk = Desk(sim, [look := tool("shop.look", Unavailable("down"))])
        desk.agent("a", asker(1), on={"unavailable": {"retry": 50, "after": 600}})
        desk.workflow("a", limits={"retries": 5})
        await desk.run()
        for _ in range(20):
            desk.kill()
            await sim.clock.sleep(700)
            await desk.resume()
        return look, await desk.only()

    look, run = simulate(story)
    assert (run.outcome, run.reason) == ("escalated", "unavailable")
    assert len(look.calls) == 1 + 5, "the first attempt, and five more over the door and the step together"


def test_an_output_is_not_repaired_beyond_the_budget() -> None:
    async def story(sim: Simulation) -> Any:
        desk = Desk(sim, [])
        turns: list[int] = []

        async def bad(ctx: Any, given: dict[str, Any]) -> Any:
            turns.append(1)
            return {"good": "no"}

        desk.agent("a", bad, output={"good": "bool"}, retries=5)
        desk.workflow("a", limits={"retries": 2, "repeats": 100})
        return await desk.run(), turns

    run, turns = simulate(story)
    assert len(turns) == 3
    assert run.outcome == "escalated"
    assert WrongShape.__name__ in run.reason or run.reason == "format_mismatch"


def test_a_process_retries_a_service_by_a_tenth_of_its_requests_and_a_few() -> None:
    clock = VirtualClock()
    budgets = RetryBudgets(clock, share=0.1, floor=5)
    assert sum(budgets.spend("desk") for _ in range(50)) == 5
    for _ in range(100):
        budgets.request("desk")
    assert sum(budgets.spend("desk") for _ in range(50)) == 10
    clock.time += 61
    assert sum(budgets.spend("desk") for _ in range(50)) == 5
    assert budgets.spend("mail")


def test_many_runs_against_a_dead_service_make_few_retries() -> None:
    async def story(sim: Simulation) -> Any:
        desk = Desk(sim, [look := tool("shop.look", RateLimited("too much"))])
        desk.agent("a", asker(1))
        desk.workflow("a")
        for _ in range(100):
            await desk.run()
        return look

    calls = simulate(story).calls
    first = len({request.run for request in calls})
    assert len(calls) - first <= 30 + 0.1 * first


def test_a_service_that_turns_away_is_asked_less_before_its_breaker_opens_and_again_once_it_accepts() -> None:
    clock = VirtualClock()
    throttle = Throttle(clock)
    for _ in range(70):
        throttle.record("desk", True)
    for _ in range(5):
        throttle.record("desk", False)
    assert throttle.refusing("desk") == 0.0, "a few are nothing"
    for _ in range(35):
        throttle.record("desk", False)
    assert 0.0 < throttle.refusing("desk") < 0.2, "at 36 % turned away; the breaker opens at half"
    for _ in range(400):
        throttle.record("desk", False)
    assert throttle.refusing("desk") > 0.7
    clock.time += 61
    assert throttle.refusing("desk") == 0.0
    assert throttle.refuse("desk").retry_after > 0


@pytest.mark.parametrize(("used", "least", "most"), [(30, 0.0, 1.0), (500, 139.0, 141.0)])
def test_a_tier_s_rates_hold_for_its_requests_and_count_what_was_really_used(
    used: int, least: float, most: float
) -> None:
    """40 requests that may cost 500 tokens each, at 6,000 a minute."""

    async def story(sim: Simulation) -> float:
        tier = "{model: 'openai:x-2025-01-01', price: free, tokens_per_minute: 6000}"
        desk = Desk(sim, [], f"tiers: {{cheap: {tier}}}\n")
        model: Any = ScriptedModel(["yes"], usage=Usage(0, used, 0))
        model.bound = Usage(0, 500, 0)
        desk.ws = Workspace.open(desk.folder, world=desk.world, ledger=desk.ledger, model=model)
        times: list[float] = []

        async def agent(ctx: Any, given: dict[str, Any]) -> Any:
            for number in range(40):
                await ctx.model(f"question {number}", tier="cheap")
                times.append(sim.clock.monotonic())
            return {}

        desk.agent("a", agent, within=1000)
        desk.workflow("a", limits={"turns": 500, "calls": 500})
        run = await desk.run()
        assert run.outcome == "completed", run.reason
        return times[-1] - times[0]

    assert least <= simulate(story) <= most


def test_costs_and_runs_show_say_how_much_a_user_s_request_has_asked() -> None:
    async def story(sim: Simulation) -> Any:
        desk = Desk(sim, [tool("shop.look", "seen")])
        desk.agent("a", asker(3))
        desk.agent("b", asker(2))
        desk.workflow("a", name="left")
        desk.workflow({"workflow": "left"}, "b")
        run = await desk.run()
        return await costs_of_run(desk.ledger, run.id), (await show(desk.ledger, run.id)).render()

    costs, shown = simulate(story)
    assert (costs.total.calls, costs.requests) == (2, 5)
    assert "5 with the runs below it" in shown
