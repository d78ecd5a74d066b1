"""Many that want the same ask once; rate limits hold nothing; breakers leave a system alone, but not an undo."""

from __future__ import annotations

import asyncio
from typing import Any

from engine_desk import Desk, simulate, tool, write

from tightship.controls.breakers import BreakerRule, Breakers
from tightship.core.errors import DataMissing, TightshipError, Unavailable, WriteFailed
from tightship.core.ports import UndoSpec
from tightship.core.signals import Halted
from tightship.runtime.simulation import Simulation


def reader(args: Any = None, name: str = "shelf.read") -> Any:
    """An agent that reads once, and says what it got or which error."""

    async def agent(ctx: Any, given: dict[str, Any]) -> Any:
        try:
            return {"found": await ctx.tool(name, args or {})}
        except TightshipError as error:
            return {"found": error.code}

    return agent


def slow(inner: Any, seconds: float) -> Any:
    """The same tool, taking its time."""
    perform = inner.perform

    async def later(request: Any) -> Any:
        await asyncio.sleep(seconds)
        return await perform(request)

    inner.perform = later
    return inner


def test_many_that_want_the_same_at_once_ask_once() -> None:
    async def story(sim: Simulation) -> Any:
        read = slow(tool("shelf.read", {"n": 1}, cache_seconds=60), 1)
        desk = Desk(sim, [read])
        desk.agent("a", reader())
        desk.workflow("a")
        runs = await asyncio.gather(*(desk.run(case=str(number)) for number in range(5)))
        later = await desk.run(case="later")
        await sim.clock.sleep(61)
        await desk.run(case="much later")
        return [*runs, later], read, await desk.settles()

    runs, read, settles = simulate(story)
    assert all(run.output == {"found": {"n": 1}} for run in runs)
    assert len(read.calls) == 2
    assert [body.get("cached", False) for body in settles].count(True) == 5


def test_when_the_one_who_asks_fails_it_is_recorded_for_all_that_waited() -> None:
    async def story(sim: Simulation) -> Any:
        read = slow(tool("shelf.read", DataMissing("nothing there"), cache_seconds=60), 1)
        desk = Desk(sim, [read])
        desk.agent("a", reader())
        desk.workflow("a")
        runs = await asyncio.gather(*(desk.run(case=str(number)) for number in range(3)))
        return runs, read, await desk.settles()

    runs, read, settles = simulate(story)
    assert [run.output for run in runs] == [{"found": "DataMissing"}] * 3
    assert (len(read.calls), len(settles)) == (1, 3)


def test_a_declared_retry_outlives_a_system_that_does_not_answer() -> None:
    """Four attempts at a step that reads the same: none is a repeat, since there was no answer to be used."""

    async def story(sim: Simulation) -> Any:
        read = tool("shelf.read", *[Unavailable("gone")] * 9, {"n": 1})
        desk = Desk(sim, [read])
        desk.agent("a", reads_on)
        desk.workflow({"agent": "a", "on": {"unavailable": {"retry": 3, "after": "2s"}}})
        return await desk.run()

    async def reads_on(ctx: Any, given: dict[str, Any]) -> Any:
        return {"found": await ctx.tool("shelf.read", {})}

    assert simulate(story).output == {"found": {"n": 1}}


def test_a_fresh_read_is_not_answered_from_cache() -> None:
    async def story(sim: Simulation) -> Any:
        desk = Desk(sim, [tool("shelf.read", 1, 2, 3, cache_seconds=60)])

        async def agent(ctx: Any, given: dict[str, Any]) -> Any:
            first, second = await ctx.tool("shelf.read", {}), await ctx.tool("shelf.read", {}, fresh=True)
            return {"found": [first, second]}

        desk.agent("a", agent)
        desk.workflow("a")
        return await desk.run()

    assert simulate(story).output == {"found": [1, 2]}


def test_who_waits_for_a_rate_limit_holds_no_budget() -> None:
    async def story(sim: Simulation) -> Any:
        desk = Desk(sim, [tool("shelf.read", {"n": 1}, requests_per_second=1.0)])
        desk.agent("a", reader())
        desk.workflow("a", budget={"calls": 1})
        running = [desk.begin(case=str(number)) for number in range(4)]
        await sim.clock.sleep(0.5)
        engine = await desk.ws.engine()
        held = [
            envelope.reserved.calls
            for run in engine.running()
            for envelope in engine.task(run).session.envelopes.envelopes()  # type: ignore[union-attr]
        ]
        return held, await asyncio.gather(*running), sim.loop.time()

    held, runs, took = simulate(story)
    assert held and not any(held)
    assert [run.outcome for run in runs] == ["completed"] * 4
    assert took > 2.9


