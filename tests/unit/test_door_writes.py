"""A write is done once: repeated where that is safe, looked up where that is possible, else said to be unknown."""

from __future__ import annotations

import asyncio
import itertools
from typing import Any

import pytest
from engine_desk import Desk, Hanging, lost, simulate, tool, write

from tightship.connectors.testing import ScriptedTool
from tightship.core import kinds
from tightship.core.errors import RateLimited, TightshipError, Unavailable, WriteFailed
from tightship.core.ports import UndoSpec
from tightship.runtime.simulation import Simulation

DONE = {"id": "w-1"}


def writer(claim: str | None = None, name: str = "post.send") -> Any:
    """An agent that writes once."""

    async def agent(ctx: Any, given: dict[str, Any]) -> Any:
        return {"id": (await ctx.tool(name, {"text": "hello"}, claim=claim))["id"]}

    return agent


def once(sink: Any, claim: str | None = None) -> Any:
    """Run a workflow that writes to this sink once; the desk and the run."""

    async def story(sim: Simulation) -> Any:
        desk = Desk(sim, [sink])
        desk.agent("a", writer(claim))
        desk.workflow("a")
        run = await desk.run()
        return run, await desk.settles("a/a/1/tool/1"), await desk.ledger.select("claims"), sim.clock.now()

    return simulate(story)


def slowed(sink: Any, seconds: float) -> Any:
    """The tool, which takes so long for each call."""
    inner = sink.perform

    async def slow(request: Any) -> Any:
        await asyncio.sleep(seconds)
        return await inner(request)

    sink.perform = slow
    return sink


def test_a_lost_answer_is_asked_for_again_under_the_same_key_where_the_sink_honours_keys() -> None:
    sink = write("post.send", lost, DONE, idempotency="key")
    run, settles, _, _ = once(sink)
    assert run.output == DONE
    assert len({call.key for call in sink.calls}) == 1
    assert [body.get("again", False) for body in settles] == [True, False]


def test_a_lost_answer_is_looked_up_where_the_sink_can_be_asked_and_the_write_is_not_repeated() -> None:
    async def story(sim: Simulation) -> Any:
        sink = write("post.send", DONE, can_lookup=True)
        desk = Desk(sim, [Hanging(sink)])
        desk.agent("a", writer())
        desk.workflow("a")
        return await desk.run(), sink

    run, sink = simulate(story)
    assert run.output == DONE
    assert (len(sink.calls), len(sink.lookups)) == (1, 1)


def test_not_found_counts_only_when_nothing_can_be_on_its_way_any_more() -> None:
    class Late(ScriptedTool):
        """It takes a while until the request arrives; its answer was given up before."""

        async def perform(self, request: Any) -> Any:
            await super().perform(request)
            raise lost(request)

        async def lookup(self, request: Any) -> Any:
            self.lookups.append(request)
            return self.done.get(request.key) if asyncio.get_running_loop().time() >= 1.5 else None

    sink = Late(write("post.send", can_lookup=True).spec, [DONE])
    run, _, _, _ = once(sink)
    assert run.output == DONE
    assert len(sink.calls) == 1, "the first look-up found nothing, and that was too early to count"
    assert len(sink.lookups) > 1


def test_a_write_that_was_not_done_is_sent_again_once_the_look_up_counts() -> None:
    sink = write("post.send", lost, DONE, can_lookup=True)
    run, _, _, _ = once(sink)
    assert run.output == DONE
    assert len(sink.calls) == 2


def test_where_nobody_can_tell_a_person_finds_out_and_the_claim_is_kept() -> None:
    sink = write("post.send", lost, DONE)
    run, settles, claims, _ = once(sink, claim="letter 7")
    assert (run.outcome, run.reason) == ("escalated", "OutcomeUnknown")
    assert len(sink.calls) == 1
    assert settles[-1]["error"]["error"] == "OutcomeUnknown"
    assert [row["state"] for row in claims] == ["held"], "it may have been done, so nobody else may do it"
    assert "a/a/1/tool/1" in str(run.package["evidence"]["effects that remain"])


@pytest.mark.parametrize(
    ("fields", "calls", "outcome"),
    [
        ({"idempotency": "key"}, 2, "completed"),
        ({"can_lookup": True}, 1, "completed"),
        ({}, 1, "escalated"),
    ],
)
def test_a_crash_in_the_middle_of_a_write_never_doubles_it(fields: Any, calls: int, outcome: str) -> None:
    async def story(sim: Simulation) -> Any:
        sink = write("post.send", DONE, **fields)
        hanging = Hanging(sink)
        desk = Desk(sim, [hanging])
        desk.agent("a", writer())
        desk.workflow("a")
        desk.begin()
        await hanging.began.wait()
        desk.kill()
        await desk.resume()
        return await desk.only(), sink

    run, sink = simulate(story)
    assert run.outcome == outcome
    assert len(sink.calls) == calls
    assert len({call.key for call in sink.calls}) == 1


