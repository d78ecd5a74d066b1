"""Votes in the engine: people with one voice each, a time limit that holds over crashes, a replay that counts alike."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from engine_desk import Desk, simulate, tool

from tightship.core import kinds
from tightship.core.errors import BoundaryError, GuardRefused
from tightship.review.inbox import Decision
from tightship.runtime.simulation import Simulation
from tightship.workflow.build import Agent

ROLES = "roles: {operator: [ann], trader: [ann, Ben, cy]}\n"
VOICE = {"ok": "bool", "reason": "str"}


def desk_of(sim: Simulation, *voters: str, **vote: Any) -> Desk:
    """A desk whose workflow is one vote; `clerk` is a person, the others are functions that look something up."""
    desk = Desk(sim, [tool("book.look", {"ok": True})])
    (desk.folder / "tightship.yaml").write_text(f"name: desk\n{ROLES}")
    desk.open()
    clerk = Agent("clerk", owner="t", purpose="say whether it may be", human="trader", input={}, output=VOICE)
    desk._specs.append(clerk)
    desk.ws.add(clerk)

    async def looks(ctx: Any, given: dict[str, Any]) -> Any:
        return {"ok": (await ctx.tool("book.look", {}))["ok"], "reason": "as the book says"}

    async def never(ctx: Any, given: dict[str, Any]) -> Any:
        await asyncio.Event().wait()

    desk.agent("looks", looks, output=VOICE)
    desk.agent("never", never, output=VOICE, within="2h")
    vote = {"voters": list(voters), "compare": "answer.ok", "name": "found", **vote}
    name = vote.pop("name")
    desk.workflow({"vote": vote, "name": name}, output={"found": "found"})
    return desk


async def open_items(desk: Desk) -> list[str]:
    items = await (await desk.operator()).items()
    return [one.item for one in items if one.type == "question"]


async def says(desk: Desk, item: str, by: str, ok: bool) -> None:
    await (await desk.operator()).decide(item, Decision("answer", by, {"ok": ok, "reason": f"{by} thinks so"}))


def test_each_of_several_people_has_one_voice() -> None:
    async def story(sim: Simulation) -> None:
        desk = desk_of(sim, "clerk", "clerk", "clerk", within="4h", settle={"rule": "quorum", "quorum": 2})
        assert (await desk.run()).state == "parked"
        first, second, third = await open_items(desk)
        await says(desk, first, "ann", True)
        with pytest.raises(BoundaryError, match="one person has one voice"):
            await says(desk, second, " ANN", True)
        await desk.resume()
        with pytest.raises(BoundaryError, match="one person has one voice"):
            await says(desk, third, "ann", True)
        await says(desk, second, "Ben", False)
        await says(desk, third, "cy", True)
        await desk.resume()
        run = await desk.only()
        assert run.outcome == "completed"
        found = run.output["found"]
        assert found["value"] is True and len(found["for"]) == 2
        assert found["reasons"][found["against"][0]] == "Ben thinks so"

    simulate(story)


def test_two_answers_of_one_person_that_came_at_once_count_as_one() -> None:
    async def story(sim: Simulation) -> None:
        desk = desk_of(sim, "clerk", "clerk", within="4h", settle="unanimity")
        await desk.run()
        one, other = await open_items(desk)
        await asyncio.gather(says(desk, one, "ann", True), says(desk, other, "ann", True), return_exceptions=True)
        await desk.resume()
        run = await desk.only()
        if run.state == "parked":  # the second one was refused
            assert len(await open_items(desk)) == 1
        else:
            assert run.outcome == "escalated"

    simulate(story)


def test_who_has_not_answered_in_time_is_absent_and_is_asked_no_more() -> None:
    async def story(sim: Simulation) -> None:
        desk = desk_of(sim, "clerk", "looks", "never", within="2m", settle={"rule": "quorum", "quorum": 1})
        begun = desk.begin()
        await asyncio.sleep(10)
        [item] = await open_items(desk)
        desk.kill()  # the limit counts from when the voters were asked first
        begun.cancel()
        await asyncio.sleep(60)
        task = desk.process.start(desk.ws.resume())
        await asyncio.sleep(45)
        assert (await desk.only()).outcome == ""
        await asyncio.sleep(20)
        await task
        run = await desk.only()
        assert run.outcome == "completed"
        found = run.output["found"]
        assert found["for"] == ["looks"] and set(found["absent"]) == {"clerk", "never"}
        with pytest.raises(GuardRefused, match="expired"):
            await says(desk, item, "ann", True)
        late = [
            one.key for one in await desk.entries(kinds.DECIDED) if one.key.endswith("/within") and one.body["value"]
        ]
        assert set(late) == {"found/1/within", "found/3/within"}

    simulate(story)


def test_a_replay_after_any_append_comes_to_the_same_vote() -> None:
    async def undisturbed(sim: Simulation) -> Any:
        desk = desk_of(sim, "looks", "looks", "looks", within="1m", settle="unanimity")
        run = await desk.run()
        return run.output, len(await desk.entries())

    output, count = simulate(undisturbed)
    assert output["found"]["decided"]

    def killed_after(point: int) -> Any:
        async def story(sim: Simulation) -> Any:
            desk = desk_of(sim, "looks", "looks", "looks", within="1m", settle="unanimity")
            task = desk.begin()
            while len(await desk.entries()) < point and not task.done():  # noqa: ASYNC110 - it looks into the store
                await asyncio.sleep(0)
            desk.kill()
            task.cancel()
            await desk.resume()
            run = await desk.only() if await desk.entries() else await desk.run()
            return run.output

        return simulate(story)

    assert all(killed_after(point) == output for point in range(1, count + 1))
