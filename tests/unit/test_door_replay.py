"""What was recorded is not asked again: outcomes, errors, refusals, time and chance."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from engine_desk import Desk, Hanging, simulate, tool, write

from tightship.core import kinds
from tightship.core.errors import DataMissing, TightshipError
from tightship.runtime.simulation import Simulation


def killed_and_resumed(agent: Any, *tools: Any, **fields: Any) -> tuple[Desk, Any]:
    """Run an agent, kill the process while the last tool (which hangs) is asked, and resume."""

    async def story(sim: Simulation) -> tuple[Desk, Any]:
        hanging = Hanging(tool("wait.for"))
        desk = Desk(sim, [*tools, hanging])
        desk.agent("a", agent, **fields)
        desk.workflow("a")
        desk.begin()
        await hanging.began.wait()
        desk.kill()
        await desk.resume()
        return desk, await desk.only()

    return simulate(story)


def test_a_settled_effect_is_not_asked_again_after_a_crash() -> None:
    read, sent = tool("shelf.read", {"n": 1}), write("mail.send", {"id": "m-1"})

    async def agent(ctx: Any, given: dict[str, Any]) -> Any:
        found = await ctx.tool("shelf.read", {"id": "x"})
        mail = await ctx.tool("mail.send", {"n": found["n"]})
        await ctx.tool("wait.for")
        return {"mail": mail["id"]}

    _, run = killed_and_resumed(agent, read, sent)
    assert run.output == {"mail": "m-1"}
    assert (len(read.calls), len(sent.calls)) == (1, 1)


def test_an_error_of_the_outside_is_raised_again_as_it_was() -> None:
    absent = tool("shelf.read", DataMissing("no such shelf", needed="another number", evidence={"shelf": 7}))
    seen: list[DataMissing] = []

    async def agent(ctx: Any, given: dict[str, Any]) -> Any:
        try:
            await ctx.tool("shelf.read", {})
        except DataMissing as error:
            seen.append(error)
        await ctx.tool("wait.for")
        return {}

    killed_and_resumed(agent, absent)
    assert len(absent.calls) == 1
    first, again = seen
    assert (again.message, again.needed, again.evidence) == (first.message, first.needed, first.evidence)


def test_a_refusal_is_refused_again_and_never_reaches_the_tool() -> None:
    secret = tool("vault.open", {"gold": 1})
    seen: list[str] = []

    async def agent(ctx: Any, given: dict[str, Any]) -> Any:
        try:
            await ctx.tool("vault.open", {})
        except TightshipError as error:
            seen.append(error.code)
        await ctx.tool("wait.for")
        return {}

    killed_and_resumed(agent, secret, tools=["wait.for"])
    assert seen == ["NotDeclared", "NotDeclared"]
    assert secret.calls == []


def test_arguments_that_do_not_fit_are_refused_with_their_path_before_anything_is_sent() -> None:
    schema = {"type": "object", "properties": {"amount": {"type": "number"}}, "required": ["amount"]}
    paid = write("till.pay", input_schema=schema)

    async def agent(ctx: Any, given: dict[str, Any]) -> Any:
        await ctx.tool("till.pay", {"amount": "much"})

    async def story(sim: Simulation) -> Any:
        desk = Desk(sim, [paid])
        desk.agent("a", agent)
        desk.workflow("a")
        return await desk.run()

    run = simulate(story)
    assert (run.outcome, run.reason) == ("escalated", "InvalidArguments")
    assert "amount" in run.package["what_happened"] + str(run.package["evidence"])
    assert paid.calls == []


def test_time_and_chance_are_the_same_in_every_replay() -> None:
    seen: list[tuple[float, float]] = []

    async def agent(ctx: Any, given: dict[str, Any]) -> Any:
        seen.append((await ctx.now(), await ctx.random()))
        await asyncio.sleep(5)
        await ctx.tool("wait.for")
        return {}

    killed_and_resumed(agent)
    assert len(seen) == 2
    assert seen[0] == seen[1]


def test_an_agent_that_asks_for_something_else_than_before_is_stopped() -> None:
    asked = tool("shelf.read", {"n": 1})
    lives: list[int] = []

    async def agent(ctx: Any, given: dict[str, Any]) -> Any:
        lives.append(1)
        await ctx.tool("shelf.read", {"life": len(lives)})  # a global: not the same in the second life
        await ctx.tool("wait.for")
        return {}

    _, run = killed_and_resumed(agent, asked)
    assert (run.outcome, run.reason) == ("escalated", "NondeterminismError")
    assert len(asked.calls) == 1


@pytest.mark.parametrize("slow", [0, 1, 2])
def test_parallel_works_keep_their_own_keys_whichever_is_faster(slow: int) -> None:
    asked = tool("shelf.read", *({"n": n} for n in range(3)))
    lives: list[int] = []

    async def agent(ctx: Any, given: dict[str, Any]) -> Any:
        lives.append(1)

        def work(number: int) -> Any:
            async def branch(sub: Any) -> Any:
                await asyncio.sleep(1 if (number == slow) == (len(lives) == 1) else 0)
                return [number, await sub.tool("shelf.read", {"number": number})]

            return branch

        found = await ctx.parallel(*(work(number) for number in range(3)))
        await ctx.tool("wait.for")
        return {"found": found}

    desk, run = killed_and_resumed(agent, asked)
    assert len(asked.calls) == 3
    by_number = {call.args["number"]: n for n, call in enumerate(asked.calls)}
    assert run.output == {"found": [[number, {"n": by_number[number]}] for number in range(3)]}
    del desk


def test_a_finished_turn_is_not_taken_again() -> None:
    turns: list[str] = []

    async def first(ctx: Any, given: dict[str, Any]) -> Any:
        turns.append("first")
        return {"x": 1}

    async def second(ctx: Any, given: dict[str, Any]) -> Any:
        turns.append("second")
        await ctx.tool("wait.for")
        return {"y": 2}

    async def story(sim: Simulation) -> Any:
        hanging = Hanging(tool("wait.for"))
        desk = Desk(sim, [hanging])
        desk.agent("first", first)
        desk.agent("second", second)
        desk.workflow("first", "second")
        desk.begin()
        await hanging.began.wait()
        desk.kill()
        await desk.resume()
        return (await desk.only()).outcome, await desk.entries(kinds.TURN)

    outcome, recorded = simulate(story)
    assert outcome == "completed"
    assert turns == ["first", "second", "second"]
    assert len(recorded) == 2


def test_what_was_recorded_counts_once_against_the_limit_of_calls() -> None:
    asked = tool("shelf.read", {"n": 1})

    async def agent(ctx: Any, given: dict[str, Any]) -> Any:
        for number in range(3):
            await ctx.tool("shelf.read", {"number": number})
        await ctx.tool("wait.for")
        return {}

    async def story(sim: Simulation) -> Any:
        hanging = Hanging(tool("wait.for"))
        desk = Desk(sim, [asked, hanging])
        desk.agent("a", agent)
        desk.workflow("a", limits={"calls": 4})
        desk.begin()
        await hanging.began.wait()
        desk.kill()
        await desk.resume()
        return await desk.only()

    assert simulate(story).outcome == "completed"
