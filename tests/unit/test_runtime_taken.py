"""A person takes a run over, does steps by hand, edits, has actions undone, and gives it back."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from engine_desk import OTHER, PERSON, Desk, Gated, Hanging, simulate, tool, write

from tightship import Run
from tightship.core import kinds
from tightship.core.errors import ActRefused, BoundaryError, InputRejected, NotTaken, UnknownName
from tightship.runtime.operator import Operator
from tightship.runtime.simulation import Simulation

OUT = {"text": "str"}


async def says(ctx: Any, given: dict[str, Any]) -> dict[str, str]:
    return {"text": f"agent: {given}"}


def three_steps(sim: Simulation, send: Any = None, config: str = "") -> Desk:
    """A run of `read`, which waits for a person, then `answer`, then an action."""
    desk = Desk(sim, [send or write("mail.send", {"id": "m-1"}), write("mail.recall", {})], config)
    desk.agent("read", says, output=OUT, tools=[])
    desk.agent("answer", says, input={"read": "any"}, output=OUT, tools=[])
    desk.workflow(
        "read",
        {"review": {"by": "operator", "of": "read"}},
        "answer",
        {"action": "mail.send", "with": {"text": "answer.text"}, "undo": "mail.recall", "name": "sent"},
        output={"read": "read.text", "answer": "answer.text"},
    )
    return desk


async def taken(sim: Simulation) -> tuple[Desk, Operator, Run]:
    """Those three steps, which wait, in a person's hands."""
    desk = three_steps(sim)
    run = await desk.run()
    operator = await desk.operator()
    await operator.take(run.id, PERSON)
    return desk, operator, run


async def settle(desk: Desk) -> None:
    """Let whoever executes do what is due."""
    for _ in range(4):
        await desk.resume()


async def states(operator: Operator, run: str) -> dict[str, str]:
    return {step.key: step.state for step in await operator.steps(run)}


# --- taking ---------------------------------------------------------------------------------------


def test_a_run_in_a_persons_hands_does_not_go_on_also_when_what_it_waited_for_comes() -> None:
    async def story(sim: Simulation) -> None:
        desk = three_steps(sim)
        run = await desk.run()
        operator = await desk.operator()
        await operator.take(run.id, PERSON, "I know the customer")
        await desk.answer("approve")
        desk.kill()
        await settle(desk)
        stands = await desk.only()
        assert stands.state == "parked" and not desk.tools["mail.send"].calls
        assert await (await desk.operator()).holder(run.id) == PERSON
        await (await desk.operator()).give(run.id, PERSON)
        await settle(desk)
        assert (await desk.only()).outcome == "completed"
        assert len(desk.tools["mail.send"].calls) == 1

    simulate(story)


@pytest.mark.parametrize("put_down", [False, True], ids=["nobody executes", "somebody executes"])
def test_a_run_that_is_still_queued_is_done_by_hand_whether_or_not_anybody_executes(put_down: bool) -> None:
    async def story(sim: Simulation) -> None:
        desk = three_steps(sim)
        run = await desk.ws.submit("flow", {"case": "one"})
        operator = await desk.operator()
        await operator.take(run, PERSON)
        if put_down:
            await settle(desk)  # whoever executes puts it down, and begins nothing
        await operator.do(run, "read", {"text": "by hand"}, PERSON)
        await operator.edit(run, "read", {"text": "better"}, PERSON)
        assert (await states(operator, run))["read"] == "by hand"
        await settle(desk)
        assert not await desk.settles(), "nothing begins while it is in their hands"
        desk.kill()
        operator = await desk.operator()
        await operator.do(run, "answer", {"text": "this too"}, PERSON)
        await operator.give(run, PERSON)
        await settle(desk)
        await desk.answer("approve", by=OTHER)
        await settle(desk)
        assert (await desk.only()).output == {"read": "better", "answer": "this too"}
        assert [call.args["text"] for call in desk.tools["mail.send"].calls] == ["this too"]

    simulate(story)


