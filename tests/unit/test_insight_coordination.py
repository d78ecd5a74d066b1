"""What share of a run is coordination, how well work is handed over, and what lay outside of roles: exact figures."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import pytest
from engine_desk import Desk, tool, write
from entry_samples import Log

from tightship.core import kinds
from tightship.core.errors import BoundaryError
from tightship.core.ports import Usage
from tightship.insight import (
    Lately,
    coordination_by_run,
    coordination_of,
    coordination_report,
    demand,
    exposition,
    refusals,
    show,
)
from tightship.insight.coordination import coordinates
from tightship.patterns import Peers, WorkflowStep, load_all
from tightship.runtime.simulation import simulate
from tightship.workflow.build import Workflow
from tightship.workflow.tree import patterns

load_all()
Handoff, Manager, Vote, MakerChecker = (patterns.get(word) for word in ("handoff", "manager", "vote", "maker_checker"))
BRIEF = {"problem": "str", "facts": "list[str]"}
READ = Usage(usd=2_000_000, tokens_in=90, tokens_out=10)


def plays(*outputs: Any, seconds: float = 1.0, calls: str = "") -> Any:
    """An agent that thinks for so long, calls a tool if it is told to, and gives these outputs, the last one for ever."""
    left = list(outputs)

    async def agent(ctx: Any, given: Mapping[str, Any]) -> Any:
        await asyncio.sleep(seconds)
        if calls:
            await ctx.tool(calls, {})
        return left.pop(0) if len(left) > 1 else left[0]

    return agent


def to(target: str, *facts: str) -> dict[str, Any]:
    return {"handoff": {"to": target, "brief": {"problem": "no light", "facts": list(facts)}}}


def test_every_figure_of_handoffs_over_two_levels() -> None:
    """front -> light (a child that reads, and does its part again once) -> water (nothing done) -> front, who answers."""

    async def play(sim: Any) -> None:
        desk = Desk(sim, [tool("crm.read", price=READ), write("crm.note")])
        desk.agent("front", plays(to("light", "fuse 3", "no ladder"), {"answer": "ok"}))
        desk.agent("find", plays({"found": True}, seconds=3.0, calls="crm.read"), tools=["crm.read"])
        desk.agent("check", plays({"ok": False, "objections": ["thin"]}, {"ok": True, "objections": []}, seconds=0.5))
        desk.agent("pass_on", plays(to("water", "fuse 3"), seconds=0.25))
        desk.agent("water", plays(to("cellar"), to("front", "fuse 3", "no water")))
        desk.workflow(MakerChecker(maker="find", checker="check", rounds=2), "pass_on", name="light-desk")
        desk.workflow(
            Handoff(
                first="front",
                peers={"front": ["light"], "light": ["water"], "water": ["front"]},
                brief=BRIEF,
                **{"as": {"light": WorkflowStep("light-desk")}},
            )
        )
        run = await desk.run()
        assert run.outcome == "completed" and run.output == {"answer": "ok"}
        found = await coordination_of(desk.ledger, run.id)

        # Checks of the child; front's first turn and both turns of water, which did nothing but pass it on.
        assert (found.coordination.turns, found.coordination.ms) == (5, 2 * 500 + 3 * 1000)
        assert (found.coordination.calls, found.coordination.usd, found.coordination.tokens) == (0, 0, 0)
        # Twice find, once pass_on (its desk has worked), front's last turn.
        assert (found.work.turns, found.work.ms) == (4, 2 * 3000 + 250 + 1000)
        assert (found.work.calls, found.work.usd, found.work.tokens) == (2, 4_000_000, 200)
        assert found.share("turns") == 5 / 9 and found.share("usd") == 0.0

        pairs = {
            key: (one.handoffs, one.returned, one.kept, one.facts, one.misroutes, one.rework)
            for key, one in found.pairs.items()
        }
        assert pairs == {
            ("front", "light"): (1, 0, 0, 0, 0, 1),  # the round of the child that was done again
            ("light", "water"): (1, 0, 2, 3, 1, 0),  # of problem, fuse 3, no ladder; water did nothing
            ("water", "front"): (1, 0, 2, 2, 0, 0),
            ("water", "(undeclared)"): (0, 1, 0, 0, 0, 0),
        }
        assert found.chains == [3, 2]  # problem, fuse 3 and no ladder were known when water passed it on
        assert found.refused == {("water", "peer"): 1}

        text = (await show(desk.ledger, run.id)).render()
        assert "coordination: 5 of 9 turns, 0 of 200 tokens, $0.0000 of $0.0040, 4.0 s of 11.2 s" in text
        assert "water: peer x 1" in text

    simulate(play)


def test_whoever_plans_checks_or_puts_together_coordinates_whatever_a_plan_calls_its_tasks() -> None:
    flow = Workflow(
        "flow",
        owner="o",
        purpose="p",
        steps=[
            Manager(plan="plan", workers={"search": "searcher"}, synthesise="writer", fallback="alone"),
            Vote("a", "b", settle={"rule": "judge", "judge": "j"}),
            MakerChecker(maker="m", checker="c"),
        ],
    )
    keys = {
        "manager/1/plan/plan/plan/1": True,
        "manager/2/again/plan/plan/1": True,
        "manager/1/tasks/plan/search/searcher/1": False,
        "manager/synthesise/writer/1": True,
        "manager/fallback/alone/1": False,
        "vote/1/a/a/1": False,
        "vote/judge/j/j/1": True,
        "maker_checker/1/m/m/1": False,
        "maker_checker~2/1/c/c/1~2/tool/1": True,
    }
    parts = [step.part for step in flow.root.children()]
    assert parts == ["manager", "vote", "maker_checker"]
    assert {key: coordinates(flow.root, key) for key in keys} == keys


def test_figures_of_a_workflow_are_those_of_its_runs_and_metrics_tell_the_latest() -> None:
    async def play(sim: Any) -> None:
        desk = Desk(sim, [tool("crm.read", price=READ)])
        desk.agent("make", plays({"x": 1}, calls="crm.read"))
        desk.agent("check", plays({"ok": True, "objections": []}, seconds=3.0, calls="crm.read"))
        desk.workflow(MakerChecker(maker="make", checker="check"))
        for case in ("one", "two", "three"):
            await desk.run(case=case)
        sums = await coordination_report(desk.ledger)
        ((key, found),) = sums.items()
        assert key == ("default", "flow") and found.runs == 3
        assert [found.share(unit) for unit in ("turns", "tokens", "usd", "ms")] == [0.5, 0.5, 0.5, 0.75]
        assert (await coordination_report(desk.ledger, workflow="other")) == {}
        assert (await coordination_report(desk.ledger, limit=2))[key].runs == 2
        lately = Lately()
        text = exposition(await demand(desk.ledger, lately=lately))
        assert 'tightship_recent_requests{tenant="default",workflow="flow"} 3' in text
        assert 'tightship_recent_coordination_ratio{tenant="default",workflow="flow",of="seconds"} 0.75' in text
        await desk.run(case="four")
        assert (await lately.read(desk.ledger, 0.0))[key].runs == 4

    simulate(play)


# --- outside of roles ---------------------------------------------------------------------------------


async def tries(desk: Desk, **kinds_of: Any) -> dict[tuple[str, str], int]:
    """What is counted when agents do these things, each in a run of its own."""
    found: dict[tuple[str, str], int] = {}
    for name, work in kinds_of.items():

        async def agent(ctx: Any, given: Mapping[str, Any], work: Any = work) -> Any:
            try:
                return await work(ctx)
            except BoundaryError:
                return {"x": 1}

        desk.agent(name, agent, tools=["crm.read"], output={"x": "int"}, retries=0)
        desk.workflow(name, name=f"flow-{name}")
        run = await desk.run(f"flow-{name}")
        view = await show(desk.ledger, run.id)
        assert view.refused == refusals(run.entries)
        found |= view.refused
    return found


def test_each_thing_outside_of_a_role_is_refused_and_counted_by_agent_and_kind() -> None:
    async def play(sim: Any) -> None:
        schema = {"type": "object", "properties": {"id": {"type": "string"}}, "additionalProperties": False}
        tools = [tool("crm.read", {}, input_schema=schema), write("crm.pay")]
        context = "context:\n  stock/*: {writers: [other], readers: [other], type: int}\n"
        desk = Desk(sim, tools, context)
        desk.agent("other", plays({}), tools=[])

        async def extra(ctx: Any) -> Any:
            return {"x": 1, "secret": 2}

        async def aside(ctx: Any) -> Any:
            return await asyncio.ensure_future(ctx.tool("crm.read", {}))

        found = await tries(
            desk,
            payer=lambda ctx: ctx.tool("crm.pay", {}),
            guesser=lambda ctx: ctx.tool("crm.none", {}),
            talker=lambda ctx: ctx.tool("crm.read", {"id": "1", "more": 2}),
            writer=lambda ctx: ctx.write("stock/a", 1),
            reader=lambda ctx: ctx.read("stock/a"),
            extra=extra,
            aside=aside,
        )
        assert found == {
            ("payer", "tool"): 1,
            ("guesser", "tool"): 1,
            ("talker", "arguments"): 1,
            ("writer", "context"): 1,
            ("reader", "context"): 1,
            ("extra", "output"): 1,
            ("aside", "task"): 1,
        }
        assert tools[1].calls == []
        listed = (await demand(desk.ledger)).as_dict()["workflows"]
        told = [one for flow in listed for one in flow["lately"]["refused"]]
        assert {(one["agent"], one["kind"]): one["count"] for one in told} == found

    simulate(play)


@pytest.mark.parametrize(
    ("asked", "kind", "target"),
    [
        ({"to": "boss", "brief": {"problem": "p", "facts": []}}, "peer", "(undeclared)"),
        ({"to": "front", "brief": {"problem": "p", "facts": []}}, "peer", "front"),
        ({"to": "light", "brief": {"problem": "p"}}, "brief", "light"),
    ],
)
def test_a_handoff_outside_of_what_is_declared_is_refused_twice_and_counted(asked: Any, kind: str, target: str) -> None:
    async def play(sim: Any) -> None:
        desk = Desk(sim)
        desk.agent("front", plays({"handoff": asked}), tools=[])
        desk.agent("light", plays({"answer": "ok"}), tools=[])
        desk.workflow(Handoff(first="front", peers={"front": ["light"], "light": ["front"]}, brief=BRIEF))
        run = await desk.run()
        assert run.outcome == "escalated" and run.reason == "data_missing"
        assert refusals(run.entries) == {("front", kind): 2}
        found = await coordination_of(desk.ledger, run.id)
        assert {key: one.returned for key, one in found.pairs.items()} == {("front", target): 2}
        assert found.coordination.turns == 2 and found.work.turns == 0

    simulate(play)


def test_a_message_to_nobody_s_peer_is_counted_for_its_sender() -> None:
    log = Log()
    log.add(kinds.NOTE, "peers/ann/1/note:peers.refused/1", type="peers.refused", source="ann", title="1 refused")
    log.add(kinds.NOTE, "peers/ann/1/note:settled/1", type="settled", source="ann")
    assert refusals(log.entries) == {("ann", "message"): 1}


def test_peers_that_only_claim_and_talk_coordinate_and_their_results_are_work() -> None:
    """`a` claims (a claim), finds out with a tool and asks (work), waits, and gives the result; `b` replies, by a judge."""

    async def play(sim: Any) -> None:
        desk = Desk(sim, [tool("crm.read", price=READ)])

        async def a(ctx: Any, given: Mapping[str, Any]) -> Any:
            await asyncio.sleep(1.0)
            if given["open"]:
                return {"claim": ["x"]}
            if given["mine"] and not given["inbox"]:
                await ctx.tool("crm.read", {})
                return {"messages": [{"to": "b", "kind": "ask", "about": "x", "text": "how much?"}]}
            if given["mine"]:
                return {"results": [{"key": "x", "value": 3}]}
            return {}

        async def b(ctx: Any, given: Mapping[str, Any]) -> Any:
            await asyncio.sleep(2.0)
            asked = [one for one in given["inbox"] if one["kind"] == "ask"]
            replies = [{"to": "a", "kind": "reply", "re": one["id"], "about": "x", "value": 4} for one in asked]
            return {"messages": replies}

        inputs = {"open": "list", "mine": "list", "inbox": "list"}
        desk.agent("a", a, tools=["crm.read"], input=inputs)
        desk.agent("b", b, tools=[], input=inputs)
        desk.agent("judge", plays({"answer": 3, "reason": "it has looked"}, seconds=0.5), tools=[])
        desk.agent("before", plays({"x": 1}, seconds=4.0), tools=[])
        shared = Peers(agents=["a", "b"], board="['x']", name="shared", settle={"rule": "judge", "judge": "judge"})
        desk.workflow("before", shared)
        run = await desk.run()
        assert run.outcome == "completed", run.package
        found = await coordination_of(desk.ledger, run.id)
        turns = [entry.body["agent"] for entry in run.entries if entry.kind == kinds.TURN]
        work, aside = found.patterns["peers"].work, found.patterns["peers"].coordination
        assert (work.turns, work.usd, work.tokens, work.calls) == (2, READ.usd, 100, 1), "the look-up, and the result"
        assert work.ms == 2_000.0
        assert aside.turns == len(turns) - 3 and turns.count("judge") == 1
        assert aside.usd == aside.tokens == 0 and aside.ms >= 1_000 + 2_000 * turns.count("b") + 500
        assert found.patterns["sequence"].work.turns == 1 and not found.patterns["sequence"].coordination.turns
        for unit in ("turns", "tokens", "usd", "ms"):
            assert sum(one.whole(unit) for one in found.patterns.values()) == found.whole(unit)
        told = found.as_dict()["patterns"]
        assert told["peers"]["share"]["usd"] == 0.0 and told["peers"]["coordination"]["turns"] == aside.turns
        [(row, each)] = await coordination_by_run(desk.ledger)
        assert row["id"] == run.id and each == found

    simulate(play)


def test_what_is_counted_by_pattern_is_that_of_the_innermost_one() -> None:
    async def play(sim: Any) -> None:
        desk = Desk(sim)
        ok = {"ok": True, "objections": []}
        for name, said in (("make", {"x": 1}), ("check", ok), ("vote_1", ok), ("vote_2", ok)):
            desk.agent(name, plays(said), tools=[])
        desk.workflow(MakerChecker(maker="make", checker="check"), name="inner")
        below = {"when": {"if": "true", "then": {"workflow": "inner", "with": {}}}}
        desk.workflow(
            {"concurrent": ["make", below]}, Vote("vote_1", "vote_2"), MakerChecker(maker="make", checker=below)
        )
        run = await desk.run()
        found = await coordination_of(desk.ledger, run.id)
        counts = {name: (one.coordination.turns, one.work.turns) for name, one in found.patterns.items()}
        assert counts == {"concurrent": (0, 1), "maker_checker": (3, 2), "vote": (0, 2)}, counts

    simulate(play)
