"""The messages of peers are bounded for the whole request, whatever restarts and whatever runs below declare."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from engine_desk import Desk, simulate
from peers_desk import BOARD, add, keys, run, step

from tightship.core import kinds
from tightship.patterns import WorkflowStep
from tightship.runtime.simulation import Simulation


def talkative(other: str, each: int, told: list[str]) -> Any:
    """A peer that does what there is, and tells the other of it so many times in a turn."""

    async def peer(ctx: Any, given: dict[str, Any]) -> Any:
        told.extend(ctx.feedback)
        await asyncio.sleep(1.0)
        messages = [{"to": other, "kind": "tell", "text": str(number)} for number in range(each)]
        results = [{"key": key, "value": 1} for key in keys(given["mine"])]
        return {"results": results, "claim": keys(given["open"])[:1], "messages": messages if given["open"] else []}

    return peer


def sent_in(entries: list[Any]) -> int:
    """How many messages went out, as the ledger says."""
    notes = [entry for entry in entries if entry.kind == kinds.NOTE and entry.body["type"] == "peers.turn"]
    return sum(entry.body["messages"] for entry in notes)


def test_messages_are_bounded_for_the_whole_request_whatever_a_run_below_declares() -> None:
    async def story(sim: Simulation) -> None:
        desk, told = Desk(sim), list[str]()
        add(desk, "a", talkative("b", 2, told))
        add(desk, "b", talkative("a", 2, told))
        desk.workflow(step("a", "b"), name="inner", limits={"messages": 900}, **BOARD)
        below = WorkflowStep("inner", with_={"items": "input.items"})
        desk.workflow(below, below, step("a", "b"), limits={"messages": 9}, **BOARD)
        found = await run(desk, "x", "y")
        assert found.outcome == "completed", found
        children = [entry.body for entry in found.entries if entry.kind == kinds.SIGNAL]
        assert [sum(body["messages"].values()) for body in children] == [8, 1]
        assert sent_in(await desk.entries()) == 9 and sent_in(found.entries) == 0
        assert found.entries[-1].body["messages"] == children[0]["messages"] | children[1]["messages"]
        assert sum("used up its messages" in one for one in told) >= 5

    simulate(story)


@pytest.mark.parametrize("killed_at", range(4, 40, 3))
def test_no_restart_gives_a_request_new_messages(killed_at: int) -> None:
    """The process dies at an append; above and below, what was sent before counts."""

    async def story(sim: Simulation) -> None:
        desk = Desk(sim)
        add(desk, "a", talkative("b", 2, []))
        add(desk, "b", talkative("a", 2, []))
        desk.workflow(step("a", "b"), name="inner", **BOARD)
        desk.workflow(
            WorkflowStep("inner", with_={"items": "input.items"}), step("a", "b"), limits={"messages": 5}, **BOARD
        )
        begun = desk.process.start(desk.ws.run("flow", {"items": ["x", "y"]}))
        for _ in range(200):
            if begun.done() or len(await desk.entries()) >= killed_at:
                break
            await asyncio.sleep(0.1)
        desk.kill()
        for _ in range(3):
            await desk.resume()
        found = await desk.only()
        assert found.outcome == "completed", found
        assert sent_in(await desk.entries()) == 5
        assert sum(found.entries[-1].body["messages"].values()) == 5

    simulate(story)
