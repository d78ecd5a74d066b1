"""The kill switch reaches every run of its scope, whatever it is doing, and hands the work over with its context."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from engine_desk import PERSON, Desk, Gated, Hanging, simulate, write

from tightship.core import kinds
from tightship.insight.halting import preview
from tightship.ledger import Draft
from tightship.runtime.simulation import Simulation
from tightship.runtime.sweep import LOOK, stalled

OUT = {"text": "str"}
SCOPES = ("all", "tenant:default", "workflow:flow", "agent:read", "run")


async def says(ctx: Any, given: dict[str, Any]) -> dict[str, str]:
    return {"text": "said"}


def flow(sim: Simulation, send: Any) -> Desk:
    """A run that reads, sends, and then waits for a person."""
    desk = Desk(sim, [send, write("mail.recall", {})])
    desk.agent("read", says, output=OUT, tools=[])
    action = {"action": "mail.send", "with": {"text": "read.text"}, "undo": "mail.recall", "name": "sent"}
    desk.workflow("read", action, {"review": {"by": "operator", "of": "read"}})
    return desk


async def halt(desk: Desk, scope: str) -> None:
    [row] = await desk.ledger.select("runs", [("parent", "=", "")])
    await (await desk.operator()).halt(f"run:{row['id']}" if scope == "run" else scope, PERSON, "practice")


def evidence(run: Any) -> dict[str, Any]:
    return dict(run.package["evidence"])


@pytest.mark.parametrize("scope", SCOPES)
def test_a_parked_run_is_ended_by_whoever_executes_and_its_question_closes(scope: str) -> None:
    async def story(sim: Simulation) -> None:
        desk = flow(sim, write("mail.send", {"id": "m-1"}))
        assert (await desk.run()).state == "parked"
        await halt(desk, scope)
        desk.kill()  # the halt survives
        await desk.resume()
        ended = await desk.only()
        assert (ended.outcome, ended.reason) == ("escalated", "halted")
        assert ended.package and ended.package["partial"]["read"] == {"text": "said"}
        told = evidence(ended)
        assert told["input"] == {"case": "one"}
        assert [(one["tool"], one["now"]) for one in told["done outside"]] == [("mail.send", "undone")]
        assert [item.type for item in await (await desk.operator()).items()] == ["escalation"]

    simulate(story)


@pytest.mark.parametrize("scope", SCOPES)
def test_a_run_whose_process_is_gone_goes_straight_to_its_end(scope: str) -> None:
    async def story(sim: Simulation) -> None:
        hanging = Hanging(write("mail.send", {"id": "m-1"}, can_lookup=True))
        desk = flow(sim, hanging)
        desk.begin()
        await hanging.began.wait()
        desk.kill()
        await halt(desk, scope)
        before = len(await desk.entries(kinds.ADMITTED))
        await desk.resume()
        ended = await desk.only()
        assert (ended.outcome, ended.reason) == ("escalated", "halted")
        later = (await desk.entries(kinds.ADMITTED))[before:]
        assert {entry.body["cls"] for entry in later} == {"undo"}
        told = evidence(ended)
        assert told["in flight"] == [{"call": "mail.send", "step": "sent/mail.send/1", "became": "done"}]
        assert len(await desk.entries(kinds.TURN)) == 1

    simulate(story)


@pytest.mark.parametrize("scope", SCOPES)
def test_a_write_in_flight_settles_before_it_is_undone(scope: str) -> None:
    async def story(sim: Simulation) -> None:
        slow = Gated(write("mail.send", {"id": "m-1"}, timeout=60.0))
        desk = flow(sim, slow)
        job = desk.begin()
        await sim.clock.sleep(1.0)
        await halt(desk, scope)
        await sim.clock.sleep(1.0)
        assert not desk.tools["mail.recall"].calls
        slow.gate.set()
        ended = await job
        assert (ended.outcome, ended.reason) == ("escalated", "halted")
        assert len(slow.inner.calls) == len(desk.tools["mail.recall"].calls) == 1
        package = (await desk.only()).package
        assert package and package["evidence"]["in flight"][0]["became"] == "done"

    simulate(story)


def test_a_queued_run_ends_without_anything_done() -> None:
    async def story(sim: Simulation) -> None:
        desk = flow(sim, write("mail.send", {"id": "m-1"}))
        await desk.run()
        [row] = await desk.ledger.select("runs")
        started = (await desk.ledger.run_entries(row["id"]))[0].body
        body = {name: value for name, value in started.items() if name != "owner"}
        await desk.ledger.append(Draft("r-queued", kinds.STARTED, "", body, 1))
        operator = await desk.operator()
        await operator.halt("run:r-queued", PERSON)
        await desk.resume()
        [ended] = await desk.ledger.select("runs", [("id", "=", "r-queued")])
        assert (ended["outcome"], ended["reason"]) == ("escalated", "halted")
        assert not [entry for entry in await desk.ledger.run_entries("r-queued") if entry.kind == kinds.TURN]

    simulate(story)


@pytest.mark.parametrize("scope", ["all", "workflow:outer", "workflow:flow"])
def test_a_parent_and_its_parked_child_both_come_to_their_end(scope: str) -> None:
    async def story(sim: Simulation) -> None:
        desk = flow(sim, write("mail.send", {"id": "m-1"}))
        desk.workflow({"workflow": "flow"}, name="outer")
        await desk.run("outer")
        await (await desk.operator()).halt(scope, PERSON)
        for _ in range(3):
            await desk.resume()
        rows = await desk.ledger.select("runs")
        assert [row["state"] for row in rows] == ["ended", "ended"]
        assert len(desk.tools["mail.recall"].calls) == 1

    simulate(story)


def test_the_preview_says_what_the_halt_then_does() -> None:
    async def story(sim: Simulation) -> None:
        desk = flow(sim, write("mail.send", {"id": "m-1"}))
        await desk.run()
        before = await desk.ledger.head()
        told = await preview(desk.ledger, "agent:read", roles=desk.ws.files.config.roles)
        assert await desk.ledger.head() == before
        assert told.by_workflow() == {"flow": {"parked": 1}}
        assert [(one["action"], one["tool"]) for one in told.undone] == [("mail.send", "mail.recall")]
        assert [item["type"] for item in told.items] == ["review"]
        assert told.people == ({"role": "operator", "people": "ann, ben", "runs": 1},)
        assert not (await preview(desk.ledger, "agent:nobody")).runs
        await halt(desk, "agent:read")
        await desk.resume()
        assert len(desk.tools["mail.recall"].calls) == 1

    simulate(story)


def test_the_preview_names_what_is_in_flight_and_what_is_done_about_it() -> None:
    async def story(sim: Simulation) -> None:
        slow = Gated(write("mail.send", {"id": "m-1"}, timeout=60.0, can_lookup=True))
        desk = flow(sim, slow)
        job = desk.begin()
        await sim.clock.sleep(1.0)
        [call] = (await preview(desk.ledger, "all")).in_flight
        assert call["call"] == "mail.send" and "looked up" in str(call["then"])
        slow.gate.set()
        await job

    simulate(story)


# --- runs that stand still --------------------------------------------------------------------------


async def served(desk: Desk, sim: Simulation, seconds: float) -> None:
    """Let a process serve for some virtual seconds."""
    stop = asyncio.Event()
    job = desk.process.start(desk.ws.serve(stop))
    await sim.clock.sleep(seconds)
    stop.set()
    await job


@pytest.mark.parametrize("gone", ["i-gone", "r-gone"])
def test_a_run_that_waits_for_what_can_never_come_is_named_and_escalated(gone: str) -> None:
    async def story(sim: Simulation) -> None:
        desk = flow(sim, write("mail.send", {"id": "m-1"}))
        await desk.run()
        [row] = await desk.ledger.select("runs")
        body = {"wake_at": kinds.NEVER, "waiting": [gone], "seen": row["last_signal"], "seconds": 0.0}
        await desk.ledger.append(Draft(row["id"], kinds.PARKED, "", body, row["epoch"]))
        [stall] = await stalled(desk.ledger, sim.clock.now(), 900.0, True)
        assert stall.hopeless and gone in stall.waits_for
        await served(desk, sim, 3 * LOOK)
        ended = await desk.only()
        assert (ended.outcome, ended.reason) == ("escalated", "stalled")
        assert ended.package and gone in ended.package["what_happened"]
        assert ended.package["partial"]["read"] == {"text": "said"}

    simulate(story)


def test_a_run_that_waits_for_a_person_does_not_stand_still() -> None:
    async def story(sim: Simulation) -> None:
        desk = flow(sim, write("mail.send", {"id": "m-1"}))
        await desk.run()
        await served(desk, sim, 3 * LOOK)
        assert (await desk.only()).state == "parked"
        assert not await stalled(desk.ledger, sim.clock.now() + 10_000, 900.0, True)

    simulate(story)


def test_a_run_that_records_nothing_for_too_long_is_escalated() -> None:
    async def story(sim: Simulation) -> None:
        desk = Desk(sim)

        async def slow(ctx: Any, given: dict[str, Any]) -> dict[str, str]:
            await asyncio.sleep(1.0)
            return {"text": "said"}

        async def never(frame: Any, last: Any) -> Any:
            await sim.loop.create_future()

        desk.agent("read", slow, output=OUT, tools=[])
        desk.workflow("read", limits={"stall": 400})
        job = desk.begin()
        await sim.clock.sleep(0.5)
        engine = await desk.ws.engine()
        task = engine.task(engine.running()[0])
        assert task is not None
        task.program.output = never  # type: ignore[method-assign]
        await sim.clock.sleep(400.0)
        assert not job.done()
        ended = await asyncio.wait_for(job, 1 + 2 * LOOK)
        assert (ended.outcome, ended.reason) == ("escalated", "stalled")

    simulate(story)