def test_a_write_in_flight_settles_and_nothing_after_it_begins() -> None:
    async def story(sim: Simulation) -> None:
        slow = Gated(write("mail.send", {"id": "m-1"}, timeout=60.0))
        desk = Desk(sim, [slow, write("desk.note", {})])
        desk.workflow(
            {"action": "mail.send", "with": {"text": '"one"'}, "undo": "none"},
            {"action": "desk.note", "with": {"text": '"two"'}, "undo": "none"},
        )
        job = desk.begin()
        await sim.clock.sleep(1.0)
        [row] = await desk.ledger.select("runs")
        await (await desk.operator()).take(row["id"], PERSON)
        await sim.clock.sleep(1.0)
        slow.gate.set()
        assert (await job).state == "parked"
        assert [body["name"] for body in await desk.settles()] == ["mail.send"]
        await (await desk.operator()).give(row["id"], PERSON)
        await settle(desk)
        assert (await desk.only()).outcome == "completed"
        assert len(slow.inner.calls) == 1

    simulate(story)


@pytest.mark.parametrize("known", [True, False])
def test_what_a_gone_process_has_left_open_is_found_out_and_tried_again_only_when_the_run_goes_on(known: bool) -> None:
    async def story(sim: Simulation) -> None:
        send = write("mail.send", {"id": "m-1"}, can_lookup=True)
        hanging = Hanging(send)
        desk = Desk(sim, [hanging])
        desk.workflow({"action": "mail.send", "with": {"text": '"one"'}, "undo": "none"})
        desk.begin()
        await hanging.began.wait()
        desk.kill()
        if not known:
            send.done.clear()
        [row] = await desk.ledger.select("runs")
        operator = await desk.operator()
        await operator.take(row["id"], PERSON)
        await settle(desk)
        assert (await desk.only()).state == "parked"
        assert len(send.calls) == 1, "nothing is sent while a person has the run"
        assert (await states(operator, row["id"]))["action"] == ("done" if known else "begun")
        await operator.give(row["id"], PERSON)
        await settle(desk)
        assert (await desk.only()).outcome == "completed"
        assert len(send.calls) == (1 if known else 2)

    simulate(story)


def test_only_who_holds_the_role_takes_a_run_and_only_who_has_it_acts() -> None:
    async def story(sim: Simulation) -> None:
        desk = three_steps(sim, config="")
        run = await desk.run()
        operator = await desk.operator()
        with pytest.raises(BoundaryError, match="does not hold the role operator"):
            await operator.take(run.id, "mallory")
        with pytest.raises(NotTaken, match="nobody's hands"):
            await operator.do(run.id, "answer", {"text": "x"}, PERSON)
        with pytest.raises(UnknownName):
            await operator.take("r-none", PERSON)
        await operator.take(run.id, PERSON)
        await operator.take(run.id, PERSON)  # once is enough
        signals = [entry for entry in await desk.entries(kinds.SIGNAL) if entry.body["type"] == "take"]
        assert len(signals) == 1 and signals[0].body["by"] == PERSON

    simulate(story)


def test_a_run_that_is_taken_can_be_cancelled_and_is_free_again_afterwards() -> None:
    async def story(sim: Simulation) -> None:
        desk, operator, run = await taken(sim)
        await operator.cancel(run.id, PERSON)
        await settle(desk)
        assert (await desk.only()).outcome == "cancelled"
        assert not await operator.holder(run.id)
        with pytest.raises(InputRejected, match="ended already"):
            await operator.give(run.id, PERSON)

    simulate(story)


def test_runs_below_come_along_and_go_back_with_it() -> None:
    async def story(sim: Simulation) -> None:
        desk = Desk(sim)
        desk.agent("work", says, output=OUT, tools=[])
        desk.workflow("work", {"review": {"by": "operator", "of": "work"}}, name="inner")
        desk.workflow({"workflow": "inner"})
        await desk.run()
        operator = await desk.operator()
        [parent] = await desk.ledger.select("runs", [("parent", "=", "")])
        [child] = await desk.ledger.select("runs", [("parent", "=", parent["id"])])
        await operator.take(parent["id"], PERSON)
        assert await operator.holder(child["id"]) == PERSON
        await desk.answer("approve")
        await settle(desk)
        assert [row["state"] for row in await desk.ledger.select("runs")] == ["parked", "parked"]
        await operator.give(parent["id"], PERSON)
        await settle(desk)
        assert [row["outcome"] for row in await desk.ledger.select("runs")] == ["completed", "completed"]

    simulate(story)


