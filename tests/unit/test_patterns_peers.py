"""Peers: two never hold one sub-problem, what is abandoned comes back, late results are refused, the end is found."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest
from engine_desk import Desk, simulate, write
from hypothesis import given, settings
from hypothesis import strategies as st

from board_desk import held_by_one
from tightship.context.board import Move, Spot, play
from tightship.core import kinds
from tightship.core.signals import OverBudget
from tightship.patterns import Peers, WorkflowStep, load_all
from tightship.runtime.simulation import Simulation

load_all()

BOARD: dict[str, Any] = {"input": {"case": "str?", "items": "list"}}


def add(desk: Desk, name: str, function: Any, **more: Any) -> None:
    given = {"open": "list", "mine": "list", "inbox": "list", "done": "list", "peers": "list"}
    desk.agent(name, function, tools=[], input=given, **more)


def keys(listed: list[Any]) -> list[str]:
    return [one["key"] for one in listed]


def diligent(seconds: float = 1.0, most: int = 1) -> Any:
    """A peer that claims what is open and does what it has."""

    async def peer(ctx: Any, given: dict[str, Any]) -> Any:
        await asyncio.sleep(seconds)
        return {
            "results": [{"key": key, "value": key.upper()} for key in keys(given["mine"])],
            "claim": keys(given["open"])[:most],
        }

    return peer


def step(*agents: str, **fields: Any) -> Peers:
    made: dict[str, Any] = {"agents": list(agents), "board": "input.items", "name": "shared", **fields}
    return Peers(**made)


async def run(desk: Desk, *items: str, **more: Any) -> Any:
    """To its end, also when it parks to wait for other runs."""
    found = await desk.process.start(desk.ws.run("flow", {"items": list(items)}, **more))
    while found.state == "parked":
        await asyncio.sleep(5)
        await desk.process.start(desk.ws.resume([found.id]))
        found = await desk.ws.result(found.id)
    return found


def notes(run: Any, type: str) -> list[Any]:
    return [entry for entry in run.entries if entry.kind == kinds.NOTE and entry.body["type"] == type]


def test_all_is_done_once_and_shared_out() -> None:
    async def story(sim: Simulation) -> None:
        desk = Desk(sim)
        add(desk, "a", diligent())
        add(desk, "b", diligent())
        desk.workflow(step("a", "b"), **BOARD)
        found = await run(desk, *"uvwxyz")
        assert found.outcome == "completed", found
        assert sorted((one["key"], one["value"]) for one in found.output["results"]) == [
            (k, k.upper()) for k in "uvwxyz"
        ]
        assert {one["by"] for one in found.output["results"]} == {"a", "b"}
        assert found.output["open"] == found.output["elsewhere"] == []

    simulate(story)


def test_one_asks_another_answers_and_the_answer_ends_the_work() -> None:
    async def story(sim: Simulation) -> None:
        desk = Desk(sim)

        async def buyer(ctx: Any, given: dict[str, Any]) -> Any:
            for one in given["inbox"]:
                if one["kind"] == "reply":
                    return {"results": [{"key": one["about"], "value": one["data"]}]}
            if given["open"]:
                key = given["open"][0]["key"]
                ask = {"to": "expert", "kind": "ask", "about": key, "text": "who sells it?"}
                return {"claim": [key], "messages": [ask]}
            return {}

        async def expert(ctx: Any, given: dict[str, Any]) -> Any:
            asks = [one for one in given["inbox"] if one["kind"] == "ask"]
            return {"messages": [{"to": one["from"], "kind": "reply", "re": one["id"], "about": one["about"], "data": "Nord"} for one in asks]}  # fmt: skip

        add(desk, "buyer", buyer)
        add(desk, "expert", expert)
        desk.workflow(step("buyer", "expert"), **BOARD)
        found = await run(desk, "x", "y")
        assert found.outcome == "completed"
        assert [(one["key"], one["by"], one["value"]) for one in found.output["results"]] == [
            ("x", "buyer", "Nord"),
            ("y", "buyer", "Nord"),
        ]
        turns = [entry.body["agent"] for entry in found.entries if entry.kind == kinds.TURN]
        assert turns.count("expert") == 3  # once for the board, once for each question: who waits does not spin

    simulate(story)


def test_delegated_work_passes_with_its_claim_and_two_answers_are_settled() -> None:
    async def story(sim: Simulation) -> None:
        desk = Desk(sim)

        async def hasty(ctx: Any, given: dict[str, Any]) -> Any:
            if ctx.feedback:
                return {}
            if given["mine"]:  # gives it away, and says what it thinks in the next turn all the same
                return {
                    "messages": [{"to": "careful", "kind": "delegate", "about": "x"}, {"to": "hasty", "kind": "tell"}]
                }
            return {"claim": keys(given["open"])}

        async def careful(ctx: Any, given: dict[str, Any]) -> Any:
            if given["mine"]:
                return {"results": [{"key": "x", "value": 2}]}
            await asyncio.sleep(3)
            return {}

        async def twice(ctx: Any, given: dict[str, Any]) -> Any:
            return {"results": [{"key": "x", "value": 1}]} if ctx.feedback else await hasty(ctx, given)

        add(desk, "hasty", twice)
        add(desk, "careful", careful)
        desk.workflow(step("hasty", "careful", settle={"rule": "priority", "order": ["careful"]}), **BOARD)
        found = await run(desk, "x")
        assert found.outcome == "completed", found
        assert found.output["results"][0]["value"] == 2 and found.output["settled"] == {"x": 2}
        assert len(notes(found, "settled")) == 1

    simulate(story)


def test_a_reply_against_a_result_escalates_when_no_rule_decides() -> None:
    async def story(sim: Simulation) -> None:
        desk = Desk(sim)

        async def worker(ctx: Any, given: dict[str, Any]) -> Any:
            if given["open"]:
                return {"claim": ["x"], "messages": [{"to": "other", "kind": "ask", "about": "x"}]}
            return {"results": [{"key": "x", "value": "blue"}]} if given["mine"] and given["inbox"] else {}

        async def other(ctx: Any, given: dict[str, Any]) -> Any:
            return {"messages": [{"to": "worker", "kind": "reply", "re": one["id"], "about": "x", "value": "red"} for one in given["inbox"]]}  # fmt: skip

        add(desk, "worker", worker)
        add(desk, "other", other)
        desk.workflow(step("worker", "other"), **BOARD)
        found = await run(desk, "x")
        assert found.outcome == "escalated"
        assert {one["answer"] for one in found.package["evidence"]["answers"]} == {"blue", "red"}

    simulate(story)


def test_whoever_takes_too_long_loses_its_claim_and_its_late_result_is_refused() -> None:
    async def story(sim: Simulation) -> None:
        desk, told = Desk(sim), list[Any]()

        async def slow(ctx: Any, given: dict[str, Any]) -> Any:
            told.extend(ctx.feedback)
            if given["mine"]:
                await asyncio.sleep(100)
                return {"results": [{"key": "x", "value": "late"}]}
            return {"claim": keys(given["open"])}

        async def quick(ctx: Any, given: dict[str, Any]) -> Any:
            await asyncio.sleep(1)
            return await diligent()(ctx, given)

        add(desk, "slow", slow)
        add(desk, "quick", quick)
        desk.workflow(step("slow", "quick", lease="30s"), **BOARD)
        found = await run(desk, "x")
        assert found.outcome == "completed", found
        assert [(one["by"], one["value"]) for one in found.output["results"]] == [("quick", "X")]
        assert any("x is done, by quick" in one for one in told)
        rows = [row for row in await desk.ledger.select("context") if row["scope"].startswith("board:")]
        assert [row["refusals"] > 0 for row in rows] == [True]

    simulate(story)


@pytest.mark.parametrize("beyond", [False, True])
def test_what_a_failing_peer_held_comes_back_to_the_others_at_once(beyond: bool) -> None:
    async def story(sim: Simulation) -> None:
        desk = Desk(sim)

        async def broken(ctx: Any, given: dict[str, Any]) -> Any:
            if given["mine"] and beyond:
                await ctx.tool("not.declared", {})
            if given["mine"]:
                raise ValueError("no")
            return {"claim": keys(given["open"])}

        async def patient(ctx: Any, given: dict[str, Any]) -> Any:
            await asyncio.sleep(1)
            return await diligent()(ctx, given)

        add(desk, "broken", broken)
        add(desk, "patient", patient)
        desk.workflow(step("broken", "patient"), **BOARD)
        began = sim.world().clock.now()
        found = await run(desk, "x", "y")
        assert found.outcome == "completed", found
        assert {one["by"] for one in found.output["results"]} == {"patient"}
        assert sim.world().clock.now() - began < 60  # long before a lease would have run out
        assert len(notes(found, "branch.failed")) == 1

    simulate(story)


@pytest.mark.parametrize("then", ["escalate", "keep"])
def test_nobody_can_move_is_found_at_once_and_named(then: str) -> None:
    async def story(sim: Simulation) -> None:
        desk = Desk(sim)

        def stubborn(mine: str, other: str) -> Any:
            async def peer(ctx: Any, given: dict[str, Any]) -> Any:
                if mine in keys(given["open"]):
                    return {"claim": [mine], "messages": [{"to": other, "kind": "ask", "about": mine}]}
                return {}

            return peer

        add(desk, "a", stubborn("x", "b"))
        add(desk, "b", stubborn("y", "a"))
        desk.workflow(step("a", "b", then=then), **BOARD)
        began = sim.world().clock.now()
        found = await run(desk, "x", "y", "z")
        assert sim.world().clock.now() - began < 5
        if then == "keep":
            assert found.outcome == "completed"
            assert {one["key"]: one["held_by"] for one in found.output["open"]} == {"x": "a", "y": "b", "z": ""}
            return
        assert found.outcome == "escalated"
        said = found.package["what_happened"]
        for words in ("x is held by a", "nobody takes z", "a waits for b", "b waits for a"):
            assert words in said, said

    simulate(story)


def test_what_lies_outside_its_role_is_refused_counted_and_told() -> None:
    async def story(sim: Simulation) -> None:
        desk, told = Desk(sim), list[str]()

        async def stray(ctx: Any, given: dict[str, Any]) -> Any:
            told.extend(ctx.feedback)
            if ctx.feedback:
                return {"results": [{"key": "x", "value": 1}]}
            messages = [
                {"to": "boss", "kind": "ask"},
                {"to": "b", "kind": "shout"},
                {"to": "b", "kind": "reply", "re": "b-1-1"},
                {"to": "b", "kind": "delegate"},
            ]
            return {"claim": ["x", "nothing"], "messages": messages}

        async def idle(ctx: Any, given: dict[str, Any]) -> Any:
            return {}

        add(desk, "a", stray)
        add(desk, "b", idle)
        desk.workflow(step("a", "b"), **BOARD)
        found = await run(desk, "x")
        assert found.outcome == "completed", found
        for words in (
            "'nothing' is no sub-problem",
            "'boss' is no peer",
            "'shout' is no kind",
            "re: 'b-1-1'",
            "named in `about`",
        ):
            assert any(words in one for one in told), told
        assert [entry.body["source"] for entry in notes(found, "peers.refused")] == ["a"]

    simulate(story)


def talkative(other: str, each: int, told: list[str]) -> Any:
    """A peer that does what there is, and tells the other of it so many times in a turn."""

    async def peer(ctx: Any, given: dict[str, Any]) -> Any:
        told.extend(ctx.feedback)
        await asyncio.sleep(1.0)
        messages = [{"to": other, "kind": "tell", "text": str(number)} for number in range(each)]
        results = [{"key": key, "value": 1} for key in keys(given["mine"])]
        return {"results": results, "claim": keys(given["open"])[:1], "messages": messages if given["open"] else []}

    return peer


def sent_in(entries: list[Any]) -> int:
    """How many messages went out, as the ledger says."""
    notes = [entry for entry in entries if entry.kind == kinds.NOTE and entry.body["type"] == "peers.turn"]
    return sum(entry.body["messages"] for entry in notes)


def test_messages_are_bounded_for_the_whole_request_whatever_a_run_below_declares() -> None:
    async def story(sim: Simulation) -> None:
        desk, told = Desk(sim), list[str]()
        add(desk, "a", talkative("b", 2, told))
        add(desk, "b", talkative("a", 2, told))
        desk.workflow(step("a", "b"), name="inner", limits={"messages": 900}, **BOARD)
        below = WorkflowStep("inner", with_={"items": "input.items"})
        desk.workflow(below, below, step("a", "b"), limits={"messages": 9}, **BOARD)
        found = await run(desk, "x", "y")
        assert found.outcome == "completed", found
        children = [entry.body for entry in found.entries if entry.kind == kinds.SIGNAL]
        assert [sum(body["messages"].values()) for body in children] == [8, 1]
        assert sent_in(await desk.entries()) == 9 and sent_in(found.entries) == 0
        assert found.entries[-1].body["messages"] == children[0]["messages"] | children[1]["messages"]
        assert sum("used up its messages" in one for one in told) >= 5

    simulate(story)


@pytest.mark.parametrize("killed_at", range(4, 40, 3))
def test_no_restart_gives_a_request_new_messages(killed_at: int) -> None:
    """The process dies at an append; above and below, what was sent before counts."""

    async def story(sim: Simulation) -> None:
        desk = Desk(sim)
        add(desk, "a", talkative("b", 2, []))
        add(desk, "b", talkative("a", 2, []))
        desk.workflow(step("a", "b"), name="inner", **BOARD)
        desk.workflow(
            WorkflowStep("inner", with_={"items": "input.items"}), step("a", "b"), limits={"messages": 5}, **BOARD
        )
        begun = desk.process.start(desk.ws.run("flow", {"items": ["x", "y"]}))
        for _ in range(200):
            if begun.done() or len(await desk.entries()) >= killed_at:
                break
            await asyncio.sleep(0.1)
        desk.kill()
        for _ in range(3):
            await desk.resume()
        found = await desk.only()
        assert found.outcome == "completed", found
        assert sent_in(await desk.entries()) == 5
        assert sum(found.entries[-1].body["messages"].values()) == 5

    simulate(story)


def test_asks_that_go_back_and_forth_are_found() -> None:
    async def story(sim: Simulation) -> None:
        desk = Desk(sim)

        def asks(other: str) -> Any:
            async def peer(ctx: Any, given: dict[str, Any]) -> Any:
                return {"messages": [{"to": other, "kind": "ask", "about": "x", "text": "you?"}]}

            return peer

        add(desk, "a", asks("b"))
        add(desk, "b", asks("a"))
        desk.workflow(step("a", "b"), **BOARD)
        began = sim.world().clock.now()
        found = await run(desk, "x")
        assert found.outcome != "completed"
        assert "back and forth" in found.package["what_happened"]
        assert sim.world().clock.now() - began < 60  # it is found, and not waited for

    simulate(story)


@pytest.mark.parametrize("ring", [("a", "b"), ("a", "b", "c")])
def test_several_delegated_at_once_that_only_go_round_are_found_however_many_pass_them_on(
    ring: tuple[str, ...],
) -> None:
    async def story(sim: Simulation) -> None:
        desk = Desk(sim)

        def passes(to: str, claims: bool) -> Any:
            async def peer(ctx: Any, given: dict[str, Any]) -> Any:
                gives = [{"to": to, "kind": "delegate", "about": key} for key in keys(given["mine"])]
                return {"claim": keys(given["open"]) if claims else [], "messages": gives}

            return peer

        for name, following in zip(ring, (*ring[1:], ring[0]), strict=True):
            add(desk, name, passes(following, claims=name == "a"))
        desk.workflow(step(*ring, turns=100), **BOARD)
        found = await run(desk, "x", "y")
        assert found.outcome == "escalated"
        assert "LoopFound" in str(found.package["evidence"])
        assert sum(entry.kind == kinds.TURN for entry in found.entries) < 20

    simulate(story)


def test_work_that_is_shared_out_to_and_fro_is_no_loop() -> None:
    async def story(sim: Simulation) -> None:
        desk = Desk(sim)

        def shares(to: str, claims: bool) -> Any:
            async def peer(ctx: Any, given: dict[str, Any]) -> Any:
                first, *rest = keys(given["mine"]) or [""]
                gives = [{"to": to, "kind": "delegate", "about": key} for key in rest]
                results = [{"key": first, "value": first}] if first else []
                return {"claim": keys(given["open"]) if claims else [], "messages": gives, "results": results}

            return peer

        add(desk, "a", shares("b", claims=True))
        add(desk, "b", shares("a", claims=False))
        desk.workflow(step("a", "b", turns=100), **BOARD)
        found = await run(desk, *(f"t{number}" for number in range(12)))
        assert found.outcome == "completed" and len(found.output["results"]) == 12

    simulate(story)


def test_a_peer_that_says_what_was_refused_again_gets_no_turn_for_that_alone() -> None:
    async def story(sim: Simulation) -> None:
        desk, turns = Desk(sim), list[Any]()

        async def wrong(ctx: Any, given: dict[str, Any]) -> Any:
            turns.append(list(ctx.feedback))
            return {"claim": ["nowhere"], "messages": [{"to": "boss", "kind": "tell"}]}

        add(desk, "a", wrong)
        add(desk, "b", diligent(60.0))
        desk.workflow(step("a", "b", turns=100, lease=300), **BOARD)
        found = await run(desk, "x", "y")
        assert found.outcome == "completed"
        assert turns[0] == [] and len(turns[1]) == 2 and len(turns) <= 5  # told once; then only what is new wakes it

    simulate(story)


def test_nobody_waits_for_a_peer_that_may_not_even_give_back_what_it_holds() -> None:
    async def story(sim: Simulation) -> None:
        desk = Desk(sim)

        def passes(to: str, claims: bool) -> Any:
            async def peer(ctx: Any, given: dict[str, Any]) -> Any:
                tells = [{"to": to, "kind": "tell", "text": given["inbox"][0]["id"] if given["inbox"] else "hello"}]
                return {"claim": keys(given["open"]) if claims else [], "messages": tells}

            return peer

        add(desk, "a", passes("b", claims=True))
        add(desk, "b", passes("a", claims=False))
        desk.workflow(step("a", "b", turns=100, lease="1h", within="2h"), **BOARD, limits={"calls": 20})
        began = sim.world().clock.now()
        found = await run(desk, "x", "y")
        assert found.outcome == "escalated" and "used up its 20 calls" in str(found.package)
        assert sim.world().clock.now() - began < 60

    simulate(story)


def test_a_refused_budget_of_one_peer_ends_the_run_and_the_others_do_not_wait_for_it() -> None:
    async def story(sim: Simulation) -> None:
        desk = Desk(sim)

        async def dear(ctx: Any, given: dict[str, Any]) -> Any:
            if given["mine"]:
                raise OverBudget("it would cost too much", scope="run", unit="usd")
            return {"claim": keys(given["open"])[:1]}

        add(desk, "dear", dear)
        add(desk, "patient", diligent(2.0))
        desk.workflow(step("dear", "patient"), **BOARD, budget={"usd": 1.0, "then": "fail"})
        began = sim.world().clock.now()
        assert (await run(desk, "x", "y")).outcome == "failed"
        assert sim.world().clock.now() - began < 60

    simulate(story)


def test_turns_messages_and_time_are_bounded() -> None:
    async def story(sim: Simulation) -> None:
        desk, told = Desk(sim), list[str]()

        async def talker(ctx: Any, given: dict[str, Any]) -> Any:
            told.extend(ctx.feedback)
            await asyncio.sleep(1)
            return {"messages": [{"to": "b", "kind": "tell", "text": str(n)} for n in range(3)]}

        async def echo(ctx: Any, given: dict[str, Any]) -> Any:
            return {"messages": [{"to": "a", "kind": "tell", "text": f"{len(given['inbox'])}"}]}

        add(desk, "a", talker)
        add(desk, "b", echo)
        desk.workflow(step("a", "b", turns=4, messages=5, then="keep"), **BOARD)
        found = await run(desk, "x")
        assert found.outcome == "completed" and keys(found.output["open"]) == ["x"]
        turns = [entry.body["agent"] for entry in found.entries if entry.kind == kinds.TURN]
        assert turns.count("a") <= 4 and turns.count("b") <= 4
        assert any("as many messages" in one for one in told)

    simulate(story)


def test_what_is_not_done_in_time_goes_back_and_is_named() -> None:
    async def story(sim: Simulation) -> None:
        desk = Desk(sim)

        async def holds(ctx: Any, given: dict[str, Any]) -> Any:
            if given["mine"]:
                await asyncio.sleep(1000)
            return {"claim": keys(given["open"])}

        add(desk, "a", holds)
        add(desk, "b", diligent(3))
        desk.workflow(step("a", "b", within="20s"), **BOARD)
        found = await run(desk, "x")
        assert found.outcome == "escalated" and "x is held by a" in found.package["what_happened"]
        rows = [row for row in await desk.ledger.select("context") if row["scope"].startswith("board:")]
        assert [row["ends"] for row in rows] == [0.0]  # released

    simulate(story)


def test_two_runs_share_a_board_and_each_sub_problem_is_done_by_one_of_them() -> None:
    async def story(sim: Simulation) -> None:
        desk = Desk(sim)
        add(desk, "a", diligent())
        add(desk, "b", diligent(1.7))
        desk.workflow(step("a", "b", scope="tenant"), **BOARD)
        found = await asyncio.gather(*(run(desk, *"uvwxyz", reference=f"r{n}") for n in (1, 2)))
        assert [one.outcome for one in found] == ["completed"] * 2
        done = [one["key"] for each in found for one in each.output["results"]]
        assert sorted(done) == list("uvwxyz")
        for each in found:
            assert sorted([*keys(each.output["results"]), *keys(each.output["elsewhere"])]) == list("uvwxyz")

    simulate(story)


def test_a_run_that_is_cancelled_leaves_its_claims_to_others_after_the_lease() -> None:
    async def story(sim: Simulation) -> None:
        desk = Desk(sim)

        async def takes(ctx: Any, given: dict[str, Any]) -> Any:
            if given["mine"]:
                await asyncio.sleep(hold[0])
            return await diligent()(ctx, given)

        hold = [1000.0]
        add(desk, "a", takes)
        add(desk, "b", takes)
        desk.workflow(step("a", "b", scope="tenant", lease="40s"), **BOARD)
        first = desk.process.start(desk.ws.run("flow", {"items": ["x"]}, reference="one"))
        await asyncio.sleep(10)
        row = (await desk.ledger.select("runs", []))[0]
        operator = await desk.operator()
        await operator.cancel(row["id"], "ann")
        assert (await first).outcome == "cancelled"
        hold[0] = 1.0
        found = await run(desk, "x", reference="two")
        assert found.outcome == "completed" and keys(found.output["results"]) == ["x"]

    simulate(story)


def test_a_business_key_that_another_run_has_done_is_not_offered() -> None:
    async def story(sim: Simulation) -> None:
        order = write("erp.order", {"ok": True})
        desk = Desk(sim, [order])
        add(desk, "a", diligent())
        add(desk, "b", diligent())
        desk.workflow({"action": "erp.order", "with": {}, "claim": "'order x'", "undo": "none"}, name="single")
        desk.workflow(step("a", "b", claim="'order ' + item"), **BOARD)
        single = await desk.run("single")
        assert single.outcome == "completed", single.package
        found = await run(desk, "x", "y")
        assert found.outcome == "completed"
        assert keys(found.output["results"]) == ["y"] and keys(found.output["elsewhere"]) == ["x"]

    simulate(story)


def test_a_process_that_dies_at_any_append_takes_no_turn_twice_and_loses_no_result() -> None:
    async def helper(ctx: Any, given: dict[str, Any]) -> Any:
        asks = [one for one in given["inbox"] if one["kind"] == "ask"]
        replies = [{"to": one["from"], "kind": "reply", "re": one["id"], "data": 7} for one in asks]
        return {**(await diligent(0.01)(ctx, given)), "messages": replies}

    async def asker(ctx: Any, given: dict[str, Any]) -> Any:
        heard = [one["data"] for one in given["inbox"] if one["kind"] == "reply"]
        if heard:
            return {"results": [{"key": key, "value": heard[0]} for key in keys(given["mine"])]}
        if given["mine"] or not given["open"]:
            return {}
        return {"claim": ["x"], "messages": [{"to": "helper", "kind": "ask", "about": "x"}]}

    def play(at: int) -> int:
        async def story(sim: Simulation) -> int:
            desk = Desk(sim)
            add(desk, "asker", asker)
            add(desk, "helper", helper)
            desk.workflow(step("asker", "helper"), **BOARD)
            begun = desk.process.start(desk.ws.run("flow", {"items": ["x", "y"]}))
            while await desk.ledger.head() < at and not begun.done():
                await sim.world().clock.sleep(0.001)
            if not begun.done():
                desk.kill()
                await desk.resume()
            found = await desk.only()
            assert found.outcome == "completed", (at, found.package)
            assert {one["key"]: one["value"] for one in found.output["results"]} == {"x": 7, "y": "Y"}, at
            turns = [entry.key for entry in found.entries if entry.kind == kinds.TURN]
            assert len(turns) == len(set(turns))
            await held_by_one(desk.ledger)
            return len(found.entries)

        return simulate(story)

    for at in range(1, play(1000)):
        play(at)


def test_a_process_that_dies_while_claims_are_given_back_at_the_end_comes_to_the_same_end() -> None:
    async def holds(ctx: Any, given: dict[str, Any]) -> Any:
        return {"claim": [] if given["mine"] else keys(given["open"])[:1]}

    def play(at: int) -> int:
        async def story(sim: Simulation) -> int:
            desk = Desk(sim)
            add(desk, "a", holds)
            add(desk, "b", holds)
            desk.workflow(step("a", "b", scope="tenant", then="keep"), **BOARD)
            begun = desk.process.start(desk.ws.run("flow", {"items": ["x", "y"]}))
            while await desk.ledger.head() < at and not begun.done():
                await sim.world().clock.sleep(0.001)
            if not begun.done():
                desk.kill()
                await desk.resume()
            found = await desk.only()
            assert found.outcome == "completed", (at, found.reason, found.package)
            assert sorted(keys(found.output["open"])) == ["x", "y"], at
            await held_by_one(desk.ledger)
            assert [row["ends"] for row in await desk.ledger.select("context")] == [0.0, 0.0], "given back"
            return len(found.entries)

        return simulate(story)

    for at in range(1, play(1000)):
        play(at)


def test_a_process_that_dies_once_claims_went_back_finds_them_in_the_order_in_which_they_went() -> None:
    async def holds(ctx: Any, given: dict[str, Any]) -> Any:
        return {"claim": keys(given["open"])}

    async def story(sim: Simulation) -> None:
        desk = Desk(sim)
        add(desk, "a", holds)
        desk.workflow(step("a", then="keep", within=5.0), **BOARD)
        begun = desk.process.start(desk.ws.run("flow", {"items": ["z", "x", "y"]}))  # not as their names are sorted
        first = desk.process

        def dies(entries: Any, foreign: bool) -> None:
            if any(entry.key.startswith("shared/return/a/") for entry in entries):
                first.kill()

        desk.ledger.listen(dies)
        while first.alive and not begun.done():
            await sim.world().clock.sleep(0.1)
        assert not begun.done(), "it died while it gave back"
        desk.open()
        await desk.resume()
        found = await desk.only()
        assert found.outcome == "completed", (found.reason, found.package)
        assert sorted(keys(found.output["open"])) == ["x", "y", "z"]

    simulate(story)


# --- whatever the schedule ---------------------------------------------------------------------------

ITEMS = ("x", "y")
KINDS: list[Any] = ["claim", "result", "release", "renew", "give"]
HANDS = (("r1", "a"), ("r1", "b"), ("r2", "a"))
MOVES = st.tuples(
    st.sampled_from(HANDS),
    st.lists(st.tuples(st.sampled_from(KINDS), st.sampled_from(ITEMS)), min_size=1, max_size=3),
    st.sampled_from([0, 0, 1, 31]),
)


@given(st.lists(MOVES, max_size=40))
def test_two_never_hold_one_and_only_a_holder_finishes_it(schedule: Any) -> None:
    spots, holder, ends, now = {item: Spot(item) for item in ITEMS}, dict[str, Any](), dict[str, float](), 0.0
    finished = dict[str, Any]()
    for (run, by), wanted, seconds in schedule:
        now += seconds
        for item, spot in spots.items():
            if spot.state == "held" and now >= ends[item]:  # what the store shows once the lease has run out
                spots[item] = Spot(item, run=spot.run, by=spot.by, version=spot.version, lapsed=True)
        moves = [Move(kind, item, (run, by, item), "b" if kind == "give" else "") for kind, item in wanted]
        before = dict(spots)
        verdicts, changed = play(moves, spots, run, by)
        for item, (was, after) in changed.items():
            assert was == before[item]
            spots[item] = after
            ends[item] = now + 30
        for verdict, move in zip(verdicts, moves, strict=True):
            if verdict.why:
                continue
            item, me = move.item, (run, by)
            lapsed = before[item].state == "open"
            assert holder.get(item) in (None, me) or lapsed, "somebody else held it"
            assert item not in finished or finished[item] == me, "what is done stays done"
            if move.kind == "result":
                assert finished.get(item) in (None, me)
                finished[item] = me
            holder[item] = (run, "b") if move.kind == "give" else None if move.kind == "release" else me
            before[item] = replace(before[item], state="held")


@settings(max_examples=15, deadline=None)
@given(
    st.lists(st.floats(0.1, 50), min_size=4, max_size=4),
    st.integers(1, 3),
    st.sampled_from(["run", "tenant"]),
)
def test_whatever_their_pace_every_sub_problem_is_done_by_exactly_one(paces: Any, most: int, scope: str) -> None:
    async def story(sim: Simulation) -> None:
        desk = Desk(sim)
        for name, pace in zip("abcd", paces, strict=True):
            add(desk, name, diligent(pace, most))
        desk.workflow(step(*"abcd", scope=scope, lease="20s"), **BOARD)
        count = 2 if scope == "tenant" else 1
        found = await asyncio.gather(*(run(desk, *"uvwxyz", reference=f"r{n}") for n in range(count)))
        done = [one["key"] for each in found if each.output for one in each.output["results"]]
        if all(each.outcome == "completed" for each in found):
            assert sorted(done) == list("uvwxyz")
        assert len(done) == len(set(done))
        await held_by_one(desk.ledger)

    simulate(story)
