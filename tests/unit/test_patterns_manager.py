"""A manager: only plans that stand are carried out, in the order of their needs; what fails or conflicts ends by rule."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from engine_desk import Desk, simulate
from manager_desk import add, looks, notes, planner, plans, summed, task

from tightship.core.errors import OutOfScope, Unavailable
from tightship.patterns import Manager
from tightship.runtime.simulation import Simulation


def test_tasks_run_in_the_order_of_their_needs_and_get_what_they_need() -> None:
    async def story(sim: Simulation) -> None:
        desk = Desk(sim)
        plans(desk, planner([task("d", "b", "c"), task("b", "a"), task("c", "a"), task("a")]))
        looks(desk)
        desk.workflow(Manager(plan="plan", workers={"look": "look"}, within="1h"))
        run = await desk.run()
        assert run.outcome == "completed"
        assert run.output["results"]["d"] == {"made": ["a", "b", "c", "d"]}
        assert run.output["failed"] == []

    simulate(story)


def test_independent_tasks_run_side_by_side_but_no_more_than_is_said() -> None:
    async def story(sim: Simulation) -> None:
        desk, now, most = Desk(sim), [0], [0]

        async def slow(ctx: Any, given: dict[str, Any]) -> Any:
            now[0] += 1
            most[0] = max(most[0], now[0])
            await asyncio.sleep(1)
            now[0] -= 1
            return {"ok": True}

        plans(desk, planner([task(f"t{number}") for number in range(7)]))
        looks(desk, slow)
        desk.workflow(Manager(plan="plan", workers={"look": "look"}, concurrency=3))
        began = sim.world().clock.now()
        run = await desk.run()
        assert run.outcome == "completed" and most[0] == 3
        assert 3 <= sim.world().clock.now() - began < 4

    simulate(story)


def test_a_poor_plan_goes_back_with_the_reasons_once() -> None:
    async def story(sim: Simulation) -> None:
        desk = Desk(sim)
        plan = planner([task("a", "b"), task("b", "a")], [task("a")])
        plans(desk, plan)
        looks(desk)
        desk.workflow(Manager(plan="plan", workers={"look": "look"}))
        run = await desk.run()
        assert run.outcome == "completed" and list(run.output["results"]) == ["a"]
        assert "circle" in plan.seen[1][0][0]
        assert len(notes(run, "plan.rejected")) == 1

    simulate(story)


@pytest.mark.parametrize("fallback", [True, False])
def test_a_plan_that_is_poor_twice_is_replaced_or_goes_to_a_person(fallback: bool) -> None:
    async def story(sim: Simulation) -> None:
        desk = Desk(sim)

        async def alone(ctx: Any, given: dict[str, Any]) -> Any:
            return {"done": "alone"}

        plans(desk, planner([task("a", worker="nobody")]))
        looks(desk)
        add(desk, "alone", alone, results="list")
        more = {"fallback": "alone"} if fallback else {}
        desk.workflow(Manager(plan="plan", workers={"look": "look"}, **more))
        run = await desk.run()
        if fallback:
            assert run.output == {"done": "alone"} and len(notes(run, "manager.replaced")) == 1
        else:
            assert (run.outcome, run.reason) == ("escalated", "PlanRejected")
            assert "there is no worker 'nobody'" in str(run.package)

    simulate(story)


@pytest.mark.parametrize("fallback", [True, False])
@pytest.mark.parametrize(
    ("breaks", "how", "reason"),
    [
        ("plan", "raises", "AgentRaised"),
        ("plan", "hangs", "AgentHung"),
        ("plan", "is away", "Unavailable"),
        ("plan", "gives no plan", "WrongShape"),
        ("write", "raises", "AgentRaised"),
        ("write", "hangs", "AgentHung"),
    ],
)
def test_a_manager_that_breaks_is_replaced_and_what_was_done_is_kept(
    breaks: str, how: str, reason: str, fallback: bool
) -> None:
    async def broken(ctx: Any, given: dict[str, Any]) -> Any:
        if how == "raises":
            raise RuntimeError("it is broken")
        if how == "hangs":
            await asyncio.sleep(3600)
        if how == "is away":
            raise Unavailable("its model does not answer")
        return {"tasks": "later"}

    async def rest(ctx: Any, given: dict[str, Any]) -> Any:
        return {"kept": [one["id"] for one in given["results"]], "why": given["failed"][0]["error"]}

    async def story(sim: Simulation) -> None:
        desk = Desk(sim)
        plan = broken if breaks == "plan" else planner([task("a")])
        fields = {"input": {"items": "list"}, "output": {"tasks": "list"}, "within": "5s", "tools": []}
        desk.agent("plan", plan, **fields)
        looks(desk)
        desk.agent("write", broken, input={"results": "list"}, within="5s", tools=[])
        add(desk, "rest", rest, results="list", failed="list")
        more = {"fallback": "rest"} if fallback else {}
        desk.workflow(Manager(plan="plan", workers={"look": "look"}, synthesise="write", within="1m", **more))
        run = await desk.run()
        if fallback:
            assert run.output == {"kept": ["a"] if breaks == "write" else [], "why": reason}
            assert len(notes(run, "manager.replaced")) == 1
        else:
            assert run.outcome == "escalated" and run.reason in (reason, "unavailable")

    simulate(story)


def test_what_a_planner_says_of_the_case_goes_to_a_person_whatever_the_fallback() -> None:
    async def story(sim: Simulation) -> None:
        desk = Desk(sim)

        async def plan(ctx: Any, given: dict[str, Any]) -> Any:
            raise OutOfScope("this is no case for us")

        async def rest(ctx: Any, given: dict[str, Any]) -> Any:
            return {"made": "up"}

        plans(desk, plan)
        looks(desk)
        add(desk, "rest", rest)
        desk.workflow(Manager(plan="plan", workers={"look": "look"}, fallback="rest"))
        run = await desk.run()
        assert (run.outcome, run.reason) == ("escalated", "out_of_scope")

    simulate(story)


def test_what_failed_is_planned_anew_with_what_is_done_and_nothing_is_done_again() -> None:
    async def story(sim: Simulation) -> None:
        desk, turns = Desk(sim), list[str]()

        async def shaky(ctx: Any, given: dict[str, Any]) -> Any:
            turns.append(given["task"]["id"])
            if given["task"]["id"] == "b":
                raise Unavailable("the archive is closed")
            return await summed(ctx, given)

        plan = planner([task("a"), task("b"), task("c", "b")], [task("b2", "a"), task("c2", "b2")])
        plans(desk, plan)
        looks(desk, shaky)
        desk.workflow(Manager(plan="plan", workers={"look": "look"}, replans=1))
        run = await desk.run()
        assert run.outcome == "completed"
        assert run.output["results"]["c2"] == {"made": ["a", "b2", "c2"]}
        assert turns == ["a", "b", "b2", "c2"], "what needs a failed task is not begun"
        told = plan.seen[1]
        assert [one["id"] for one in told[1]] == ["a"]
        assert {one["id"]: one["error"] for one in told[2]} == {"b": "Unavailable", "c": "blocked"}

    simulate(story)


@pytest.mark.parametrize("on_failure", ["replan", "keep"])
def test_when_re_planning_is_used_up_it_escalates_with_what_is_done_or_keeps_it(on_failure: str) -> None:
    async def story(sim: Simulation) -> None:
        desk = Desk(sim)

        async def shaky(ctx: Any, given: dict[str, Any]) -> Any:
            if given["task"]["id"].startswith("b"):
                raise Unavailable("the archive is closed")
            return {"ok": given["task"]["id"]}

        plans(desk, planner([task("a"), task("b")], [task("b2")], [task("b3")]))
        looks(desk, shaky)
        desk.workflow(Manager(plan="plan", workers={"look": "look"}, replans=2, on_failure=on_failure))
        run = await desk.run()
        if on_failure == "keep":
            assert run.outcome == "completed" and run.output["results"] == {"a": {"ok": "a"}}
            assert [one["id"] for one in run.output["failed"]] == ["b"]
        else:
            assert run.outcome == "escalated" and "'a'" in str(run.package) and "b3" in str(run.package)
            assert len(notes(run, "manager.replan")) == 2

    simulate(story)


@pytest.mark.parametrize("ids", [("a", "b", "c"), ("c", "b", "a")])
def test_a_worker_that_is_stopped_at_its_bounds_fails_its_task_and_what_needs_it(ids: tuple[str, ...]) -> None:
    async def story(sim: Simulation) -> None:
        desk = Desk(sim)

        async def look(ctx: Any, given: dict[str, Any]) -> Any:
            if given["task"]["id"] == "a":
                await ctx.tool("not.declared", {})
            return {"ok": True}

        every = {"a": task("a"), "b": task("b", "a"), "c": task("c")}
        plans(desk, planner([every[id] for id in ids]))
        looks(desk, look)
        desk.workflow(Manager(plan="plan", workers={"look": "look"}, on_failure="keep"))
        run = await desk.run()
        assert run.outcome == "completed" and list(run.output["results"]) == ["c"]
        assert {one["id"]: one["error"] for one in run.output["failed"]} == {"a": "Unforeseen", "b": "blocked"}

    simulate(story)


def test_conflicting_results_for_one_item_are_settled_by_the_rule() -> None:
    async def story(sim: Simulation) -> None:
        desk = Desk(sim)
        said = {"a": 10, "b": 10, "c": 11}

        async def measure(ctx: Any, given: dict[str, Any]) -> Any:
            return {"height": said[given["task"]["id"]]}

        async def write(ctx: Any, given: dict[str, Any]) -> Any:
            return {"text": f"it is {given['settled']['tower']}", "from": len(given["results"])}

        plans(desk, planner([task(name, covers=("tower",)) for name in said]))
        looks(desk, measure)
        add(desk, "write", write, results="list", settled="object", failed="list")
        desk.workflow(
            Manager(
                plan="plan", workers={"look": "look"}, cover='["tower"]', answers=3, compare="answer.height",
                settle="majority", synthesise="write",
            )
        )  # fmt: skip
        run = await desk.run()
        assert run.output == {"text": "it is 10", "from": 3}
        assert len(notes(run, "settled")) == 1

    simulate(story)


@pytest.mark.parametrize("enough", [True, False])
def test_when_one_of_two_sources_fails_the_planner_takes_another_one_or_says_that_it_is_enough(enough: bool) -> None:
    async def story(sim: Simulation) -> None:
        desk = Desk(sim)

        async def source(ctx: Any, given: dict[str, Any]) -> Any:
            if given["task"]["id"] == "wiki":
                raise Unavailable("the wiki is closed")
            return {"height": 10}

        more = [] if enough else [task("report", covers=("tower",))]
        plan = planner([task("note", covers=("tower",)), task("wiki", covers=("tower",))], more)
        plans(desk, plan)
        looks(desk, source)
        desk.workflow(
            Manager(plan="plan", workers={"look": "look"}, cover='["tower"]', answers=2, compare="answer.height")
        )
        run = await desk.run()
        assert run.outcome == "completed"
        assert list(run.output["results"]) == (["note"] if enough else ["note", "report"])
        assert run.output["settled"] == ({} if enough else {"tower": 10})
        assert [one["id"] for one in run.output["failed"]] == (["wiki"] if enough else [])

    simulate(story)


def test_what_one_worker_binds_no_other_sees_before_or_after_a_crash() -> None:
    def play(at: int) -> Any:
        async def story(sim: Simulation) -> Any:
            desk = Desk(sim)

            async def last(ctx: Any, given: dict[str, Any]) -> Any:
                return {"saw": given.get("look")}

            plans(desk, planner([task("a"), task("b")]))
            looks(desk)
            add(desk, "last", last, look="object?")
            desk.workflow(Manager(plan="plan", workers={"look": "look"}, synthesise="last", within="1h"))
            begun = desk.begin()
            while at and await desk.ledger.head() < at and not begun.done():
                await sim.world().clock.sleep(0.001)
            if at:
                desk.kill()
                await desk.resume()
            else:
                await begun
            return (await desk.only()).output

        return simulate(story)

    assert [play(at) for at in (0, 4, 6, 8)] == [{"saw": None}] * 4