# --- doing ----------------------------------------------------------------------------------------


def test_a_step_done_by_hand_counts_and_its_question_is_withdrawn() -> None:
    async def story(sim: Simulation) -> None:
        desk, operator, run = await taken(sim)
        found = {step.key: step for step in await operator.steps(run.id)}
        assert (found["read"].state, found["review"].state, found["answer"].state) == ("done", "waits", "open")
        await operator.do(run.id, "review", None, PERSON)
        await operator.do(run.id, "answer", {"text": "by hand"}, PERSON, "the agent is too blunt")
        assert not await operator.items()
        assert (await states(operator, run.id))["answer"] == "by hand"
        await operator.give(run.id, PERSON)
        desk.kill()
        await settle(desk)
        ended = await desk.only()
        assert ended.outcome == "completed" and ended.output["answer"] == "by hand"
        assert desk.tools["mail.send"].calls[0].args == {"text": "by hand"}
        _, done = [entry for entry in await desk.entries(kinds.SIGNAL) if entry.body["type"] == "do"]
        assert done.body["by"] == PERSON
        assert await desk.ledger.value(done.body["detail"]) == {"reason": "the agent is too blunt"}

    simulate(story)


def test_what_is_done_by_hand_has_the_declared_shape_and_is_open() -> None:
    async def story(sim: Simulation) -> None:
        _, operator, run = await taken(sim)
        with pytest.raises(InputRejected, match="does not fit"):
            await operator.do(run.id, "answer", {"txt": 1}, PERSON)
        with pytest.raises(ActRefused, match="read is done"):
            await operator.do(run.id, "read", {"text": "x"}, PERSON)
        with pytest.raises(UnknownName, match="no step 'nothing'"):
            await operator.do(run.id, "nothing", {}, PERSON)

    simulate(story)


def test_a_branch_is_done_by_hand_and_the_others_run() -> None:
    async def story(sim: Simulation) -> None:
        desk = Desk(sim)

        async def fails(ctx: Any, given: dict[str, Any]) -> dict[str, str]:
            await asyncio.sleep(1000)
            return {}

        desk.agent("left", says, output=OUT, tools=[])
        desk.agent("right", fails, output=OUT, tools=[])
        desk.workflow({"concurrent": ["left", "right"]}, output={"l": "left.text", "r": "right.text"})
        job = desk.begin()
        await sim.clock.sleep(1.0)
        [row] = await desk.ledger.select("runs")
        operator = await desk.operator()
        await operator.take(row["id"], PERSON)
        assert (await job).state == "parked"
        with pytest.raises(ActRefused, match="several pieces of work"):
            await operator.do(row["id"], "concurrent", {}, PERSON)
        await operator.do(row["id"], "right", {"text": "by hand"}, PERSON)
        await operator.give(row["id"], PERSON)
        await settle(desk)
        assert (await desk.only()).output["r"] == "by hand"

    simulate(story)


# --- editing --------------------------------------------------------------------------------------


def test_an_edit_counts_for_open_steps_and_the_old_value_stays_in_the_log() -> None:
    async def story(sim: Simulation) -> None:
        desk, operator, run = await taken(sim)
        old = await desk.ledger.value((await desk.entries(kinds.TURN, "read"))[0].body["out"])
        assert await operator.edit(run.id, "read", {"text": "corrected"}, PERSON) == []
        assert [item.type for item in await operator.items()] == []  # the review of the old value is withdrawn
        [edit] = [entry.body for entry in await desk.entries(kinds.SIGNAL) if entry.body["type"] == "edit"]
        assert await desk.ledger.value(edit["was"]) == old
        await operator.give(run.id, PERSON)
        await settle(desk)
        item = (await operator.items())[0]
        assert (await operator.item(item.item))[1]["evidence"]["read"] == {"text": "corrected"}
        await desk.answer("approve", by=OTHER)  # who edited it may not approve it
        await settle(desk)
        ended = await desk.only()
        assert ended.output["read"] == "corrected" and "corrected" in ended.output["answer"]

    simulate(story)


