"""Limits hold at run time, whatever nobody checked before; an agent's budget ends as the agent says."""

from __future__ import annotations

from typing import Any

import pytest
from engine_desk import Desk, simulate, tool

from tightship.core import kinds
from tightship.runtime.simulation import Simulation


async def looker(ctx: Any, given: dict[str, Any]) -> Any:
    """Looks twice."""
    return [await ctx.tool("shop.look", {"n": number}) for number in range(2)]


def test_more_branches_than_the_limit_are_not_begun() -> None:
    async def story(sim: Simulation) -> Any:
        look = tool("shop.look", "seen")
        desk = Desk(sim, [look])
        for name in ("a", "b", "c"):
            desk.agent(name, looker)
        desk.workflow({"concurrent": ["a", "b", "c"]}, limits={"branches": 2})
        return await desk.run(), look, await desk.entries(kinds.NOTE)

    run, look, notes = simulate(story)
    assert (run.outcome, run.reason) == ("escalated", "LimitReached")
    assert look.calls == []
    assert [note.body["type"] for note in notes] == ["limit"]


@pytest.mark.parametrize(
    ("own", "workflow", "state", "outcome"),
    [
        ("fail", "ask", "ended", "failed"),
        ("escalate", "ask", "ended", "escalated"),
        ("ask", "fail", "parked", ""),
        (None, "fail", "ended", "failed"),
        (None, None, "parked", ""),
    ],
)
def test_an_agent_s_budget_ends_as_it_says_itself(
    own: str | None, workflow: str | None, state: str, outcome: str
) -> None:
    async def story(sim: Simulation) -> Any:
        desk = Desk(sim, [tool("shop.look", "seen")])
        desk.agent("a", looker, budget={"calls": 1, **({"then": own} if own else {})})
        desk.workflow("a", budget={"usd": 1.0, **({"then": workflow} if workflow else {})})
        return await desk.run()

    run = simulate(story)
    assert (run.state, run.outcome) == (state, outcome)


def test_which_turn_was_one_too_many_is_recorded() -> None:
    async def story(sim: Simulation) -> Any:
        desk = Desk(sim, [tool("shop.look", "seen")])
        for name in ("a", "b", "c"):
            desk.agent(name, looker)
        desk.workflow({"concurrent": {"branches": ["a", "b", "c"], "on_failure": "keep"}}, limits={"turns": 2})
        return await desk.run(), await desk.entries(kinds.TURN)

    run, turns = simulate(story)
    assert run.outcome == "completed"
    assert [turn.body["agent"] for turn in turns if turn.body.get("denied")] == ["c"]
