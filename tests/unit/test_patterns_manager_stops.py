"""A manager whose time or budget is over, that waits for a person, or whose process dies: what was done is kept."""

from __future__ import annotations

import asyncio
from typing import Any

from engine_desk import Desk, simulate
from manager_desk import add, looks, planner, plans, summed, task

from tightship.core.errors import Unavailable
from tightship.core.signals import OverBudget
from tightship.patterns import Manager
from tightship.runtime.simulation import Simulation
from tightship.workflow.build import Agent


def test_a_manager_past_its_deadline_is_replaced_and_what_was_done_is_kept() -> None:
    async def story(sim: Simulation) -> None:
        desk = Desk(sim)

        async def uneven(ctx: Any, given: dict[str, Any]) -> Any:
            await asyncio.sleep(1 if given["task"]["id"] == "a" else 100)
            return {"ok": given["task"]["id"]}

        async def rest(ctx: Any, given: dict[str, Any]) -> Any:
            return {"kept": [one["value"] for one in given["results"]], "why": given["failed"][0]["error"]}

        plans(desk, planner([task("a"), task("b")]))
        looks(desk, uneven)
        add(desk, "rest", rest, results="list", failed="list")
        desk.workflow(Manager(plan="plan", workers={"look": "look"}, within=10, fallback="rest"))
        run = await desk.run()
        assert run.output == {"kept": [{"ok": "a"}], "why": "TimedOut"}

    simulate(story)


def test_a_used_up_budget_of_one_worker_ends_the_run_and_no_deadline_covers_it_up() -> None:
    async def story(sim: Simulation) -> None:
        desk = Desk(sim)

        async def look(ctx: Any, given: dict[str, Any]) -> Any:
            if given["task"]["id"] == "a":
                raise OverBudget("it would cost too much", scope="run", unit="usd")
            await asyncio.sleep(7200)
            return {"ok": True}

        async def simple(ctx: Any, given: dict[str, Any]) -> Any:
            return {"simple": True}

        plans(desk, planner([task("a"), task("b")]))
        looks(desk, look)
        add(desk, "simple", simple)
        desk.workflow(
            Manager(plan="plan", workers={"look": "look"}, within="1m", fallback="simple"),
            budget={"usd": 1.0, "then": "fail"},
        )
        began = sim.world().clock.now()
        assert (await desk.run()).outcome == "failed"
        assert sim.world().clock.now() - began < 60

    simulate(story)


def test_a_run_whose_tasks_wait_for_a_person_is_parked_and_goes_on_with_the_answer() -> None:
    async def story(sim: Simulation) -> None:
        desk = Desk(sim)
        plans(desk, planner([task("ask", worker="person"), task("use", "ask"), task("beside")]))
        looks(desk, summed)
        expert = Agent("expert", owner="test", purpose="knows", human="operator", output={"made": "list[str]"})
        desk._specs.append(expert)
        desk.ws.add(expert)
        desk.workflow(Manager(plan="plan", workers={"look": "look", "person": "expert"}, concurrency=2))
        run = await desk.run()
        assert run.state == "parked"
        desk.kill()
        await desk.answer("answer", {"made": ["known"]})
        await desk.resume()
        run = await desk.only()
        assert run.outcome == "completed"
        assert run.output["results"]["use"] == {"made": ["known", "use"]}

    simulate(story)


def test_a_process_that_dies_at_any_append_does_no_finished_task_twice() -> None:
    def play(at: int) -> tuple[Any, list[str], int]:
        async def story(sim: Simulation) -> tuple[Any, list[str], int]:
            desk, turns = Desk(sim), list[str]()

            async def shaky(ctx: Any, given: dict[str, Any]) -> Any:
                turns.append(given["task"]["id"])
                await asyncio.sleep(0.01)
                if given["task"]["id"] == "b":
                    raise Unavailable("the archive is closed")
                return await summed(ctx, given)

            def plan(ctx: Any, given: dict[str, Any]) -> Any:
                if given["failed"]:
                    return {"tasks": [task("b2", "a"), task("c2", "b2")]}
                return {"tasks": [task("a"), task("b"), task("c", "b")]}

            plans(desk, plan)
            looks(desk, shaky)
            desk.workflow(Manager(plan="plan", workers={"look": "look"}, within="1h"))
            if at:
                begun = desk.begin()
                while await desk.ledger.head() < at and not begun.done():
                    await sim.world().clock.sleep(0.001)
                desk.kill()
                await desk.resume()
            else:
                await desk.run()
            run = await desk.only()
            return (run.outcome, run.output), turns, len(run.entries)

        return simulate(story)

    told, turns, entries = play(0)
    assert told[0] == "completed" and turns == ["a", "b", "b2", "c2"]
    for at in range(2, entries, 2):
        again, repeated, _ = play(at)
        assert again == told, at
        assert all(repeated.count(id) <= 2 for id in repeated), at