def test_finished_steps_keep_what_they_gave_and_a_replay_is_exact() -> None:
    async def story(sim: Simulation) -> None:
        desk = three_steps(sim)
        desk.workflow(
            "read",
            "answer",
            {"review": {"by": "operator", "of": "answer"}},
            {"action": "mail.send", "with": {"text": "read.text"}, "undo": "none", "name": "sent"},
            name="late",
        )
        run = await desk.run("late")
        operator = await desk.operator()
        await operator.take(run.id, PERSON)
        kept = await operator.edit(run.id, "read", {"text": "corrected"}, PERSON)
        assert [step.key for step in kept] == ["answer"]
        await operator.give(run.id, PERSON)
        await settle(desk)
        desk.kill()
        await desk.answer("approve")
        await settle(desk)
        assert (await desk.only()).outcome == "completed"
        assert desk.tools["mail.send"].calls[0].args == {"text": "corrected"}
        assert len(await desk.entries(kinds.TURN, "answer")) == 1

    simulate(story)


def test_an_edit_is_refused_where_an_action_that_used_it_stands_until_it_is_undone() -> None:
    async def story(sim: Simulation) -> None:
        desk = Desk(sim, [write("mail.send", {"id": "m-1"}), write("mail.recall", {})])
        desk.agent("read", says, output=OUT, tools=[])
        desk.agent("check", says, input={"read": "any"}, output=OUT, tools=[])
        desk.workflow(
            "read",
            {"action": "mail.send", "with": {"text": "read.text"}, "undo": "mail.recall", "name": "sent"},
            {"review": {"by": "operator", "of": "sent"}},
        )
        run = await desk.run()
        operator = await desk.operator()
        await operator.take(run.id, PERSON)
        with pytest.raises(ActRefused, match="stands"):
            await operator.edit(run.id, "read", {"text": "corrected"}, PERSON)
        await operator.undo(run.id, "sent", PERSON)
        await settle(desk)
        assert len(desk.tools["mail.recall"].calls) == 1
        assert (await states(operator, run.id))["sent"] == "undone"
        await operator.edit(run.id, "read", {"text": "corrected"}, PERSON)
        await operator.give(run.id, PERSON)
        await settle(desk)
        assert [one.args["text"] for one in desk.tools["mail.send"].calls][1:] == ["corrected"]
        await desk.answer("approve")  # it is asked anew: what was sent is another thing
        await settle(desk)
        assert (await desk.only()).outcome == "completed"
        assert len(desk.tools["mail.send"].calls) == 2

    simulate(story)


def test_a_turn_under_way_that_read_the_value_begins_anew_with_the_new_one() -> None:
    async def story(sim: Simulation) -> None:
        seen: list[str] = []

        async def slow(ctx: Any, given: dict[str, Any]) -> dict[str, str]:
            found = await ctx.tool("desk.look", {"q": given["read"]["text"]})
            seen.append(found)
            await asyncio.sleep(5.0)
            return {"text": given["read"]["text"]}

        desk = Desk(sim, [tool("desk.look", "found")])
        desk.agent("read", says, output=OUT, tools=[])
        desk.agent("answer", slow, input={"read": "any"}, output=OUT)
        desk.workflow("read", "answer")
        job = desk.begin()
        await sim.clock.sleep(1.0)
        [row] = await desk.ledger.select("runs")
        operator = await desk.operator()
        await operator.take(row["id"], PERSON)
        assert (await job).state == "parked"
        await operator.edit(row["id"], "read", {"text": "corrected"}, PERSON)
        await operator.give(row["id"], PERSON)
        await settle(desk)
        assert (await desk.only()).output == {"text": "corrected"}
        assert len(desk.tools["desk.look"].calls) == 2

    simulate(story)


# --- halts ----------------------------------------------------------------------------------------


def test_a_halt_does_not_end_what_a_person_has_in_hand_until_they_give_it_back() -> None:
    async def story(sim: Simulation) -> None:
        desk, operator, run = await taken(sim)
        await operator.halt("workflow:flow", PERSON, "practice")
        await settle(desk)
        assert (await desk.only()).state == "parked"
        await operator.give(run.id, PERSON)
        await settle(desk)
        stands = await desk.only()
        assert (stands.outcome, stands.reason) == ("escalated", "halted")
        assert [halt["scope"] for halt in await operator.halts()] == ["workflow:flow"]

    simulate(story)