def test_a_later_refusal_does_not_hide_that_an_earlier_attempt_may_have_been_done() -> None:
    sink = write("post.send", lost, Unavailable("down"), idempotency="key")
    run, settles, claims, _ = once(sink, claim="letter 7")
    assert run.reason == "OutcomeUnknown", (
        "the first attempt may have been done: `unavailable` would say that it was not"
    )
    assert settles[-1]["error"]["error"] == "OutcomeUnknown"
    assert [row["state"] for row in claims] == ["held"]


def test_what_may_have_been_done_is_looked_up_before_it_is_given_up() -> None:
    async def story(sim: Simulation) -> Any:
        sink = write("post.send", DONE, Unavailable("down"), idempotency="key", can_lookup=True)
        desk = Desk(sim, [Hanging(sink)])
        desk.agent("a", writer())
        desk.workflow("a")
        return await desk.run(), sink

    run, _ = simulate(story)
    assert run.output == DONE


def test_a_definite_refusal_gives_the_claim_free() -> None:
    sink = write("post.send", WriteFailed("the mailbox is full"))
    run, _, claims, _ = once(sink, claim="letter 7")
    assert run.reason == "WriteFailed"
    assert [row["state"] for row in claims] == ["released"]


def test_a_refusal_between_two_attempts_gives_the_claim_free_too() -> None:
    async def story(sim: Simulation) -> Any:
        sink = write("post.send", Unavailable("down", retry_after=30))
        desk = Desk(sim, [sink])
        desk.agent("a", writer("letter 7"))
        desk.workflow("a")
        running = desk.begin()
        await sim.clock.sleep(1)
        await (await desk.operator()).halt("all", "ann")
        run = await running
        return run, await desk.ledger.select("claims"), sink

    run, claims, sink = simulate(story)
    assert run.reason == "halted"
    assert len(sink.calls) == 1
    assert [row["state"] for row in claims] == ["released"]


def test_two_runs_that_race_for_one_key_do_it_once() -> None:
    async def story(sim: Simulation) -> Any:
        sink = write("post.send", DONE)
        desk = Desk(sim, [sink])
        desk.agent("a", writer("Letter  7"))
        desk.workflow("a")
        return await asyncio.gather(desk.run(case="x"), desk.run(case="y")), sink

    runs, sink = simulate(story)
    assert sorted(run.outcome for run in runs) == ["completed", "escalated"]
    assert [run.reason for run in runs if run.outcome == "escalated"] == ["duplicate"]
    assert len(sink.calls) == 1


def test_a_cut_branch_stops_waiting_and_its_write_goes_on() -> None:
    async def story(sim: Simulation) -> Any:
        sink = slowed(write("post.send", DONE, timeout=10.0), 5)
        desk = Desk(sim, [sink])

        async def failing(ctx: Any, given: dict[str, Any]) -> Any:
            await asyncio.sleep(1)
            raise WriteFailed("on purpose")

        desk.agent("a", writer())
        desk.agent("b", failing)
        desk.workflow({"concurrent": {"branches": ["a", "b"], "on": {"unforeseen": "continue"}}})
        return await desk.run(), await desk.settles("concurrent"), await desk.entries(kinds.ENDED)

    run, settles, ended = simulate(story)
    assert run.outcome == "completed"
    assert [body["out"] != "" for body in settles if body["cls"] == "write"] == [True], "settled before the run ended"
    assert len(ended) == 1


def test_a_crash_after_a_branch_was_cut_leaves_no_write_open() -> None:
    async def story(sim: Simulation) -> Any:
        sink = write("post.send", DONE, can_lookup=True, timeout=10.0)
        hanging = Hanging(sink)
        desk = Desk(sim, [hanging])

        async def failing(ctx: Any, given: dict[str, Any]) -> Any:
            await hanging.began.wait()
            raise WriteFailed("on purpose")

        async def last(ctx: Any, given: dict[str, Any]) -> Any:
            await asyncio.sleep(60)
            return {}

        desk.agent("a", writer())
        desk.agent("b", failing)
        desk.agent("c", last)
        desk.workflow({"concurrent": {"branches": ["a", "b"], "on": {"unforeseen": "continue"}}}, "c")
        desk.begin()
        await sim.clock.sleep(2)
        desk.kill()
        await desk.resume()
        return await desk.only(), await desk.settles("concurrent"), sink

    run, settles, sink = simulate(story)
    assert run.outcome == "completed"
    assert ["out" in body for body in settles if body["cls"] == "write"] == [True]
    assert (len(sink.calls), len(sink.lookups)) == (1, 1)


