"""Time runs out for all that is below at once: turns, calls, models, child runs; and a read that is late is asked twice."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from engine_desk import Desk, Served, simulate, tool, write

from tightship.core import kinds
from tightship.core.errors import Unavailable
from tightship.core.ports import Reply, Request, ToolSpec, Usage
from tightship.patterns import Concurrent, WorkflowStep, load_all
from tightship.runtime.simulation import Simulation

load_all()


class Slow:
    """A tool that takes so many seconds, and remembers how long it was left alone with each call."""

    def __init__(self, sim: Simulation, seconds: list[float], name: str = "shop.look", **fields: Any) -> None:
        self.clock = sim.clock
        self.seconds = seconds
        self.left: list[float] = []
        self.ended: list[float] = []
        self.spec = ToolSpec(name, timeout=30.0, **fields)

    async def perform(self, request: Request) -> Reply:
        """Answer after its time."""
        self.left.append(round(request.not_after - self.clock.now(), 3))
        number = len(self.left)
        try:
            await asyncio.sleep(self.seconds[min(number, len(self.seconds)) - 1])
        finally:
            self.ended.append(self.clock.now())
        return Reply({"answer": number}, self.spec.price)

    async def lookup(self, request: Request) -> Reply | None:
        """It can say nothing."""
        return None


async def looks(ctx: Any, given: dict[str, Any]) -> Any:
    return await ctx.tool("shop.look", {})


def test_what_is_left_of_a_step_bounds_the_calls_of_agents_below_it_and_shrinks() -> None:
    async def story(sim: Simulation) -> None:
        slow = Slow(sim, [3.0, 3.0, 60.0])
        desk = Desk(sim, [slow])

        async def three(ctx: Any, given: dict[str, Any]) -> Any:
            return [await ctx.tool("shop.look", {"n": n}) for n in range(3)]

        desk.agent("three", three, within=100)
        desk.workflow({"sequence": ["three"], "within": "10s"})
        began = sim.clock.now()
        run = await desk.run()
        assert (run.outcome, run.reason) == ("escalated", "unavailable")
        assert slow.left == [10.0, 7.0, 4.0]
        assert max(slow.ended) - began <= 10.001 and sim.clock.now() - began < 11.5

    simulate(story)


def test_a_child_run_ends_with_the_step_that_waits_for_it() -> None:
    async def story(sim: Simulation) -> None:
        slow = Slow(sim, [2.0, 500.0])
        desk = Desk(sim, [slow])
        desk.agent("looks", looks, within=100)
        desk.workflow("looks", "looks", name="below")
        desk.workflow(WorkflowStep("below", with_={}, within="20s", on={"unavailable": "escalate"}), name="above")
        began = sim.clock.now()
        run = await desk.run("above")
        assert run.outcome == "escalated"
        assert slow.left == [20.0, 18.0]
        await asyncio.sleep(600)
        rows = await desk.ledger.select("runs")
        assert {row["state"] for row in rows} == {"ended"}
        assert max(slow.ended) - began <= 20.001, "nothing below outlives it"
        ends = [entry.at for entry in await desk.entries(kinds.ENDED)]
        assert max(ends) - began < 25

    simulate(story)


def test_a_child_run_that_waits_for_a_person_ends_in_its_parents_time_as_well() -> None:
    async def story(sim: Simulation) -> None:
        desk = Desk(sim, [])
        desk.workflow({"review": {"by": "operator", "within": "9h", "otherwise": "escalate", "of": "x"}}, name="asks")
        desk.workflow(WorkflowStep("asks", with_={}, within="2m"), name="above")
        run = await desk.run("above")
        assert run.state == "parked"
        await asyncio.sleep(130)
        await desk.resume()
        rows = await desk.ledger.select("runs")
        assert [row["state"] for row in rows] == ["ended", "ended"]
        assert await (await desk.operator()).items() != []

    simulate(story)


def test_a_write_in_flight_is_found_out_after_the_time_has_run_out() -> None:
    async def story(sim: Simulation) -> None:
        slow = Slow(sim, [60.0, 0.1], "shop.send", effect="write", idempotency="key")
        desk = Desk(sim, [slow, write("shop.unsend", {}, idempotency="key")])
        desk.workflow(
            {"sequence": [{"action": "shop.send", "with": {"n": "1"}, "undo": "shop.unsend"}], "within": "5s"}
        )
        run = await desk.run()
        assert run.outcome == "escalated" and slow.left[0] == 30.0, "a write under way is never cut"
        assert len(slow.left) == 2, "asked again under its key, which is how it is found out"
        assert [entry.body["name"] for entry in run.entries if entry.body.get("undoes")] == ["shop.unsend"]

    simulate(story)


def test_a_slow_branch_is_cut_and_what_the_others_gave_is_kept() -> None:
    async def story(sim: Simulation) -> None:
        desk = Desk(sim, [Slow(sim, [500.0])])
        desk.agent("looks", looks)

        async def quick(ctx: Any, given: dict[str, Any]) -> Any:
            return {"found": 1}

        desk.agent("quick", quick, output={"found": "int"})
        late = {"sequence": ["looks"], "within": "2s", "name": "late"}
        desk.workflow(Concurrent("quick", late, on_failure="keep"))
        began = sim.clock.now()
        run = await desk.run()
        assert (run.outcome, run.output) == ("completed", {"quick": {"found": 1}})
        assert sim.clock.now() - began < 4

    simulate(story)


# --- hedged reads ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("seconds", "answer", "asked"), [([5.0, 0.1], 2, 2), ([0.1], 1, 1), ([0.3, 5.0], 1, 2)])
def test_a_late_read_is_asked_a_second_time_and_the_first_answer_counts(
    seconds: list[float], answer: int, asked: int
) -> None:
    async def story(sim: Simulation) -> None:
        slow = Slow(sim, seconds, hedge=0.2)
        desk = Desk(sim, [slow])
        desk.agent("looks", looks)
        desk.workflow("looks")
        run = await desk.run()
        assert run.output == {"answer": answer} and len(slow.left) == asked
        (settled,) = await desk.settles("looks")
        assert bool(settled.get("meta", {}).get("hedged")) == (asked == 2)
        await asyncio.sleep(10)
        assert len(slow.ended) == asked, "the loser is cut"

    simulate(story)


def test_a_hedged_read_that_costs_is_charged_for_both_and_a_replay_gives_the_same() -> None:
    async def story(sim: Simulation) -> None:
        slow = Slow(sim, [5.0, 0.1], hedge=0.2, price=Usage(usd=1_000_000))
        desk = Desk(sim, [slow])
        desk.agent("looks", looks)
        desk.workflow("looks", {"review": {"by": "operator", "within": "1h", "otherwise": "escalate", "of": "looks"}})
        run = await desk.run()
        assert run.state == "parked"
        desk.kill()
        await desk.answer()
        await desk.resume()
        run = await desk.only()
        assert run.output == {"answer": 2} and len(slow.left) == 2
        assert sum(body.get("usd", 0) for body in await desk.settles("looks")) == 2_000_000
        assert not any("overrun" in body for body in await desk.settles("looks")), "both were set aside"

    simulate(story)


def test_a_hedge_that_fails_leaves_the_first_attempt_and_writes_are_never_hedged() -> None:
    async def story(sim: Simulation) -> None:
        calls: list[str] = []

        async def serve(request: Request) -> Any:
            calls.append(request.key)
            if len(calls) == 2:
                raise Unavailable("down")
            await asyncio.sleep(1)
            return {"answer": len(calls)}

        look = Served(ToolSpec("shop.look", hedge=0.1), serve)
        send = Slow(sim, [1.0], "shop.send", effect="write", idempotency="key", hedge=0.1)
        desk = Desk(sim, [look, send, tool("shop.none")])
        desk.agent("looks", looks)
        desk.workflow("looks", {"action": "shop.send", "with": {"n": "1"}, "undo": "none"})
        run = await desk.run()
        assert run.outcome == "completed"
        assert len(calls) == 2 and len(set(calls)) == 1 and len(send.left) == 1

    simulate(story)
