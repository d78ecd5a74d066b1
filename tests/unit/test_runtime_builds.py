"""Other code resumes a run only when somebody accepts it, for its children too; what is refused stays as it was."""

from __future__ import annotations

from typing import Any

import pytest
from engine_desk import Desk, Hanging, simulate, tool

from tightship.core.errors import BuildMismatch
from tightship.runtime.simulation import Simulation


async def killed(sim: Simulation) -> Desk:
    """A parent and its child, left in the middle by a process that was killed; the next one has other code."""
    hanging = Hanging(tool("shop.look", "seen"))

    async def agent(ctx: Any, given: dict[str, Any]) -> Any:
        return await ctx.tool("shop.look", {"n": 1})

    desk = Desk(sim, [hanging])
    desk.agent("a", agent)
    desk.workflow("a", name="low")
    desk.workflow({"workflow": "low"}, name="middle")
    desk.workflow({"workflow": "middle"})
    desk.begin()
    await hanging.began.wait()
    await changed(desk)
    return desk


async def changed(desk: Desk) -> None:
    """A new process with other code."""
    desk.kill()
    (await desk.process.start(desk.ws.engine())).build = "other"


def test_code_that_is_accepted_for_a_run_is_accepted_for_its_children() -> None:
    async def story(sim: Simulation) -> Any:
        desk = await killed(sim)
        parent = await desk.only()
        ended = await desk.process.start(desk.ws.resume([parent.id], accept_code=True))
        return ended, await desk.only(), await desk.ledger.select("runs")

    ended, run, rows = simulate(story)
    assert [one.error for one in ended] == [None]
    assert run.outcome == "completed"
    assert {row["build"] for row in rows} == {"other"}


def test_code_that_nobody_accepted_leaves_parent_and_child_as_they_were() -> None:
    async def story(sim: Simulation) -> Any:
        desk = await killed(sim)
        before = await desk.entries()
        with pytest.raises(BuildMismatch):
            await desk.resume()
        return before, await desk.entries()

    before, after = simulate(story)
    assert before == after


def test_a_run_whose_child_refuses_the_code_stays_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    async def story(sim: Simulation) -> Any:
        desk = await killed(sim)
        engine = await desk.ws.engine()

        async def nobody(parent: str) -> bool:
            return False

        with monkeypatch.context() as patch:
            patch.setattr(engine, "_accepted", nobody)
            parent = await desk.only()
            (ended,) = await desk.process.start(desk.ws.resume([parent.id], accept_code=True))
        left = await desk.only()
        await desk.process.start(desk.ws.resume(accept_code=True))
        return ended, left, await desk.only()

    ended, left, run = simulate(story)
    assert isinstance(ended.error, BuildMismatch)
    assert left.state == "running"
    assert run.outcome == "completed"