def test_a_system_that_fails_is_left_alone_and_the_refusal_is_recorded() -> None:
    async def story(sim: Simulation) -> Any:
        read = tool("shelf.read", Unavailable("down"))
        desk = Desk(sim, [read])
        desk.agent("a", reader())
        desk.workflow("a")
        engine = await desk.ws.engine()
        engine.shared.breakers = Breakers(sim.clock, BreakerRule(minimum=3, cooldown=1000))
        await desk.run(case="x")
        asked = len(read.calls)
        await desk.run(case="y")
        return asked, len(read.calls), await desk.settles()

    asked, after, settles = simulate(story)
    assert asked == after == 3
    assert settles[-1]["denied"] is True


def test_an_undo_waits_for_the_breaker() -> None:
    async def story(sim: Simulation) -> Any:
        undo = UndoSpec("post.recall", {"id": "result.id"})
        send, recall = write("post.send", {"id": "w"}, undo=undo), write("post.recall", {})
        desk = Desk(sim, [send, recall])

        async def agent(ctx: Any, given: dict[str, Any]) -> Any:
            await ctx.tool("post.send", {})
            engine = await desk.ws.engine()
            for _ in range(3):  # others have found it down
                engine.shared.breakers.record("post.recall", ok=False)
            raise WriteFailed("on purpose")

        desk.agent("a", agent)
        desk.workflow("a")
        engine = await desk.ws.engine()
        engine.shared.breakers = Breakers(sim.clock, BreakerRule(minimum=3, cooldown=20))
        return await desk.run(), recall, sim.loop.time()

    run, recall, took = simulate(story)
    assert run.outcome == "escalated"
    assert len(recall.calls) == 1
    assert took > 19.9


def test_declared_tools_only() -> None:
    async def story(sim: Simulation) -> Any:
        read, other = tool("shelf.read", 1), tool("vault.open", 2)
        desk = Desk(sim, [read, other])
        desk.agent("a", reader(name="vault.open"), tools=["shelf.read"])
        desk.agent("b", reader(name="nowhere.none"), tools=["shelf.read"])
        desk.workflow("a", "b", output={"a": "a.found", "b": "b.found"})
        return await desk.run(), other

    run, other = simulate(story)
    assert run.output == {"a": "NotDeclared", "b": "NotDeclared"}
    assert other.calls == []


def test_a_halt_stops_new_effects_and_lets_what_is_under_way_settle() -> None:
    async def story(sim: Simulation) -> Any:
        undo = UndoSpec("post.recall", {"id": "result.id"})
        send, recall = slow(write("post.send", {"id": "w"}, undo=undo, timeout=30.0), 10), write("post.recall", {})
        desk = Desk(sim, [send, recall])

        async def agent(ctx: Any, given: dict[str, Any]) -> Any:
            await ctx.tool("post.send", {"n": 1})
            await ctx.tool("post.send", {"n": 2})
            return {}

        desk.agent("a", agent)
        desk.workflow("a")
        running = desk.begin()
        await sim.clock.sleep(1)
        await (await desk.operator()).halt("workflow:flow", "ann", "practice")
        return await running, send, recall

    run, send, recall = simulate(story)
    assert (run.outcome, run.reason) == ("escalated", "halted")
    assert len(send.calls) == 1, "the one that was under way settled, and no other began"
    assert [call.args for call in recall.calls] == [{"id": "w"}], "and was taken back, which a halt lets pass"


def test_no_run_begins_in_a_halted_scope() -> None:
    async def story(sim: Simulation) -> Any:
        desk = Desk(sim, [tool("shelf.read", 1)])
        desk.agent("a", reader())
        desk.workflow("a")
        operator = await desk.operator()
        await operator.halt("tenant:default", "ann")
        scope = ""
        try:
            await desk.run()
        except Halted as halted:
            scope = halted.scope
        await operator.unhalt("tenant:default", "ann")
        return scope, (await desk.run()).outcome

    assert simulate(story) == ("tenant:default", "completed")
