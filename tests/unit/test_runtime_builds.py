"""Other code resumes a run only when somebody accepts it, for its children too; what is refused stays as it was."""

from __future__ import annotations

from typing import Any

import pytest
from engine_desk import PERSON, Desk, Hanging, simulate, tool, write

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

        async def nobody(row: Any) -> bool:
            return False

        with monkeypatch.context() as patch:
            patch.setattr(engine, "_may_take", nobody)
            parent = await desk.only()
            (ended,) = await desk.process.start(desk.ws.resume([parent.id], accept_code=True))
        left = await desk.only()
        await desk.process.start(desk.ws.resume(accept_code=True))
        return ended, left, await desk.only()

    ended, left, run = simulate(story)
    assert isinstance(ended.error, BuildMismatch)
    assert left.state == "running"
    assert run.outcome == "completed"


@pytest.mark.parametrize("everything", [True, False])
def test_a_cancelled_run_ends_under_other_code_since_none_of_it_has_to_run(everything: bool) -> None:
    called: list[str] = []
    take_back = write("shop.unput", {}, idempotency="key")
    hanging = Hanging(tool("shop.look", "seen"))

    async def agent(ctx: Any, given: dict[str, Any]) -> Any:
        called.append(ctx.key)
        return await ctx.tool("shop.look", {"n": 1})

    async def story(sim: Simulation) -> Any:
        desk = Desk(sim, [write("shop.put", {"id": 1}), take_back, hanging])
        desk.agent("a", agent)
        desk.workflow({"action": "shop.put", "with": {"n": "1"}, "undo": "shop.unput"}, "a", name="low")
        desk.workflow({"workflow": "low"})
        desk.begin()
        await hanging.began.wait()
        await changed(desk)
        run = await desk.only()
        await (await desk.operator()).cancel(run.id, PERSON, "the customer has called")
        ended = await desk.process.start(desk.ws.resume([] if everything else [run.id]))
        return [one.error for one in ended if one.run == run.id], await desk.only()

    errors, run = simulate(story)
    assert (errors, run.outcome) == ([None], "cancelled")
    assert len(take_back.calls) == 1
    assert len(called) == 1, "the agent was not asked again"
