"""A crash in the middle of undoing changes nothing about what a person is told."""

from __future__ import annotations

from typing import Any

import pytest
from engine_desk import Desk, Hanging, simulate, tool, write

from tightship.connectors.python import tool as declare
from tightship.core.errors import Unavailable
from tightship.runtime.simulation import Simulation

UNDO = {"action": "mail.send", "with": {"to": "'x'"}, "undo": "mail.retract"}


async def package(sim: Simulation, crash: bool, then: str) -> dict[str, Any]:
    """What the package says of a run that failed after a write; with or without a crash while that is taken back."""
    retract = Hanging(write("mail.retract", {}, idempotency="key"), times=int(crash))

    async def finder(ctx: Any, given: dict[str, Any]) -> Any:
        return {"found": 7}

    async def failing(ctx: Any, given: dict[str, Any]) -> Any:
        if then == "budget":
            return await ctx.tool("shop.look", {"n": 1})
        raise Unavailable("nobody is there")

    desk = Desk(sim, [write("mail.send", {"id": 1}), retract, tool("shop.look", "seen")])
    desk.agent("finder", finder, output={"found": "int"})
    desk.agent("failing", failing, on={"unavailable": {"retry": 1}})
    budget = {"calls": 1, "then": "escalate"} if then == "budget" else {"then": "escalate"}
    desk.workflow("finder", UNDO, "failing", budget=budget)
    if crash:
        desk.begin()
        await retract.began.wait()
        desk.kill()
        await desk.resume()
    else:
        await desk.run()
    found = dict((await desk.only()).package or {})
    found.pop("run")
    return found


@pytest.mark.parametrize("then", ["error", "budget"])
def test_the_package_is_the_same_with_and_without_a_crash(then: str) -> None:
    told = [simulate(lambda sim, crash=crash: package(sim, crash, then)) for crash in (False, True)]
    assert told[0] == told[1]
    assert told[0]["partial"]["finder"] == {"found": 7}
    assert bool(told[0]["tried"]) == (then == "error")


def test_an_undo_that_is_only_named_gets_its_arguments_from_the_outcome_and_the_call() -> None:
    taken: list[tuple[str, str]] = []

    @declare(effect="write", name="shelf.put", idempotency="key", undo="shelf.take")
    async def put(name: str, text: str) -> dict[str, str]:
        return {"name": f"{name}-1", "other": text}

    @declare(effect="write", name="shelf.take", idempotency="key")
    async def take(name: str, text: str) -> None:
        taken.append((name, text))

    async def agent(ctx: Any, given: dict[str, Any]) -> Any:
        await ctx.tool("shelf.put", {"name": "a", "text": "b"})
        raise Unavailable("nobody is there")

    async def scenario(sim: Simulation) -> None:
        desk = Desk(sim, [put, take])
        desk.agent("a", agent, tools=["shelf.put"])
        desk.workflow("a")
        run = await desk.run()
        assert (run.outcome, run.package and run.package["evidence"].get("effects that remain")) == ("escalated", None)

    simulate(scenario)
    assert taken == [("a-1", "b")]
