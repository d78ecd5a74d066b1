"""A manager: only plans that stand are carried out, in the order of their needs; what fails, conflicts or is late ends by rule."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from engine_desk import Desk, simulate
from hypothesis import given
from hypothesis import strategies as st

from tightship.core import kinds
from tightship.core.errors import LoadError, OutOfScope, Unavailable
from tightship.core.signals import OverBudget
from tightship.patterns import Manager, load_all
from tightship.patterns._plan import Bounds, Task, problems, read_plan
from tightship.runtime.simulation import Simulation
from tightship.workflow.build import Agent

load_all()


def task(id: str, *needs: str, worker: str = "look", covers: tuple[str, ...] = (), **input: Any) -> dict[str, Any]:
    return {
        "id": id,
        "worker": worker,
        "goal": f"do {id}",
        "needs": list(needs),
        "covers": list(covers),
        "input": input,
    }


def planner(*plans: Any) -> Any:
    """A planner that gives these plans, one per turn; `seen` is what it was told."""
    left, seen = list(plans), list[Any]()

    async def plan(ctx: Any, given: dict[str, Any]) -> Any:
        seen.append((list(ctx.feedback), given.get("done"), given.get("failed")))
        found = left.pop(0) if len(left) > 1 else left[0]
        return {"tasks": found}

    plan.seen = seen  # type: ignore[attr-defined]
    return plan


def add(desk: Desk, name: str, function: Any, **input: str) -> None:
    desk.agent(name, function, tools=[], input=input)


def plans(desk: Desk, function: Any) -> None:
    add(desk, "plan", function, team="object", items="list", done="list", failed="list")


async def summed(ctx: Any, given: dict[str, Any]) -> Any:
    """A worker whose result is the names of all it was built on."""
    known = {name for one in given["inputs"].values() for name in one["made"]}
    return {"made": sorted(known | {given["task"]["id"]})}


def looks(desk: Desk, function: Any = summed) -> None:
    add(desk, "look", function, task="object", inputs="object")


def notes(run: Any, type: str) -> list[Any]:
    return [entry for entry in run.entries if entry.kind == kinds.NOTE and entry.body["type"] == type]


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


def test_what_was_not_done_cannot_be_needed_by_the_next_plan() -> None:
    bounds = Bounds({"look": None}, done=frozenset({"a"}), used=frozenset({"a", "b"}))
    plan, _ = read_plan({"tasks": [task("c", "a", "b")]})
    assert problems(plan, bounds) == ["c: it needs 'b', which is not done"]


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


@pytest.mark.parametrize(
    ("tasks", "said"),
    [
        ([], "no task"),
        ([task("a"), task("a", n=1)], "used twice"),
        ([task("a", worker="x")], "no worker 'x'"),
        ([task("a", "z")], "'z', which is no task"),
        ([task("a", "a")], "circle"),
        ([task("a"), {**task("b"), "goal": "do a"}], "b is a again"),
        ([task("a", covers=("x",))], "nothing covers 'y'"),
        ([task("a", covers=("x", "y")), task("b", covers=("y",))], "'y' is covered by a, b"),
        ([task("a", covers=("x", "y", "z"))], "'z', which nobody asked for"),
        ([task("a/b")], "no id for a task"),
        ([task("a", worker="typed", n="one")], "input.n"),
        ([task(f"t{number}") for number in range(13)], "at most 12"),
    ],
)
def test_each_way_in_which_a_plan_does_not_stand_is_said(tasks: list[dict[str, Any]], said: str) -> None:
    covered = any(one["covers"] for one in tasks)
    bounds = Bounds({"look": None, "typed": {"n": "int"}}, ("x", "y") if covered else ())
    plan, wrong = read_plan({"tasks": tasks})
    assert not wrong
    assert any(said in one for one in problems(plan, bounds)), problems(plan, bounds)


@pytest.mark.parametrize("output", [None, [], {}, {"tasks": [{"id": "a"}]}, {"tasks": [{**task("a"), "more": 1}]}])
def test_what_is_no_plan_is_said(output: Any) -> None:
    assert read_plan(output)[1]


@given(st.lists(st.tuples(st.integers(0, 7), st.lists(st.integers(0, 7), max_size=3)), min_size=1, max_size=8))
def test_a_plan_that_stands_can_be_carried_out_to_the_end(given_tasks: Any) -> None:
    plan = [Task(f"t{id}", "look", f"goal {at}", tuple(f"t{need}" for need in needs)) for at, (id, needs) in enumerate(given_tasks)]  # fmt: skip
    if problems(plan, Bounds({"look": None})):
        return
    done = set[str]()
    while ready := [one for one in plan if one.id not in done and set(one.needs) <= done]:
        done |= {one.id for one in ready}
    assert done == {one.id for one in plan}


def test_several_answers_need_the_items_that_they_are_about() -> None:
    with pytest.raises(LoadError, match="give `cover`"):
        Manager(plan="plan", workers={"look": "look"}, answers=2)
