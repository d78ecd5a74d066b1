"""Handoffs: the work goes where its content says, with a brief that was checked, and no one passes it on for ever."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import pytest
from engine_desk import Desk
from hypothesis import given
from hypothesis import strategies as st

from tightship.core import kinds
from tightship.core.errors import LoadError, OutOfScope
from tightship.ledger import Entry
from tightship.patterns import Concurrent, WorkflowStep, load_all
from tightship.patterns._brief import Brief, retention
from tightship.runtime.simulation import simulate
from tightship.workflow.tree import patterns

load_all()
Handoff = patterns.get("handoff")
BRIEF = {"problem": "str", "customer": "str", "constraints": "list[str]", "open_questions": "list[str]"}


def brief(**fields: Any) -> dict[str, Any]:
    return {"problem": "no light", "customer": "c-1", "constraints": [], "open_questions": [], **fields}


def to(target: str, **fields: Any) -> dict[str, Any]:
    return {"handoff": {"to": target, "brief": brief(**fields)}}


def plays(*outputs: Any) -> Any:
    """An agent that gives these outputs, one for each turn that was not recorded."""
    left = list(outputs)

    async def agent(ctx: Any, given: Mapping[str, Any]) -> Any:
        output = left.pop(0) if len(left) > 1 else left[0]
        return output(ctx, given) if callable(output) else output

    return agent


def handoffs(entries: Any) -> list[Entry]:
    return [entry for entry in entries if entry.kind == kinds.NOTE and entry.body["type"] == "handoff"]


def three(desk: Desk, **agents: Any) -> None:
    for name, function in agents.items():
        desk.agent(name, function, tools=[])


PEERS = {"front": ["light", "water"], "light": ["front", "water"], "water": ["light"]}


def test_the_work_goes_to_the_agent_that_its_content_needs_and_its_output_is_the_steps():
    async def play(sim: Any) -> None:
        desk, seen = Desk(sim), list[Any]()

        def finish(ctx: Any, given: Mapping[str, Any]) -> Any:
            seen.append((given["brief"], given["peers"], ctx.constraints))
            return {"answer": "fuse 3"}

        three(desk, front=plays(to("light", constraints=["no ladder"])), water=plays({}))
        desk.agent("light", plays(finish), tools=[], input={"brief": "object", "peers": "list[str]"})
        desk.workflow(
            Handoff(first="front", peers=PEERS, brief=BRIEF, keep=["customer", "constraints"], name="done"),
            constraints=["be brief"],
        )
        run = await desk.run()
        assert run.outcome == "completed" and run.output == {"answer": "fuse 3"}
        assert seen == [(brief(constraints=["no ladder"]), ["front", "water"], ["be brief", "no ladder"])]
        (passed,) = handoffs(run.entries)
        assert (passed.body["source"], passed.body["target"]) == ("front", "light")

    simulate(play)


def test_a_brief_with_a_field_missing_goes_back_to_the_sender_once_and_then_to_a_person():
    async def play(sim: Any) -> None:
        desk, told = Desk(sim), list[Any]()

        def again(ctx: Any, given: Mapping[str, Any]) -> Any:
            told.append(ctx.feedback)
            return {"handoff": {"to": "light", "brief": {"problem": "no light"}}}

        three(desk, front=plays(again), light=plays({"answer": "never"}), water=plays({}))
        desk.workflow(Handoff(first="front", peers=PEERS, brief=BRIEF))
        run = await desk.run()
        assert run.outcome == "escalated"
        assert told[0] == [] and any("brief.customer" in line for line in told[1]) and len(told) == 2
        assert handoffs(run.entries) == []
        (item,) = await (await desk.operator()).items()
        assert item.type == "escalation"

    simulate(play)


def test_what_a_brief_has_to_keep_cannot_be_changed_on_the_way():
    contract = Brief(BRIEF, ("customer", "constraints"))
    before = brief(constraints=["no ladder"])
    assert contract.problems(brief(constraints=["No  Ladder", "before noon"]), before) == []
    assert contract.problems(brief(customer="c-2", constraints=["no ladder"]), before)
    assert contract.problems(brief(), before)
    assert contract.problems({**before, "secret": 1}, before)


def test_an_agent_cannot_hand_over_to_whom_it_did_not_declare():
    async def play(sim: Any) -> None:
        desk = Desk(sim)
        three(desk, front=plays(to("boss")), light=plays({}), water=plays({}))
        desk.workflow(Handoff(first="front", peers=PEERS, brief=BRIEF))
        run = await desk.run()
        assert run.outcome == "escalated" and handoffs(run.entries) == []
        returned = [e for e in run.entries if e.kind == kinds.NOTE and e.body["type"] == "handoff.returned"]
        assert len(returned) == 1

    simulate(play)


def test_agents_that_go_on_handing_over_end_at_the_steps_own_bound_with_the_whole_trail():
    async def play(sim: Any) -> None:
        desk = Desk(sim)
        three(
            desk,
            front=plays(to("light", problem="a"), to("water", problem="c"), to("light", problem="e")),
            light=plays(to("front", problem="b"), to("water", problem="f")),
            water=plays(to("light", problem="d")),
        )
        desk.workflow(Handoff(first="front", peers=PEERS, brief=BRIEF, max=3))
        run = await desk.run()
        assert run.outcome == "escalated" and run.reason == "HandoffsExhausted"
        assert len(handoffs(run.entries)) == 3

    simulate(play)


def test_two_agents_that_only_pass_the_work_back_and_forth_are_stopped_before_the_bound():
    async def play(sim: Any) -> None:
        desk = Desk(sim)
        three(desk, front=plays(to("light")), light=plays(to("water")), water=plays(to("light")))
        desk.workflow(Handoff(first="front", peers=PEERS, brief=BRIEF, max=8))
        run = await desk.run()
        assert run.outcome == "escalated" and run.reason == "LoopFound"
        assert [one.body["target"] for one in handoffs(run.entries)] == ["light", "water", "light", "water"]

    simulate(play)


def test_a_handoff_of_another_form_is_no_finish_and_what_it_says_is_sealed():
    async def play(sim: Any) -> None:
        desk = Desk(sim)
        three(desk, front=plays({"handoff": "light"}), light=plays({}), odd=plays(to("Jane Roe, born 1970")))
        desk.workflow(Handoff(first="front", peers={"front": ["light"]}, brief=BRIEF), name="form")
        desk.workflow(Handoff(first="odd", peers={"odd": ["light"]}, brief=BRIEF), name="stranger")
        form, stranger = await desk.run("form"), await desk.run("stranger")
        assert (form.outcome, form.reason) == (stranger.outcome, stranger.reason) == ("escalated", "data_missing")
        assert not [entry for entry in await desk.entries() if "Roe" in str(entry.body)]

    simulate(play)


def test_who_may_not_hand_over_any_more_is_told_the_same_after_a_crash():
    async def play(sim: Any) -> None:
        desk, slow = Desk(sim), asyncio.Event()

        async def waits(ctx: Any, given: Mapping[str, Any]) -> Any:
            if not slow.is_set():
                slow.set()
                await asyncio.get_running_loop().create_future()
            return {"ok": True}

        three(desk, front=plays(to("light")), light=plays(to("water")), water=plays(to("light")), waits=waits)
        passed = Handoff(first="front", peers=PEERS, brief=BRIEF, max=8)
        desk.workflow(Concurrent(branches=[passed, "waits"], on_failure="escalate"))
        desk.begin()
        await slow.wait()
        await asyncio.sleep(1.0)
        desk.kill()
        await desk.resume()
        run = await desk.only()
        [item] = await (await desk.operator()).items()
        package = (await (await desk.operator()).item(item.item))[1]
        assert run.outcome == "escalated" and "LoopFound" in str(package["evidence"]["failed"])

    simulate(play)


def test_what_is_known_along_a_chain_is_counted_and_an_answered_question_is_no_loss():
    async def play(sim: Any) -> None:
        desk = Desk(sim)
        three(
            desk,
            front=plays(to("light", problem="a", constraints=["x", "y"], open_questions=["q", "r"])),
            light=plays(to("water", problem="a", constraints=["x"], open_questions=["r"])),
            water=plays({"answer": "ok"}),
        )
        desk.workflow(Handoff(first="front", peers=PEERS, brief=BRIEF))
        run = await desk.run()
        told = [tuple(one.body[name] for name in ("facts", "kept", "known", "still")) for one in handoffs(run.entries)]
        assert told == [(0, 0, 0, 0), (4, 3, 4, 3)]  # problem, customer, x and y; y got lost

    simulate(play)


def test_objections_reach_a_workflow_that_stands_for_an_agent():
    async def play(sim: Any) -> None:
        desk, seen = Desk(sim), list[Any]()

        def ask(ctx: Any, given: Mapping[str, Any]) -> Any:
            seen.append(given["objections"])
            return to("light") if given["objections"] else {"handoff": {"to": "boss", "brief": brief()}}

        desk.agent("asker", plays(ask), tools=[], input={"objections": "list[str]"})
        desk.workflow("asker", name="front-desk", input={"objections": "list[str]"})
        three(desk, light=plays({"answer": "ok"}), water=plays({}))
        front = WorkflowStep("front-desk", with_={"objections": "objections"})
        desk.workflow(Handoff(first="front", peers=PEERS, brief=BRIEF, **{"as": {"front": front}}))
        run = await desk.run()
        assert run.outcome == "completed" and run.output == {"answer": "ok"}
        assert seen[0] == [] and "'boss' is no peer" in seen[1][0]

    simulate(play)


@pytest.mark.parametrize("killed", [False, True])
def test_what_holds_stands_in_every_turn_of_the_runs_below_also_after_a_crash(killed: bool):
    async def play(sim: Any) -> None:
        desk, seen, hangs = Desk(sim), list[Any](), asyncio.Event()

        async def lamp(ctx: Any, given: Mapping[str, Any]) -> Any:
            seen.append(ctx.constraints)
            if killed and len(seen) == 1:
                hangs.set()
                await asyncio.get_running_loop().create_future()
            return {"answer": "ok"}

        three(desk, front=plays(to("light", constraints=["no ladder"])), water=plays({}), lamp=lamp)
        desk.workflow("lamp", name="fuse-desk", constraints=["by daylight"])
        desk.workflow(WorkflowStep("fuse-desk"), name="light-desk", constraints=["be quick"])
        light = WorkflowStep("light-desk")
        desk.workflow(
            Handoff(first="front", peers=PEERS, brief=BRIEF, **{"as": {"light": light}}), constraints=["be brief"]
        )
        begun = desk.begin()
        if killed:
            await hangs.wait()
            await asyncio.sleep(1.0)
            desk.kill()
            await desk.resume()
        else:
            await begun
        run = await desk.only()
        assert run.outcome == "completed" and run.output == {"answer": "ok"}
        assert seen == [["by daylight", "be quick", "be brief", "no ladder"]] * (2 if killed else 1)

    simulate(play)


@pytest.mark.parametrize("goes_on", [True, False])
def test_a_domain_that_escalates_leaves_the_case_to_its_own_people_and_takes_the_run_with_it_only_where_nothing_is_said(
    goes_on: bool,
):
    async def play(sim: Any) -> None:
        desk = Desk(sim)

        def fails(ctx: Any, given: Mapping[str, Any]) -> Any:
            raise OutOfScope("not mine")

        three(desk, front=plays(to("light")), water=plays({}), lamp=plays(fails))
        desk.workflow("lamp", name="light-desk")
        said = {"escalated": {"answer": '"they will write"'}} if goes_on else {}
        light = WorkflowStep("light-desk", **said)
        desk.workflow(Handoff(first="front", peers=PEERS, brief=BRIEF, **{"as": {"light": light}}))
        run = await desk.run()
        assert run.outcome == ("completed" if goes_on else "escalated")
        if goes_on:
            assert run.output == {"answer": "they will write"}
        items = await (await desk.operator()).items()
        assert [item.type for item in items] == ["escalation"] * (1 if goes_on else 2)
        assert run.id not in {item.run for item in items} or not goes_on

    simulate(play)


def test_no_child_run_begins_the_count_of_its_request_anew():
    """Two handoffs in a child and two in its parent are four of one request, whose limit is three."""

    async def play(sim: Any) -> None:
        desk = Desk(sim)
        chain = {"front": ["light"], "light": ["water"], "water": []}
        three(desk, front=plays(to("light")), light=plays(to("water")), water=plays({"answer": "ok"}))
        desk.workflow(Handoff(first="front", peers=chain, brief=BRIEF), name="inner", limits={"handoffs": 9})
        desk.workflow(
            WorkflowStep("inner", with_={}),
            Handoff(first="front", peers=chain, brief=BRIEF),
            name="outer",
            limits={"handoffs": 3},
        )
        run = await desk.run("outer")
        assert run.outcome == "escalated" and run.reason == "LimitReached"
        child = next(e for e in run.entries if e.kind == kinds.SIGNAL and e.body["type"] == "child")
        assert len(child.body["handoffs"]) == 2
        assert len(handoffs(run.entries)) == 1

    simulate(play)


@pytest.mark.parametrize("killed_at", range(1, 5))
def test_a_killed_run_goes_on_with_its_count_and_takes_no_finished_turn_twice(killed_at: int):
    async def play(sim: Any) -> None:
        desk, turns, hangs = Desk(sim), list[str](), asyncio.Event()

        def step(name: str, output: Any) -> Any:
            async def agent(ctx: Any, given: Mapping[str, Any]) -> Any:
                turns.append(name)
                if len(turns) == killed_at:
                    hangs.set()
                    await asyncio.get_running_loop().create_future()
                return output

            return agent

        chain = {"front": ["light"], "light": ["water"], "water": ["last"], "last": []}
        outputs = {"front": to("light"), "light": to("water"), "water": to("last"), "last": {"answer": "ok"}}
        for name, output in outputs.items():
            desk.agent(name, step(name, output), tools=[])
        desk.workflow(Handoff(first="front", peers=chain, brief=BRIEF), limits={"handoffs": 3})
        desk.begin()
        await hangs.wait()
        await asyncio.sleep(1.0)  # what came before is on the disk
        desk.kill()
        await desk.resume()
        run = await desk.only()
        assert run.outcome == "completed" and len(handoffs(run.entries)) == 3
        assert turns == [*list(outputs)[:killed_at], *list(outputs)[killed_at - 1 :]]

    simulate(play)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"first": "boss", "peers": PEERS}, "'boss' is none of"),
        ({"first": "front", "peers": {"front": ["front"]}}, "hand over to itself"),
        ({"first": "front", "peers": PEERS, "keep": ["customer"]}, "no field of the brief"),
        ({"first": "front", "peers": PEERS, "as": {"boss": "front"}}, "'boss' is none of"),
        ({"first": "front", "peers": {}}, "peers"),
    ],
)
def test_what_is_written_wrong_is_said(fields: dict[str, Any], said: str):
    with pytest.raises(LoadError, match=said):
        Handoff(**fields)


TEXT = st.text("aB ", max_size=3)
facts = st.dictionaries(st.sampled_from("abcde"), st.one_of(TEXT, st.integers(), st.lists(TEXT, max_size=3)))


@given(facts, facts)
def test_retention_counts_every_fact_once_and_all_of_them_when_nothing_was_lost(before: Any, after: Any):
    found = retention(before, after)
    assert 0 <= found.kept <= found.facts
    whole = retention(before, {**after, **before})
    assert whole.kept == whole.facts == found.facts
    assert retention(before, {}).kept == 0
