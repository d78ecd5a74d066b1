"""Whatever an agent's code does, the run gets an answer that names the place, and nothing else is harmed."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest
from engine_desk import Desk, Hanging, simulate, tool, write

from tightship.core import kinds
from tightship.core.errors import LowConfidence, OutOfScope, RuleConflict, TightshipError, WriteFailed
from tightship.runtime.simulation import Simulation


def judged(agent: Any, *tools: Any, **fields: Any) -> Any:
    """Run a workflow of this one agent."""

    async def story(sim: Simulation) -> Any:
        desk = Desk(sim, tools)
        desk.agent("a", agent, **{"output": {"x": "int"}, "within": 5, **fields})
        desk.workflow("a")
        return await desk.run()

    return simulate(story)


async def raises(ctx: Any, given: dict[str, Any]) -> Any:
    raise KeyError("order")


async def recurses(ctx: Any, given: dict[str, Any]) -> Any:
    return await recurses(ctx, given)


async def hangs(ctx: Any, given: dict[str, Any]) -> Any:
    await asyncio.sleep(10_000)


async def hangs_on(ctx: Any, given: dict[str, Any]) -> Any:
    while True:
        try:
            await asyncio.sleep(10_000)
        except asyncio.CancelledError:
            continue


def block(seconds: float) -> None:
    """What `time.sleep` in a coroutine does to the loop: time passes, and nothing else happens."""
    loop: Any = asyncio.get_running_loop()
    loop.advance(seconds)


async def blocks(ctx: Any, given: dict[str, Any]) -> Any:
    block(6)
    return {"x": 1}


async def blocks_and_raises(ctx: Any, given: dict[str, Any]) -> Any:
    block(6)
    raise KeyError("order")


async def exits(ctx: Any, given: dict[str, Any]) -> Any:
    raise SystemExit(3)


async def cancels(ctx: Any, given: dict[str, Any]) -> Any:
    raise asyncio.CancelledError


async def exits_in_parallel(ctx: Any, given: dict[str, Any]) -> Any:
    async def branch(sub: Any) -> Any:
        raise SystemExit(3)

    await ctx.parallel(branch)


async def large(ctx: Any, given: dict[str, Any]) -> Any:
    return {"x": "y" * 50_000_000}


async def no_json(ctx: Any, given: dict[str, Any]) -> Any:
    return {"x": object()}


async def other_shape(ctx: Any, given: dict[str, Any]) -> Any:
    return {"x": "seven"}


async def forks(ctx: Any, given: dict[str, Any]) -> Any:
    await asyncio.ensure_future(ctx.tool("shelf.read", {}))
    return {"x": 1}


@pytest.mark.parametrize(
    ("agent", "reason"),
    [
        (raises, "AgentRaised"),
        (recurses, "AgentRaised"),
        (hangs, "AgentHung"),
        (hangs_on, "AgentHung"),
        (blocks, "AgentHung"),
        (blocks_and_raises, "AgentHung"),
        (exits, "AgentRaised"),
        (cancels, "AgentRaised"),
        (exits_in_parallel, "AgentRaised"),
        (large, "WrongShape"),
        (no_json, "WrongShape"),
        (other_shape, "WrongShape"),
        (forks, "ForkedEffect"),
    ],
)
def test_an_agent_that_misbehaves_is_escalated_with_its_place(agent: Any, reason: str) -> None:
    read = tool("shelf.read", {"n": 1})
    run = judged(agent, read)
    assert (run.state, run.outcome, run.reason) == ("ended", "escalated", reason)
    assert run.package["agent"] in ("a", "", None)
    assert "test_runtime_agents.py" in str(run.package), "the file is named"
    assert read.calls == []


@pytest.mark.parametrize(("seconds", "outcome"), [(4.0, "completed"), (5.0, "completed"), (5.5, "escalated")])
def test_an_agent_that_blocks_the_loop_has_its_time_and_no_more_also_after_a_crash(
    seconds: float, outcome: str
) -> None:
    turns = list[int]()

    async def agent(ctx: Any, given: dict[str, Any]) -> Any:
        turns.append(1)
        await asyncio.sleep(0)
        block(seconds)
        return {"x": 1}

    async def story(sim: Simulation) -> Any:
        paid = Hanging(write("shop.put", {"id": 1}, idempotency="key"))
        desk = Desk(sim, [paid])
        desk.agent("a", agent, output={"x": "int"}, within=5, on={"unforeseen": {"then": "continue", "give": {"x": 2}}})
        desk.agent("b", agent, output={"x": "int"}, within=5)
        desk.workflow("a", {"action": "shop.put", "with": {"n": "a.x"}, "undo": "none"}, "b")
        desk.begin()
        await paid.began.wait()
        desk.kill()
        await desk.resume()
        return await desk.only(), paid.inner.calls

    run, calls = simulate(story)
    assert (run.outcome, run.reason) == (outcome, "" if outcome == "completed" else "AgentHung")
    assert {call.args["n"] for call in calls} == {1 if outcome == "completed" else 2}
    assert len(turns) == 2, "a turn that was recorded is not taken again, in time or not"


async def gathers(ctx: Any, given: dict[str, Any]) -> Any:
    await asyncio.gather(ctx.tool("shelf.read", {}))


async def leaves_one(ctx: Any, given: dict[str, Any]) -> Any:
    other = asyncio.create_task(ctx.tool("shelf.read", {}))
    await other


async def helped(ctx: Any, given: dict[str, Any]) -> Any:
    async def helper() -> None:
        await ctx.tool("shelf.read", {})

    await asyncio.create_task(helper())


async def waits_below(ctx: Any, given: dict[str, Any]) -> Any:
    async def several() -> None:
        await asyncio.gather(ctx.tool("shelf.read", {}))

    await several()


@pytest.mark.parametrize(("agent", "after"), [(gathers, 1), (leaves_one, 2), (helped, 2), (waits_below, 2)])
def test_a_forked_effect_is_told_with_the_line_of_the_agents_own_file(agent: Any, after: int) -> None:
    line = agent.__code__.co_firstlineno + after
    assert f"test_runtime_agents.py:{line}" in str(judged(agent, tool("shelf.read", {"n": 1})).package)


def test_the_line_of_what_was_raised_is_named() -> None:
    line = raises.__code__.co_firstlineno + 1
    assert f"test_runtime_agents.py:{line}" in str(judged(raises).package)


def test_a_wrong_shape_is_handed_back_with_what_is_wrong_before_it_is_given_up() -> None:
    seen: list[Any] = []

    async def agent(ctx: Any, given: dict[str, Any]) -> Any:
        seen.append((ctx.attempt, list(ctx.feedback)))
        return {"x": 1} if ctx.feedback else {"y": 1}

    assert judged(agent).output == {"x": 1}
    assert [attempt for attempt, _ in seen] == [1, 2]
    assert "x" in seen[1][1][0]


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (OutOfScope("not ours"), "out_of_scope"),
        (LowConfidence("who knows"), "low_confidence"),
        (RuleConflict("a and b"), "rule_conflict"),
    ],
)
def test_what_an_agent_raises_on_purpose_reaches_a_person_as_what_it_is(error: TightshipError, reason: str) -> None:
    async def agent(ctx: Any, given: dict[str, Any]) -> Any:
        raise error

    run = judged(agent)
    assert (run.outcome, run.reason) == ("escalated", reason)
    assert error.message in run.package["what_happened"]


def test_an_agent_that_swallows_a_stop_is_stopped_all_the_same() -> None:
    async def story(sim: Simulation) -> Any:
        read = tool("shelf.read", {"n": 1})
        desk = Desk(sim, [read])

        async def stubborn(ctx: Any, given: dict[str, Any]) -> Any:
            for _ in range(20):
                try:
                    await asyncio.sleep(1)
                    await ctx.tool("shelf.read", {})
                except BaseException:
                    continue
            return {}

        desk.agent("a", stubborn)
        desk.workflow("a", limits={"repeats": 100})
        running = desk.begin()
        await sim.clock.sleep(2.5)
        await (await desk.operator()).cancel((await desk.only()).id, "ann")
        run = await running
        asked = len(read.calls)
        await sim.clock.sleep(60)
        return run, asked, len(read.calls)

    run, asked, later = simulate(story)
    assert run.outcome == "cancelled"
    assert asked == later == 2, "its turn is over: what is left of it gets no effect any more"


def test_a_plain_function_is_an_agent_too() -> None:
    threads: list[str] = []

    def agent(ctx: Any, given: dict[str, Any]) -> Any:
        threads.append(threading.current_thread().name)
        return {"x": 7}

    assert judged(agent).output == {"x": 7}
    assert len(threads) == 1


def test_the_first_error_of_parallel_works_is_raised_once_all_have_ended() -> None:
    ended: list[int] = []

    async def agent(ctx: Any, given: dict[str, Any]) -> Any:
        def work(number: int) -> Any:
            async def branch(sub: Any) -> Any:
                await asyncio.sleep(number)
                ended.append(number)
                raise LowConfidence(f"number {number}")

            return branch

        await ctx.parallel(*(work(number) for number in (3, 1, 2)))

    run = judged(agent)
    assert "number 3" in run.package["what_happened"]
    assert sorted(ended) == [1, 2, 3]


def test_one_agent_that_hangs_keeps_no_other_run_from_going_on() -> None:
    async def story(sim: Simulation) -> Any:
        desk = Desk(sim)

        async def fine(ctx: Any, given: dict[str, Any]) -> Any:
            await asyncio.sleep(1)
            return {"x": 1}

        desk.agent("bad", hangs, within=50)
        desk.agent("good", fine)
        desk.workflow("bad", name="stuck")
        desk.workflow("good", name="fine")
        stuck = desk.begin("stuck")
        run = await desk.run("fine")
        took = sim.loop.time()
        await stuck
        return run, took

    run, took = simulate(story)
    assert run.outcome == "completed"
    assert took < 2


def test_a_loop_is_found_and_a_declared_retry_is_none_also_after_a_crash() -> None:
    async def story(sim: Simulation) -> Any:
        desk = Desk(sim)
        turns: list[int] = []

        async def agent(ctx: Any, given: dict[str, Any]) -> Any:
            turns.append(1)
            if len(turns) < 6:
                raise WriteFailed("not yet")
            return {"x": 1}

        desk.agent("a", agent, on={"unforeseen": {"retry": 8, "after": 30}})
        desk.workflow("a")
        await desk.run()
        for _ in range(12):
            desk.kill()
            await sim.clock.sleep(31)
            await desk.resume()
        return await desk.only(), turns

    run, turns = simulate(story)
    assert run.outcome == "completed"
    assert len(turns) == 6


def test_each_turn_is_one_entry_with_what_went_in_and_what_came_out() -> None:
    async def story(sim: Simulation) -> Any:
        desk = Desk(sim, [write("post.send", {"id": "w"})])

        async def agent(ctx: Any, given: dict[str, Any]) -> Any:
            await ctx.tool("post.send", {})
            return {"x": given["case"]}

        desk.agent("a", agent)
        desk.workflow("a")
        run = await desk.run()
        [turn] = await desk.entries(kinds.TURN)
        return run, await desk.ledger.value(turn.body["out"]), turn

    run, out, turn = simulate(story)
    assert run.output == out == {"x": "one"}
    assert turn.body["hash"]
