"""A saga: what was done in it stands or falls together, whatever else of the run stands, and whenever the process dies."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from engine_desk import Desk, Served, simulate, tool, write

from tightship.core import kinds
from tightship.core.errors import OutcomeUnknown, Unavailable, WriteFailed
from tightship.core.ports import Reply, Request, ToolSpec
from tightship.patterns import Concurrent, Saga, WorkflowStep, load_all
from tightship.runtime.simulation import Simulation

load_all()


class Shop:
    """A shop that keeps what was done; each of its tools adds to, or takes from, what stands."""

    def __init__(self, broken: tuple[str, ...] = (), deaf: int = 0) -> None:
        self.stands: list[str] = []
        self.calls: list[str] = []
        self.broken, self.deaf = broken, deaf

    def tools(self) -> list[Any]:
        names = ["book", "charge", "ship"]
        return [write(f"shop.{name}", *[self.does(name)] * 50, idempotency="key") for name in names] + [
            write(f"shop.un{name}", *[self.undoes(name)] * 50, idempotency="key") for name in names
        ]

    def does(self, name: str) -> Any:
        def answer(request: Request) -> Any:
            self.calls.append(name)
            if name in self.broken:
                return WriteFailed(f"{name} is refused")
            if name not in self.stands:
                self.stands.append(name)
            return Reply({"done": name})

        return answer

    def undoes(self, name: str) -> Any:
        def answer(request: Request) -> Any:
            self.calls.append(f"un{name}")
            if f"un{name}" in self.broken:
                return WriteFailed("it cannot be taken back any more")
            if self.deaf:
                self.deaf -= 1
                return Unavailable("the shop is closed")
            if name in self.stands:
                self.stands.remove(name)
            return Reply({})

        return answer


def action(name: str) -> dict[str, Any]:
    return {"action": f"shop.{name}", "with": {"n": "1"}, "undo": f"shop.un{name}"}


def notes(run: Any, type: str) -> list[Any]:
    return [entry for entry in run.entries if entry.kind == kinds.NOTE and entry.body["type"] == type]


def test_a_failed_saga_is_undone_in_reverse_and_the_run_goes_on_with_what_stands_around_it() -> None:
    async def story(sim: Simulation) -> None:
        shop = Shop(broken=("ship",))
        desk = Desk(sim, shop.tools())
        desk.workflow(
            action("book"), Saga(action("charge"), action("ship"), then="continue", give={"sent": False}, name="sent")
        )
        run = await desk.run()
        assert (run.outcome, run.output) == ("completed", {"sent": False})
        assert shop.stands == ["book"]
        assert shop.calls == ["book", "charge", "ship", "uncharge"]
        assert len(notes(run, "saga.undone")) == 1

    simulate(story)


def test_a_failed_inner_saga_goes_on_to_the_outer_one_which_undoes_the_rest() -> None:
    async def story(sim: Simulation) -> None:
        shop = Shop(broken=("ship",))
        desk = Desk(sim, shop.tools())
        desk.workflow(
            Saga(action("book"), Saga(action("charge"), action("ship")), then="continue", give={"done": False})
        )
        run = await desk.run()
        assert run.output == {"done": False} and shop.stands == []
        assert shop.calls[-2:] == ["uncharge", "unbook"]

    simulate(story)


def test_what_a_behaviour_makes_good_undoes_nothing() -> None:
    async def story(sim: Simulation) -> None:
        shop, looks = Shop(), [0]

        async def shaky(ctx: Any, given: dict[str, Any]) -> Any:
            looks[0] += 1
            if looks[0] < 3:
                raise Unavailable("not yet")
            return {"ok": True}

        desk = Desk(sim, shop.tools())
        desk.agent("shaky", shaky, tools=[], on={"unavailable": {"retry": 2}})
        desk.workflow(Saga(action("book"), "shaky", action("ship")))
        run = await desk.run()
        assert run.outcome == "completed" and shop.stands == ["book", "ship"]

    simulate(story)


def test_a_saga_is_tried_again_as_a_whole() -> None:
    async def story(sim: Simulation) -> None:
        shop, turns = Shop(), [0]

        async def once(ctx: Any, given: dict[str, Any]) -> Any:
            turns[0] += 1
            if turns[0] == 1:
                raise Unavailable("not yet")
            return {"ok": True}

        desk = Desk(sim, shop.tools())
        desk.agent("once", once, tools=[])
        desk.workflow(Saga(action("book"), "once", on={"unavailable": {"retry": 1}}))
        run = await desk.run()
        assert run.outcome == "completed" and shop.stands == ["book"]
        assert shop.calls == ["book", "unbook", "book"]

    simulate(story)


def test_a_child_workflow_in_a_saga_is_undone_with_it_and_one_outside_is_not() -> None:
    async def story(sim: Simulation) -> None:
        shop = Shop(broken=("ship",))
        desk = Desk(sim, shop.tools())
        desk.workflow(action("book"), name="booking")
        desk.workflow(action("charge"), name="charging")
        desk.workflow(
            WorkflowStep("booking", with_={}),
            Saga(WorkflowStep("charging", with_={}), action("ship"), then="continue", give={"sent": False}),
            name="outer",
        )
        run = await desk.run("outer")
        assert run.outcome == "completed" and shop.stands == ["book"]

    simulate(story)


@pytest.mark.parametrize(("deaf", "stands"), [(2, []), (3, ["charge"])])
def test_an_undo_that_is_not_answered_is_tried_again_so_often_and_then_reported(deaf: int, stands: list[str]) -> None:
    async def story(sim: Simulation) -> None:
        shop = Shop(broken=("ship",), deaf=deaf * 3)  # the door itself tries three times
        desk = Desk(sim, shop.tools())
        desk.workflow(Saga(action("charge"), action("ship"), then="continue", give={}, undo_retry={"after": 60}))
        began = sim.world().clock.now()
        run = await desk.run()
        assert run.outcome == "completed" and shop.stands == stands
        assert sim.world().clock.now() - began >= 180
        items = await (await desk.operator()).items()
        assert [item.type for item in items] == ["residual"] * len(stands)

    simulate(story)


def test_what_cannot_be_undone_is_in_the_inbox_while_the_run_goes_on() -> None:
    async def story(sim: Simulation) -> None:
        shop = Shop(broken=("ship", "uncharge"))
        desk = Desk(sim, shop.tools())
        desk.workflow(Saga(action("charge"), action("ship"), then="continue", give={}), action("book"))
        run = await desk.run()
        assert run.outcome == "completed" and shop.stands == ["charge", "book"]
        (item,) = await (await desk.operator()).items()
        assert item.type == "residual" and item.role == "operator"

    simulate(story)


@pytest.mark.parametrize("killed", [False, True])
def test_a_saga_whose_time_is_over_is_undone_like_one_that_failed(killed: bool) -> None:
    async def story(sim: Simulation) -> None:
        shop = Shop()
        desk = Desk(sim, shop.tools())

        async def slow(ctx: Any, given: dict[str, Any]) -> Any:
            await asyncio.sleep(100)
            return {"ok": True}

        desk.agent("slow", slow, tools=[])
        late = {"unavailable": {"then": "continue", "give": {"late": True}}}
        desk.workflow(Saga(action("charge"), "slow", then="escalate", within="10s", on=late))
        desk.begin()
        while killed and not await desk.entries(kinds.DECIDED, "saga/within"):
            await sim.world().clock.sleep(0.01)
        if killed:
            desk.kill()
            await desk.resume()
        await asyncio.sleep(60)
        run = await desk.only()
        assert (run.outcome, run.output) == ("completed", {"late": True})
        assert shop.stands == [] and shop.calls.count("uncharge") == 1

    simulate(story)


def test_a_saga_that_is_stopped_at_its_bounds_is_undone_in_a_branch_that_others_outlive() -> None:
    async def story(sim: Simulation) -> None:
        shop = Shop()
        desk = Desk(sim, shop.tools())

        async def strays(ctx: Any, given: dict[str, Any]) -> Any:
            await ctx.tool("not.declared", {})

        async def other(ctx: Any, given: dict[str, Any]) -> Any:
            return {"ok": True}

        desk.agent("strays", strays, tools=[])
        desk.agent("other", other, tools=[])
        saga = Saga(action("charge"), "strays", then="continue", give={"sent": True}, name="sent")
        desk.workflow(Concurrent(branches=[saga, "other"], on_failure="keep"))
        run = await desk.run()
        assert (run.outcome, run.output) == ("completed", {"other": {"ok": True}})
        assert shop.stands == []

    simulate(story)


def test_a_cancel_undoes_the_whole_run_and_nothing_twice() -> None:
    async def story(sim: Simulation) -> None:
        shop = Shop(broken=("ship",))
        desk = Desk(sim, shop.tools())
        desk.workflow(
            action("book"),
            Saga(action("charge"), action("ship"), then="continue", give={}),
            {"review": {"by": "operator", "within": "1h", "otherwise": "escalate", "of": "x"}},
        )
        run = await desk.run()
        assert run.state == "parked"
        await (await desk.operator()).cancel(run.id, by="ann")
        await desk.resume()
        run = await desk.only()
        assert run.outcome == "cancelled" and shop.stands == []
        assert shop.calls.count("uncharge") == 1 and shop.calls.count("unbook") == 1

    simulate(story)


def test_a_process_that_dies_at_any_append_leaves_the_same_behind_and_does_nothing_twice() -> None:
    """Every entry of the undisturbed run is a point to die at, before it is written and after."""

    def play(at: int) -> tuple[Any, list[str], list[str], int]:
        async def story(sim: Simulation) -> tuple[Any, list[str], list[str], int]:
            shop = Shop(broken=("ship",))
            desk = Desk(sim, shop.tools())
            desk.workflow(
                action("book"),
                Saga(action("charge"), Saga(action("ship")), then="continue", give={"sent": False}),
            )
            if at:
                task = desk.begin()
                while await desk.ledger.head() < at and not task.done():
                    await sim.world().clock.sleep(0.0005)
                desk.kill()
                await desk.resume()
            else:
                await desk.run()
            run = await desk.only()
            return (run.outcome, run.output), shop.stands, shop.calls, len(run.entries)

        return simulate(story)

    told, stands, _, entries = play(0)
    assert told == ("completed", {"sent": False}) and stands == ["book"]
    for at in range(2, entries):
        again = play(at)
        assert (again[0], again[1]) == (told, stands), at
        assert again[2].count("uncharge") <= 2 and again[2].count("book") <= 2  # the sink knows the key of a repeat


def test_a_lost_answer_is_found_out_before_anything_is_undone() -> None:
    async def story(sim: Simulation) -> None:
        shop = Shop()

        def lost(request: Request) -> Any:
            shop.stands.append("ship")
            return OutcomeUnknown("the answer was lost")

        tools = [one for one in shop.tools() if one.spec.name != "shop.ship"]
        desk = Desk(sim, [*tools, write("shop.ship", lost, can_lookup=False), tool("shop.look", {"n": 1})])
        desk.workflow(Saga(action("charge"), action("ship"), then="continue", give={"sent": False}))
        run = await desk.run()
        assert run.outcome == "completed"
        (item,) = await (await desk.operator()).items()
        assert item.type == "residual"
        assert shop.stands == ["ship"], "what is unknown is reported, what is known was undone"

    simulate(story)


def test_a_write_that_was_cut_off_and_is_on_its_way_to_the_disk_is_undone_and_settled_once() -> None:
    async def story(sim: Simulation) -> None:
        asked = list[str]()

        async def slow(request: Request) -> Any:
            asked.append("charge")
            await asyncio.sleep(1)
            return {"done": "charge"}

        async def undo(request: Request) -> Any:
            asked.append("uncharge")
            return {}

        specs = [ToolSpec(f"shop.{name}", effect="write", timeout=5.0) for name in ("charge", "uncharge")]
        desk = Desk(sim, [Served(spec, does) for spec, does in zip(specs, (slow, undo), strict=True)])
        desk.workflow(Saga({**action("charge"), "within": 0.2}, then="continue", give={"ok": 0}))
        late = desk.ledger.append

        def append(*drafts: Any, **named: Any) -> Any:
            """Settles come to the disk, and their news a little later."""
            told = late(*drafts, **named)
            if drafts[0].kind != kinds.SETTLED:
                return told
            heard = asyncio.get_running_loop().create_future()
            told.add_done_callback(lambda done: sim.loop.call_later(0.05, heard.set_result, done.result()))
            return heard

        desk.ledger.append = append  # type: ignore[method-assign]
        run = await desk.run()
        assert run.outcome == "completed" and asked == ["charge", "uncharge"]
        settles = [entry.key for entry in run.entries if entry.kind == kinds.SETTLED]
        assert len(settles) == len(set(settles)) == 2

    simulate(story)