def test_a_turn_that_is_taken_again_joins_its_write_that_is_still_under_way() -> None:
    async def story(sim: Simulation) -> Any:
        sink = slowed(write("post.send", DONE, timeout=30.0), 6)
        desk = Desk(sim, [sink])
        desk.agent("a", writer())
        desk.workflow("a", budget={"seconds": 3})
        running = desk.begin()
        await sim.clock.sleep(3.5)
        await desk.answer("edit", {"seconds": 60}, type="budget")
        await sim.clock.sleep(20)
        await desk.resume()
        del running
        return await desk.only(), sink

    run, sink = simulate(story)
    assert run.output == DONE
    assert len(sink.calls) == 1


def test_an_agent_that_writes_the_same_again_and_again_is_stopped() -> None:
    async def story(sim: Simulation) -> Any:
        sink = write("post.send", *[DONE] * 50)
        desk = Desk(sim, [sink])

        async def stubborn(ctx: Any, given: dict[str, Any]) -> Any:
            while True:
                await ctx.tool("post.send", {"text": "hello"})

        desk.agent("a", stubborn)
        desk.workflow("a")
        return await desk.run(), sink

    run, sink = simulate(story)
    assert run.outcome == "escalated"
    assert len(sink.calls) == 3


def test_a_write_whose_result_does_not_fit_its_contract_was_done_all_the_same() -> None:
    schema = {"type": "object", "required": ["id"]}
    sink = write("post.send", {"no": "id"}, output_schema=schema)
    run, settles, _, _ = once(sink)
    assert run.reason == "OutcomeUnknown"
    assert len(sink.calls) == 1
    assert len(settles) == 1


def test_a_tool_that_would_end_the_process_ends_only_its_call() -> None:
    run, _, _, _ = once(tool("post.send", SystemExit(2)))
    assert (run.outcome, run.reason) == ("escalated", "unavailable")


def test_the_key_of_a_write_is_the_same_in_every_life_and_another_in_every_run() -> None:
    async def story(sim: Simulation) -> Any:
        sink = write("post.send", lost, lost, DONE, idempotency="key")
        desk = Desk(sim, [sink])
        desk.agent("a", writer())
        desk.workflow("a")
        await desk.run(case="x")
        await desk.run(case="y")
        return [call.key for call in sink.calls]

    keys = simulate(story)
    assert len(set(keys)) == 2
    assert len(keys) == 4


def test_retry_after_is_respected_and_attempts_are_bounded() -> None:
    async def story(sim: Simulation) -> Any:
        at: list[float] = []
        sink = write("post.send", RateLimited("wait", retry_after=20.0))
        inner = sink.perform

        async def perform(request: Any) -> Any:
            at.append(sim.loop.time())
            return await inner(request)

        sink.perform = perform  # type: ignore[method-assign]
        desk = Desk(sim, [sink])
        desk.agent("a", writer())
        desk.workflow("a")
        return await desk.run(), at

    run, at = simulate(story)
    assert run.reason == "unavailable"
    assert len(at) == 3
    assert all(later - earlier > 19.9 for earlier, later in itertools.pairwise(at))


def test_an_agent_that_swallows_a_full_disk_does_not_go_on() -> None:
    from tightship.core.errors import StoreFull

    async def story(sim: Simulation) -> Any:
        sink = write("post.send", DONE, DONE, can_lookup=True)
        desk = Desk(sim, [sink])
        seen: list[str] = []

        async def careless(ctx: Any, given: dict[str, Any]) -> Any:
            for text in ("hello", "and again"):
                try:
                    await ctx.tool("post.send", {"text": text})
                except TightshipError as error:
                    seen.append(error.code)
                    return {"id": "gave up"}
            return DONE

        desk.agent("a", careless)
        desk.workflow("a")
        commit = desk.ledger._commit

        def full(units: Any) -> Any:
            if any(draft.kind == kinds.SETTLED for unit in units for draft in unit.drafts):
                raise StoreFull("no room")
            return commit(units)

        desk.ledger._writer._commit = full  # type: ignore[union-attr]
        with pytest.raises(StoreFull):
            await desk.run()
        desk.kill()
        await desk.resume()
        return await desk.only(), seen, sink

    run, seen, sink = simulate(story)
    assert seen == ["StoreFull"]
    assert run.output == DONE, "the first write was done, and its settling made up for"
    assert [call.args["text"] for call in sink.calls] == ["hello", "and again"], "nothing left while nothing was kept"


def test_undo_is_the_contract_s_own_where_the_workflow_names_none() -> None:
    async def story(sim: Simulation) -> Any:
        undo = UndoSpec("post.recall", {"id": "result.id"})
        sink, recall = write("post.send", DONE, undo=undo), write("post.recall", {})
        desk = Desk(sim, [sink, recall])

        async def failing(ctx: Any, given: dict[str, Any]) -> Any:
            raise WriteFailed("on purpose")

        desk.agent("a", writer())
        desk.agent("b", failing)
        desk.workflow("a", "b")
        return await desk.run(), recall

    run, recall = simulate(story)
    assert run.outcome == "escalated"
    assert [call.args for call in recall.calls] == [{"id": "w-1"}]
