"""What counts for a request counts exactly, whichever processes drive its runs."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import pytest
from engine_desk import Desk, simulate
from family_desk import ASKS, Beside, Family, Line, until

from tightship.core import kinds
from tightship.patterns import Concurrent, Peers, WorkflowStep, load_all
from tightship.runtime.simulation import Simulation
from tightship.workflow.tree import patterns

load_all()
Handoff = patterns.get("handoff")


def chain(desk: Desk, name: str, line: Line, each: int) -> Any:
    """Agents that pass the work on so many times once the line is open."""
    names = [f"{name}{number}" for number in range(each + 1)]

    def player(at: int) -> Any:
        async def agent(ctx: Any, given: Mapping[str, Any]) -> Any:
            if at == 0:
                await line.wait()
            if at == each:
                return {"answer": name}
            return {"handoff": {"to": names[at + 1], "brief": {"problem": "none"}}}

        return agent

    for at, one in enumerate(names):
        desk.agent(one, player(at), tools=[])
    peers = {one: names[at + 1 : at + 2] for at, one in enumerate(names)}
    return Handoff(first=names[0], peers=peers, brief={"problem": "str"}, max=each + 1)


def passing(sim: Simulation, parent: int, child: int, most: int) -> Family:
    """Parent and child pass control so often, at the same time; the request may do so `most` times."""
    desk, line = Desk(sim), Line()
    desk.workflow(ASKS, chain(desk, "below", line, child), name="inner", limits={"handoffs": 90})
    above = chain(desk, "above", line, parent)
    desk.workflow(Concurrent(above, WorkflowStep("inner", with_={})), limits={"handoffs": most})
    return Family(desk, line)


async def notes(desk: Desk, type: str) -> list[Mapping[str, Any]]:
    return [entry.body for entry in await desk.entries(kinds.NOTE) if entry.body["type"] == type]


@pytest.mark.parametrize(("parent", "child", "most"), [(2, 2, 3), (1, 3, 2), (3, 1, 1), (2, 2, 4)])
def test_handoffs_of_a_parent_and_of_a_child_elsewhere_are_those_of_one_request(
    parent: int, child: int, most: int
) -> None:
    async def story(sim: Simulation) -> None:
        family = passing(sim, parent, child, most)
        await family.part()
        run = await family.end()
        assert len(await notes(family.desk, "handoff")) == min(most, parent + child)
        assert (run.outcome == "completed") == (parent + child <= most), run

    simulate(story)


def test_a_process_that_dies_leaves_the_count_to_whoever_takes_its_run() -> None:
    async def story(sim: Simulation) -> None:
        family = passing(sim, 2, 2, 3)
        await family.part()
        family.beside.process.kill()
        third = Beside(family.desk)
        family.driven = third.resume(family.child)
        await family.wait(3)
        parent = await family.desk.only()
        family.desk.kill()
        family.begun = family.desk.process.start(family.desk.ws.resume([parent.id]))
        await family.wait(4)
        await family.end()
        assert len(await notes(family.desk, "handoff")) == 3

    simulate(story)


@pytest.mark.parametrize("killed_at", range(1, 8))
def test_a_count_that_was_refused_is_refused_again_after_a_crash(killed_at: int) -> None:
    """The parent's process dies at each entry from when both go on; what then stands is never counted twice."""

    async def story(sim: Simulation) -> None:
        family = passing(sim, 2, 2, 3)
        await family.part()
        desk = family.desk
        parent, before = await desk.only(), len(await desk.entries())
        family.line.open.set()

        async def written() -> bool:
            return len(await desk.entries()) >= before + killed_at

        await until(written)
        desk.kill()
        family.begun = desk.process.start(desk.ws.resume([parent.id]))
        run = await family.end()
        assert len(await notes(desk, "handoff")) == 3
        assert run.outcome == "escalated"

    simulate(story)


def talkative(other: str, each: int, line: Line | None) -> Any:
    """A peer that does what there is, and tells the other of it so many times in a turn."""

    async def peer(ctx: Any, given: dict[str, Any]) -> Any:
        if line is not None:
            await line.wait()
        await asyncio.sleep(1.0)
        messages = [{"to": other, "kind": "tell", "text": str(number)} for number in range(each)]
        return {
            "results": [{"key": one["key"], "value": 1} for one in given["mine"]],
            "claim": [one["key"] for one in given["open"]][:1],
            "messages": messages if given["open"] else [],
        }

    return peer


@pytest.mark.parametrize("most", [5, 7, 900])
def test_messages_of_a_parent_and_of_a_child_elsewhere_are_those_of_one_request(most: int) -> None:
    async def story(sim: Simulation) -> None:
        desk, line = Desk(sim), Line()
        given = {"open": "list", "mine": "list", "inbox": "list", "done": "list", "peers": "list"}
        for name, other in (("a", "b"), ("b", "a")):
            desk.agent(name, talkative(other, 3, line), tools=[], input=given)
        board: dict[str, Any] = {"input": {"items": "list"}}
        peers = {"agents": ["a", "b"], "board": "input.items", "messages": 50}
        desk.workflow(ASKS, Peers(**peers, name="below"), name="inner", **board)
        below = WorkflowStep("inner", with_={"items": "input.items"})
        desk.workflow(Concurrent(Peers(**peers, name="above"), below), limits={"messages": most}, **board)
        family = Family(desk, line, agents=4)
        await family.part({"items": ["x", "y", "z"]})
        run = await family.end()
        assert run.outcome == "completed", run
        turns = await notes(desk, "peers.turn")
        sent = sum(turn["messages"] for turn in turns)
        assert sent == most if most < 900 else sent > 7
        assert sum(run.entries[-1].body["messages"].values()) == sent
        [row] = await desk.ledger.select("counters", [("run", "=", run.id)])
        assert row["messages"] == sent

    simulate(story)


def test_a_run_on_its_own_asks_the_store_for_nothing() -> None:
    async def story(sim: Simulation) -> None:
        desk, line = Desk(sim), Line()
        line.open.set()
        desk.workflow(chain(desk, "alone", line, 3))
        asked: list[Any] = []
        append = desk.ledger.append

        def watched(*drafts: Any, **more: Any) -> Any:
            asked.extend(more["guards"].counts if more.get("guards") else ())
            return append(*drafts, **more)

        desk.ledger.append = watched  # type: ignore[method-assign]
        run = await desk.run()
        assert run.outcome == "completed" and len(await notes(desk, "handoff")) == 3
        assert asked == []

    simulate(story)
